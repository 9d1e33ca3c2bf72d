"""Look through the built site for anything that a browser would fetch from elsewhere."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

SITE: Final = Path(__file__).resolve().parent.parent / "build" / "site"
_FETCHED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_NOT_FETCHED: Final = {"canonical", "next", "prev", "alternate", "edit"}
_CSS_URL: Final = re.compile(r"""(?:@import\s+|url\()\s*["']?(?P<url>(?:https?:)?//[^"')\s]+)""")


class _Page(HTMLParser):
    """Collects what a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at an element."""
        given = dict(attrs)
        url = given.get(_FETCHED.get(tag, "")) or ""
        if url.startswith(("http:", "https:", "//")) and (given.get("rel") or "") not in _NOT_FETCHED:
            self.found.append(f"<{tag}> {url}")


def foreign(site: Path) -> list[str]:
    """Return one line for each request that the site would send elsewhere."""
    lines: list[str] = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            page = _Page()
            page.feed(path.read_text("utf-8"))
            found = page.found
        elif path.suffix == ".css":
            found = [match["url"] for match in _CSS_URL.finditer(path.read_text("utf-8"))]
        else:
            continue
        lines += [f"{path.relative_to(site)}: {each}" for each in found]
    return lines


def main() -> int:
    """Print them; 1 when there are any, or no site."""
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    pages = len(list(site.rglob("*.html")))
    lines = foreign(site)
    print(
        "\n".join(lines) or f"{pages} pages in {site}, no request leaves them", file=sys.stderr if lines else sys.stdout
    )
    return 1 if lines or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
