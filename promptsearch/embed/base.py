"""What an encoder is, how it is told from others, and what its answer must look like.

Invariant: a vector that leaves ``encode_checked``, ``token_vectors_checked`` or ``unit_vectors`` is finite
float32 of length 1 (or all zeros, where the encoder says nothing), and there is one for each text or token.
Left out: loading models (``transformer``) and keeping vectors (``cache``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import BackendError, PromptsearchError

__all__ = [
    "CHUNK",
    "Encoder",
    "FingerprintedEncoder",
    "TokenEncoder",
    "encode_checked",
    "encoder_name",
    "length_sorted_chunks",
    "token_encoder",
    "token_ids_checked",
    "token_vectors_checked",
    "unit_vectors",
    "well_formed",
]

CHUNK = 64
"""Texts that are encoded together; fixed, because the last bits of a vector depend on its batch."""

PROBE = "The quick brown fox jumps over 13 lazy dogs, doesn't it?"

_LENGTH_ROUNDING = 1e-7
_NAME_ATTRIBUTES = ("name", "model_name", "model_name_or_path", "model", "model_id")


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into vectors; a ``SentenceTransformer`` fits as it is."""

    def encode(self, texts: Sequence[str], /) -> Any:
        """Vectors of ``texts``: an array, or what numpy can make one of, of shape (len(texts), d)."""
        ...


@runtime_checkable
class FingerprintedEncoder(Encoder, Protocol):
    """An encoder that promises: equal ``fingerprint``, equal vectors (up to rounding)."""

    @property
    def fingerprint(self) -> str:
        """One line that no encoder with other vectors shares, the same in every process."""
        ...


@runtime_checkable
class TokenEncoder(Protocol):
    """What also tells the tokens of a text apart; no encoder has to.

    For every text both methods speak of the same t tokens, in the same order. A tokenizer's marks (of a
    text's beginning, its end, or padding) are not among them, so t may be 0.
    """

    def token_ids(self, texts: Sequence[str], /) -> Sequence[Any]:
        """For each text its tokens' places in the vocabulary, shape (t,); costs no run of the model."""
        ...

    def token_vectors(self, texts: Sequence[str], /) -> Sequence[Any]:
        """For each text its tokens' unit vectors, read in their context, shape (t, d)."""
        ...


def token_encoder(encoder: object) -> TokenEncoder | None:
    """What gives token vectors: ``encoder`` itself, the one inside it (its ``encoder``), or nothing."""
    inside = getattr(encoder, "encoder", None)
    return next((each for each in (encoder, inside) if isinstance(each, TokenEncoder)), None)


def encoder_name(encoder: Encoder) -> str:
    """A line that tells this encoder from others, the same in every process.

    An encoder that states a ``fingerprint`` is believed. Any other is named by its class, by what it calls
    its model, and by a digest of its vector for one fixed text, so that two models behind one class never
    share cached vectors. The digest reads two decimals: on other hardware the last bits differ.

    Raises:
        BackendError: the encoder fails on the fixed text.
    """
    if isinstance(encoder, FingerprintedEncoder) and isinstance(encoder.fingerprint, str):
        return encoder.fingerprint
    kind = f"{type(encoder).__module__}.{type(encoder).__qualname__}"
    parts = [kind, _own_name(encoder), probe_digest(encoder)]
    return ":".join(" ".join(part.split()) for part in parts if part)


def _own_name(encoder: Encoder) -> str:
    for attribute in _NAME_ATTRIBUTES:
        value = getattr(encoder, attribute, None)
        if isinstance(value, str) and value:
            return value
    return ""


