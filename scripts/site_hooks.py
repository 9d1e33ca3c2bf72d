"""Hooks of mkdocs.yml: pages that lie at the top of the repository, and links that lead out of docs/."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
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

_CELL_CODE: Final = re.compile(r"(?<=<td><code>)[A-Za-z0-9_<>]+(?=</code></td>)")
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
    source = page.file.src_uri
    if source in AT_THE_TOP.values() and source != "index.md":
        return markdown
    return _relinked(markdown, posixpath.join("docs", posixpath.dirname(source)), source)


def on_page_content(html: str, **_: Any) -> str:
    """Let long names in tables break behind their underscores, on narrow screens."""
    return _CELL_CODE.sub(lambda match: match[0].replace("_", "_<wbr>"), html)


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
