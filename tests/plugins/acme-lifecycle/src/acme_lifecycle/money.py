"""Amounts as Acme's billing writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

MONTHS = {"month": 1, "quarter": 3, "year": 12}


def monthly(lines: Iterable[Mapping[str, Any]]) -> float:
    """What the lines of an invoice bring in a month; one-off lines bring nothing."""
    total = sum(
        (Decimal(line["cents"]) / 100 / MONTHS[line["every"]] for line in lines if line.get("every") in MONTHS),
        start=Decimal(0),
    )
    return float(round(total, 2))
