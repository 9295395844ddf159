"""How fast this machine is, measured once for each model and encoder and kept.

A budget in time becomes a plan in tokens through these numbers. They are kept so that the same call plans the same
on another day, once the machine was measured while nothing else ran: other work only slows, so that a number which is
clearly larger than the kept one takes its place, and one that is much smaller is of this run alone. An encoder's
speed depends on its texts, and is kept for those that it was measured on.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence

from promptsearch.embed.base import encode_checked
from promptsearch.embed.cache import CachedEncoder
from promptsearch.kept import keep, kept
from promptsearch.lm.base import Engine, GenerationParams
from promptsearch.row_limits import read_size

__all__ = ["encoder_speed", "model_speed"]

_FASTER = 1.15  # from this factor on the kept speed was that of a busy machine
_SLOWER = 0.5  # under this one it says nothing about now; the clock bounds a run in any case
_FEWEST_TEXTS = 64  # that an encoder's speed is measured on
_SECONDS_TO_WARM_UP = 10.0  # so long a time is not the kernels'
_FILE = "machine.json"
_WORDS = "the parcel came late and the box was open but everything inside worked well so thank you"


def model_speed(engine: Engine, *, generates: bool) -> float:
    """Tokens per second that the engine runs on a workload like a search's.

    Args:
        engine: an open engine.
        generates: whether answers are generated rather than scored.
    """
    name = f"{'generate' if generates else 'score'}: {engine.fingerprint}"
    measured, known = _measure(engine, generates), _known(name)
    if known is None or not _SLOWER < measured / known < _FASTER:
        measured = max(measured, _measure(engine, generates))
    if known is None or measured >= _FASTER * known:
        _keep(name, measured)
        return measured
    return known if measured > _SLOWER * known else measured


def encoder_speed(encoder: CachedEncoder, texts: Sequence[str]) -> float:
    """Bytes per second that an encoder reads of texts like some given ones.

    Those whose vectors are not kept yet are encoded, kept, and measured on. What was measured is kept for these
    texts, so that the same call finds the same, and as the usual speed for others of which too few can be measured.

    Args:
        encoder: it.
        texts: some that it has to encode anyway.
    """
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    usual, own = f"encode: {encoder.fingerprint}", f"encode: {encoder.fingerprint}: {digest}"
    missing = encoder.unknown(texts)
    known = _known(own) or (_known(usual) if len(missing) < _FEWEST_TEXTS else None)
    if known is None:
        encode_checked(encoder.encoder, [_WORDS])  # loads it
        if len(missing) < _FEWEST_TEXTS:
            invented = [f"{' '.join(_rotated(_WORDS.split(), place))} {place}" for place in range(_FEWEST_TEXTS)]
            known = _warm_speed(encoder, invented, lambda: encode_checked(encoder.encoder, invented))
        else:
            known = _warm_speed(encoder, missing, lambda: encoder.encode(missing))
            _keep(own, known)
        _keep(usual, known)
    encoder.encode(texts)
    return known


def _warm_speed(encoder: CachedEncoder, texts: Sequence[str], encode: Callable[[], object]) -> float:
    """Bytes per second of encoding some texts, once the encoder is ready for them.

    Kernels are made for each new shape of a batch, which can take ten times as long as the encoding itself; so texts
    that take a short time are encoded once more.
    """
    first = _timed(texts, encode)
    if sum(map(read_size, texts)) / first > _SECONDS_TO_WARM_UP:
        return first
    return max(first, _timed(texts, lambda: encode_checked(encoder.encoder, texts)))


def _timed(texts: Sequence[str], encode: Callable[[], object]) -> float:
    start = time.perf_counter()
    encode()
    return sum(map(read_size, texts)) / max(1e-6, time.perf_counter() - start)


def _measure(engine: Engine, generates: bool) -> float:
    prompts = _workload()
    before, start = engine.tokens_decoded, time.perf_counter()
    if generates:
        engine.generate(prompts[:16], GenerationParams(max_tokens=16))
    else:
        engine.score(prompts, [" good", " bad"])
    return max(1.0, (engine.tokens_decoded - before) / max(1e-6, time.perf_counter() - start))


def _workload() -> list[str]:
    """Prompts that share some 250 tokens and go on for some 30."""
    words = _WORDS.split()
    shown = "\n\n".join(f"Text: {' '.join(_rotated(words, place))}\nLabel: good" for place in range(11))
    queries = [f"\n\nText: {' '.join(_rotated(words, place))} {place}\nLabel:" for place in range(40)]
    return [shown + query for query in queries]


def _rotated(words: Sequence[str], by: int) -> list[str]:
    place = by % len(words)
    return [*words[place:], *words[:place]]


def _known(name: str) -> float | None:
    """A kept speed; None where there is none that could have been measured."""
    value = kept(_FILE).get(name)
    return float(value) if isinstance(value, (int, float)) and 0 < value < math.inf else None


def _keep(name: str, value: float) -> None:
    keep(_FILE, {**kept(_FILE), name: round(value, 3)})
