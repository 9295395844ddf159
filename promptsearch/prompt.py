"""The prompt to deploy: it predicts, shows itself, and survives on disk.

Invariant: a loaded prompt reads and weighs exactly as the saved one; no row of the task is in it but those it may
show.
Leaves out: how it was found, and what its file looks like (:mod:`promptsearch.artifact`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from promptsearch.artifact import document_of, parts_from, read_document
from promptsearch.calibration import Weighing
from promptsearch.candidate import CUES, SHOWN_THOUGHT, Candidate
from promptsearch.data.text import normalised
from promptsearch.errors import ArtifactError, ContextError, DataError, UserError
from promptsearch.evaluation import Answers, Asker, answer_grammar, join, join_members, join_routes
from promptsearch.files import write_whole
from promptsearch.lm.base import Engine, FloatArray, Rendered, TellsNext
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.matching import Matching
from promptsearch.measurement import Measurement
from promptsearch.multiple_choice import MultipleChoice, find_multiple_choice
from promptsearch.parts import PromptParts
from promptsearch.prior import NeighbourLabels
from promptsearch.probabilities import softmax
from promptsearch.prompting import Built, PromptBuilder, answer_room
from promptsearch.reasoning import THINKING_TOKENS, one_line
from promptsearch.scoring import Judge
from promptsearch.task import Example, Task, input_text
from promptsearch.template import TEMPLATES, Demonstration

if TYPE_CHECKING:
    from promptsearch.lm.llamacpp.prefix import PrefixState

__all__ = ["Prediction", "Prompt"]

_logger = logging.getLogger(__name__)
_CALIBRATION_ITEMS = 128
_BY_HAND = ("none", "contextual", "batch")  # "fitted" needs the labels of search rows
_EVALUATED_A_CALL = 256


@dataclass(frozen=True)
class Prediction:
    """What a prompt says about one item.

    Attributes:
        output: the label as it stands in the data, or the text; None where there is no answer.
        probabilities: probability of each label; empty for free text.
        rationale: the model's reasoning, None where it was not asked for any.
        demonstrations: what the model was shown for this item.
        failure: why there is no answer: "too long" or "not understood", from ``promptsearch predict`` also "no text";
            None where there is one.
        text: of free text all that the model wrote as its answer, of which ``output`` may be a part; None for labels.
    """

    output: Any
    probabilities: Mapping[Any, float] = field(default_factory=dict)
    rationale: str | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    failure: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class _Neighbours:
    """What the vectors of some items say.

    Attributes:
        matches: numbers of the examples that each item may be shown, the best match first.
        routes: route of each item, shape (items,); None where there is only one.
        prior: log-probabilities of the labels by the prior, shape (items, labels); None where it has no weight.
    """

    matches: Sequence[Sequence[int]]
    routes: NDArray[np.int64] | None = None
    prior: FloatArray | None = None

    def part(self, start: int, stop: int) -> _Neighbours:
        """Matches and routes of some items."""
        routes = None if self.routes is None else self.routes[start:stop]
        return _Neighbours(self.matches[start:stop], routes)


class Prompt:
    """A prompt made by hand; :func:`promptsearch.optimize` returns the ones it finds.

    Args:
        task: the task it is for.
        demonstrations: rows with the task's columns, or the task's examples, in the order shown.
        model: what :func:`promptsearch.optimize` takes.
        instruction: text before the demonstrations; None for the task's first instruction.
        template: name of a template.
        calibration: ``"none"``, ``"contextual"`` or ``"batch"``; the last one is fitted on up to 128 of the
            task's inputs, without their labels.
        weights: weight type of a GGUF model: ``"auto"``, ``"as-is"``, ``"BF16"``, ``"F16"`` or ``"Q8_0"``.
        reasoning: ``"none"``; ``"cue"`` lets the model reason before it answers, without demonstrations;
            ``"gold"`` shows the reasoning that stands in each demonstration's rationale column.
        thought: what reasoning begins with; None for "Let's think step by step.", or "Reasoning:" where it is shown.
        thinking_tokens: tokens of one piece of reasoning at most.
        samples: pieces of reasoning that are sampled for each item and vote; 1 takes the likeliest one alone.

    Raises:
        UserError: demonstrations, template, calibration or reasoning cannot be used with this task and model.
    """

    def __init__(
        self,
        task: Task,
        demonstrations: Iterable[Mapping[str, Any] | Example] = (),
        model: object = None,
        *,
        instruction: str | None = None,
        template: str = "fields",
        calibration: str = "none",
        weights: str = "auto",
        reasoning: str = "none",
        thought: str | None = None,
        thinking_tokens: int = THINKING_TOKENS,
        samples: int = 1,
    ) -> None:
        if template not in TEMPLATES:
            raise UserError(f"template={template!r} is unknown; give one of {', '.join(TEMPLATES)}")
        if calibration not in _BY_HAND:
            raise UserError(f"calibration={calibration!r} is no choice here; give one of {', '.join(_BY_HAND)}")
        shown = _demonstrations(task, demonstrations)
        if TEMPLATES[template].scores_options:
            _require_options(task, template, calibration, shown)
        first = task.instructions[0] if task.instructions else ""
        candidate = Candidate(
            instruction=first if instruction is None else instruction,
            template=template,
            demonstrations=tuple(range(len(shown))),
            calibration=calibration,
        )
        if reasoning != "none":
            candidate = _reasoning(candidate, shown, reasoning, thought, thinking_tokens, samples)
        self._opened = open_engine(model, weights)
        self._connect(PromptParts(task, candidate, dict(enumerate(shown))))
        if task.answer_form.lines and not self._builder.ends(TEMPLATES[template], (each.output for each in shown)):
            raise UserError(
                f"template={template!r} ends an answer with what stands inside of these outputs, which have several "
                "lines; give another template, such as 'rules'"
            )
        if task.labels is not None:
            self._connect(replace(self._parts, weighing=self._fit_by_hand(calibration)))

    @classmethod
    def from_parts(cls, parts: PromptParts, opened: OpenedModel) -> Prompt:
        """Put parts and model together."""
        prompt = cls.__new__(cls)
        prompt._opened = opened
        prompt._connect(parts)
        return prompt

    def _connect(self, parts: PromptParts) -> None:
        task = parts.task
        self._parts = parts
        self._builder = PromptBuilder(
            self._opened.engine,
            task.inputs,
            task.output,
            parts.examples,
            answer_room(self._opened.engine, task.labels, task.answer_form),
            MultipleChoice(tuple(task.labels)) if task.labels is not None else None,
        )
        grammar = None if task.metric is None else answer_grammar(task.metric, task.answer_form)
        self._asker = Asker(
            self._opened.engine, self._builder, task.labels, task.answer_form, grammar, tokens=parts.read_tokens
        )

    # -- what it is -----------------------------------------------------------------------------------------

    @property
    def parts(self) -> PromptParts:
        """What the prompt consists of."""
        return self._parts

    @property
    def task(self) -> Task:
        """The task: columns, labels, metric."""
        return self._parts.task

    @property
    def candidate(self) -> Candidate:
        """The candidate that this prompt is."""
        return self._parts.candidate

    @property
    def mode(self) -> str:
        """``"static"``, ``"retrieved"`` or ``"routed"``."""
        return self._parts.candidate.mode

    @property
    def instruction(self) -> str:
        """Text before the demonstrations."""
        return self._parts.candidate.instruction

    @property
    def multiple_choice(self) -> MultipleChoice | None:
        """How items list the options whose texts are scored; None where labels are."""
        return self._builder.multiple_choice if TEMPLATES[self.candidate.template].scores_options else None

    def with_options(self, inputs: Mapping[str, str]) -> Mapping[str, str]:
        """Inputs without content, with places for options where the prompt scores those."""
        return inputs if self.multiple_choice is None else self.multiple_choice.with_placeholders(inputs)

    @property
    def demonstrations(self) -> tuple[Demonstration, ...]:
        """The demonstrations in the order shown, those of a routed prompt cluster by cluster, each once.

        There are none where each query gets its own.
        """
        return tuple(self._parts.examples[number] for number in self._parts.candidate.shown)

    @property
    def weighing(self) -> Weighing | None:
        """How the model's log-probabilities become a choice."""
        return self._parts.weighing

    @property
    def model(self) -> str:
        """What the model is called, and which weights run."""
        return self._opened.description

    def __repr__(self) -> str:
        candidate, weighing = self._parts.candidate, self._parts.weighing
        more = "prompt" if len(candidate.ensemble) == 1 else "prompts"
        beside = f"{len(candidate.ensemble)} more {more} beside it, " if candidate.ensemble else ""
        weighed = "" if weighing is None else f"calibration {weighing.calibration}, "
        if self._parts.uses_prior and weighing is not None:
            weighed += f"prior with weight {weighing.prior_weight:.2g}, "
        return (
            f"<Prompt {candidate.mode}, {candidate.shots} demonstrations, template {candidate.template!r}, {beside}"
            f"{weighed}"
            f"model {self._opened.engine.name}>"
        )

    def without_prior(self) -> Prompt:
        """The same prompt without the prior."""
        if not self._parts.uses_prior:
            return self
        words = self._parts.weighing_words_alone
        return Prompt.from_parts(replace(self._parts, weighing=self._alone, weighing_words=words), self._opened)

    def without_readout(self) -> Prompt:
        """The same prompt, its labels told by their own words, see :mod:`promptsearch.readout`."""
        parts = self._parts.without_readout()
        return self if parts is self._parts else Prompt.from_parts(parts, self._opened)

    @property
    def _alone(self) -> Weighing | None:
        """How the model's log-probabilities become a choice without the prior."""
        weighing = self._parts.weighing
        if weighing is None or not self._parts.uses_prior:
            return weighing
        return self._parts.weighing_alone or weighing.without_prior()

    # -- predicting -----------------------------------------------------------------------------------------

    @overload
    def __call__(self, item: str | Mapping[str, Any] | Example) -> Prediction: ...

    @overload
    def __call__(self, item: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...

    def __call__(self, item: Any) -> Prediction | list[Prediction]:
        """Predict one item (a text, or a dict of several columns), or a list of them."""
        if isinstance(item, (list, tuple)):
            return self.predict(item)
        return self.predict([item])[0]

    def predict(self, items: Iterable[str | Mapping[str, Any] | Example]) -> list[Prediction]:
        """Predict items, in order.

        Raises:
            DataError: an item lacks a column.
        """
        if isinstance(items, (str, Mapping)):
            raise DataError("predict takes a list of items; call the prompt itself with a single one")
        inputs = [self.task.example_from(item) for item in items]
        if not inputs:
            return []
        near = self._neighbours(inputs)
        answers, shown = self._answers(inputs, near)
        rationales: Sequence[str | None] = answers.rationales or [None] * len(inputs)
        return [
            replace(
                prediction,
                demonstrations=tuple(self._parts.examples[number] for number in numbers),
                rationale=rationale,
            )
            for prediction, numbers, rationale in zip(
                self._predictions(answers, near.prior), shown, rationales, strict=True
            )
        ]

    def _answers(
        self, inputs: Sequence[Mapping[str, str]], near: _Neighbours
    ) -> tuple[Answers, list[tuple[int, ...]]]:
        """The model's answers, and the numbers of the demonstrations that each item was shown."""
        candidate = self._parts.candidate
        if candidate.ensemble:
            answered = [self._asked(member, inputs, near.matches) for member in candidate.members]
            return join_members([answers for answers, _ in answered]), answered[0][1]
        if near.routes is None:
            return self._asked(candidate, inputs, near.matches)
        parts = {}
        shown: list[tuple[int, ...]] = [()] * len(inputs)
        for route in np.unique(near.routes).tolist():
            places = np.flatnonzero(near.routes == route).tolist()
            own = [inputs[at] for at in places]
            parts[route], numbers = self._asked(candidate.route(route), own, [()] * len(places))
            for at, each in zip(places, numbers, strict=True):
                shown[at] = each
        return join_routes(parts, near.routes, len(candidate.routes)), shown

    def _asked(
        self, candidate: Candidate, inputs: Sequence[Mapping[str, str]], matches: Sequence[Sequence[int]]
    ) -> tuple[Answers, list[tuple[int, ...]]]:
        """The answers under one prompt, and the numbers of the demonstrations that each item was shown."""
        built = self._asker.build(candidate, inputs, matches)
        return self._asker.answers(self._asker.ask_built(candidate, built)), [each.demonstrations for each in built]

    def evaluate(self, examples: object, metric: str | Callable[..., float] | None = None) -> Measurement:
        """Measure the prompt on rows with the task's columns, in any form that :class:`Task` takes.

        Items that do not fit or cannot be understood are wrong, and are counted in ``failures``. A row that is also
        among the prompt's examples never finds itself as its own neighbour; a linear classifier in the prior and a
        readout have seen its label all the same, so measure on rows that were not given to the search; a warning
        tells of such rows.

        Args:
            examples: the rows.
            metric: another metric than the task's, or the callable that a saved prompt could not keep.
        """
        return self._measured(examples, metric, [self._parts.weighing])[0]

    def evaluate_twice(
        self, examples: object, metric: str | Callable[..., float] | None = None
    ) -> tuple[Measurement, Measurement]:
        """Measure the prompt as it is, and alone, without its prior; the model is asked once.

        Args:
            examples: as for :meth:`evaluate`.
            metric: likewise.
        """
        as_it_is, alone = self._measured(examples, metric, [self._parts.weighing, self._alone])
        return as_it_is, alone

    def _measured(
        self, examples: object, metric: str | Callable[..., float] | None, weighings: Sequence[Weighing | None]
    ) -> list[Measurement]:
        """The same answers, weighed in several ways."""
        kept = self.task.examples_from(examples)
        self._warn_of_known(kept)
        measured_by = self.task.require_metric() if metric is None else self.task.resolve(metric, kept)
        near = self._neighbours([example.fields for example in kept], others_only=True)
        parts = []
        for start in range(0, len(kept), _EVALUATED_A_CALL):
            stop = start + _EVALUATED_A_CALL
            inputs = [example.fields for example in kept[start:stop]]
            parts.append(self._answers(inputs, near.part(start, stop))[0])
        answers, places = join(parts), list(range(len(kept)))
        priors = {} if near.prior is None else dict(zip(places, near.prior, strict=True))
        judge = Judge([replace(kept[place], id=place) for place in places], self.task.labels, measured_by, priors)
        return [judge.measure(places, judge.judge(places, answers, weighing)) for weighing in weighings]

    def _warn_of_known(self, rows: Sequence[Example]) -> None:
        known = sum(self._own_example(row.fields) is not None for row in rows)
        if known:
            _logger.warning(
                "at least %d of %d rows are among those that this prompt was made of, and make it look too good",
                known,
                len(rows),
            )

    def _predictions(self, answers: Answers, prior: FloatArray | None) -> list[Prediction]:
        labels, weighing = self.task.labels, self._parts.weighing
        if labels is None or weighing is None:
            found = [self.task.answer_form.find(text) or None for text in answers.texts]
            return [
                Prediction(answer, failure=_failure(bool(fits)) if answer is None else None, text=text)
                for answer, text, fits in zip(found, answers.texts, answers.fits, strict=True)
            ]
        values = [self.task.label_values[word] for word in labels]
        scores = weighing.scores(answers.log_probabilities, prior, answers.routes, answers.following)
        predictions = []
        for row, probabilities, fits in zip(scores, softmax(scores), answers.fits, strict=True):
            if not np.isfinite(row).any():
                predictions.append(Prediction(None, failure=_failure(bool(fits))))
                continue
            best = int(np.where(np.isfinite(row), row, -np.inf).argmax())
            shares = dict(zip(values, probabilities.tolist(), strict=True))
            predictions.append(Prediction(values[best], shares))
        return predictions

    def _neighbours(self, inputs: Sequence[Mapping[str, str]], *, others_only: bool = False) -> _Neighbours:
        """What the items' vectors say: matches to show, routes to take, and the prior where it has weight.

        With ``others_only`` no item finds an example with its own text.
        """
        parts = self._parts
        if not parts.needs_vectors or not inputs:
            return _Neighbours([()] * len(inputs))
        if parts.retriever is None:
            raise ArtifactError("this prompt needs vectors and has no encoder; load it from its file")
        if parts.needs_pool and parts.retriever.pool is None:
            raise ArtifactError("this prompt retrieves examples and has no index; load it with its folder")
        texts = [input_text(item) for item in inputs]
        vectors = parts.retriever.encoder.encode(texts)
        own = [self._own_example(item) for item in inputs] if others_only else None
        matches: Sequence[Sequence[int]] = [()] * len(inputs)
        if parts.candidate.mode == "retrieved":
            matches = self._matching.matches(parts.candidate, vectors, texts, own)
        routes = None if parts.router is None else parts.router.clusters(vectors)
        return _Neighbours(matches, routes, self._prior(vectors, own))

    def _prior(self, vectors: NDArray[np.float32], own: Sequence[int | None] | None) -> FloatArray | None:
        """What vectors and neighbours say about labels, shape (items, labels); None where it has no weight."""
        parts, labels = self._parts, self.task.labels
        if parts.prior is None or labels is None or not parts.uses_prior:
            return None
        neighbours = None
        if parts.voters and parts.retriever is not None and parts.retriever.pool is not None:
            found = parts.retriever.pool.nearest(vectors, parts.voters, exclude=own)
            index = {word: number for number, word in enumerate(labels)}
            numbers = [[index[parts.examples[int(n)].output] for n in row] for row in found.ids]
            voting = np.array(numbers, dtype=np.int64).reshape(found.ids.shape)
            neighbours = NeighbourLabels(found.similarities.astype(np.float64), voting)
        return parts.prior.log_probabilities(vectors, neighbours, len(labels))

    @cached_property
    def _matching(self) -> Matching:
        """Finds what queries are shown."""
        parts = self._parts
        if parts.retriever is None or parts.retriever.pool is None:
            raise ArtifactError("this prompt retrieves examples and has no index; load it with its folder")
        index = {word: number for number, word in enumerate(self.task.labels or ())}
        return Matching(
            parts.retriever.pool,
            {number: input_text(shown.inputs) for number, shown in parts.examples.items()},
            {number: index.get(shown.output, 0) for number, shown in parts.examples.items()},
            parts.retriever.encoder,
        )

    def _own_example(self, item: Mapping[str, str]) -> int | None:
        """The example with an item's own text, as duplicates are recognised everywhere."""
        return self._texts.get(normalised(input_text(item)))

    @cached_property
    def _texts(self) -> dict[str, int]:
        examples = self._parts.examples.items()
        return {normalised(input_text(shown.inputs)): number for number, shown in examples}

    # -- showing --------------------------------------------------------------------------------------------

    def render(self, item: str | Mapping[str, Any] | Example) -> str:
        """The exact text that the model reads for an item; of an ensemble the first of :meth:`render_all`.

        Raises:
            ContextError: it does not fit the model.
        """
        return self.render_all(item)[0]

    def render_all(self, item: str | Mapping[str, Any] | Example) -> list[str]:
        """The exact texts that the model reads for an item: one, or of an ensemble one for each of its prompts.

        Raises:
            ContextError: one does not fit the model.
        """
        return [
            str(self._builder.render(each, built.demonstrations, inputs)) for each, inputs, built in self._built(item)
        ]

    def messages(self, item: str | Mapping[str, Any] | Example) -> list[dict[str, str]]:
        """The prompt for an item as chat messages, for use with other systems; of an ensemble its first prompt."""
        candidate, inputs, built = self._built(item)[0]
        return self._builder.messages(candidate, built.demonstrations, inputs)

    def _built(self, item: Any) -> list[tuple[Candidate, dict[str, str], Built]]:
        """What the model reads for an item: the candidates (of a routed one its route), the texts, the prompts."""
        inputs = self.task.example_from(item)
        near = self._neighbours([inputs])
        candidate = self._parts.candidate
        if near.routes is not None:
            candidate = candidate.route(int(near.routes[0]))
        found = []
        for member in candidate.members:
            (built,) = self._asker.build(member, [inputs], near.matches)
            if built.prompt is None:
                raise ContextError(
                    f"the item {input_text(inputs)[:40]!r}... does not fit the model's "
                    f"{self._opened.engine.context_tokens} tokens; shorten it"
                )
            found.append((member, inputs, built))
        return found

    def to_dspy(self) -> Any:
        """A ``dspy.Module`` that predicts the same."""
        from promptsearch.dspy.module import module_for

        return module_for(self)

    # -- keeping --------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, prefix_state: bool = False) -> Path:
        """Write one JSON file, and where the prompt needs similar examples a folder ``<name>.index`` beside it.

        Args:
            path: the JSON file.
            prefix_state: also write ``<name>.prefix``: what the model computed for instruction and demonstrations
                (some MB), so that the first prediction after loading starts with the query. It is used only with
                the same model and weights; without it, or with another model, nothing changes but the time. Nothing
                is written for free text, where queries have demonstrations of their own or by cluster or are put to
                several prompts, where demonstrations are short, and for models whose memory is more than attention.
        """
        target = Path(path)
        document = document_of(self._parts, self._opened)
        state = self._prefix_state() if prefix_state else None
        if state is not None:
            from promptsearch.lm.llamacpp.prefix import write_prefix_state

            write_prefix_state(_prefix_file(target), state)
            document["prefix_state"] = True
        else:
            _prefix_file(target).unlink(missing_ok=True)  # one of an earlier prompt of this name
        retriever = self._parts.retriever
        if self._parts.needs_pool and retriever is not None and retriever.pool is not None:
            folder = target.with_name(target.stem + ".index")
            retriever.pool.save(folder)
            document["index"] = folder.name
        write_whole(target, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return target

    def _prefix_state(self) -> PrefixState | None:
        """What the model computed for the part that all queries share; None where there is no such part."""
        from promptsearch.lm.llamacpp.prefix import KeepsPrefixStates

        engine = self._opened.engine
        candidate = self._parts.candidate
        if candidate.mode != "static" or candidate.ensemble or self.task.labels is None:
            return None  # generation keeps its prompts in memories of another shape
        return engine.prefix_state(self._blank_prompt) if isinstance(engine, KeepsPrefixStates) else None

    def _take_prefix_state(self, file: Path) -> None:
        """Give the engine what was computed when the prompt was saved; without it a first prediction takes longer."""
        from promptsearch.lm.llamacpp.prefix import KeepsPrefixStates, read_prefix_state

        engine = self._opened.engine
        if self._parts.candidate.mode != "static" or not isinstance(engine, KeepsPrefixStates):
            return
        try:
            engine.keep_prefix_state(read_prefix_state(file), self._blank_prompt)
        except ArtifactError as error:
            _logger.warning("%s; going on without it", error)

    @property
    def _blank_prompt(self) -> Rendered:
        """A prompt that begins as all of this static one do."""
        candidate = self._parts.candidate
        inputs = self.with_options(dict.fromkeys(self.task.inputs, "-"))
        return self._builder.render(candidate, candidate.demonstrations, inputs)

    @classmethod
    def load(
        cls, path: str | Path, model: object = None, *, encoder: object = None, weights: str | None = None
    ) -> Prompt:
        """Read a saved prompt.

        Args:
            path: the JSON file.
            model: another model than the saved one; None opens the saved one.
            encoder: another encoder than the saved one; None opens the saved one.
            weights: weight type of a GGUF model; None for the one that the saved prompt was measured on, and for
                ``"auto"`` where ``model`` is given.

        Raises:
            ArtifactError: the file is none of ours, is damaged, or its index is missing.
        """
        source = Path(path)
        document = read_document(source)
        saved = document["model"]
        if model is None and not saved["source"]:
            raise ArtifactError(
                f"{str(source)!r} was made with a model object ({saved['name']}), which no file can hold; "
                "give it as model="
            )
        if model is None and str(saved["source"]).startswith(("http://", "https://")):
            raise ArtifactError(  # a file must not decide where texts and an API key are sent
                f"{str(source)!r} was made with the server {saved['source']!r}; give it as model= to use it"
            )
        parts = parts_from(document, source, encoder)
        if weights is None:  # another model chooses its own
            weights = saved["weights"] if model is None else ""
        opened = open_engine(saved["source"] if model is None else model, weights or "auto")
        if parts.read_tokens and not _tells_the_same(opened.engine, saved["fingerprint"]):
            _logger.warning("%s reads the tokens of another model; labels are told by their own words now", source)
            parts = parts.without_readout()
        if opened.engine.fingerprint != saved["fingerprint"]:
            _logger.warning(
                "%s was measured on model %s, and now runs on %s: its numbers may not hold",
                source,
                saved["fingerprint"],
                opened.engine.fingerprint,
            )
            return cls.from_parts(parts, opened)
        prompt = cls.from_parts(parts, opened)
        if document.get("prefix_state"):
            prompt._take_prefix_state(_prefix_file(source))
        return prompt

    def _fit_by_hand(self, calibration: str) -> Weighing:
        """Offsets from the task's inputs (batch) or from inputs without content, without any label."""
        from promptsearch.calibration import CONTENT_FREE, batch_offsets, contextual_offsets
        from promptsearch.probabilities import normalized

        task = self.task
        labels = task.labels or ()
        if calibration == "none":
            return Weighing("none", (0.0,) * len(labels))
        if calibration == "contextual":
            inputs: list[Mapping[str, str]] = [dict.fromkeys(task.inputs, text) for text in CONTENT_FREE]
            logs, offsets_of = self._logs(inputs), contextual_offsets
        else:
            shown = {tuple(shown.inputs.items()) for shown in self.demonstrations}
            hidden = set(task.parts.test)
            kept = [each for each in task.examples if each.inputs not in shown and each.id not in hidden]
            if not kept:
                raise UserError("calibration='batch' needs inputs and the task has no rows; use 'contextual'")
            chosen = np.random.default_rng(0).permutation(len(kept))[:_CALIBRATION_ITEMS]
            logs, offsets_of = self._logs([kept[place].fields for place in sorted(chosen)]), batch_offsets
        return Weighing(calibration, tuple(offsets_of(normalized(logs)).tolist()))

    def _logs(self, inputs: Sequence[Mapping[str, str]]) -> FloatArray:
        nearest: list[Sequence[int]] = [() for _ in inputs]
        values = self._asker.ask(self._parts.candidate, inputs, nearest)
        return self._asker.answers(values).log_probabilities


def _tells_the_same(engine: Engine, fingerprint: str) -> bool:
    """Whether a model tells of the tokens of another: it is the same file, whatever weight type runs."""
    own, other = (each.split(":", 1)[0] for each in (engine.fingerprint, str(fingerprint)))
    return isinstance(engine, TellsNext) and own == other


def _failure(fits: bool) -> str:
    return "not understood" if fits else "too long"


def _demonstrations(task: Task, given: Iterable[Mapping[str, Any] | Example]) -> list[Demonstration]:
    rows = list(given)
    if not rows:
        return []
    if all(isinstance(row, Example) for row in rows):
        examples: Sequence[Example] = [row for row in rows if isinstance(row, Example)]
    else:
        examples = task.examples_from(rows, name="demonstrations")
    return [Demonstration(example.fields, example.output, one_line(example.rationale or "")) for example in examples]


def _require_options(task: Task, template: str, calibration: str, shown: Sequence[Demonstration]) -> None:
    """Refuse a template that scores options where there are none.

    Raises:
        UserError: saying why.
    """
    rows = [example.fields for example in task.examples]
    if find_multiple_choice(task.labels, [*rows, *(each.inputs for each in shown)]) is None:
        raise UserError(
            f"template={template!r} scores the texts of options, and not all rows list one for each label, as in "
            "'(A) a bank (B) a shop'; give another template"
        )
    if calibration == "contextual":
        raise UserError(
            "calibration='contextual' asks about inputs without content, which list no options; give 'none'"
        )


def _reasoning(
    candidate: Candidate,
    shown: Sequence[Demonstration],
    reasoning: str,
    thought: str | None,
    thinking_tokens: int,
    samples: int,
) -> Candidate:
    """A candidate that reasons.

    Raises:
        UserError: it cannot.
    """
    if reasoning not in ("cue", "gold"):
        raise UserError(f"reasoning={reasoning!r} is no choice here; give 'none', 'cue' or 'gold'")
    if not TEMPLATES[candidate.template].takes_reasoning:
        raise UserError(
            f"template={candidate.template!r} has chat turns or scores options, and reasoning goes on a line; give a "
            "plain one"
        )
    if reasoning == "cue" and shown:
        raise UserError("reasoning='cue' shows no demonstrations and some were given; leave them out, or take 'gold'")
    lacking = next((place for place, each in enumerate(shown) if not each.rationale), None)
    if reasoning == "gold" and (lacking is not None or not shown):
        where = "there are no demonstrations" if lacking is None else f"demonstration {lacking} has none"
        raise UserError(
            f"reasoning='gold' shows each demonstration's rationale and {where}; name the column rationale="
        )
    for name, number in (("thinking_tokens", thinking_tokens), ("samples", samples)):
        if type(number) is not int or number < 1:
            raise UserError(f"{name}={number!r} is no number of them; give a whole number from 1")
    begins = one_line((CUES[0] if reasoning == "cue" else SHOWN_THOUGHT) if thought is None else thought)
    if not begins:
        raise UserError("thought='' leaves reasoning nothing to begin with; give a text such as 'Reasoning:'")
    return replace(candidate, reasoning=reasoning, thought=begins, thinking_tokens=thinking_tokens, samples=samples)


def _prefix_file(path: Path) -> Path:
    """Where the prefix state of a saved prompt lies."""
    return path.with_name(path.stem + ".prefix")
