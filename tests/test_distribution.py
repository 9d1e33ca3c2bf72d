"""What is in the wheel: Python files alone would not do."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("avtomatika_worker", "avtomatika_worker_pytest")


def test_the_wheel_holds_every_file_of_the_packages(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = [path for package in PACKAGES for path in (ROOT / "src" / package).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT / "src").as_posix() for path in sources if "__pycache__" not in path.parts}
    assert "avtomatika_worker/devserver/console/static/index.html" in wanted
    assert wanted <= names
