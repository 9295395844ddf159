"""Lets the model itself choose among a query's best matches, before it is asked for the answer.

``"cone"`` keeps the examples that, shown alone, make the query's own text likeliest (conditional entropy: Peng et al.
2024, arXiv 2401.12087). ``"mdl"`` keeps, of some ordered sets, the one under which the answer is least uncertain
(self-adaptive in-context learning by minimum description length: Wu et al. 2023, arXiv 2212.10375, section 3).
Invariant: what is chosen depends on the candidate, the item and its matches, never on other items.
Leaves out: the price, which :meth:`promptsearch.search.space.SearchSpace.query_tokens` knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from promptsearch.candidate import CONSIDERED, MDL_SETS, Candidate
from promptsearch.lm.base import Engine, FloatArray, Rendered
from promptsearch.prompting import PromptBuilder

__all__ = ["Reranker", "entropies"]


class Reranker:
    """Chooses with one model.

    Args:
        engine: the model.
        builder: makes its prompts.
    """

    def __init__(self, engine: Engine, builder: PromptBuilder) -> None:
        self._engine = engine
        self._builder = builder

    def rerank(
        self,
        reading: Candidate,
        inputs: Sequence[Mapping[str, str]],
        matches: Sequence[Sequence[int]],
        labels: Sequence[str] | None,
    ) -> list[tuple[int, ...]]:
        """For each item ``reading.count`` of its matches, the best one first.

        Args:
            reading: a retrieving candidate with a reranker.
            inputs: the items' texts by column.
            matches: ids for each item, the best match first; the first 30 are considered.
            labels: words of the labels; needed for "mdl".
        """
        considered = [tuple(match[:CONSIDERED]) for match in matches]
        if reading.reranker == "cone":
            pairs = zip(inputs, considered, strict=True)
            return [self._by_conditional_entropy(reading, item, match) for item, match in pairs]
        return self._by_description_length(reading, inputs, considered, labels or ())

    # -- ConE -----------------------------------------------------------------------------------------------

    def _by_conditional_entropy(
        self, reading: Candidate, item: Mapping[str, str], match: Sequence[int]
    ) -> tuple[int, ...]:
        single = replace(reading, mode="static", count=0)
        prompts = [self._builder.render(single, (number,), item) for number in match]
        usable = [place for place, prompt in enumerate(prompts) if self._builder.fits(prompt, single)]
        if not usable:
            return tuple(match[: reading.count])
        query = _query_text(prompts[usable[0]], item)  # the same after every example
        beginnings = [Rendered(prompts[place].shared_segments, prompts[place].shared) for place in usable]
        likelihood = self._engine.score(beginnings, [query])[:, 0]
        best_first = sorted(range(len(usable)), key=lambda at: (-float(likelihood[at]), usable[at]))
        return tuple(match[usable[at]] for at in best_first[: reading.count])

    # -- minimum description length -------------------------------------------------------------------------

    def _by_description_length(
        self,
        reading: Candidate,
        inputs: Sequence[Mapping[str, str]],
        matches: Sequence[Sequence[int]],
        labels: Sequence[str],
    ) -> list[tuple[int, ...]]:
        plain = replace(reading, reranker="none")
        sets = [_ordered_sets(reading, item, match) for item, match in zip(inputs, matches, strict=True)]
        built = [
            self._builder.build(plain, item, chosen)
            for item, options in zip(inputs, sets, strict=True)
            for chosen in options
        ]
        asked = [place for place, each in enumerate(built) if each.prompt is not None]
        uncertainty = np.full(len(built), np.inf)
        if asked:
            prompts = [prompt for each in built if (prompt := each.prompt) is not None]
            scores = self._engine.score(prompts, self._builder.continuations(reading, labels))
            uncertainty[asked] = entropies(scores)
        chosen_sets = []
        start = 0
        for options in sets:
            chosen_sets.append(options[int(uncertainty[start : start + len(options)].argmin())])
            start += len(options)
        return chosen_sets


def entropies(log_probabilities: FloatArray) -> FloatArray:
    """Entropy in nats of each row's distribution over the labels, shape (prompts,).

    A row that gives no label any probability (all -inf) has no distribution; it is the least certain: inf.
    """
    from scipy.special import log_softmax
    from scipy.stats import entropy

    found = np.full(len(log_probabilities), np.inf)
    possible = ~np.isneginf(log_probabilities).all(axis=1)
    found[possible] = entropy(np.exp(log_softmax(log_probabilities[possible], axis=1)), axis=1)
    return found


def _ordered_sets(reading: Candidate, item: Mapping[str, str], match: Sequence[int]) -> list[tuple[int, ...]]:
    """The best matches as they come, and random ordered sets of the same size that the item's text determines."""
    count = min(reading.count, len(match))
    text = "|".join([reading.reading.key, *(f"{column}={value}" for column, value in sorted(item.items()))])
    seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    drawn = [tuple(match[at] for at in rng.permutation(len(match))[:count]) for _ in range(MDL_SETS - 1)]
    return [tuple(match[:count]), *drawn]


def _query_text(prompt: Rendered, item: Mapping[str, str]) -> str:
    """What follows an example up to the end of the item's own texts; the answer's cue is the same for all."""
    rest = str(prompt)[prompt.shared :]
    last = [text for text in item.values() if text.strip()][-1:]
    end = rest.rfind(last[0]) if last else -1
    return rest if end < 0 else rest[: end + len(last[0])]
