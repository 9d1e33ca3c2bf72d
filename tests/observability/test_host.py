"""Facts about the machine."""

from __future__ import annotations

import ipaddress
import os
import socket

import pytest

from avtomatika_worker.observability.host import detect_host


def test_facts_of_this_machine() -> None:
    facts = detect_host()
    assert facts.hostname == socket.gethostname()
    assert facts.cpu_cores == os.cpu_count()
    assert facts.ram_gb > 0
    assert not ipaddress.ip_address(facts.ip_address).is_unspecified


def test_a_machine_without_a_network_has_the_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(socket.socket):
        def connect(self, _address: object) -> None:
            raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "socket", Unreachable)
    assert detect_host().ip_address == "127.0.0.1"
