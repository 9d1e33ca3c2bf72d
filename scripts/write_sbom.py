"""Write what a wheel brings along when it is installed (CycloneDX), beside it.

    python scripts/write_sbom.py dist

The wheel goes into an environment of its own, with the extras that users install, and what is then there is listed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "s3,pydantic,metrics,gpu"


def main(directory: Path) -> int:
    """Write the list for the only wheel in ``directory``."""
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{directory} must hold one wheel, not {len(wheels)}", file=sys.stderr)
        return 2
    target = directory / f"{'-'.join(wheels[0].name.split('-')[:2])}.cdx.json"
    with tempfile.TemporaryDirectory(prefix="sbom-") as temporary:
        venv.create(temporary, with_pip=True)
        python = str(Path(temporary, "bin", "python"))
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheels[0]}[{EXTRAS}]"]
        subprocess.run([python, *install], check=True)
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", "pip"], check=True)
        listing = ["environment", "--output-reproducible", "--pyproject", str(ROOT / "pyproject.toml")]
        options = ["--mc-type", "library", "--output-format", "JSON", "--output-file", str(target)]
        subprocess.run([sys.executable, "-m", "cyclonedx_py", *listing, *options, python], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
