"""A linear classifier on the characters of texts: their n-grams, weighted by how rare they are.

It knows rare words, names and spellings, which an encoder blurs, works in every script, and costs no model.
Invariant: n-grams are counted in hashed buckets, so that a saved classifier holds no text of its examples; its answer
to a query does not depend on which others are asked with it.
Leaves out: what its answer counts beside others (:mod:`promptsearch.prior.combined`).
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.data.text import encodable
from promptsearch.folds import spread_rows
from promptsearch.linear import LinearClassifier, Vectors, fit_linear
from promptsearch.lm.base import FloatArray

__all__ = ["NgramClassifier", "NgramFeatures", "NgramFit", "fit_ngram_classifier"]

_LONGEST = 5  # characters of an n-gram
_MOST_OF_AN_END = 500  # characters of a text's beginning, and of its end
_MOST_CHARACTERS = 3_000_000  # of the texts that a classifier is fitted on: a few seconds of counting
_MOST_LABELS = 256
_FEWEST_BUCKETS, _MOST_BUCKETS = 2**12, 2**15
_WEIGHTS = 2**18  # with many labels there are fewer buckets, since each label has a weight for every one
_MOST_SAVED = 2**20  # buckets of a saved classifier
_LARGEST_FREQUENCY = 64.0  # natural logarithms of counts stay far below it
_TOGETHER = 1_000  # texts whose n-grams are counted at a time, which bounds memory


@dataclass(frozen=True, eq=False)
class NgramFeatures:
    """Texts as sparse vectors: TF-IDF of hashed n-grams of one to five characters.

    A bucket with count ``c`` of a text has the value ``(1 + ln c) * inverse``, and vectors are of length 1. Case,
    width (NFKC) and the length of white space do not count, and of a text above 1,000 characters the first and the
    last 500 are read.

    Attributes:
        inverses: inverse document frequency of each bucket, ``1 + ln((1 + texts) / (1 + texts with it))``, shape
            (buckets,), float32 values that float16 holds.
    """

    inverses: NDArray[np.float32]

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """A CSR matrix of shape (texts, buckets), float32; the row of an empty text is zero."""
        return self._weighted(_counts(texts, len(self.inverses)))

    def _weighted(self, counts: Vectors) -> Vectors:
        from sklearn.preprocessing import normalize

        weighted = counts.astype(np.float64)  # whose logarithms are the same on every machine
        weighted.data = (1.0 + np.log(weighted.data)) * self.inverses[weighted.indices]
        return normalize(weighted, copy=False).astype(np.float32)

    @classmethod
    def fit(cls, texts: Sequence[str], buckets: int) -> tuple[NgramFeatures, Vectors]:
        """Features whose document frequencies are those of the texts, and the texts' vectors.

        Args:
            texts: at least one.
            buckets: how many there are.
        """
        counts = _counts(texts, buckets)
        known = np.bincount(counts.indices, minlength=buckets)
        inverses = 1.0 + np.log((1.0 + len(texts)) / (1.0 + known))
        features = cls(inverses.astype(np.float16).astype(np.float32))  # as they are saved
        return features, features._weighted(counts)


@dataclass(frozen=True, eq=False)
class NgramClassifier:
    """A linear classifier on n-grams of characters.

    Attributes:
        features: how texts become vectors.
        linear: the classifier of these vectors; its weights are values that float16 holds.
    """

    features: NgramFeatures
    linear: LinearClassifier

    def log_probabilities(self, texts: Sequence[str], label_count: int) -> FloatArray:
        """Log-probability of each label, shape (texts, labels)."""
        said = [np.zeros((0, label_count))]
        for start in range(0, len(texts), _TOGETHER):
            vectors = self.features.vectors(texts[start : start + _TOGETHER])
            said.append(self.linear.log_probabilities(vectors, label_count))
        return np.concatenate(said)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; inverse document frequencies are the base64 text of little-endian float16 numbers."""
        inverses = base64.b64encode(self.features.inverses.astype("<f2").tobytes()).decode("ascii")
        return {"inverses": inverses, "linear": self.linear.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_count: int) -> NgramClassifier:
        """The reverse of :meth:`to_dict`.

        Args:
            values: plain values.
            label_count: number of labels of the task.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        inverses = np.frombuffer(base64.b64decode(values["inverses"], validate=True), dtype="<f2").astype(np.float32)
        linear = LinearClassifier.from_dict(values["linear"], label_count)
        if not 1 <= len(inverses) <= _MOST_SAVED or not ((inverses >= 0) & (inverses <= _LARGEST_FREQUENCY)).all():
            raise ValueError("no such document frequencies")
        if linear.weights.shape[1] != len(inverses):
            raise ValueError("a classifier of n-grams has a weight for each bucket")
        return cls(NgramFeatures(inverses), linear)


@dataclass(frozen=True)
class NgramFit:
    """A classifier, and what its like says about texts that it was not fitted on.

    Attributes:
        classifier: fitted on all ``rows``.
        rows: places of the texts used, ascending; all, but for a subsample of many.
        held_out: log-probabilities of labels of each, from a classifier that was fitted without its fold, shape
            (rows used, labels).
    """

    classifier: NgramClassifier
    rows: NDArray[np.intp]
    held_out: FloatArray


def fit_ngram_classifier(
    texts: Sequence[str], golds: Sequence[int] | NDArray[np.int64], label_count: int
) -> NgramFit | None:
    """Fit a classifier on labelled texts.

    Document frequencies are counted over all texts that it is fitted on, held-out ones among them: they know of no
    label.

    Args:
        texts: of the labelled rows.
        golds: their label indices, as many.
        label_count: number of labels.

    Returns:
        None where all texts are blank, labels are too many, or there are too few rows, as of
        :func:`promptsearch.linear.fit_linear`.
    """
    right = np.asarray(golds, dtype=np.int64)
    characters = sum(min(len(text), 2 * _MOST_OF_AN_END) for text in texts)
    if label_count > _MOST_LABELS or not characters:
        return None
    rows = spread_rows(right, max(1, _MOST_CHARACTERS * len(texts) // characters))
    features, vectors = NgramFeatures.fit([texts[row] for row in rows], _bucket_count(label_count))
    used = np.unique(vectors.indices)  # what a bucket without n-grams weighs is 0, and takes the solver time
    found = fit_linear(vectors[:, used], right[rows], label_count) if len(used) else None
    if found is None:
        return None
    weights = np.zeros((len(found.classifier.weights), vectors.shape[1]), dtype=np.float32)
    weights[:, used] = found.classifier.weights.astype(np.float16)
    classifier = NgramClassifier(features, replace(found.classifier, weights=weights))
    return NgramFit(classifier, rows[found.rows], found.held_out)


def _bucket_count(label_count: int) -> int:
    """A power of two."""
    return min(_MOST_BUCKETS, max(_FEWEST_BUCKETS, 1 << (_WEIGHTS // label_count).bit_length() - 1))


def _counts(texts: Sequence[str], buckets: int) -> Vectors:
    """How often each text has n-grams of each bucket: a CSR matrix of shape (texts, buckets), float32."""
    from scipy.sparse import csr_matrix, vstack
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        analyzer="char",
        ngram_range=(1, _LONGEST),
        n_features=buckets,
        lowercase=False,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    parts = [csr_matrix((0, buckets), dtype=np.float32)]
    for start in range(0, len(texts), _TOGETHER):
        parts.append(hashing.transform([_characters(text) for text in texts[start : start + _TOGETHER]]))
    return vstack(parts, format="csr")


def _characters(text: str) -> str:
    """What is read of a text."""
    if len(text) > 2 * _MOST_OF_AN_END:
        text = f"{text[:_MOST_OF_AN_END]} {text[-_MOST_OF_AN_END:]}"
    return " ".join(unicodedata.normalize("NFKC", encodable(text)).lower().split())
