"""``worker skills``: the skills a worker announces, for people, machines and documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from avtomatika_worker.cli import terminal
from avtomatika_worker.cli.machines import write, write_json
from avtomatika_worker.cli.worker_app import UsageProblem, load_app, load_settings, load_skills
from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.contract import JsonSchema, SkillContract

_LONGEST_DEFAULT: Final = 30
_DEEPEST: Final = 4


def skills_command(app: str | None, *, as_json: bool, markdown: bool) -> None:
    """List the skills."""
    if as_json and markdown:
        raise UsageProblem("--json and --markdown exclude each other: give only one")
    worker = load_app(app)
    load_skills(worker, load_settings(worker))
    contracts = worker.skills.contracts()
    if as_json:
        write_json({"skills": [msgspec.to_builtins(each) for each in contracts]})
    elif markdown:
        write("\n".join(_markdown(contracts)))
    elif contracts:
        _print(contracts, terminal.console(highlight=False))
    else:
        terminal.echo("This worker has no skills.")


@dataclass(frozen=True, slots=True)
class Param:
    """A field of an object, described in words."""

    name: str
    type: str
    required: bool
    default: str
    description: str


def params_of(schema: JsonSchema | None) -> list[Param]:
    """Return the fields of an object's schema."""
    whole = schema or {}
    top = _resolved(whole, whole)
    required = top.get("required") or ()
    return [
        Param(
            name=name,
            type=type_of(field, whole),
            required=name in required,
            default=_default(field),
            description=str(_resolved(field, whole).get("description") or ""),
        )
        for name, field in as_object(top.get("properties")).items()
    ]


def type_of(schema: JsonSchema, whole: JsonSchema, depth: int = 0) -> str:
    """Describe in a few words what a schema allows."""
    if depth > _DEEPEST:
        return "…"
    found = _resolved(schema, whole)
    for key in ("anyOf", "oneOf"):
        if key in found:
            options = [_alternative(each, whole, depth + 1) for each in found[key]]
            return " or ".join(dict.fromkeys(options))
    if "const" in found or "enum" in found:
        return " or ".join(json.dumps(each, ensure_ascii=False) for each in found.get("enum", [found.get("const")]))
    kind = found.get("type")
    if is_list(kind):
        return " or ".join(kind)
    if kind == "array":
        items = found.get("items")
        return f"array of {type_of(items, whole, depth + 1)}" if is_dict(items) else "array"
    text = str(kind or "any")
    return text + _bounds(found)


def _alternative(schema: JsonSchema, whole: JsonSchema, depth: int) -> str:
    """Describe one of several types: objects by their titles."""
    found = _resolved(schema, whole)
    title = found.get("title")
    return title if found.get("type") == "object" and isinstance(title, str) else type_of(schema, whole, depth)


def _bounds(schema: JsonSchema) -> str:
    """Describe the bounds of a number or a text."""
    names = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
    bounds = [f"{sign}{schema[key]}" for key, sign in names.items() if key in schema]
    bounds += _length(schema.get("minLength"), schema.get("maxLength"))
    if "format" in schema:
        bounds.append(str(schema["format"]))
    return f" ({', '.join(bounds)})" if bounds else ""


def _length(least: int | None, most: int | None) -> Iterator[str]:
    """Describe how long a text may be."""
    if most is not None:
        yield _characters(str(most) if least == most else f"{least or 0} to {most}", most)
    elif least is not None:
        yield _characters(f"at least {least}", least)


def _characters(count: str, last: int) -> str:
    return f"{count} character" if last == 1 else f"{count} characters"


def _resolved(schema: JsonSchema, whole: JsonSchema) -> JsonSchema:
    """Follow references into ``$defs``; keys next to a reference win."""
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        target = as_object(as_object(whole.get("$defs")).get(reference.rpartition("/")[2]))
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _default(field: JsonSchema) -> str:
    if "default" not in field:
        return ""
    text = json.dumps(field["default"], ensure_ascii=False)
    return text if len(text) <= _LONGEST_DEFAULT else text[: _LONGEST_DEFAULT - 1] + "…"


# ---------------------------------------------------------------------------------------------------- on a terminal


def _print(contracts: Sequence[SkillContract], console: Console) -> None:
    """Print each skill with its params: one table for all would leave no room in 80 columns."""
    for number, contract in enumerate(contracts):
        if number:
            console.print()
        console.print(Text.assemble((contract.name, "bold cyan"), (_facts(contract), "dim")))
        if contract.description:
            console.print(Padding(Text(contract.description), (0, 0, 0, 2), expand=False))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for param in params_of(contract.input_schema):
            table.add_row(Text(param.name, style="" if param.required else "dim"), Text(_reported(param)))
        if table.row_count:
            console.print(Padding(table, (0, 0, 0, 4), expand=False))
        for line in _further(contract):
            console.print(Padding(Text(line, style="dim"), (0, 0, 0, 2), expand=False))


def _facts(contract: SkillContract) -> str:
    facts = [f"type {contract.type}"] if contract.type != contract.name else []
    facts += [f"version {contract.version}"] if contract.version else []
    facts += [f"{name} {_plain(value)}" for name, value in contract.properties.items()]
    return "  " + ", ".join(facts) if facts else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _reported(param: Param) -> str:
    reported = f"{param.type} = {param.default}" if param.default else param.type
    reported += "" if param.default or param.required else ", optional"
    return f"{reported}: {param.description}" if param.description else reported


def _further(contract: SkillContract) -> Iterator[str]:
    returned = [f"{param.name}: {param.type}" for param in params_of(contract.output_schema)]
    if returned:
        yield f"returns {', '.join(returned)}"
    if contract.events_schema:
        yield f"sends {', '.join(contract.events_schema)}"
    if contract.output_statuses:
        yield f"may end as {', '.join(contract.output_statuses)}"


# ---------------------------------------------------------------------------------------------------- Markdown


def _markdown(contracts: Sequence[SkillContract]) -> Iterator[str]:
    yield "# Skills"
    for contract in contracts:
        yield f"\n## `{contract.name}`"
        if contract.description:
            yield f"\n{contract.description}"
        facts = _facts(contract).strip()
        if facts:
            yield f"\n*{facts}*"
        yield from _markdown_table("Param", contract.input_schema)
        yield from _markdown_table("Returned field", contract.output_schema)
        for name, event in (contract.events_schema or {}).items():
            yield from _markdown_table(f"Field of event `{name}`", event)
        if contract.output_statuses:
            yield "\nMay end as " + ", ".join(f"`{each}`" for each in contract.output_statuses) + "."


def _markdown_table(title: str, schema: JsonSchema | None) -> Iterator[str]:
    params = params_of(schema)
    if not params:
        return
    yield f"\n| {title} | Type | Default | Description |\n|---|---|---|---|"
    for each in params:
        default = f"`{each.default}`" if each.default else "" if each.required else "optional"
        cells = (f"`{each.name}`", each.type, default, " ".join(each.description.split()))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
