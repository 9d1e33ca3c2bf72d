"""Hooks of mkdocs.yml: pages of the repository, links that lead out of docs/, diagrams, anchors of rows."""

from __future__ import annotations

import hashlib
import html
import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parent.parent

AT_THE_TOP: Final = {
    "ARCHITECTURE.md": "architecture.md",
    "SECURITY.md": "security-model.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
}
"""Files of the repository → pages of the site. They stay where people look for them in a repository."""

PAGES_OF_ROWS: Final = frozenset({"configuration.md", "errors.md", "log-actions.md", "metrics.md"})
"""Pages whose rows are looked up: each row has an anchor, and a link to it."""

_FENCE: Final = re.compile(r"^(?P<indent> *)```mermaid\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
_ROW: Final = re.compile(r"<tr>\s*<td><code>(?P<code>.*?)</code>", re.DOTALL)
_CELL: Final = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
_CODE: Final = re.compile(r"(?<!<pre>)(?<!<span></span>)<code>[^<]+</code>")
_LONGEST_NAME: Final = 34
_PART_OF_NAME: Final = re.compile(r"(?<=[A-Za-z0-9])([_.])(?=[A-Za-z0-9])")
_OPTION: Final = re.compile(r"(?<![^\s>])-[\w-]+")
_FIRST_CELL: Final = re.compile(r"(?P<before><tr[^>]*>\s*<td[^>]*>\s*)<code>(?P<code>.*?)</code>", re.DOTALL)
_LINK: Final = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files at the top."""
    for source, page in AT_THE_TOP.items():
        if page not in files.src_uris:
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=_relinked(text, "", page)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ at the pages made above; one to anything else becomes its text."""
    markdown = _FENCE.sub(_drawn, markdown)
    source = page.file.src_uri
    if source in AT_THE_TOP.values() and source != "index.md":
        return markdown
    return _relinked(markdown, posixpath.join("docs", posixpath.dirname(source)), source)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Give rows their anchors."""
    return _with_anchors(content) if page.file.src_uri in PAGES_OF_ROWS else content


def on_post_page(output: str, **_: Any) -> str:
    """Name what has no name for those who hear it: the search, checkboxes, corners of tables. Break long names."""
    output = output.replace('role="dialog">', 'role="dialog" aria-label="Search">')
    output = re.sub(
        r'<input type="checkbox" disabled ?/?>', '<input type="checkbox" disabled aria-label="Done">', output
    )
    output = re.sub(r"<th( [^>]*)?></th>", "<td></td>", output)
    return _FIRST_CELL.sub(_named, _CODE.sub(_whole_options, _CELL.sub(_breakable, output)))


def _breakable(cell: re.Match[str]) -> str:
    """Let names in a table's cell break behind underscores and dots, on narrow screens; not for the search's index."""
    return _CODE.sub(lambda code: _PART_OF_NAME.sub(r"\1<wbr>", code[0]), cell[0])


def _whole_options(code: re.Match[str]) -> str:
    """Let longer names break there in running text, too, and options such as ``--workers`` nowhere.

    Browsers break names anywhere, and behind hyphens.
    """
    text = _PART_OF_NAME.sub(r"\1<wbr>", code[0]) if len(code[0]) > len("<code></code>") + _LONGEST_NAME else code[0]
    return _OPTION.sub(r'<span class="whole">\g<0></span>', text)


def _named(row: re.Match[str]) -> str:
    """Mark a name that a row begins with, which wide screens show in one line."""
    is_name = len(html.unescape(re.sub(r"<[^>]+>", "", row["code"]))) <= _LONGEST_NAME
    return f'{row["before"]}<code class="name">{row["code"]}</code>' if is_name else row[0]


def _drawn(match: re.Match[str]) -> str:
    """Return a diagram as scripts/render_diagrams.py has drawn it."""
    name = hashlib.sha256(match["text"].strip().encode()).hexdigest()[:12]
    path = ROOT / "docs" / "images" / "diagrams" / f"{name}.svg"
    if not path.exists():
        raise PluginError(f"a diagram is not drawn yet: run scripts/render_diagrams.py ({path.name} is missing)")
    drawing = path.read_text("utf-8").strip()
    return f'{match["indent"]}<div class="diagram" markdown="0" tabindex="0">{drawing}</div>'


def _with_anchors(page: str) -> str:
    """Return a page with an anchor for each row that begins with code: made of its words, and unique."""
    seen: dict[str, int] = {}

    def anchored(match: re.Match[str]) -> str:
        text = html.unescape(re.sub(r"<[^>]+>", "", match["code"]))
        name = "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:60].strip("-") or "row"
        seen[name] = seen.get(name, 0) + 1
        name = name if seen[name] == 1 else f"{name}-{seen[name]}"
        link = f'<a class="headerlink" href="#{name}" title="Permanent link" aria-label="Permanent link">&para;</a>'
        return f'<tr id="{name}"><td><code>{match["code"]}</code>{link}'

    return _ROW.sub(anchored, page)


def _relinked(text: str, directory: str, page: str) -> str:
    """Return ``text``, written in ``directory`` of the repository, with its links as they are seen from ``page``."""

    def relink(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match["target"].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        target = posixpath.normpath(posixpath.join(directory, path))
        found = AT_THE_TOP.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if found is None:
            if not (ROOT / target).exists():
                raise FileNotFoundError(f"{page}: the link {match['target']} leads to nothing")
            return match["text"]
        return f"[{match['text']}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{hash_sign}{anchor})"

    return _LINK.sub(relink, text)
