"""The ``worker`` command. Each verb has a module of its own, imported only when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from avtomatika_worker._version import __version__

_APP = click.option(
    "--app",
    required=True,
    metavar="MODULE:ATTRIBUTE",
    help="Where the Worker is, such as app.main:worker; a function that returns it works too.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON, for machines.")
_RELOAD = click.option("--reload", is_flag=True, help="Restart when Python files in this directory change.")


SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Begin": ("demo", "init"),
    "Develop": ("dev", "call", "skills"),
    "Operate": ("run", "doctor", "version"),
}


class _Commands(click.Group):
    """The commands in the order in which one meets them."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command; with ``--json`` or ``--markdown`` nothing else goes to standard output."""
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

    A worker connects outwards to its orchestrator, announces its skills and runs the tasks it is given. It is
    configured by environment variables; a .env file in this directory is read too.

    \b
    Try it:            worker demo
    Begin a project:   worker init my-worker
    While developing:  worker dev --app app.main:worker --reload
    Run one skill:     worker call --app app.main:worker resize '{"width": 100}'
    Before deploying:  worker doctor --app app.main:worker
    In production:     worker run --app app.main:worker

    Commands that ask for it take --json, for machines. Colors are used on a terminal only; NO_COLOR turns them off.
    """


@main.command()
@_APP
@click.option(
    "--health-check/--no-health-check", default=True, help="Serve /health, /live and /ready on WORKER_PORT (default)."
)
@_RELOAD
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Keep N processes running, with ids WORKER_ID-1 to -N (WORKER_PROCESSES, else 1).",
)
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port of the health server (WORKER_PORT).")
@click.option("--member", hidden=True)
def run(app: str, health_check: bool, reload: bool, workers: int | None, port: int | None, member: str | None) -> None:
    """Run a worker until SIGINT, SIGTERM or SIGHUP.

    A signal lets running tasks finish, for WORKER_SHUTDOWN_TIMEOUT seconds at most; a second one cuts that short, a
    third one ends the process at once.

    With --workers, one process that crashes is started again, SIGHUP replaces them one after the other, a third signal
    kills them, and WORKER_PORT answers for all of them.

    \b
    Exit codes:
      0  orderly shutdown, also when the signal came before the start
      1  the worker crashed; the traceback is in the log
      2  the configuration, the command or a skill is wrong, or the port is taken
      3  the shutdown was cut short, by a second signal or as it took too long
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
@click.option("--token", default=None, help="The token that workers need; without it, another random one in each run.")
@_RELOAD
def dev(app: str, host: str, port: int, protocol: str | None, token: str | None, reload: bool) -> None:
    """Run a worker together with an orchestrator for development.

    It serves a console for the browser, to try skills by hand; tasks can be sent with curl, too. The orchestrator is in
    memory and keeps nothing. Its token, for another worker's WORKER_TOKEN, is printed. With ORCHESTRATOR_SECRET_KEY set
    it signs its tasks with that key. Exit code 2 when the port is taken: nothing is made before it is had.

    With --reload every directory below this one that can be read is watched. A signal, and the end of the process that
    watches, ends the worker, too.
    """
    from avtomatika_worker.cli.dev import dev_command

    dev_command(app, host=host, port=port, protocol=protocol, token=token, reload=reload)


@main.command()
@click.option(
    "--output",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Directory for the pictures that the demo makes.",
)
def demo(output: str) -> None:
    """Watch a worker run tasks of an embedded orchestrator.

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
@click.argument("skill")
@click.argument("params", required=False, metavar="[JSON]")
@click.option("-f", "--file", metavar="PATH", help="Read the params from a JSON file; - for standard input.")
@click.option(
    "-p", "--param", "fields", multiple=True, metavar="NAME=VALUE", help="One param; as JSON where it is JSON."
)
@click.option("--metadata", metavar="JSON", help="Metadata of the task.")
@click.option("--deadline", type=click.FloatRange(0), metavar="SECONDS", help="When the task has to be done, from now.")
@_JSON
def call(app: str, skill: str, params: str | None, as_json: bool, **rest: Any) -> None:
    """Run one skill, once, through the whole pipeline.

    The worker runs beside an embedded orchestrator, as in `worker dev`: the task is validated, goes through the
    middlewares, and its result is checked and sent. Events and progress are printed as they come. Ctrl+C cancels the
    task as an orchestrator would; a second one ends the program at once. Files of the result are kept in a temporary
    directory, unless a store is configured. Logs go to standard error; LOG_LEVEL is WARNING here unless you set it.
    With --json, all else goes there too: standard output is one JSON value, also of a failure or a mistake.

    \b
    worker call --app app.main:worker resize '{"width": 100, "url": "cat.jpg"}'
    worker call --app app.main:worker resize -p width=100 -p url=cat.jpg
    worker call --app app.main:worker resize -f params.json -p width=50
    worker call --app app.main:worker resize -f - --json < params.json | jq .data

    \b
    Exit codes:
      0  the skill came to an end of its own
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

    It has a worker, a skill, tests, a Dockerfile, a .env.example and a README, and the wheel that it is installed from.
    The directory may exist and hold other files, such as .git or .venv; nothing is overwritten.

    \b
    worker init image-worker
    worker init .
    """
    from avtomatika_worker.cli.init import init_command

    init_command(name)


@main.command()
@_APP
@_JSON
@click.option("--markdown", is_flag=True, help="Write Markdown, for a README or a site.")
def skills(app: str, as_json: bool, markdown: bool) -> None:
    """List the skills that a worker announces.

    \b
    worker skills --app app.main:worker
    worker skills --app app.main:worker --markdown > docs/skills.md
    worker skills --app app.main:worker --json | jq '.skills[].name'
    """
    from avtomatika_worker.cli.skills import skills_command

    skills_command(app, as_json=as_json, markdown=markdown)


@main.command()
@click.option("--app", default=None, metavar="MODULE:ATTRIBUTE", help="Where the Worker is; checks its skills, too.")
@click.option("--own-id", is_flag=True, help="Register as WORKER_ID itself, not as a probe of its own.")
@click.option(
    "--migrate",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIRECTORY",
    help="Read a project written for the official SDK instead, and list what will differ.",
)
@_JSON
def doctor(app: str | None, own_id: bool, migrate: str | None, as_json: bool) -> None:
    """Look whether a worker could work, and say what to do if not.

    Checks the configuration, the skills, the port, the directories, the store of files (an object of 1 kB is written,
    read and deleted), and each orchestrator: whether it can be reached, and with TLS, accepts the token and the
    signature, speaks a known protocol, opens a WebSocket, whether the clocks agree and whether a rate limit was met.
    For that a probe without skills registers under an id of its own, and leaves again.

    \b
    worker doctor
    worker doctor --app app.main:worker
    worker doctor --app app.main:worker --json
    worker doctor --migrate .

    \b
    Exit codes, by the worst finding:
      0  everything is well
      1  warnings
      2  errors: the worker cannot work like this
    """
    from avtomatika_worker.cli.doctor import doctor_command

    if migrate is not None:
        from avtomatika_worker.cli.doctor_migrate import migrate_command

        migrate_command(migrate, as_json=as_json)
    doctor_command(app, as_json=as_json, own_id=own_id)


@main.command()
@_JSON
def version(as_json: bool) -> None:
    """Print the version."""
    from avtomatika_worker.cli.version import version_command

    version_command(as_json=as_json)
