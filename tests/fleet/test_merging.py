"""The metrics of several processes on one page."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from avtomatika_worker.fleet.merging import merge


def page(count):
    registry = CollectorRegistry()
    tasks = Counter("worker_tasks", 'Tasks that "ended".\n', ["status"], registry=registry)
    tasks.labels('a"b\\c\n').inc(count)
    Gauge("worker_slots", "Slots.", registry=registry).set(count)
    Histogram("worker_seconds", "Time.", registry=registry, buckets=(1, 2)).observe(1.5)
    return generate_latest(registry).decode()


def families(body):
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def test_each_family_is_there_once_and_every_sample_says_whose_it_is():
    body, content_type = merge({"w-1": page(1), "w-2": page(2)}, {"running": 2}, {"w-1": 0, "w-2": 3})
    assert content_type.startswith("text/plain")
    lines = body.decode().splitlines()
    for kind in ("# HELP ", "# TYPE "):
        named = [line.split()[2] for line in lines if line.startswith(kind)]
        assert len(named) == len(set(named))
    found = families(body)
    assert found["worker_tasks"].type == "counter"
    assert found["worker_tasks"].documentation == 'Tasks that "ended".\n'
    totals = {
        sample.labels["worker_id"]: (sample.labels["status"], sample.value)
        for sample in found["worker_tasks"].samples
        if sample.name == "worker_tasks_total"
    }
    assert totals == {"w-1": ('a"b\\c\n', 1.0), "w-2": ('a"b\\c\n', 2.0)}
    buckets = [
        (s.labels["worker_id"], s.labels["le"], s.value)
        for s in found["worker_seconds"].samples
        if s.name.endswith("bucket")
    ]
    assert buckets == [(w, le, v) for w in ("w-1", "w-2") for le, v in (("1.0", 0.0), ("2.0", 1.0), ("+Inf", 1.0))]
    assert {s.labels["worker_id"]: s.value for s in found["worker_fleet_restarts"].samples} == {"w-1": 0.0, "w-2": 3.0}
    assert {s.labels["state"]: s.value for s in found["worker_fleet_processes"].samples} == {"running": 2.0}


def test_a_label_of_that_name_is_kept_under_another():
    body, _ = merge({"w-1": 'mine{worker_id="theirs"} 1\n'}, {}, {})
    (sample,) = families(body)["mine"].samples
    assert sample.labels == {"worker_id": "w-1", "exported_worker_id": "theirs"}


def test_what_members_do_not_agree_on_is_the_first_ones():
    pages = {
        "w-1": "# TYPE mine gauge\nmine 1\n",
        "w-2": "# TYPE mine counter\nmine 2\n",
        "w-3": "# TYPE mine gauge\nmine 3\n",
    }
    body, _ = merge(pages, {}, {})
    assert [sample.labels["worker_id"] for sample in families(body)["mine"].samples] == ["w-1", "w-3"]


@pytest.mark.parametrize("pages", [{}, {"w-1": ""}])
def test_the_fleets_own_are_there_without_any_others(pages):
    body, _ = merge(pages, {"running": 0}, {})
    assert set(families(body)) == {"worker_fleet_processes", "worker_fleet_restarts"}
