"""``worker`` and ``python -m avtomatika_worker.cli``."""

from avtomatika_worker._atexit import run_program
from avtomatika_worker.cli import main


def start() -> None:
    """Run the command that the process was started with."""
    run_program(lambda: main(prog_name="worker"))


if __name__ == "__main__":
    start()
