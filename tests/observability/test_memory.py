"""The growth of memory, divided among what goes on side by side."""

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.observability.memory import MemoryLedger, MemoryMeter, MemoryReading


class BrokenGpus:
    def memory_used(self) -> int:
        raise OSError("the driver is gone")


def test_what_cannot_be_measured_is_reported_once(caplog):
    meter = MemoryMeter(BrokenGpus())
    assert meter() == meter() == MemoryReading(0, 0)
    assert [each.action for each in caplog.records] == ["memory_unknown"]


sizes = st.lists(st.integers(0, 1000), min_size=1, max_size=6)


def test_the_larger_growth_counts():
    ledger = MemoryLedger()
    mark = ledger.begin(MemoryReading(100, 10))
    assert ledger.end(mark, MemoryReading(130, 500)) == 490
    mark = ledger.begin(MemoryReading(130, 500))
    assert ledger.end(mark, MemoryReading(100, 20)) == -30


@given(sizes, st.randoms(use_true_random=False))
def test_what_is_loaded_side_by_side_is_counted_once(grown, random):
    """In whatever order loads begin and end, their sizes add up to the growth of the memory in use."""
    ledger, host, marks, total = MemoryLedger(), 5000, [], 0
    for size in grown:
        marks.append(ledger.begin(MemoryReading(host, 0)))
        host += size
        if random.random() < 0.5:
            total += ledger.end(marks.pop(random.randrange(len(marks))), MemoryReading(host, 0))
    while marks:
        total += ledger.end(marks.pop(random.randrange(len(marks))), MemoryReading(host, 0))
    assert abs(total - (host - 5000)) <= len(grown)  # sizes are whole bytes
