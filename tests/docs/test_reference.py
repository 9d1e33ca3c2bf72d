"""The reference shows all that is public."""

import re

import avtomatika_worker
import avtomatika_worker.testing
from docs.blocks import ROOT


def shown(page: str, package: str) -> list[str]:
    """Return the names that a page takes from a package."""
    text = (ROOT / "docs" / "reference" / page).read_text("utf-8")
    return re.findall(rf"^::: {re.escape(package)}\.(\w+)$", text, re.MULTILINE)


def test_every_exported_name_is_on_the_page_once():
    assert sorted(shown("api.md", "avtomatika_worker")) == sorted(set(avtomatika_worker.__all__) - {"__version__"})


def test_every_name_of_the_testing_kit_is_on_its_page_once():
    assert sorted(shown("testing.md", "avtomatika_worker.testing")) == sorted(avtomatika_worker.testing.__all__)
