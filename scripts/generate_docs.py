"""Write the pages of docs/ that are generated from the code; with --check, only report which are out of date."""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from avtomatika_worker.cli import SECTIONS
from avtomatika_worker.cli import main as main_command
from avtomatika_worker.config import describe
from avtomatika_worker.observability.metrics import FLEET_METRICS, METRICS, Kind, Metric
from avtomatika_worker.protocol.dialects import DIALECTS, Dialect

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "src" / "avtomatika_worker"
GENERATED: Final = "<!-- Generated from the code by `make docs`: do not edit it. -->\n\n"

CONFIGURATION: Final = """\
# Configuration

All settings are environment variables. `worker` also reads a file `.env` in the working directory; the environment
wins over it. A variable that is empty counts as unset. Wrong values stop the start: all problems are reported at once.

Booleans are `true`/`false`, `1`/`0`, `yes`/`no` or `on`/`off`, ignoring case.

"""
METRICS_HEAD: Final = """\
# Metrics

With `WORKER_ENABLE_METRICS=true` (extra `[metrics]`) the worker records these with OpenTelemetry. It serves them in
Prometheus's format at `/metrics` on `WORKER_PORT`, and sends them over OTLP if `OTEL_EXPORTER_OTLP_ENDPOINT` is
set; the SDK reads the other `OTEL_*` variables itself. An SDK set up by the program is used, not replaced.

Prometheus writes `worker.tasks.duration` as `worker_tasks_duration_seconds`: dots become `_`, the unit is appended.
Labels are few: `task.type` is a registered skill's name or "unknown", `status` one that is declared or "other",
`orchestrator` the host and port of its URL.

"""
FLEET_HEAD: Final = """
With `worker run --workers N`, the metrics of all processes are on one page, labeled with their `worker_id` (your own
label with that name becomes `exported_worker_id`), together with these, in Prometheus only:

"""
ACTIONS_HEAD: Final = """\
# Log actions

The worker's records carry a stable field `action` (with `LOG_FORMAT=json`, a separate member). Key dashboards and
alerts on it, not on the words of a message. A persistent fault is logged at once and then once a minute with a count;
repetitions in between are at DEBUG.

Loggers are below `avtomatika_worker`: `task` is `avtomatika_worker.task`. A dash is `avtomatika_worker` itself.

"""
_ABOVE: Final = "avtomatika_worker"


GROUPS: Final = {
    "Identity and trust": r"WORKER_(ID|TYPE|.*TOKEN.*)|ORCHESTRATOR_SECRET_KEY|REQUIRE_.*|TLS_.*",
    "Orchestrators": r"ORCHESTRATOR.*|MULTI_.*|HEARTBEAT_.*|TASK_POLL_.*|REGISTRATION_.*|RATE_.*|.*SOCKETS|.*LEASE.*",
    "Results and checkpoints": r"RESULT_.*|WORKER_(STATE_DIR|RESULT_.*)|CHECKPOINT_.*",
    "Files": r"S3_.*|.*_FILES?_.*|.*BLOB.*",
    "Health, logs, and metrics": r"LOG_.*|WORKER_(PORT|HEALTH_.*|ENABLE_METRICS)",
    "What is announced": r"WORKER_(SKILLS_.*|DEVICES|EXTRA_.*)|COST_.*|INSTALLED_.*|CPU_.*|RAM_.*|GPU_.*",
    "Bounds of messages": r"MAX_(?!CONCURRENT).*|STRICT_.*|WORKER_PROGRESS_INTERVAL|WORKER_UNTYPED_FILES",
    "Running tasks": r".*",
}
"""Headings of the configuration's page, and what stands below each: a setting belongs to the first that it fits."""


def configuration() -> str:
    """Return the tables of settings."""
    grouped: dict[str, list[tuple[str, ...]]] = {group: [] for group in GROUPS}
    for each in describe():
        group = next(group for group, pattern in GROUPS.items() if re.fullmatch(pattern, each.variable))
        default = each.default if each.in_words else _code(each.default)
        grouped[group].append((f"`{each.variable}`", each.description, default))
    tables = [
        f"\n## {group}\n\n" + _table(("Variable", "Description", "Default"), rows) for group, rows in grouped.items()
    ]
    return CONFIGURATION + GENERATED.rstrip("\n") + "\n" + "".join(tables)


def metrics() -> str:
    """Return the table of metrics."""
    return METRICS_HEAD + GENERATED + _metrics_table(METRICS) + FLEET_HEAD + _metrics_table(FLEET_METRICS)


