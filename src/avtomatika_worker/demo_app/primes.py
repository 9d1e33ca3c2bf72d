"""Counts primes with a segmented sieve of Eratosthenes, which needs memory for only one segment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

SEGMENT = 1_000_000
"""Numbers per segment: less than ten milliseconds of work, and a divisor of the larger powers of ten."""


@dataclass(frozen=True, slots=True)
class PrimeCount:
    """The facts about the primes up to and including ``limit``.

    ``largest_gap`` is the largest distance between neighbors, first seen after ``gap_after``; both are 0 if there are
    fewer than two primes, as is ``last_prime`` if there is none.
    """

    limit: int
    count: int
    last_prime: int
    largest_gap: int
    gap_after: int


_TINY = ((2, 0, 0, 0, 0), (3, 1, 2, 0, 0), (5, 2, 3, 1, 2))
"""Below 5 there is an even prime and an odd gap; above, all primes are odd and all gaps even."""

_AT_FIVE = PrimeCount(limit=0, count=1, last_prime=3, largest_gap=2, gap_after=3)
"""The start of the sieve of odd numbers: the prime 2, and the gap from 3 to 5 as the record to beat."""


def count_primes(limit: int, segment: int = SEGMENT) -> Iterator[PrimeCount]:
    """Yield the facts after each ``segment`` (an even number) of numbers; the last are those for ``limit``."""
    for below, *facts in _TINY:
        if limit < below:
            yield PrimeCount(limit, *facts)
            return
    known = _AT_FIVE
    base = _odd_primes(math.isqrt(limit))
    for start in range(0, limit, segment):
        end = min(start + segment, limit)
        known = _extend(known, _sieve(start, end, base), start, end)
        yield known


def _odd_primes(limit: int) -> list[int]:
    """Return the odd primes up to ``limit``."""
    flags = _sieve(0, limit, range(3, math.isqrt(limit) + 1, 2))
    return [2 * index + 1 for index, flag in enumerate(flags) if flag]


def _sieve(start: int, end: int, base: list[int] | range) -> bytearray:
    """Return a flag for each odd number above ``start`` (even) and up to ``end``: 1 for a prime.

    ``base`` has every odd prime up to the root of ``end``.
    """
    size = (end - start + 1) // 2
    flags = bytearray(b"\x01") * size
    if start == 0 and size:
        flags[0] = 0  # one is no prime
    for prime in base:
        if prime * prime > end:
            break
        # The first odd multiple in the segment; below the prime's square, smaller primes have marked them.
        first = max(prime * prime, (start // prime + 1) * prime)
        first += prime if first % 2 == 0 else 0
        index = (first - start) // 2
        if index < size:
            flags[index::prime] = bytes((size - index - 1) // prime + 1)
    return flags


def _extend(known: PrimeCount, flags: bytearray, start: int, end: int) -> PrimeCount:
    """Return the facts with one more segment."""
    here = flags.find(1)
    if here < 0:
        return replace(known, limit=end)
    gap, after = known.largest_gap, known.gap_after
    if start + 2 * here + 1 - known.last_prime > gap:
        gap, after = start + 2 * here + 1 - known.last_prime, known.last_prime
    # A gap above the record contains at least half the record of composite odd numbers: a search for that many zeros
    # finds it without a walk over all primes.
    while (zeros := flags.find(bytes(gap // 2), here)) >= 0 and (there := flags.find(1, zeros)) >= 0:
        gap, after = 2 * (there - zeros + 1), start + 2 * zeros - 1
        here = there
    return PrimeCount(end, known.count + flags.count(1), start + 2 * flags.rfind(1) + 1, gap, after)
