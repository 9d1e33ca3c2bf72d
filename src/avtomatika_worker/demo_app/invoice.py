"""The arithmetic of an invoice: whole cents, rounded once."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal


def totals(lines: Iterable[tuple[int, int]], vat_percent: float) -> tuple[int, int, int]:
    """Return net, tax and gross in cents for lines of quantity and unit price in cents."""
    net = sum(quantity * price for quantity, price in lines)
    # Via text: 7.7 as a float is slightly less than 7.7, and half a cent must round up.
    tax = int((net * Decimal(str(vat_percent)) / 100).quantize(Decimal(1), ROUND_HALF_UP))
    return net, tax, net + tax


def as_money(cents: int, currency: str) -> str:
    """Return an amount for people, such as ``1,234.50 EUR``."""
    return f"{cents // 100:,}.{cents % 100:02d} {currency}"