def _metrics_table(listed: Iterable[Metric]) -> str:
    rows = [
        (f"`{each.name}`", _code(prometheus_name(each)), each.kind.value, ", ".join(map(_code, each.labels)), each.doc)
        for each in listed
    ]
    return _table(("Metric", "In Prometheus", "Kind", "Labels", "Meaning"), rows)


def prometheus_name(metric: Metric) -> str:
    """Return the name under which Prometheus knows a metric."""
    unit = {"s": "_seconds", "By": "_bytes", "%": "_percent"}.get(metric.unit, "")
    name = metric.name.replace(".", "_")
    if metric.kind is Kind.COUNTER:
        return name.removesuffix("_total") + unit + "_total"
    return name + unit


@dataclass(frozen=True, order=True)
class Action:
    """One place that logs."""

    name: str
    level: str
    logger: str
    message: str


_METHODS: Final = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})


def log_actions() -> str:
    """Return the table of the fields ``action`` of log records."""
    found = sorted(
        {action for path in SOURCES.rglob("*.py") for action in _actions(ast.parse(path.read_text("utf-8")))}
    )
    rows = [(f"`{each.name}`", each.level, _logger(each.logger), _code(each.message)) for each in found]
    return ACTIONS_HEAD + GENERATED + _table(("Action", "Level", "Logger", "Message"), rows)


