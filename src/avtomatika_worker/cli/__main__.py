"""``worker`` and ``python -m avtomatika_worker.cli``."""

import sys

from avtomatika_worker._atexit import open_standard_streams, run_program
from avtomatika_worker._init import leave_first_process
from avtomatika_worker._signals import end_well, hear_signals
from avtomatika_worker.cli import main


def start() -> None:
    """Run the command this process was started with."""
    open_standard_streams()
    leave_first_process()  # always possible: no thread runs yet
    hear_signals(end_well if sys.argv[1:2] == ["run"] else None)  # before the user's code is imported
    run_program(lambda: main(prog_name="worker"))


if __name__ == "__main__":
    start()
