"""How the process of a command ends."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, logging, sys, threading, time
from avtomatika_worker._atexit import run_program

class Torn:
    def __del__(self):
        sys.stderr.write("torn down\\n")

def main():
    global kept
    kept = Torn()  # lives until the interpreter clears its modules
    atexit.register(print, "atexit ran")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread ended"))).start()
    {ending}

run_program(main)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('a text')", 1),
    ],
)
def test_threads_end_and_atexit_functions_run_and_nothing_is_torn_down(ending, code):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{ending}", ending)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout.split("\n") == ["thread ended", "atexit ran", ""]
    assert "torn down" not in done.stderr
    assert ("a text" in done.stderr) == (ending == "sys.exit('a text')")


def test_an_unexpected_error_ends_the_program_as_in_python():
    program = PROGRAM.replace("{ending}", "raise RuntimeError('oh')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: oh" in done.stderr
    assert "torn down" in done.stderr
