"""``python -m fuzz TARGET``: feeds a target with inputs that atheris finds by the code they reach.

A target runs in a process of its own, which ends at the first fault; the input is kept in ``fuzz/found``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click

ROOT: Final = Path(__file__).parent


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[TARGET]...")
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(1), help="How long each target runs.")
@click.option("--list", "show", is_flag=True, help="List the targets.")
@click.option("--inside", is_flag=True, hidden=True)
def main(names: tuple[str, ...], seconds: int, show: bool, inside: bool) -> None:
    """Fuzz the named targets, or all, one after the other. Exit code 1 when a fault was found."""
    if inside:
        _fuzz(names[0], names[1:])
        return
    from fuzz.targets import TARGETS

    if show:
        for each in TARGETS:
            click.echo(f"{each.name:12} {each.about}")
        return
    known = [each.name for each in TARGETS]
    if unknown := set(names) - set(known):
        raise click.UsageError(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    results = {name: _run(name, seconds) for name in names or known}
    for name, (fine, summary) in results.items():
        click.echo(f"{name:12} {'ok' if fine else 'FAULT':6} {summary}")
    sys.exit(0 if all(fine for fine, _ in results.values()) else 1)


def _run(name: str, seconds: int) -> tuple[bool, str]:
    """Fuzz a target in a process; return whether it is fine, and what libFuzzer said last."""
    found = ROOT / "found"
    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        flags = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={found}/{name}-",
            "-print_final_stats=1",
            "-timeout=25",
        ]
        command = [sys.executable, "-m", "fuzz", "--inside", name, "--", *flags, corpus]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    lines = done.stderr.splitlines()
    if done.returncode == 0:
        count = next((each.split()[-1] for each in lines if "number_of_executed_units" in each), "?")
        covered = next((each for each in reversed(lines) if " cov: " in each), "")
        return True, f"{count} inputs, {covered[covered.find('cov:') :][:40]}"
    print("\n".join(lines[-60:]), file=sys.stderr)
    return False, next((each for each in lines if "Test unit written" in each), lines[-1] if lines else "")


def _fuzz(name: str, flags: tuple[str, ...]) -> None:
    try:
        import atheris
    except ImportError:
        raise SystemExit("fuzzing needs atheris, which `make fuzz` installs (Linux, CPython up to 3.13)") from None
    with atheris.instrument_imports(include=["avtomatika_worker"]):
        from fuzz import targets
    target = targets.by_name(name)
    corpus = Path(flags[-1])
    for number, each in enumerate(targets.corpus(target)):
        (corpus / f"seed-{number}").write_bytes(each)
    atheris.Setup([sys.argv[0], *flags], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
