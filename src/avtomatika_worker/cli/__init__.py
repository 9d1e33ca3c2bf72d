"""The ``worker`` command. Each verb has a module of its own, imported only when it is used."""

from __future__ import annotations

import click

from avtomatika_worker._version import __version__

_APP = click.option(
    "--app",
    required=True,
    metavar="MODULE:ATTRIBUTE",
    help="Where the Worker is, such as app.main:worker; a function that returns it works too.",
)
_RELOAD = click.option("--reload", is_flag=True, help="Restart when Python files in this directory change.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="avtomatika-worker")
def main() -> None:
    """Run workers of the Avtomatika orchestrator.

    A worker connects outwards to its orchestrator, announces its skills and runs the tasks it is given. It is
    configured by environment variables; a .env file in this directory is read too.

    \b
    Try it:            worker demo
    While developing:  worker dev --app app.main:worker --reload
    In production:     worker run --app app.main:worker
    """


@main.command()
@_APP
@click.option(
    "--health-check/--no-health-check", default=True, help="Serve /health, /live and /ready on WORKER_PORT (default)."
)
@_RELOAD
def run(app: str, health_check: bool, reload: bool) -> None:
    """Run a worker until SIGINT or SIGTERM.

    A signal lets running tasks finish, for WORKER_SHUTDOWN_TIMEOUT seconds at most; a second one cuts that short.

    \b
    Exit codes:
      0  orderly shutdown
      1  the worker crashed; the traceback is in the log
      2  the configuration, the command or a skill is wrong
      3  a second signal cut the shutdown short
      4  results were lost: they could neither be delivered nor stored
    """
    from avtomatika_worker.cli.run import run_command

    run_command(app, health_check=health_check, reload=reload)


@main.command()
@_APP
@click.option("--host", default="127.0.0.1", show_default=True, help="The orchestrator's address.")
@click.option(
    "--port", default=8080, type=click.IntRange(0, 65535), show_default=True, help="The orchestrator's port; 0 for any."
)
@click.option("--protocol", default=None, metavar="VERSION", help="Protocol version to speak, such as 1.0b7.")
@_RELOAD
def dev(app: str, host: str, port: int, protocol: str | None, reload: bool) -> None:
    """Run a worker together with an orchestrator for development.

    Nothing else needs to be installed; tasks are sent with curl. The orchestrator is in memory and keeps nothing.
    """
    from avtomatika_worker.cli.dev import dev_command

    dev_command(app, host=host, port=port, protocol=protocol, reload=reload)


@main.command()
@click.option(
    "--output",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Directory for the pictures that the demo makes.",
)
def demo(output: str) -> None:
    """Watch a worker run tasks of an embedded orchestrator."""
    from avtomatika_worker.cli.demo import demo_command

    demo_command(output)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)
