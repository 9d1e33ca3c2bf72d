"""``python -m avtomatika_worker``, which is ``worker``."""

from avtomatika_worker.cli.__main__ import start as main

if __name__ == "__main__":
    main()
