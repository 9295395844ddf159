"""How fast this machine is, measured once for each model and encoder and kept.

A budget in time becomes a plan in tokens through these numbers. They are kept so that the same call plans the same
on another day. A model is measured in every run, if only shortly: other work only slows, so that a number which is
clearly larger than the kept one takes its place, and one that is much smaller is of this run alone. An encoder's
speed depends on its texts, and is kept for those that it was measured on, which no later run encodes again.

Invariant: measuring takes seconds, also where the model is slow, and asks for nothing that a cache could know.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Sequence

from promptsearch.embed.base import encode_checked, length_sorted_chunks
from promptsearch.embed.cache import CachedEncoder
from promptsearch.kept import keep, kept
from promptsearch.lm.base import Engine, GenerationParams
from promptsearch.row_limits import read_size

__all__ = ["encoder_speed", "model_speed"]

_FASTER = 1.15  # from this factor on the kept speed was that of a busy machine
_SLOWER = 0.5  # under this one it says nothing about now; the clock bounds a run in any case
_FEWEST_TEXTS = 64  # that an encoder's speed is measured on
_INVENTED_TEXTS = 128  # where it has not so many to encode
_LONG = 3.0  # seconds; what takes longer is measured once, and on less
_MANY, _FEW = (11, 40), (2, 4)  # demonstrations and queries of a workload
_FILE = "machine.json"
_WORDS = "the parcel came late and the box was open but everything inside worked well so thank you"


def model_speed(engine: Engine, *, generates: bool) -> float:
    """Tokens per second that the engine runs on a workload like a search's.

    Args:
        engine: an open engine.
        generates: whether answers are generated rather than scored.
    """
    name = f"{'generate' if generates else 'score'}: {engine.fingerprint}"
    begun = time.perf_counter()
    measured, known = _measure(engine, generates), _known(name)
    unexpected = known is None or not _SLOWER < measured / known < _FASTER
    if unexpected and time.perf_counter() - begun < 2 * _LONG:
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
    known = _known(own)
    if known is None and len(missing) < _FEWEST_TEXTS:
        known = _known(usual)
    if known is None:
        encode_checked(encoder.encoder, [_WORDS])  # loads it
        if len(missing) < _FEWEST_TEXTS:
            invented = [f"{' '.join(_rotated(_WORDS.split(), place))} {place}" for place in range(_INVENTED_TEXTS)]
            known = _steady_speed(invented, lambda chunk: encode_checked(encoder.encoder, chunk))
        else:
            known = _steady_speed(missing, encoder.encode)
        _keep(usual, known)
    if _known(own) is None:
        _keep(own, known)
    encoder.encode(texts)
    return known


def _steady_speed(texts: Sequence[str], encode: Callable[[Sequence[str]], object]) -> float:
    """Bytes per second of encoding texts in the usual chunks, but for the slowest one.

    The first batches of a process make threads, memory and kernels ready, which can take ten times as long as the
    encoding itself.
    """
    parts = []
    for chunk in length_sorted_chunks(texts):
        some = [texts[position] for position in chunk]
        start = time.perf_counter()
        encode(some)
        parts.append((sum(map(read_size, some)), max(1e-6, time.perf_counter() - start)))
    parts.sort(key=lambda part: part[0] / part[1])
    steady = parts[1:] or parts
    return sum(size for size, _ in steady) / sum(seconds for _, seconds in steady)


def _measure(engine: Engine, generates: bool) -> float:
    """Tokens per second; on a small workload alone where that takes long."""
    speed, seconds = _run(engine, generates, *_FEW)
    return speed if seconds > _LONG else _run(engine, generates, *_MANY)[0]


def _run(engine: Engine, generates: bool, shots: int, queries: int) -> tuple[float, float]:
    """Tokens per second of a workload, and seconds."""
    prompts = _workload(shots, queries)
    before, start = engine.tokens_decoded, time.perf_counter()
    if generates:
        # the likeliest texts would repeat the workload, and what repeats is written faster where few requests run
        engine.generate(prompts[:16], GenerationParams(max_tokens=16, temperature=1.0))
    else:
        engine.score(prompts, [" good", " bad"])
    seconds = max(1e-6, time.perf_counter() - start)
    return max(1.0, (engine.tokens_decoded - before) / seconds), seconds


def _workload(shots: int, queries: int) -> list[str]:
    """Prompts that share some 23 tokens for each shot and go on for some 30; no two calls make the same.

    A ``dspy.LM`` and some servers answer from a cache what they were asked before.
    """
    words = _WORDS.split()
    shown = "\n\n".join(f"Text: {' '.join(_rotated(words, place))}\nLabel: good" for place in range(shots))
    asked = [f"\n\nText: {' '.join(_rotated(words, place))} {place}\nLabel:" for place in range(queries)]
    number = secrets.token_hex(4)
    return [f"{number}\n\n{shown}{query}" for query in asked]


def _rotated(words: Sequence[str], by: int) -> list[str]:
    place = by % len(words)
    return [*words[place:], *words[:place]]


def _known(name: str) -> float | None:
    """A kept speed; None where there is none that could have been measured."""
    value = kept(_FILE).get(name)
    return float(value) if isinstance(value, (int, float)) and 0 < value < math.inf else None


def _keep(name: str, value: float) -> None:
    keep(_FILE, {**kept(_FILE), name: round(value, 3)})
