"""The strategies by name."""

from __future__ import annotations

from promptsearch.search.base import Strategy
from promptsearch.search.greedy import greedy
from promptsearch.search.halving import halving
from promptsearch.search.random_search import random_search
from promptsearch.search.tpe import tpe

__all__ = ["STRATEGIES"]

STRATEGIES: dict[str, Strategy] = {
    "auto": halving,
    "halving": halving,
    "greedy": greedy,
    "tpe": tpe,
    "random": random_search,
}
