"""Render the Mermaid diagrams of docs/ to SVG: the built site shows these files, and no script of Mermaid's.

    python scripts/render_diagrams.py            # render what is new, remove what no page shows any more
    python scripts/render_diagrams.py --all      # render everything again
    python scripts/render_diagrams.py --check    # only report what is missing or left over

A file is named by the digest of its diagram. Needs npm, Playwright, and a Chromium on the PATH or in CHROMIUM.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RENDERED: Final = ROOT / "docs" / "images" / "diagrams"
MERMAID: Final = "11.17.2"
FENCE: Final = re.compile(r"^(?P<indent> *)```mermaid\n(?P<text>.*?)^ *```$", re.DOTALL | re.MULTILINE)
TITLE: Final = re.compile(r"^\s*accTitle: *(?P<title>.+)$", re.MULTILINE)

COLORS: Final = {
    "#101112": "text",
    "#202122": "line",
    "#303132": "border",
    "#f0f1f2": "node",
    "#e0e1e2": "group",
    "#d0d1d2": "back",
}
"""Colors that stand for nothing but a name: docs/assets/site.css says what they are, on light and on dark pages."""

_TEXT, _LINE, _BORDER, _NODE, _GROUP, _BACK = COLORS
_THEME: Final[dict[str, Any]] = {
    "startOnLoad": False,
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False, "curve": "basis"},
    "sequence": {"mirrorActors": False, "useMaxWidth": True},
    "theme": "base",
    "themeVariables": {
        "fontFamily": "inherit",
        "fontSize": "15px",
        "background": _BACK,
        "mainBkg": _NODE,
        "primaryColor": _NODE,
        "primaryTextColor": _TEXT,
        "primaryBorderColor": _BORDER,
        "nodeBorder": _BORDER,
        "lineColor": _LINE,
        "textColor": _TEXT,
        "titleColor": _TEXT,
        "clusterBkg": _GROUP,
        "clusterBorder": _BORDER,
        "edgeLabelBackground": _BACK,
        "actorBkg": _NODE,
        "actorBorder": _BORDER,
        "actorTextColor": _TEXT,
        "actorLineColor": _LINE,
        "signalColor": _LINE,
        "signalTextColor": _TEXT,
        "labelBoxBkgColor": _GROUP,
        "labelBoxBorderColor": _BORDER,
        "labelTextColor": _TEXT,
        "loopTextColor": _TEXT,
        "noteBkgColor": _GROUP,
        "noteBorderColor": _BORDER,
        "noteTextColor": _TEXT,
    },
}


def digest(text: str) -> str:
    """Return the name of a diagram's file, without its suffix."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def diagrams() -> dict[str, str]:
    """Return the diagrams of all pages, by the names of their files."""
    texts = [
        match["text"] for page in (ROOT / "docs").rglob("*.md") for match in FENCE.finditer(page.read_text("utf-8"))
    ]
    return {digest(text): text for text in texts}


def mermaid_script() -> Path:
    """Return the script of Mermaid, installed into .cache the first time."""
    directory = ROOT / ".cache" / "npm" / f"mermaid-{MERMAID}"
    script = directory / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
    if not script.exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_text("{}")  # else npm looks for a project in the directories above
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"mermaid@{MERMAID}"]
        subprocess.run(install, cwd=directory, check=True)  # noqa: S603 - the arguments are ours
    return script


async def render(texts: dict[str, str]) -> None:
    """Render diagrams, in one browser."""
    from playwright.async_api import async_playwright  # checking needs no browser

    script = mermaid_script()
    async with async_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.set_content("<body style='font-family: sans-serif'></body>")
        await page.add_script_tag(path=script)
        await page.evaluate("config => mermaid.initialize(config)", _THEME)
        for name, text in texts.items():
            drawn = "async ([id, text]) => (await mermaid.render(id, text)).svg"
            svg = await page.evaluate(drawn, [f"diagram-{name}", text])
            (RENDERED / f"{name}.svg").write_text(colored(svg) + "\n", encoding="utf-8")
        await browser.close()


def colored(svg: str) -> str:
    """Return a drawing whose colors are those of the page that shows it."""
    for color, name in COLORS.items():
        red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
        pattern = rf"{color}\b|rgb\({red}, *{green}, *{blue}\)"
        svg = re.sub(pattern, f"var(--diagram-{name})", svg, flags=re.IGNORECASE)
    return svg


def main(arguments: list[str]) -> int:
    """Render the diagrams, or check that there is nothing to do."""
    wanted = diagrams()
    there = {path.stem for path in RENDERED.glob("*.svg")}
    missing = {name: text for name, text in wanted.items() if "--all" in arguments or name not in there}
    left_over = there - wanted.keys()
    untitled = [name for name, text in wanted.items() if TITLE.search(text) is None]
    if "--check" in arguments or untitled:
        lines = [
            *(f"a diagram has no accTitle, which is read aloud: {wanted[name].splitlines()[0]}" for name in untitled),
            *(f"docs/images/diagrams/{name}.svg is missing or left over" for name in sorted({*missing, *left_over})),
        ]
        print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")
        return 1 if lines else 0
    RENDERED.mkdir(exist_ok=True)
    if missing:
        asyncio.run(render(missing))
    for name in left_over:
        (RENDERED / f"{name}.svg").unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
