"""A reported number against all test rows, of which it read a part; pure.

A cell holds two measurements of one prompt as plain values: ``test``, which was reported, and ``full``, on all test
rows. The first read a part of these rows, drawn by lot, and both are means over rows, as accuracy is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_NORMAL = 1.959963984540054


def rest_value(cell: Mapping[str, Any]) -> float | None:
    """Value on the test rows that the reported number did not read; None where it read all."""
    test, full = cell["test"], cell["full"]
    if test["n"] >= full["n"]:
        return None
    return float((full["value"] * full["n"] - test["value"] * test["n"]) / (full["n"] - test["n"]))


def sampling_error(cell: Mapping[str, Any]) -> float:
    """Standard error of the value of a part of the test rows around that of all: the finite population's."""
    share, part, whole = cell["full"]["value"], cell["test"]["n"], cell["full"]["n"]
    if part >= whole:
        return 0.0
    return math.sqrt(share * (1 - share) / part * (whole - part) / (whole - 1))


def expected_coverage(cell: Mapping[str, Any]) -> float:
    """Probability that an exact 95 % interval from a part of the test rows holds the value of all of them.

    The rows are a part of those that settle the value, so it lies nearer than a population's would.
    """
    from scipy.stats import norm

    part, whole = cell["test"]["n"], cell["full"]["n"]
    if part >= whole:
        return 1.0
    nearer = math.sqrt((whole - part) / (whole - 1))
    return float(1 - 2 * norm.sf(_NORMAL / nearer))


def is_covered(cell: Mapping[str, Any]) -> bool:
    """Whether the reported interval holds the value on all test rows."""
    return bool(cell["test"]["low"] <= cell["full"]["value"] <= cell["test"]["high"])
