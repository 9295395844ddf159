"""Everything that a search works with, opened, checked and laid out before any long work.

Invariant: what a user can get wrong is refused here or earlier; after this, the test rows' labels are read by the
final measurement only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import Candidate
from promptsearch.data.splits import Splits, remove_near_duplicates, without_near_texts
from promptsearch.embed.base import Encoder, token_encoder
from promptsearch.embed.cache import CachedEncoder
from promptsearch.errors import ContextError, DataError, UserError
from promptsearch.lm.base import Engine, FloatArray, WritesOn
from promptsearch.matching import ItemMatcher, Matching
from promptsearch.metrics import Metric
from promptsearch.pool import Pool
from promptsearch.prior import Labelled, LabelPrior, NeighbourLabels, fit_label_prior
from promptsearch.prompting import PromptBuilder, answer_room
from promptsearch.reasoning import one_line, sentences
from promptsearch.routing import Router, fit_router
from promptsearch.scoring import Judge
from promptsearch.search.attention import LinearAttention
from promptsearch.search.drawing import retrieved_counts, routed_counts, usable_clusters
from promptsearch.search.space import Chooser, Clusters, Lengths, Rationales, SearchSpace, Space, long_query
from promptsearch.select.registry import selector
from promptsearch.task import Example, Task
from promptsearch.template import CHAT_TEMPLATES, OPTION_TEMPLATES, PLAIN_TEMPLATES, TEMPLATES, Demonstration

__all__ = [
    "Neighbourhood",
    "check_instructions",
    "check_space",
    "count_rationales",
    "demonstrations_of",
    "embed_splits",
    "fitting_rows",
    "make_space",
    "nearest_labels",
    "require_candidates",
    "usable_instructions",
    "with_prior",
]

_NEIGHBOURS = 32
_FORM_TOKENS = 64  # of a prompt beside its instruction and the item, at most
_LISTED_LABELS = 20
_NAMING_WORDS = 3
_SAMPLED_ANSWERS = 200
_SET_CHOOSERS = ("dpp", "k-means", "mmr", "vote-k")
_CHOSEN_AMONG = 128  # pool rows that a strategy chooses a set among


@dataclass(frozen=True)
class Neighbourhood:
    """Who is near whom.

    Attributes:
        splits: the splits without near duplicates.
        pool: index of the demonstration pool.
        encoder: what made the vectors.
        matcher: what each item is shown.
        prior: what pool rows say about labels; None for free text, and until :func:`with_prior` fits it.
        priors: log-probabilities of labels by the prior, by item; empty where there is none.
        votes: the same by the neighbours' vote alone.
        indistinct: share of the texts whose vector is that of another text.
    """

    splits: Splits
    pool: Pool
    encoder: CachedEncoder
    matcher: ItemMatcher
    prior: LabelPrior | None = None
    priors: Mapping[int, FloatArray] = field(default_factory=dict)
    votes: Mapping[int, FloatArray] = field(default_factory=dict)
    indistinct: float = 0.0

    def router(self, candidate: Candidate) -> Router | None:
        """What sends queries to the routes of a candidate; None where it has none."""
        return self.matcher.matching.routers[len(candidate.routes)] if candidate.mode == "routed" else None

    def judge(self, task: Task, metric: Metric, *, prior: bool, tokens: Sequence[int] = ()) -> Judge:
        """A judge for the task's items, with or without the prior.

        Args:
            task: the task.
            metric: what a prediction is worth.
            prior: whether the prior counts.
            tokens: next tokens that answers tell the log-probabilities of.
        """
        priors = self.priors if prior else {}
        return Judge(task.examples, task.labels, metric, priors, tokens, self.splits.searched)


def embed_splits(
    task: Task,
    splits: Splits,
    encoder: Encoder,
    progress: Callable[[int, int], None],
    clusters: Sequence[int] = (),
    seed: int = 0,
) -> Neighbourhood:
    """Embed all rows of the splits, remove near duplicates, and find neighbours, without a prior.

    Args:
        task: the task.
        splits: its splits, without exact duplicates.
        encoder: what makes vectors.
        progress: told (texts done, texts in all).
        clusters: numbers of clusters that queries may be routed by; those that the pool does not fall into are left
            out.
        seed: of the clustering.
    """
    cached = encoder if isinstance(encoder, CachedEncoder) else CachedEncoder(encoder)
    ids = [*splits.pool, *splits.search, *splits.confirm, *splits.test]
    found = cached.encode([task.examples[number].text for number in ids], progress)
    vectors = np.zeros((len(task.examples), found.shape[1]), dtype=np.float32)
    vectors[ids] = found
    outputs = None if task.labels is not None else [example.output for example in task.examples]
    texts = [example.text for example in task.examples]
    kept = without_near_texts(remove_near_duplicates(splits, vectors, outputs=outputs, texts=texts), texts)
    pool_ids = sorted(kept.pool)
    pool = Pool(pool_ids, vectors[pool_ids], encoder=cached.fingerprint)
    index = {word: number for number, word in enumerate(task.labels or ())}
    pool_labels = {number: index.get(task.examples[number].output, 0) for number in pool_ids}
    routers = {count: fit_router(pool.vectors, count, seed) for count in clusters}
    matching = Matching(
        pool,
        {number: texts[number] for number in pool_ids},
        pool_labels,
        cached,
        {count: router for count, router in routers.items() if router is not None},
    )
    matcher = ItemMatcher(matching, vectors, texts)
    return Neighbourhood(kept, pool, cached, matcher, indistinct=_indistinct(found))


def _indistinct(vectors: NDArray[np.float32]) -> float:
    """Share of vectors that stand there more than once, but for rounding."""
    _, counts = np.unique(vectors.round(3), axis=0, return_counts=True)
    return float(counts[counts > 1].sum() / len(vectors))


def with_prior(task: Task, near: Neighbourhood) -> Neighbourhood:
    """The same with what pool rows say about the labels of all others; unchanged for free text."""
    if task.labels is None:
        return near
    index = {word: number for number, word in enumerate(task.labels)}
    pool, count = near.pool, len(task.labels)
    pool_ids, items = pool.ids.tolist(), [*near.splits.search, *near.splits.confirm, *near.splits.test]
    label_of = np.zeros(len(task.examples), dtype=np.int64)
    further = list(near.splits.further)
    for number in (*pool_ids, *further):
        label_of[number] = index[task.examples[number].output]
    judged_by_others = nearest_labels(pool, label_of, pool.vectors, exclude=pool_ids)
    prior = fit_label_prior(
        [task.examples[number].text for number in pool_ids],
        pool.vectors,
        label_of[pool_ids],
        judged_by_others,
        count,
        Labelled([task.examples[number].text for number in further], label_of[further]),
    )
    asked = near.matcher.queries(items)
    nearest = nearest_labels(pool, label_of, asked.vectors)
    priors = prior.log_probabilities(asked.texts, asked.vectors, nearest, count)
    votes = prior.vote.log_probabilities(nearest, count)
    return replace(
        near,
        prior=prior,
        priors=dict(zip(items, priors, strict=True)),
        votes=dict(zip(items, votes, strict=True)),
    )


def nearest_labels(
    pool: Pool, label_of: NDArray[np.int64], vectors: NDArray[np.float32], exclude: Sequence[int] | None = None
) -> NeighbourLabels:
    """Those that vote on items: their nearest pool rows.

    Args:
        pool: the pool.
        label_of: label index of each example of the task.
        vectors: of the items, shape (items, dimension).
        exclude: for each item a pool row that has no vote on it; None for no such rows.
    """
    found = pool.nearest(vectors, _NEIGHBOURS, exclude=exclude)
    return NeighbourLabels(found.similarities.astype(np.float64), label_of[found.ids])


def check_space(space: Space, task: Task, encoder: object) -> None:
    """Refuse ways to retrieve that this task or encoder cannot serve.

    Args:
        space: what may vary.
        task: the task.
        encoder: what will make the vectors.

    Raises:
        UserError: naming what cannot be served.
    """
    if set(space.reasoning) == {"gold"} and task.rationale is None:
        raise UserError(
            "reasoning 'gold' shows written reasoning and the task names no column of it; give rationale= to the task"
        )
    if "retrieved" not in space.modes:
        return
    if "mdl" in space.rerankers and task.labels is None:
        raise UserError("reranker 'mdl' compares labels and this task is free text; leave it out of rerankers")
    if "coverage" in space.retrievers and token_encoder(encoder) is None:
        raise UserError(
            "retriever 'coverage' compares token vectors and this encoder has none; take the default encoder, or "
            "leave it out of retrievers"
        )


def usable_instructions(task: Task, *, vary: bool) -> tuple[str, ...]:
    """Instructions to search among, the one that a zero-shot prompt uses first."""
    given = list(task.instructions)
    if task.labels is not None and len(task.labels) <= _LISTED_LABELS:
        listed = f"Answer with one of: {', '.join(task.labels)}."
        given.append(f"{task.instructions[0]} {listed}" if task.instructions else listed)
    if not given or vary:
        given.append("")
    return tuple(dict.fromkeys(given if vary else given[: max(1, len(task.instructions))]))


def usable_names(task: Task, space: Space) -> tuple[tuple[str, str], ...]:
    """Names for input and output: the columns' own, and pairs of the instruction's words."""
    if space.names is not None:
        return (("", ""), *space.names)
    return naming_pairs(task.instructions[0] if task.instructions else "")


def naming_pairs(instruction: str) -> tuple[tuple[str, str], ...]:
    """Pairs of an instruction's words that could name input and output, after a pair that leaves them as they are.

    Columns are often called "text" and "label", while "Classify the sentiment of the review" holds the words that a
    model knows: "Review: ... Sentiment: ...". Which word names what, the search finds out.
    """
    words = _content_words(instruction)[:_NAMING_WORDS]
    pairs = [(left, right) for left in words for right in words if left != right]
    alone = [("", word) for word in words]
    return tuple(dict.fromkeys([("", ""), *pairs, *alone]))


def _content_words(text: str) -> list[str]:
    """Words of a sentence that can name things, in order; its first word is what to do."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = re.findall(r"[^\W\d_]{3,}", text)[1:]
    kept = [word for word in words if word.lower() not in ENGLISH_STOP_WORDS]
    return list(dict.fromkeys(word[:1].upper() + word[1:] for word in kept))


