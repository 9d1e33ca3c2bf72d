"""The heartbeat process's program. It skips large imports: the package's ``__init__``, and installed packages."""

import sys
import types
from os.path import abspath, dirname


def main() -> None:
    """Import `stand_in` from the package without its ``__init__``, and run it."""
    package = types.ModuleType("avtomatika_worker")
    package.__path__ = [dirname(dirname(abspath(__file__)))]  # noqa: PTH100, PTH120 - saves an import
    sys.modules[package.__name__] = package
    from avtomatika_worker.monitoring.stand_in import main as run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
