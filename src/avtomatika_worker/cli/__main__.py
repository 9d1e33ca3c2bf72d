"""``python -m avtomatika_worker.cli``: the ``worker`` command."""

from avtomatika_worker.cli import main

main(prog_name="worker")