def demonstrations_of(examples: Sequence[Example], ids: Sequence[int]) -> dict[int, Demonstration]:
    """Pool examples as they are shown."""
    return {
        number: Demonstration(
            examples[number].fields, examples[number].output, one_line(examples[number].rationale or "")
        )
        for number in ids
    }


def make_space(
    task: Task,
    splits: Splits,
    space: Space,
    engine: Engine,
    builder: PromptBuilder,
    room: int,
    matcher: ItemMatcher | None = None,
) -> SearchSpace:
    """The search space with this model's token counts.

    Args:
        task: the task.
        splits: its splits.
        space: what may vary.
        engine: the model.
        builder: makes its prompts.
        room: tokens to keep free for an answer.
        matcher: the pool's clusters and selection strategies, once there are vectors.

    Raises:
        UserError: the space holds no candidate over this pool.
    """
    templates = space.templates or tuple(template.name for template in PLAIN_TEMPLATES)
    if space.templates is None and builder.renderer.chat is not None and builder.renderer.chat.usable:
        templates += tuple(template.name for template in CHAT_TEMPLATES)
    if space.templates is None and builder.multiple_choice is not None:
        templates += tuple(template.name for template in OPTION_TEMPLATES)
    _check_templates(templates, builder)
    names = usable_names(task, space)
    forms = {
        name: {pair: TEMPLATES[name].form(pair, task.inputs, task.output) for pair in names} for name in templates
    }
    if space.templates is None:  # the columns' own names may make two templates one
        first: dict[tuple[str, ...], str] = {}
        for name in templates:
            first.setdefault(forms[name][names[0]], name)
        templates = tuple(first.values())
    templates = _ending_templates(templates, task, builder)
    instructions = usable_instructions(task, vary=space.instructions)
    labels = {word: number for number, word in enumerate(task.labels or ())}
    queries = [*splits.search, *splits.confirm, *splits.test]
    most = engine.context_tokens - room
    tokens = engine.count_tokens([_bare(task.examples[number], builder) for number in queries])
    tokens = [count for count in tokens if count <= most] or tokens  # others are never asked
    shown = engine.count_tokens([_shown(task.examples[number], builder) for number in splits.pool])
    counted = engine.count_tokens([text or " " for text in instructions])
    lengths = Lengths(
        instructions=dict(zip(instructions, counted, strict=True)),
        demonstrations=dict(zip(splits.pool, shown, strict=True)),
        query=float(np.mean(tokens)) + _answer_tokens(task, engine),
        long_query=long_query(tokens),
        context=most,
        unshown=_unshown_tokens(task, engine),
    )
    by_options = [name for name in templates if TEMPLATES[name].scores_options]
    shorter = _lengths_by_options(task, splits, lengths, engine, builder) if by_options else lengths
    found = SearchSpace(
        space,
        templates=templates,
        names=names,
        instructions=instructions,
        pool=splits.pool,
        labels=[labels.get(task.examples[number].output, 0) for number in splits.pool],
        lengths=lengths,
        clusters={} if matcher is None else _clusters(matcher, splits.search),
        choosers={} if matcher is None else _choosers(matcher, splits.search),
        attention=None if matcher is None or task.labels is None else _attention(task, matcher, splits.search),
        lengths_in=dict.fromkeys(by_options, shorter),
        shares_beginnings=engine.shares_beginnings,
        answering_templates=[template.name for template in TEMPLATES.values() if not template.takes_reasoning],
        names_alike={name: _first_alike(forms[name]) for name in forms},
        reads_reasoning_again=task.is_classification or not (isinstance(engine, WritesOn) and engine.reads_once),
    )
    require_candidates(found, clustered=matcher is not None)
    return found


