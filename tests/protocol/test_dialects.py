"""The dialect of an announced version: its own, the one before it, or the newest."""

import msgspec
import pytest

from avtomatika_worker.protocol.dialects import DIALECTS, NEWEST, OLDEST, choose


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.version)
def test_a_known_version_has_its_own_dialect(dialect):
    chosen = choose(dialect.version)
    assert chosen.dialect is dialect
    assert chosen.exact is True


@pytest.mark.parametrize(
    ("version", "facts_of"), [("1.0b8", OLDEST), ("1.0b6", OLDEST), ("1.0b0", OLDEST), ("1.0b013", DIALECTS[5])]
)
def test_a_version_without_facts_of_its_own_uses_those_of_an_older_one_or_the_oldest(version, facts_of):
    chosen = choose(version)
    assert chosen.dialect == msgspec.structs.replace(facts_of, version=version)
    assert chosen.exact is True


@pytest.mark.parametrize("version", ["1.0b18", "1.0b9999", "1.0b10000", "1.1b7", "1.0b7 ", "1.0b", ""])
def test_a_newer_or_unreadable_version_has_the_newest_dialect_which_may_not_be_exact(version):
    chosen = choose(version)
    assert chosen.dialect is NEWEST
    assert chosen.exact is False
