"""Which devices processes are given: what a variable names, else what is found, and never what is hidden."""

import json
import subprocess
import sys

import pytest

from avtomatika_worker.observability.devices import NoDeviceError, accelerators, environ_for
from observability.nvml import put_nvml

FIND = """
import json, os
from avtomatika_worker.observability.devices import accelerators
print(json.dumps([[each.label, dict(each.environ)] for each in accelerators(os.environ)]))
"""


@pytest.fixture(autouse=True)
def without_nvml(monkeypatch):
    """This machine's GPUs, if it has any, are no part of the tests."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


def amd(directory, *simd_counts):
    """Write what AMD's driver shows of its nodes: CPUs compute nothing."""
    for number, count in enumerate(simd_counts):
        (directory / str(number)).mkdir(parents=True)
        (directory / str(number) / "properties").write_text(f"cpu_cores_count 8\nsimd_count {count}\n", "ascii")
    return directory


def found(environ, kfd):
    return [(each.label, dict(each.environ)) for each in accelerators(environ, kfd)]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, [("gpu2", "2"), ("gpu3", "3")]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-x, MIG-y,GPU-x"}, [("gpu0", "GPU-x"), ("gpu1", "MIG-y")]),
        ({"HIP_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "4,5"}, [("gpu0", "0"), ("gpu1", "1")]),
        ({"ROCR_VISIBLE_DEVICES": "4,5"}, [("gpu4", "4"), ("gpu5", "5")]),
        ({"CUDA_VISIBLE_DEVICES": "1,GPU-x"}, [("gpu0", "1"), ("gpu1", "GPU-x")]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-x,0"}, [("gpu0", "GPU-x"), ("gpu1", "0")]),
        ({"ZE_AFFINITY_MASK": "0.0,0.1"}, [("gpu0-0", "0.0"), ("gpu0-1", "0.1")]),
    ],
)
def test_devices_that_a_variable_names_are_shared_out(tmp_path, environ, expected):
    variable = next(iter(environ))
    kfd = amd(tmp_path / "kfd", 0, 256)  # does not count: less was named
    assert found(environ, kfd) == [(label, {variable: name}) for label, name in expected]


def test_a_selector_of_oneapi_is_shared_out_if_it_numbers_devices(tmp_path):
    selector = "ONEAPI_DEVICE_SELECTOR"
    assert found({selector: "level_zero:1,2"}, tmp_path) == [
        ("gpu1", {selector: "level_zero:1"}),
        ("gpu2", {selector: "level_zero:2"}),
    ]
    with pytest.raises(NoDeviceError):
        found({selector: "level_zero:gpu"}, tmp_path)


def test_gpus_of_amd_s_driver_are_found_in_its_order(tmp_path):
    kfd = amd(tmp_path / "kfd", 0, 304, 304)
    assert found({}, kfd) == [("gpu0", {"ROCR_VISIBLE_DEVICES": "0"}), ("gpu1", {"ROCR_VISIBLE_DEVICES": "1"})]


@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_hidden_devices_are_not_assigned_and_the_error_says_what_hides_them(tmp_path, variable):
    with pytest.raises(NoDeviceError, match=f"{variable} is set, and hides all devices"):
        found({variable: "-1"}, amd(tmp_path / "kfd", 304))


def test_the_error_says_where_devices_were_looked_for(tmp_path):
    with pytest.raises(NoDeviceError) as caught:
        found({}, tmp_path / "kfd")
    for part in ("NVML: ", f"there is no {tmp_path / 'kfd'}", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, [["gpu0-mig1", "MIG-c"], ["gpu1", "GPU-b"]]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, [["gpu1", "GPU-b"]]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [["gpu1", "1"]]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b,1,MIG-c"}, [["gpu1", "GPU-b"], ["gpu0-mig1", "MIG-c"]]),
    ],
)
def test_nvml_s_ids_are_given_out_and_number_the_devices(tmp_path, environ, expected):
    gpus = [{"uuid": "GPU-a", "parts": {1: {"uuid": "MIG-c"}}}, {"uuid": b"GPU-b"}]
    environ = {**environ, **put_nvml(tmp_path, gpus)}
    done = subprocess.run([sys.executable, "-c", FIND], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[label, {"CUDA_VISIBLE_DEVICES": name}] for label, name in expected]


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"},
        {"HIP_VISIBLE_DEVICES": "1,0"},
        {"ROCR_VISIBLE_DEVICES": "GPU-x,3"},
        {"ZE_AFFINITY_MASK": "0.0,0.1"},
        {"ONEAPI_DEVICE_SELECTOR": "level_zero:1,2"},
    ],
)
def test_several_devices_are_named_together_as_the_variable_names_them(tmp_path, environ):
    devices = accelerators(environ, tmp_path)
    assert environ_for(devices) == environ
    assert environ_for(devices[:1]) == devices[0].environ
    assert all(each.combinable for each in devices)


def test_instances_are_not_combined_with_others(tmp_path):
    named = {"CUDA_VISIBLE_DEVICES": "MIG-y,GPU-x"}
    assert [each.combinable for each in accelerators(named, tmp_path)] == [False, True]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CUDA_VISIBLE_DEVICES", "0, 00 ,1", {"gpu0": "0", "gpu1": "1"}),
        ("ZE_AFFINITY_MASK", "0.1,0.01,1", {"gpu0-1": "0.1", "gpu1": "1"}),
    ],
)
def test_a_device_that_is_numbered_in_two_ways_is_one(tmp_path, variable, value, expected):
    devices = accelerators({variable: value}, tmp_path)
    assert {each.label: each.environ[variable] for each in devices} == expected
