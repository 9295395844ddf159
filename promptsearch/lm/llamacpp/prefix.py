"""Keeps what the model computed for the beginnings of prompts, so that it is restored instead of decoded again.

Invariant: a kept state is what decoding those tokens alone, from an empty memory, gives; so a call that restores it
returns the same numbers, bit by bit, as one that decodes. A file belongs to one model and one set of tokens, and is
read only where both match.
Leaves out: which tokens are worth keeping.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from cachetools import LRUCache

from promptsearch.errors import ArtifactError
from promptsearch.files import write_whole

__all__ = ["KeepsPrefixStates", "PrefixState", "PrefixStates", "read_prefix_state", "write_prefix_state"]

Tokens = tuple[int, ...]
_MAGIC = b"promptsearch prefix state 1\n"


@dataclass(frozen=True)
class PrefixState:
    """What a model computed for the beginning of a prompt.

    Attributes:
        identity: what the content depends on: model, weights, binding, and what computed it.
        tokens: the tokens, from the first one on.
        data: the memory's content, as llama.cpp writes it.
    """

    identity: str
    tokens: Tokens
    data: bytes


@runtime_checkable
class KeepsPrefixStates(Protocol):
    """An engine that can hand out what it computed for a prompt's beginning, and take it in."""

    def prefix_state(self, prompt: str) -> PrefixState | None:
        """What the model keeps of a prompt's beginning; None where that is not worth keeping."""
        ...

    def keep_prefix_state(self, state: PrefixState, prompt: str) -> None:
        """Take in what another process computed; an ``ArtifactError`` where it belongs to another model or prompt."""
        ...


class PrefixStates:
    """The states used latest, within a number of bytes.

    Args:
        limit: bytes that they may take together.
    """

    def __init__(self, limit: int) -> None:
        self._kept: LRUCache[Tokens, bytes] = LRUCache(maxsize=limit, getsizeof=len)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that the states take."""
        return int(self._kept.currsize)

    def find(self, tokens: Tokens) -> bytes | None:
        """The state of exactly these tokens."""
        return self._kept.get(tokens)

    def keep(self, tokens: Tokens, data: bytes) -> None:
        """Keep a state, unless it alone exceeds the limit."""
        if len(data) <= self._kept.maxsize:
            self._kept[tokens] = data

    def clear(self) -> None:
        """Forget all states."""
        self._kept.clear()


def write_prefix_state(path: Path, state: PrefixState) -> None:
    """Write a state as one file: a line of JSON that describes it, then its bytes.

    Raises:
        OSError: the file cannot be written.
    """
    header = {
        "identity": state.identity,
        "tokens": list(state.tokens),
        "bytes": len(state.data),
        "sha256": hashlib.sha256(state.data).hexdigest(),
    }
    write_whole(path, _MAGIC + json.dumps(header).encode() + b"\n" + state.data)


def read_prefix_state(path: Path) -> PrefixState:
    """Read what :func:`write_prefix_state` wrote.

    llama.cpp trusts some of what it reads, so everything that says where the content goes is compared with what it
    must be: one stream, and the cells of one sequence in the order of their positions.

    Raises:
        ArtifactError: the file is missing, damaged, or none of ours.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # a name may hold what no file's name can
        raise ArtifactError(
            f"the prefix state {str(path)!r} cannot be read ({error}); save the prompt anew"
        ) from error
    head, _, rest = content.partition(b"\n")
    line, _, data = rest.partition(b"\n")
    try:
        header = json.loads(line) if head + b"\n" == _MAGIC else {}
        state = PrefixState(str(header["identity"]), tuple(map(_token, header["tokens"])), data)
        whole = header["bytes"] == len(data) and header["sha256"] == hashlib.sha256(data).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{str(path)!r} is no prefix state; save the prompt anew") from error
    if not whole or not _cells_are_plain(state):
        raise ArtifactError(f"the prefix state {str(path)!r} is damaged; save the prompt anew")
    return state


def _token(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no token")
    return value


def _cells_are_plain(state: PrefixState) -> bool:
    """Whether the content begins with the cells that decoding its tokens alone would make."""
    count = len(state.tokens)
    if count == 0:
        return False
    numbers = 4 + 3 * count  # a mark, the sequence, streams, cells; for each cell position, sequences, sequence
    if len(state.data) < 4 * numbers:
        return False
    begin = np.frombuffer(state.data, dtype="<i4", count=numbers)
    cells = np.stack([np.arange(count), np.ones(count), np.zeros(count)], axis=1)
    return bool((begin[1:4] == (0, 1, count)).all() and (begin[4:].reshape(count, 3) == cells).all())
