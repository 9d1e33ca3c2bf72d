"""Errors for want of memory are recognized by their types, never by words, and without importing any library."""

import pytest

from avtomatika_worker import ResourceExhaustedError
from avtomatika_worker.execution.outcome import from_exception
from avtomatika_worker.execution.shortage import is_out_of_memory, wants_smaller_batches


def error_of(module, name, base=RuntimeError):
    return type(name, (base,), {"__module__": module})


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "OutOfMemoryError"),
        ("torch.cuda", "OutOfMemoryError"),
        ("cupy.cuda.memory", "OutOfMemoryError"),
        ("tensorflow.python.framework.errors_impl", "ResourceExhaustedError"),
        ("pycuda._driver", "MemoryError"),
    ],
)
def test_the_libraries_errors_are_exhaustion_and_so_are_types_below_them(module, name):
    kind = error_of(module, name)
    for each in (kind, type("Own", (kind,), {})):
        failed = from_exception(each("tried to allocate 2 GiB"))
        assert failed.code == "RESOURCE_EXHAUSTED_ERROR"
        assert failed.message == "out of memory: tried to allocate 2 GiB"
        assert wants_smaller_batches(each("x"))


@pytest.mark.parametrize(
    ("module", "name"), [("jaxlib.xla_extension", "XlaRuntimeError"), ("jax.errors", "JaxRuntimeError")]
)
def test_xlas_error_is_exhaustion_by_its_code(module, name):
    kind = error_of(module, name)
    assert is_out_of_memory(kind("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."))
    assert not is_out_of_memory(kind("INVALID_ARGUMENT: not RESOURCE_EXHAUSTED: at all"))
    assert not is_out_of_memory(kind())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory"),
        error_of("mytorch", "OutOfMemoryError")("x"),
        error_of("torch", "OtherError")("x"),
        error_of("game", "ResourceExhaustedError")("x"),
        error_of(7, "OutOfMemoryError")("x"),
    ],
    ids=repr,
)
def test_messages_and_names_of_other_libraries_are_not_exhaustion(error):
    assert from_exception(error).code == "TRANSIENT_ERROR"
    assert not wants_smaller_batches(error)


def test_a_skill_may_say_itself_that_a_batch_is_too_large():
    assert wants_smaller_batches(ResourceExhaustedError("too many"))
    error = ValueError("forward failed")
    error.__cause__ = MemoryError()
    assert wants_smaller_batches(error)


def test_a_full_disk_makes_no_batch_smaller():
    assert not wants_smaller_batches(OSError(28, "No space left on device"))
