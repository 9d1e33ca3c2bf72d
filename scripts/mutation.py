"""Change the code a little, and see whether a test notices: ``make mutation ARGS="protocol/replies --share 0.3"``.

mutmut makes the mutants and runs the tests (its settings are in pyproject.toml). This chooses which, sorts out those
that ``mutation_equivalents.toml`` explains, and lists the others that survive. Mutants are drawn by the last digit of
their number, so that the same seed draws the same ones wherever the code is the same.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import random
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "avtomatika_worker"
MUTANTS = ROOT / "mutants" / "src" / "avtomatika_worker"
LEDGER = ROOT / "mutants" / "outcomes.json"
RECORD = ROOT / "bench" / "results" / "mutation.json"
EQUIVALENTS = Path(__file__).with_name("mutation_equivalents.toml")
MUTMUT = Path(sys.executable).with_name("mutmut")
SURVIVED, UNTESTED = {0}, {33}
KILLED = {1, 3, 24, 36, -24, 152, 255}
"""Exit codes of mutmut: a test failed, pytest broke, it ran out of time."""


def main() -> int:
    """Run the mutants that were asked for, and return 1 if one survived without an explanation."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=["protocol/*", "policy/*", "delivery/*"], metavar="MODULE")
    parser.add_argument("--share", type=float, default=1.0, help="the share of the mutants, in tenths")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument(
        "--again", action="store_true", help="run what the last runs left out, or left alive unexplained"
    )
    parser.add_argument("--report", action="store_true", help="run nothing: report on the last runs")
    parser.add_argument("--record", action="store_true", help=f"write the lines to {RECORD.relative_to(ROOT)}")
    options = parser.parse_args()
    digits = sorted(map(str, random.Random(options.seed).sample(range(10), round(10 * options.share))))
    if not options.report:
        names = [each.replace("/", ".") for each in options.modules]
        drawn = [f"avtomatika_worker.{name}.*__mutmut_*{digit}" for name in names for digit in digits]
        if options.again:
            outcomes = [each for _, module in _outcomes(options.modules) for each in module.items()]
            drawn = [each for each, code in outcomes if each[-1] in digits and _is_open(each, code)]
        _remember()
        try:
            subprocess.run([MUTMUT, "run", "--max-children", "1", *drawn], cwd=ROOT, check=True)
        finally:
            _remember()
    rows, unexplained = report(options.modules, digits)
    if options.record:
        _record(rows)
    return 1 if unexplained else 0


def report(modules: list[str], digits: list[str]) -> tuple[dict[str, dict[str, int]], int]:
    """Print a line for each module and the survivors; return the lines, and how many survivors nothing explains."""
    explained = _explained()
    rows: dict[str, dict[str, int]] = {}
    survivors: list[str] = []
    for module, outcomes in _outcomes(modules):
        ran = {name: code for name, code in outcomes.items() if code is not None and name[-1] in digits}
        if not ran:
            continue
        row = Counter(mutants=len(outcomes), run=len(ran))
        for name, code in ran.items():
            if code in KILLED:
                row["killed"] += 1
                continue
            change = _change(name)
            same = _key(change) in explained
            row["equivalent" if same else "surviving"] += 1
            if not same:
                survivors.append(f"{name} ({'no test' if code in UNTESTED else code})\n{_shown(change)}")
        rows[module] = {key: row[key] for key in ("mutants", "run", "killed", "equivalent", "surviving")}
    print("\n\n".join(survivors))
    for module, row in rows.items():
        print(f"{module:32}" + "".join(f"{key} {value:5}  " for key, value in row.items()))
    return rows, len(survivors)


def _is_open(name: str, code: int | None) -> bool:
    """Return whether a mutant has not run, or survived without an explanation."""
    return code is None or (code not in KILLED and _key(_change(name)) not in _explained())


@functools.cache
def _explained() -> frozenset[tuple[str, str, str]]:
    return frozenset(_key(each) for each in tomllib.loads(EQUIVALENTS.read_text("utf-8"))["equivalent"])


def _record(rows: dict[str, dict[str, int]]) -> None:
    """Write the lines of these modules, and keep those of others whose code is the same as when they were written."""
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    recorded: dict[str, dict[str, Any]] = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    recorded |= {module: {"at": when, "code": _digest(module), **row} for module, row in rows.items()}
    same = {module: row for module, row in sorted(recorded.items()) if row["code"] == _digest(module)}
    RECORD.write_text(json.dumps(same, indent=1) + "\n", "utf-8")


def _digest(module: str) -> str | None:
    """Return what identifies a module's code, or None when there is no such module."""
    file = SOURCE / f"{module}.py"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.exists() else None


def _outcomes(modules: list[str]) -> Iterator[tuple[str, dict[str, int | None]]]:
    """Yield each module, and the exit codes of its mutants, None for those that have not run."""
    known = _ledger()
    for pattern in modules:
        for file in sorted(MUTANTS.glob(f"{pattern}.py.meta")):
            name = file.relative_to(MUTANTS).as_posix().removesuffix(".py.meta")
            now = _results(file)
            yield name, {each: code if code is not None else known.get((each, of)) for each, (of, code) in now.items()}


def _remember() -> None:
    """Keep the results: mutmut forgets all of them when a test is changed.

    A mutant that was found is taken for found as long as its function is the same: tests only become more.
    """
    known = _ledger()
    for file in MUTANTS.glob("*/*.py.meta"):
        known |= {(name, of): code for name, (of, code) in _results(file).items() if code is not None}
    if MUTANTS.exists():
        LEDGER.write_text(json.dumps([[*key, code] for key, code in known.items()]), "utf-8")


def _ledger() -> dict[tuple[str, str], int]:
    """Return the exit code of each mutant that ever ran, by its name and its function's hash."""
    entries: list[tuple[str, str, int]] = json.loads(LEDGER.read_text("utf-8")) if LEDGER.exists() else []
    return {(name, of): code for name, of, code in entries}


def _results(file: Path) -> dict[str, tuple[str, int | None]]:
    """Return the hash of its function, and the exit code, of each mutant in a file of mutmut's."""
    meta = json.loads(file.read_text("utf-8"))
    hashes = meta["hash_by_function_name"]
    return {
        name: (hashes.get(name.rpartition("__mutmut_")[0].rpartition(".")[2], ""), code)
        for name, code in meta["exit_code_by_key"].items()
    }


def _change(name: str) -> dict[str, str]:
    """Return what a mutant changes: the function, the lines before and after."""
    shown = subprocess.run([MUTMUT, "show", name], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (
        "\n".join(line[1:].strip() for line in lines if line.startswith(sign) and line[1:].strip()) for sign in "-+"
    )
    return {
        "function": name.removeprefix("avtomatika_worker.").rpartition("__mutmut_")[0],
        "before": before,
        "after": after,
    }


def _key(change: dict[str, Any]) -> tuple[str, str, str]:
    return change["function"].replace("ǁ", "."), change["before"], change["after"]


def _shown(change: dict[str, str]) -> str:
    return "\n".join(
        f"{sign} {line}" for sign, key in (("-", "before"), ("+", "after")) for line in change[key].split("\n")
    )


if __name__ == "__main__":
    sys.exit(main())
