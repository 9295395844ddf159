"""Small facts about this machine, kept between runs: one JSON object a file, in the cache folder.

Invariant: a file that is damaged or gone counts as empty, so that what it held is found out again.
Leaves out: what the facts mean, and whether one still holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from promptsearch.files import write_whole
from promptsearch.paths import cache_dir

__all__ = ["keep", "kept"]


def kept(file: str) -> dict[str, Any]:
    """What a file holds, by name."""
    try:
        values = json.loads((cache_dir() / file).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def keep(file: str, values: Mapping[str, Any]) -> None:
    """Write all that a file is to hold."""
    write_whole(cache_dir() / file, json.dumps(values, indent=1))
