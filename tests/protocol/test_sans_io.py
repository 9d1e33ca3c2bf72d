"""The protocol imports no sockets, no event loop and no HTTP library: shown by importing it with those blocked."""

import subprocess
import sys

SCRIPT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        blocked = {"asyncio", "socket", "ssl", "aiohttp", "httptools", "uvloop", "sqlite3", "selectors"}
        if name.partition(".")[0] in blocked:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import types, pathlib
package = types.ModuleType("avtomatika_worker")
package.__path__ = [sys.argv[1]]
sys.modules["avtomatika_worker"] = package
import pkgutil, importlib
for name in ("protocol", "policy"):
    parent = importlib.import_module("avtomatika_worker." + name)
    for info in pkgutil.iter_modules(parent.__path__):
        importlib.import_module(f"avtomatika_worker.{name}.{info.name}")
print("ok")
"""


def test_protocol_and_policy_import_without_io():
    import avtomatika_worker

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, avtomatika_worker.__path__[0]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "ok", done.stderr
