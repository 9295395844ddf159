"""The selectors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from promptsearch.errors import UserError
from promptsearch.select.base import Examples, Selector
from promptsearch.select.coverage import Coverage
from promptsearch.select.drawn import Balanced, Random
from promptsearch.select.lexical import BM25, Hybrid
from promptsearch.select.nearest import DPP, MMR, Nearest
from promptsearch.select.representative import KMeans, VoteK

__all__ = ["IGNORE_QUERIES", "SELECTORS", "selector"]

SELECTORS: Mapping[str, Callable[[Examples], Selector]] = MappingProxyType(
    {
        "random": Random,
        "balanced": Balanced,
        "nearest": Nearest,
        "mmr": MMR,
        "dpp": DPP,
        "vote-k": VoteK,
        "k-means": KMeans,
        "coverage": Coverage,
        "bm25": BM25,
        "hybrid": Hybrid,
    }
)
"""Making one is cheap: what costs is done when it is first asked, and kept."""

IGNORE_QUERIES = frozenset({"random", "balanced", "vote-k", "k-means"})
"""Those that choose the same for every query."""


def selector(name: str, examples: Examples) -> Selector:
    """The selector ``name``, made ready for ``examples``.

    Raises:
        UserError: no such name, or a selector that the examples lack something for.
    """
    if name not in SELECTORS:
        raise UserError(f"selector {name!r} is unknown; give one of {', '.join(SELECTORS)}")
    return SELECTORS[name](examples)