def probe_digest(encoder: Encoder) -> str:
    """Digest (16 hexadecimal digits) of the encoder's vector for one fixed text."""
    vector = encode_checked(encoder, [PROBE])[0]
    # Adding zero turns -0.0 into 0.0: both round from the same neighbourhood.
    rounded = np.round(vector.astype(np.float64), 2) + 0.0
    text = ",".join(f"{value:.2f}" for value in rounded)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode_checked(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of ``texts``, shape (len(texts), d), float32, from an encoder that is not trusted.

    Raises:
        BackendError: the encoder fails, or answers with something that is no vector for each text.
    """
    try:
        answer = encoder.encode(list(texts))
    except PromptsearchError:
        raise
    except Exception as error:
        raise BackendError(
            f"encoder {type(encoder).__name__} failed on {len(texts)} texts: {_one_line(error)}"
        ) from error
    return unit_vectors(answer, count=len(texts))


def token_ids_checked(encoder: TokenEncoder, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Vocabulary places of each text's tokens, shape (t,), int64, from an encoder that is not trusted.

    Raises:
        BackendError: the encoder fails, or answers with something that is no row of integers for each text.
    """
    rows = [np.asarray(each) for each in _answers(encoder.token_ids, encoder, texts)]
    for row in rows:
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise BackendError(f"token_ids returned shape {row.shape} of {row.dtype}; it must be a row of integers")
    return [row.astype(np.int64) for row in rows]


def token_vectors_checked(encoder: TokenEncoder, texts: Sequence[str]) -> list[NDArray[np.float32]]:
    """Unit vectors of each text's tokens, shape (t, d), float32, from an encoder that is not trusted.

    Raises:
        BackendError: the encoder fails, or answers with something that is no vector for each token.
    """
    return [unit_vectors(each) for each in _answers(encoder.token_vectors, encoder, texts)]


def _answers(method: Callable[[Sequence[str]], Sequence[Any]], encoder: object, texts: Sequence[str]) -> list[Any]:
    try:
        answers = list(method(list(texts)))
    except PromptsearchError:
        raise
    except Exception as error:
        raise BackendError(
            f"encoder {type(encoder).__name__} failed on the tokens of {len(texts)} texts: {_one_line(error)}"
        ) from error
    if len(answers) != len(texts):
        raise BackendError(f"encoder returned tokens of {len(answers)} texts for {len(texts)}; it must answer each")
    return answers


def unit_vectors(array: Any, *, count: int | None = None) -> NDArray[np.float32]:
    """Rows scaled to length 1; a row of zeros stays as it is, and so does one that has length 1 already.

    Args:
        array: numbers of shape (n, d).
        count: the n that there must be; None to take any.

    Returns:
        A new array of shape (n, d), float32.

    Raises:
        BackendError: not two dimensions, not numbers, not finite, or another n.
    """
    rows = _real_rows(array)
    if count is not None and rows.shape[0] != count:
        raise BackendError(f"encoder returned {rows.shape[0]} vectors for {count} texts; it must return one each")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise BackendError(f"encoder returned NaN or infinity in vector {bad}; every component must be finite")
    # Scaled by the largest component first, so that no square overflows or vanishes.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = scaled / np.where(norms > 0, norms, 1.0)
    # Rounding to float32 moves a length by less than this: scaling such a row again would only stir its bits.
    already = np.abs(norms * largest - 1.0) <= _LENGTH_ROUNDING
    return np.where(already, rows, unit).astype(np.float32)


def _real_rows(array: Any) -> NDArray[np.float64]:
    try:
        rows = np.asarray(array)
    except Exception as error:
        raise BackendError(f"encoder returned no array of numbers: {_one_line(error)}") from error
    if rows.ndim != 2 or (rows.shape[0] and not rows.shape[1]):
        raise BackendError(f"encoder returned shape {rows.shape}; it must be (number of texts, dimension)")
    if rows.dtype.kind not in "fiu":
        raise BackendError(f"encoder returned {rows.dtype} values; they must be real numbers")
    return rows.astype(np.float64)


def well_formed(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD, so that it can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def length_sorted_chunks(texts: Sequence[str]) -> list[list[int]]:
    """Positions of ``texts`` from short to long, equal lengths in their order, in chunks of ``CHUNK``.

    Texts of similar length share a batch, so little is spent on padding; and dropping whole leading chunks
    from ``texts`` leaves the others as they were, which makes a stopped encoding go on bit for bit.
    """
    order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
    return [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
