"""Merges the members' metrics: each family once, its samples labeled with their worker's id.

Imported only with metrics enabled: it needs prometheus_client (extra ``[metrics]``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from avtomatika_worker.observability.metrics import FLEET_PROCESSES, FLEET_RESTARTS
from avtomatika_worker.observability.metrics import Metric as OwnMetric

LABEL = "worker_id"


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the merged families."""
        return self._families


def merge(pages: Mapping[str, str], processes: Mapping[str, int], restarts: Mapping[str, int]) -> tuple[bytes, str]:
    """Return one page, and its content type.

    ``pages`` are the members' own by worker id, in Prometheus's text format; ``processes`` counts them by state,
    ``restarts`` by worker id. A label ``worker_id`` of a skill's own metric becomes ``exported_worker_id``, as
    in Prometheus itself. If members disagree on a family's type, the first one wins.
    """
    families: dict[str, Metric] = {}
    for worker_id, page in pages.items():
        for family in text_string_to_metric_families(page):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            if merged.type == family.type:
                merged.samples += [
                    sample._replace(labels=_labelled(sample.labels, worker_id)) for sample in family.samples
                ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families([*_own(processes, restarts), *families.values()]))
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _labelled(labels: Mapping[str, str], worker_id: str) -> dict[str, str]:
    own = {(f"exported_{LABEL}" if name == LABEL else name): value for name, value in labels.items()}
    return {**own, LABEL: worker_id}


def _own(processes: Mapping[str, int], restarts: Mapping[str, int]) -> Iterable[Metric]:
    gauge = GaugeMetricFamily(_name(FLEET_PROCESSES), FLEET_PROCESSES.doc, labels=FLEET_PROCESSES.labels)
    for state, count in processes.items():
        gauge.add_metric([state], count)
    counter = CounterMetricFamily(_name(FLEET_RESTARTS), FLEET_RESTARTS.doc, labels=FLEET_RESTARTS.labels)
    for worker_id, count in restarts.items():
        counter.add_metric([worker_id], count)
    return gauge, counter


def _name(metric: OwnMetric) -> str:
    return metric.name.replace(".", "_")
