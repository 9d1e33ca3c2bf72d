"""A container's share, read from the files that the kernel would show it."""

import pytest

from avtomatika_worker.observability.cgroup import ControlGroup
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.observability.usage_meter import UsageMeter

GIB = 2**30


def group_of(tmp_path, membership, files):
    root = tmp_path / "cgroup"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "membership").write_text(membership)
    return ControlGroup(root, tmp_path / "membership")


V2 = {
    "cgroup.controllers": "cpu memory",
    "app/cpu.max": "150000 100000",
    "app/cpu.stat": "usage_usec 2500000\nuser_usec 1",
    "app/memory.max": 2 * GIB,
    "app/memory.current": GIB,
    "app/memory.stat": f"anon 1\ninactive_file {GIB // 4}",
}
V1 = {
    "cpu/app/cpu.cfs_quota_us": 150000,
    "cpu/app/cpu.cfs_period_us": 100000,
    "cpuacct/app/cpuacct.usage": 2_500_000_000,
    "memory/app/memory.limit_in_bytes": 2 * GIB,
    "memory/app/memory.usage_in_bytes": GIB,
    "memory/app/memory.stat": f"total_inactive_file {GIB // 4}",
}


@pytest.mark.parametrize(
    ("membership", "files"), [("0::/app\n", V2), ("3:cpuset:/\n2:cpu,cpuacct:/app\n1:memory:/app\n", V1)]
)
def test_limits_and_use_are_those_of_the_group(tmp_path, membership, files):
    group = group_of(tmp_path, membership, files)
    assert group.cpus() == 1.5
    assert group.cpu_seconds() == 2.5
    assert group.memory() == 2 * GIB
    assert group.memory_used() == 3 * GIB // 4  # what the kernel could drop at once is not used


def test_the_tightest_limit_of_the_groups_around_counts_with_the_use_of_that_group(tmp_path):
    inner = {"app/one/cpu.max": "max 100000", "app/one/memory.max": 4 * GIB, "app/one/memory.current": 1}
    group = group_of(tmp_path, "0::/app/one\n", V2 | inner)
    assert group.cpus() == 1.5
    assert group.memory() == 2 * GIB
    assert group.memory_used() == 3 * GIB // 4


def test_inside_of_a_container_the_group_is_the_root_whatever_path_the_host_gave_it(tmp_path):
    files = {name.replace("app/", ""): text for name, text in V2.items()}
    group = group_of(tmp_path, "0::/kubepods/pod1234/5678\n", files)
    assert group.cpus() == 1.5
    assert group.memory() == 2 * GIB


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("", {}),
        ("0::/\n", {"cgroup.controllers": "cpu"}),
        ("0::/app\n", {"cgroup.controllers": "", "app/cpu.max": "max 100000", "app/memory.max": "max"}),
        ("1:memory:/\n", {"memory/memory.limit_in_bytes": 2**63 - 4096, "memory/memory.usage_in_bytes": 5}),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}),
        ("0::/app\n", {"cgroup.controllers": "", "app/cpu.max": "what 0", "app/memory.max": "2 GiB"}),
        ("0::/../../etc\n", {"cgroup.controllers": ""}),
    ],
)
def test_where_nothing_is_limited_nothing_is_reported(tmp_path, membership, files):
    group = group_of(tmp_path, membership, files)
    assert (group.cpus(), group.cpu_seconds(), group.memory(), group.memory_used()) == (None,) * 4


def test_a_container_announces_its_share(tmp_path):
    host, share = detect_host(ControlGroup(tmp_path / "none")), detect_host(group_of(tmp_path, "0::/app\n", V2))
    assert share.ram_gb == 2.0
    assert share.cpu_cores == min(2, host.cpu_cores)
    assert host.ram_gb > 0


def test_a_container_reports_the_load_of_its_share(tmp_path):
    now = [100.0]
    meter = UsageMeter(group_of(tmp_path, "0::/app\n", V2), clock=lambda: now[0])
    assert meter.measure().cpu_load_percent == 0.0  # a load is one since the measurement before
    now[0] += 10
    group_of(tmp_path, "0::/app\n", V2 | {"app/cpu.stat": "usage_usec 10000000"})
    usage = meter.measure()
    assert usage.cpu_load_percent == 50.0  # 7.5 s of 1.5 CPUs in 10 s
    assert usage.ram_used_gb == 0.75


def test_a_machine_without_limits_reports_its_own_load(tmp_path):
    usage = UsageMeter(ControlGroup(tmp_path / "none")).measure()
    assert 0 <= usage.cpu_load_percent <= 100
    assert usage.ram_used_gb > 0


def test_the_shares_in_use_are_those_of_the_group(tmp_path):
    group = group_of(tmp_path, "0::/app\n", V2)
    at = iter([0.0, 10.0])
    meter = UsageMeter(group, clock=lambda: next(at))
    first = meter.shares()
    assert (first.memory, first.cpu) == (37.5, 0.0)
    (tmp_path / "cgroup/app/cpu.stat").write_text("usage_usec 17500000\n")
    second = meter.shares()
    assert (second.memory, second.cpu) == (37.5, 100.0)  # 15 s in 10 s of 1.5 CPUs
    machine = UsageMeter(group_of(tmp_path / "none", "", {"x": ""})).shares()
    assert all(0 <= share <= 100 for share in (machine.memory, machine.cpu))
