"""The ``worker`` command. Each verb has a module of its own, imported only when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from avtomatika_worker._version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_APP = click.option(
    "--app",
    default=None,
    metavar="MODULE:ATTRIBUTE",
    help="The Worker, or a function that returns one; by default, it is found as `worker --help` says.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON for machines.")
_RELOAD = click.option("--reload", is_flag=True, help="Restart when Python files in this directory change.")


def _processes(_context: click.Context, _option: click.Parameter, value: str | None) -> object:
    if value is None:
        return None
    from avtomatika_worker.config.kinds import processes

    try:
        return processes().read(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _skill_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a skill of the Worker."""
    from click.shell_completion import CompletionItem

    from avtomatika_worker.cli.completing import skills_of

    return [
        CompletionItem(name, help=text)
        for name, text in skills_of(ctx.params.get("app"))
        if name.startswith(incomplete)
    ]


SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Begin": ("demo", "init"),
    "Develop": ("dev", "call", "skills"),
    "Operate": ("run", "top", "doctor", "version"),
}


class _Commands(click.Group):
    """Lists the commands in the order in which a user needs them."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command; with ``--json`` or ``--markdown``, nothing else goes to standard output."""
        arguments = sys.argv[1:] if args is None else list(args)
        if not {"--json", "--markdown"}.isdisjoint(arguments):
            from avtomatika_worker.cli.machines import run_for_machines

            extra["standalone_mode"] = False
            run_for_machines(lambda: super(_Commands, self).main(args, *more, **extra), as_json="--json" in arguments)
        return super().main(args, *more, **extra)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write a section for each stage of a worker's life."""
        width = formatter.width - 6 - max(len(name) for name in self.commands)
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="avtomatika-worker")
def main() -> None:
    """Run workers of the Avtomatika orchestrator.

    A worker connects out to its orchestrator, announces its skills and runs the tasks it is given. It is
    configured by environment variables and, if there is one, the .env file in this directory.

    \b
    Try it:            worker demo
    Begin a project:   worker init my-worker
    While developing:  worker dev --reload
    Run one skill:     worker call resize '{"width": 100}'
    Before deploying:  worker doctor
    In production:     worker run

    The Worker is the one that --app module:attribute names, else WORKER_APP, else app under [tool.avtomatika-worker] in
    pyproject.toml. If nothing names it, it is app.main:worker, main:worker or worker:worker in this directory.

    Several commands accept --json for machines. Colors are used on a terminal only; NO_COLOR turns them off.
    """


@main.command()
@_APP
@click.option(
    "--health-check/--no-health-check", default=True, help="Serve /health, /live and /ready on WORKER_PORT (default)."
)
@_RELOAD
@click.option(
    "--workers",
    metavar="N|gpu|gpu:N",
    callback=_processes,
    help="Keep N processes running, with ids WORKER_ID-1 to -N, or one or N per GPU (WORKER_PROCESSES, or else 1).",
)
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port of the health server (WORKER_PORT).")
@click.option("--member", hidden=True)
def run(app: str | None, health_check: bool, reload: bool, workers: Any, port: int | None, member: str | None) -> None:
    """Run a worker until SIGINT, SIGTERM or SIGHUP.

    The first signal lets running tasks finish, for at most WORKER_SHUTDOWN_TIMEOUT seconds; a second one cuts that
    short, and a third one ends the process at once.

    With --workers, a process that crashes is restarted, SIGHUP replaces the processes one after another, a third signal
    kills them, and WORKER_PORT answers for all of them.

    \b
    Exit codes:
      0  orderly shutdown, even if the signal came before the start
      1  the worker crashed; the traceback is in the log
      2  the configuration, the command or a skill is wrong, or the port is taken
      3  the shutdown was cut short: a second signal came, or it took too long
      4  results were lost: they could neither be delivered nor stored
    """
    if port is not None:
        os.environ["WORKER_PORT"] = str(port)
    from avtomatika_worker.cli.run import run_command

    run_command(app, health_check=health_check, reload=reload, workers=workers, member=member)


@main.command()
@_APP
@click.option("--host", default="127.0.0.1", show_default=True, help="The orchestrator's address.")
@click.option(
    "--port", default=8080, type=click.IntRange(0, 65535), show_default=True, help="The orchestrator's port; 0 for any."
)
@click.option("--protocol", default=None, metavar="VERSION", help="Protocol version to speak, such as 1.0b7.")
@click.option("--token", default=None, help="The token that workers need; by default, a new random one for each run.")
@click.option(
    "--production-like", is_flag=True, help="Apply the default rate limits and task timeout of released orchestrators."
)
@_RELOAD
def dev(app: str | None, **options: Any) -> None:
    """Run a worker together with a development orchestrator.

    It serves a console for the browser, to try skills by hand; tasks can also be sent with curl. The orchestrator runs
    in memory and keeps nothing. It prints its token, for use as another worker's WORKER_TOKEN. If
    ORCHESTRATOR_SECRET_KEY is set, it signs its tasks with that key. Exits with code 2 if the port is taken; nothing
    is created before the port is open.

    By default it is patient, and warns once when a skill exceeds what released orchestrators accept by default. With
    --production-like it has their limits: after 60 polls, 120 heartbeats or 100 calls of another kind it refuses more
    until a minute passes without one, and it hands out a task again after 300 seconds, four times in all.

    With --reload, every readable directory below this one is watched. A change restarts the worker; the orchestrator
    stays, with its tasks, its token and the open console, which shows the traceback of a program that does not start.
    The worker ends on a signal, and when the process that watches the files ends.
    """
    from avtomatika_worker.cli.dev import dev_command

    dev_command(app, **options)


