"""Objects that hold tokens and keys do not show them: debuggers, and what reports errors, write the ``repr`` of any."""

import dataclasses
import importlib
import pkgutil

import msgspec
import pytest

import avtomatika_worker
from avtomatika_worker.files import heads
from avtomatika_worker.link.keepalive import Report
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.protocol.replies import Response

SECRET = "T0K3N"
FIELDS = {
    *("token", "token_fallback", "access_token", "refresh_token", "secret_key", "access_key", "password", "connect"),
    *("headers", "headers_again", "proxy_headers", "renewals"),
}
"""Names of fields that may hold a secret, in the parts of the package that a worker in production uses."""
IN_BODY = {Request, Response, Report, heads.Request}
DEVELOPMENT = ("devserver", "testing", "demo_app", "__main__", "heartbeat_program")
PUBLIC = {"_Head", "_Answer"}
"""These have the headers of an orchestrator's, or a cloud's, answer."""


def modules():
    for found in pkgutil.walk_packages(avtomatika_worker.__path__, "avtomatika_worker."):
        if not any(part in DEVELOPMENT for part in found.name.split(".")):
            yield importlib.import_module(found.name)


def fields_of(kind):
    """Return the names of the fields that a record is made of; none for another class."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind) if each.init)
    return getattr(kind, "_fields", ()) if issubclass(kind, tuple) else ()


def records():
    kinds = {each for module in modules() for each in vars(module).values() if isinstance(each, type)}
    own = (each for each in kinds if each.__module__.startswith("avtomatika_worker") and each.__name__ not in PUBLIC)
    return sorted((each for each in own if FIELDS.intersection(fields_of(each)) or each in IN_BODY), key=repr)


@pytest.mark.parametrize("kind", records(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_no_record_shows_the_secrets_that_it_holds(kind):
    secrets = FIELDS | ({"body"} if kind in IN_BODY else set())
    made = kind(**{name: SECRET if name in secrets else "x" for name in fields_of(kind)})
    assert SECRET not in repr(made)
    assert SECRET not in str(made)
