"""Add tables of parameters to the API reference: types and defaults from signatures, texts from docstrings.

A docstring is prose that names parameters as ``name``. The table has the first sentence that names each
of them and stands beside none before it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

_SENTENCE: Final = re.compile(r"(?:``.+?``|.)+?(?:(?<=[.:;])(?=\s+[A-Z`\"])|(?=\n\n)|$)", re.DOTALL)
_LEAST: Final = 2
"""Parameters that make a table worth it: a single one is in the signature."""


class ParameterTables(griffe.Extension):
    """Appends a section to the docstrings of functions, and of classes for their constructors."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Describe a function's parameters."""
        _describe(func, func)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Describe the parameters of a class's constructor, where it is written by hand."""
        constructor = cls.members.get("__init__")
        if isinstance(constructor, griffe.Function):
            _describe(cls, constructor)


def _sentence(text: str) -> str:
    """Return a part of a docstring as a sentence, though more may follow there."""
    text = " ".join(text.split())
    return text[:-1] + "." if text.endswith((":", ";")) else text


def _describe(documented: griffe.Object, function: griffe.Function) -> None:
    docstring = documented.docstring
    names = [each for each in function.parameters if each.name not in {"self", "cls"} and each.kind is not None]
    named = [each for each in names if each.kind.value not in {"variadic positional", "variadic keyword"}]
    if docstring is None or len(named) < _LEAST:
        return
    sentences = [_sentence(each[0]) for each in _SENTENCE.finditer(docstring.value)]
    rows: list[griffe.DocstringParameter] = []
    for each in named:
        text = next((text for text in sentences if f"``{each.name}" in text), "")
        if text:
            sentences.remove(text)  # one about several is enough once
        value = None if each.default is None else str(each.default)
        rows.append(griffe.DocstringParameter(each.name, description=text, annotation=each.annotation, value=value))
    if any(row.description for row in rows):
        docstring.parsed.append(griffe.DocstringSectionParameters(rows))