@main.command()
@click.option(
    "--output",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Directory for the pictures the demo makes.",
)
def demo(output: str) -> None:
    """Watch a worker run tasks from an embedded orchestrator.

    \b
    Exit codes:
      0    every task ended as it should
      1    one did not
      3    a second signal ended it at once
      130  Ctrl+C ended it (128 + the signal's number)
    """
    from avtomatika_worker.cli.demo import demo_command

    demo_command(output)


@main.command()
@_APP
@click.argument("skill", shell_complete=_skill_names)
@click.argument("params", required=False, metavar="[JSON]")
@click.option("-f", "--file", metavar="PATH", help="Read the params from a JSON file, or from standard input with -.")
@click.option(
    "-p",
    "--param",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="One param; read as the type that the skill wants.",
)
@click.option("--metadata", metavar="JSON", help="Metadata of the task.")
@click.option("--deadline", type=click.FloatRange(0), metavar="SECONDS", help="Deadline of the task, from now.")
@_JSON
def call(app: str | None, skill: str, params: str | None, as_json: bool, **rest: Any) -> None:
    """Run one skill once, through the whole pipeline.

    The worker runs with an embedded orchestrator, as in `worker dev`: the task is validated and passes through the
    middlewares, and its result is checked and sent. Events are printed as they come; on a terminal, a line below shows
    the progress. Ctrl+C cancels the
    task as an orchestrator would; a second Ctrl+C ends the program at once. Files in the result are kept in a temporary
    directory unless a store is configured. Logs go to standard error; LOG_LEVEL defaults to WARNING here. With --json,
    everything else goes there too: standard output is one JSON value, even after a failure or a usage error.

    \b
    worker call resize '{"width": 100, "url": "cat.jpg"}'
    worker call resize -p width=100 -p url=cat.jpg
    worker call resize -f params.json -p width=50
    worker call resize -f - --json < params.json | jq .data

    \b
    Exit codes:
      0  the skill finished by itself
      1  it failed or was cancelled
      2  the configuration, the command or a skill is wrong
      3  a second signal ended it at once
    """
    from avtomatika_worker.cli.call import Call, call_command

    call_command(app, Call(skill=skill, params=params, as_json=as_json, **rest))


@main.command()
@click.argument("name", metavar="DIRECTORY")
def init(name: str) -> None:
    """Make a new project that passes its own tests.

    The project has a worker, a skill, tests, a Dockerfile, a .env.example, a README, and the wheel to install from. The
    directory may exist and hold other files, such as .git or .venv; nothing is overwritten.

    \b
    worker init image-worker
    worker init .
    """
    from avtomatika_worker.cli.init import init_command

    init_command(name)


@main.command()
@_APP
@_JSON
@click.option("--markdown", is_flag=True, help="Write Markdown for a README or a website.")
def skills(app: str | None, as_json: bool, markdown: bool) -> None:
    """List the skills that a worker announces.

    \b
    worker skills
    worker skills --markdown > docs/skills.md
    worker skills --json | jq '.skills[].name'
    """
    from avtomatika_worker.cli.skills import skills_command

    skills_command(app, as_json=as_json, markdown=markdown)


@main.command()
@_APP
@click.option("--own-id", is_flag=True, help="Register as WORKER_ID itself, not as a separate probe.")
@click.option(
    "--migrate",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIRECTORY",
    help="Instead, read a project written for the official SDK, and list what will behave differently.",
)
@_JSON
def doctor(app: str | None, own_id: bool, migrate: str | None, as_json: bool) -> None:
    """Check whether a worker can work, and say what to do if it cannot.

    Checks the configuration, the skills, the port, the directories, the file store (a 1 kB object is written, read and
    deleted) and each orchestrator: whether it can be reached, uses TLS, accepts the token and the signature, speaks a
    known protocol and opens a WebSocket, whether the clocks agree, and whether a rate limit was hit. To do so, a probe
    without skills registers under an id of its own and leaves again.

    \b
    worker doctor
    worker doctor --json
    worker doctor --migrate .

    \b
    Exit codes, by the worst finding:
      0  everything is fine
      1  warnings
      2  errors: the worker cannot work like this
    """
    from avtomatika_worker.cli.doctor import doctor_command

    if migrate is not None:
        from avtomatika_worker.cli.doctor_migrate import migrate_command

        migrate_command(migrate, as_json=as_json)
    doctor_command(app, as_json=as_json, own_id=own_id)


@main.command()
@click.option("--url", metavar="URL", help="The health server; unix:PATH for a socket [default: WORKER_PORT here].")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, metavar="SECONDS", help="Between updates.")
@click.option("--once", is_flag=True, help="Print the state once and exit.")
@_JSON
def top(url: str | None, interval: float, once: bool, as_json: bool) -> None:
    """Watch the tasks, slots, links and outbox of a running worker.

    Reads /health of the worker's health server, or of a fleet's, at WORKER_PORT of this machine
    unless --url names another. A task's remaining time is estimated from its progress, or else from its skill's
    expected_seconds. If standard output is not a terminal, the state is printed once. With --json, each update is one
    line of JSON: the response of /health.

    \b
    worker top
    worker top --url http://10.0.0.7:8083 --interval 5
    worker top --once --json | jq '.tasks[] | {skill, progress, seconds_left}'

    \b
    Exit codes:
      0    the state was shown
      1    no worker answered
      2    the command line is wrong
      130  Ctrl+C ended it (128 + the signal's number)
    """
    from avtomatika_worker.cli.top import top_command

    top_command(url, interval=interval, once=once, as_json=as_json)


@main.command()
@_JSON
def version(as_json: bool) -> None:
    """Print the version."""
    from avtomatika_worker.cli.version import version_command

    version_command(as_json=as_json)
