"""SECURITY.md names tests: each must exist, and each setting of trust must be described."""

import re
from dataclasses import fields
from pathlib import Path

from avtomatika_worker.config.security import SecuritySettings
from avtomatika_worker.config.settings import setting_fields

ROOT = Path(__file__).parent.parent
TESTS = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
DEFINED = set(re.findall(r"^(?:async )?def (test_\w+)", TESTS, re.MULTILINE))


def test_every_test_that_a_claim_names_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text("utf-8")))
    assert len(named) > 30
    assert named - DEFINED == set()


def test_every_setting_of_trust_is_described():
    described = (ROOT / "docs" / "security.md").read_text("utf-8")
    names = {each.name for each in fields(SecuritySettings)}
    variables = {spec.variable for name, (_, spec) in setting_fields().items() if name in names}
    assert {each for each in variables if f"`{each}`" not in described and f"{each}=" not in described} == set()


def test_no_setting_switches_verification_off():
    variables = " ".join(spec.variable + spec.doc for _, spec in setting_fields().values()).lower()
    assert not re.search(r"insecure|no_verify|skip_verif|verify|accept_invalid", variables)
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert not re.search(r"danger_accept|CERT_NONE|check_hostname\s*=|ssl=False|_create_unverified", sources)