def _first_alike(forms: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[tuple[str, str], tuple[str, str]]:
    """For each pair of names the first with which a template gives the same prompts."""
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    return {pair: first.setdefault(form, pair) for pair, form in forms.items()}


def _lengths_by_options(
    task: Task, splits: Splits, lengths: Lengths, engine: Engine, builder: PromptBuilder
) -> Lengths:
    """Token counts where items are shown without their options, whose texts are read twice instead."""
    shape = Candidate(template=OPTION_TEMPLATES[0].name)
    numbers = [*splits.search, *splits.confirm, *splits.test]
    asked = [builder.build(shape, task.examples[number].fields) for number in numbers]
    bare = engine.count_tokens([item.prompt or "" for item in asked])
    begun = engine.count_tokens([""])[0]
    read = [sum(engine.count_tokens(item.options)) - len(item.options) * (begun + 1) for item in asked]
    worked = [_worked_by_options(shape, task.examples[number], task.labels or (), builder) for number in splits.pool]
    return replace(
        lengths,
        demonstrations=dict(zip(splits.pool, engine.count_tokens(worked), strict=True)),
        query=float(np.mean(np.add(bare, 2 * np.maximum(read, 0)))),
        long_query=long_query(np.add(bare, np.maximum(read, 0)).tolist()),
    )


def _worked_by_options(shape: Candidate, example: Example, labels: Sequence[str], builder: PromptBuilder) -> str:
    """An example with the text of its right option."""
    item = builder.build(shape, example.fields)
    return f"{item.prompt or ''}{item.options[labels.index(example.output)] if item.options else ''}\n\n"


def _check_templates(names: Sequence[str], builder: PromptBuilder) -> None:
    """Refuse templates that do not exist or that this task cannot fill.

    Raises:
        DataError: naming one.
    """
    for name in names:
        if name not in TEMPLATES:
            raise DataError(f"template {name!r} is unknown; give some of {', '.join(TEMPLATES)}")
        if TEMPLATES[name].scores_options and builder.multiple_choice is None:
            raise DataError(
                f"template {name!r} scores options, and the rows list none under the labels, as in '(A) a bank (B) a "
                "shop', or the model only writes; leave it out"
            )


def _ending_templates(names: Sequence[str], task: Task, builder: PromptBuilder) -> tuple[str, ...]:
    """The templates in which an answer of several lines can be told from the item that follows it.

    Raises:
        DataError: there is none.
    """
    if task.is_classification or not task.answer_form.lines:
        return tuple(names)
    outputs = [output for example in task.examples for output in example.answers]
    usable = tuple(name for name in names if builder.ends(TEMPLATES[name], outputs))
    if not usable:
        raise DataError(
            "outputs have several lines and hold what ends an answer in each of the templates "
            f"{', '.join(names)}; give outputs without it, or other templates"
        )
    return usable


def require_candidates(space: SearchSpace, *, clustered: bool) -> None:
    """Refuse a space in which there is nothing to search.

    Args:
        space: what there is.
        clustered: whether its clusters are known by now.

    Raises:
        UserError: no number of demonstrations, or no clustering, is left for any of its modes.
    """
    modes, shots, pool = space.space.modes, space.space.shots, len(space.pool)
    if not space.shots:
        raise UserError(f"shots={shots!r} are all more than the {pool} examples of the pool; give smaller ones")
    if "static" in modes or retrieved_counts(space):
        return
    if not routed_counts(space):
        raise UserError(
            f"shots={shots!r} leave nothing to search in modes={modes!r} with a pool of {pool}; give small ones such "
            "as (1, 2, 4), or more modes"
        )
    if clustered and not usable_clusters(space):
        raise UserError(
            f"the pool of {pool} falls into none of clusters={space.space.clusters!r} and modes={modes!r} need one; "
            "give clusters=(...) smaller, or another mode"
        )


def count_rationales(
    engine: Engine, texts: Mapping[int, str], doubt: Mapping[int, float] | None = None
) -> Rationales:
    """What a search knows of pieces of reasoning.

    Args:
        engine: the model.
        texts: the pieces, by pool id; empty ones are passed over.
        doubt: how far the model disagreed with itself about each, where it was asked.
    """
    kept = {number: text for number, text in sorted(texts.items()) if text}
    counts = engine.count_tokens([f" {text}" for text in kept.values()]) if kept else []
    return Rationales(
        dict(zip(kept, counts, strict=True)),
        {number: len(sentences(text)) for number, text in kept.items()},
        dict(doubt or {}),
    )


def _attention(task: Task, matcher: ItemMatcher, items: Sequence[int]) -> LinearAttention:
    """What similarities alone say about the search items."""
    examples = matcher.matching.examples()
    index = {word: number for number, word in enumerate(task.labels or ())}
    golds = [index[task.examples[item].output] for item in items]
    similarities = (matcher.queries(items).vectors @ examples.vectors.T).astype(np.float64)
    return LinearAttention(similarities, examples.ids.tolist(), examples.labels, golds)


def _clusters(matcher: ItemMatcher, items: Sequence[int]) -> dict[int, Clusters]:
    """Clusters of the search items and of the pool, by their number."""
    pool = matcher.matching.pool
    return {
        count: Clusters(
            matcher.clusters_of(count, items),
            router.members(pool.ids.tolist(), pool.vectors),
        )
        for count, router in matcher.matching.routers.items()
    }


def _choosers(matcher: ItemMatcher, items: Sequence[int]) -> dict[str, Chooser]:
    """Strategies that choose one set for all queries.

    Each draw chooses among another random part of the pool, so that sets differ.
    """
    ids = matcher.matching.pool.ids
    queries = matcher.queries(items)

    def chooser(name: str) -> Chooser:
        def choose(count: int, rng: np.random.Generator) -> tuple[int, ...]:
            drawn = np.sort(rng.permutation(len(ids))[: max(_CHOSEN_AMONG, 4 * count)])
            examples = matcher.matching.examples(tuple(ids[drawn].tolist()))
            return selector(name, examples).select(queries, count, rng)

        return choose

    return {name: chooser(name) for name in _SET_CHOOSERS}


def _answer_tokens(task: Task, engine: Engine) -> float:
    """Tokens that an answer adds to each query: the label tree, at most, or a text like the task's own."""
    begun = engine.count_tokens([""])[0]
    if task.labels is None:
        texts = [f" {example.output}" for example in task.examples[:_SAMPLED_ANSWERS]]
        return float(np.mean(engine.count_tokens(texts))) - begun + 1
    counts = engine.count_tokens([f" {label}" for label in task.labels])
    return float(sum(count - begun - 1 for count in counts))  # a label's last token is predicted, never run


def _unshown_tokens(task: Task, engine: Engine) -> float:
    """Tokens that an answer takes more where nothing shows its form: of several lines, it is written to the limit."""
    if task.labels is not None or not task.answer_form.lines:
        return 0.0
    return max(0.0, task.answer_form.tokens_within(engine.context_tokens) - _answer_tokens(task, engine))


def check_instructions(space: SearchSpace) -> None:
    """Refuse an instruction that leaves no room for an item.

    Raises:
        ContextError: naming it.
    """
    room = space.lengths.context
    for instruction, tokens in space.lengths.instructions.items():
        if tokens >= room:
            raise ContextError(
                f"the instruction {instruction[:40]!r}... has {tokens} tokens and the model takes {room}; shorten it"
            )


def fitting_rows(task: Task, splits: Splits, engine: Engine, *, vary: bool) -> tuple[Splits, tuple[int, ...]]:
    """The splits without rows that no choice can go by, since the model cannot be asked about them; and all such.

    Test rows stay: a prompt will meet their like, and has no answer to them.

    Args:
        task: the task.
        splits: its splits.
        engine: the model.
        vary: whether all instructions are searched among.

    Raises:
        ContextError: no row of a part fits.
    """
    kept_free = answer_room(engine, task.labels, task.answer_form)
    builder, room = PromptBuilder(engine, task.inputs, task.output, {}, kept_free), engine.context_tokens - kept_free
    most = max(engine.count_tokens([text or " " for text in usable_instructions(task, vary=vary)])) + _FORM_TOKENS
    if most >= room:
        return splits, ()  # the instruction's fault, see :func:`check_instructions`
    parts = {name: getattr(splits, name) for name in ("search", "confirm", "test")}
    asked = [row for rows in parts.values() for row in rows]
    texts = [task.examples[row].text.encode("utf-8", "surrogatepass") for row in asked]
    suspects = [row for row, text in zip(asked, texts, strict=True) if len(text) + most >= room]
    tokens = engine.count_tokens([_bare(task.examples[row], builder) for row in suspects]) if suspects else []
    too_long = {row: count for row, count in zip(suspects, tokens, strict=True) if count + most > room}
    if not too_long:
        return splits, ()
    kept: dict[str, Any] = {name: tuple(row for row in rows if row not in too_long) for name, rows in parts.items()}
    if not all(kept.values()):  # of test rows, too
        longest = max(too_long, key=too_long.__getitem__)
        raise ContextError(
            f"{len(too_long)} rows are too long for the model, and leave none to ask about; the longest, "
            f"{task.row_name(longest)}, has {too_long[longest]:,} tokens, and the model takes {room - most:,} beside "
            "the instruction; shorten them"
        )
    return replace(splits, search=kept["search"], confirm=kept["confirm"]), tuple(sorted(too_long))


def _bare(example: Example, builder: PromptBuilder) -> str:
    return builder.render(Candidate(), (), example.fields)


def _shown(example: Example, builder: PromptBuilder) -> str:
    return f"{_bare(example, builder)} {example.output}\n\n"