def _actions(module: ast.Module) -> Iterator[Action]:
    logger = next(
        (
            node.value.args[0].value
            for node in ast.walk(module)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "logging.getLogger"
            and node.value.args
            and isinstance(node.value.args[0], ast.Constant)
        ),
        "",
    )
    for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        named = {
            node.targets[0].id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
                name = _action_of(node, named)
                if name is not None:
                    yield Action(name, _level(node), str(logger), _message(node, named))


def _action_of(call: ast.Call, named: Mapping[str, ast.expr]) -> str | None:
    """Return the action of a record; None if the call logs none. Raises ValueError where the code does not show it."""
    for keyword in call.keywords:
        value: ast.expr | None = keyword.value
        if keyword.arg == "extra":
            extra = named.get(value.id) if isinstance(value, ast.Name) else value
            if not isinstance(extra, ast.Dict):
                raise ValueError(f"extra is no dict that names its action: {ast.unparse(call)}")
            pairs = zip(extra.keys, extra.values, strict=True)
            value = next((item for key, item in pairs if isinstance(key, ast.Constant) and key.value == "action"), None)
        elif keyword.arg != "action":
            continue
        if isinstance(value, ast.Constant):
            return str(value.value)
        if not isinstance(value, ast.Name):
            raise ValueError(f"the action is no text and no argument: {ast.unparse(call)}")
    return None


def _level(call: ast.Call) -> str:
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if method != "log":
        return {"exception": "ERROR"}.get(method, method.upper())
    named = [
        node.attr
        for argument in call.args
        for node in ast.walk(argument)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "logging"
    ]
    return " or ".join(dict.fromkeys(named))


def _logger(name: str) -> str:
    below = name.removeprefix(_ABOVE).removeprefix(".")
    return f"`{below}`" if below else "–"


def _message(call: ast.Call, named: Mapping[str, ast.expr]) -> str:
    given = [named.get(each.id) if isinstance(each, ast.Name) else each for each in call.args]
    texts = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return texts[0].split("\n")[0] if texts else ""


CLI_HEAD: Final = """\
# The `worker` command

`python -m avtomatika_worker.cli` is the same command. Settings come from environment variables and from a `.env` file
in the working directory: [configuration](configuration.md).

- **The Worker** is the one that `--app module:attribute` names, else `WORKER_APP`, else `app` under
  `[tool.avtomatika-worker]` in pyproject.toml. If nothing names it, it is `app.main:worker`, `main:worker` or
  `worker:worker` in the working directory: the first that is there.
- **Errors** are one line on standard error with what to do about it, and exit code 2.
- **Colors** are written to a terminal only; `NO_COLOR=1` turns them off there too.
- **Machines** use `--json`, in `call`, `skills`, `doctor` and `version`. Standard output is then one JSON value and
  nothing else: output of the app, its libraries and its processes goes to standard error. An error that the user can
  correct is `{"ok": false, "error": {"code": "USAGE_ERROR", "message": "…"}}` with exit code 2; `CRASHED` comes with
  exit code 1.
- **The project's directory** is added to Python's path when the app is imported, with `--reload` and `--workers` too.
  Everything the worker needs is loaded first: a `queue.py` or an `aiohttp/` in the project does not replace a library,
  and `import queue` in the app gives the standard library's, as loaded by the worker.
- **Shell completion** for Bash (4.4 or newer), Zsh and Fish; add one of these lines to the shell's startup file:

```sh
eval "$(_WORKER_COMPLETE=bash_source worker)"                # ~/.bashrc
eval "$(_WORKER_COMPLETE=zsh_source worker)"                 # ~/.zshrc
_WORKER_COMPLETE=fish_source worker | source                 # ~/.config/fish/completions/worker.fish
```

"""


def cli() -> str:
    """Return what `--help` says, of every command."""
    options: dict[str, Any] = {"terminal_width": 80, "max_content_width": 80, "help_option_names": ["-h", "--help"]}
    context = click.Context(main_command, info_name="worker", **options)
    parts = [CLI_HEAD, GENERATED, f"```text\n{main_command.get_help(context)}\n```\n"]
    for names in SECTIONS.values():
        for name in names:
            inner = click.Context(main_command.commands[name], info_name=name, parent=context, **options)
            parts.append(f"\n## `worker {name}`\n\n```text\n{inner.command.get_help(inner)}\n```\n")
    return "".join(parts)


DIALECTS_HEAD: Final = """\
# Wire dialects

Orchestrators of different releases speak different versions of the protocol (RXON): they sign different bytes, know
different statuses and accept different fields. The worker's first registration has a form that all of them accept; the
answer names the version (`X-RXON-Version`), and from then on the link speaks that one. Each orchestrator has its own
version; if one is replaced by another release while the worker runs, the worker notices and registers again.

A version between two of these gets the older one's facts, an older one those of the first, and a newer or unreadable
one those of the last, with a warning in the log. `worker doctor` shows which version an orchestrator speaks;
`worker dev --protocol VERSION` and `EmbeddedOrchestrator(version=…)` emulate any of them.

"""


def dialects() -> str:
    """Return the table of protocol versions, and what their facts mean."""
    facts = [name for name in Dialect.__struct_fields__ if name != "version"]
    rows = [(f"`{d.version}`", *(_fact(getattr(d, name)) for name in facts)) for d in DIALECTS]
    meanings = [(_code(name), doc) for name, doc in _field_docs("protocol/dialects.py", "Dialect") if name in facts]
    turned = [(_code(name), *cells) for name, *cells in zip(facts, *(row[1:] for row in rows), strict=True)]
    head = ("Fact", *(d.version.removeprefix("1.0") for d in DIALECTS))
    return (
        DIALECTS_HEAD
        + GENERATED
        + _table(head, turned)
        + "\n## What the facts mean\n\n"
        + _table(("Fact", "Meaning"), meanings)
    )


def _fact(value: object) -> str:
    return {True: "yes", False: ""}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _field_docs(module: str, name: str) -> Iterator[tuple[str, str]]:
    """Return the fields of a class and the texts below them, which Python itself does not keep."""
    body = next(
        node.body
        for node in ast.parse((SOURCES / module).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target), " ".join(str(text.value.value).replace("``", "`").split())


_INCLUDED: Final = re.compile(r"(<!-- (?P<path>examples/\S+) -->\n)```python\n.*?```\n", re.DOTALL)


def with_examples(page: str) -> str:
    """Return a page with its examples as they are now: the text around them is written by hand."""

    def include(match: re.Match[str]) -> str:
        return f"{match[1]}```python\n{(ROOT / match['path']).read_text('utf-8')}```\n"

    return _INCLUDED.sub(include, (ROOT / "docs" / page).read_text("utf-8"))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


PAGES: Final[dict[str, Callable[[], str]]] = {
    "configuration.md": configuration,
    "metrics.md": metrics,
    "log-actions.md": log_actions,
    "cli.md": cli,
    "dialects.md": dialects,
    "testing.md": partial(with_examples, "testing.md"),
    "execution.md": partial(with_examples, "execution.md"),
}


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    stale = False
    for name, render in PAGES.items():
        target, page = ROOT / "docs" / name, render()
        if target.exists() and target.read_text(encoding="utf-8") == page:
            continue
        if "--check" in arguments:
            print(f"docs/{name} is not current: run `make docs`", file=sys.stderr)
            stale = True
        else:
            target.parent.mkdir(exist_ok=True)
            target.write_text(page, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
