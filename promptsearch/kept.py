"""Small facts about this machine, kept between runs: one JSON object a file, in the cache folder.

Invariant: a file that is damaged or gone counts as empty, so that what it held is found out again; a folder that
cannot be written to is done without.
Leaves out: what the facts mean, and whether one still holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from promptsearch.files import write_whole
from promptsearch.paths import cache_dir

__all__ = ["keep", "kept"]

_logger = logging.getLogger(__name__)


def kept(file: str) -> dict[str, Any]:
    """What a file holds, by name."""
    try:
        values = json.loads((cache_dir() / file).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def keep(file: str, values: Mapping[str, Any]) -> None:
    """Write all that a file is to hold, where that is possible."""
    try:
        write_whole(cache_dir() / file, json.dumps(values, indent=1))
    except OSError as error:
        _logger.warning("%s cannot be kept, so that it is found out again next time: %s", file, error)
