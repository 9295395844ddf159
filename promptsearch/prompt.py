"""The prompt to deploy: it predicts, shows itself, and survives on disk.

Invariant: a loaded prompt reads and weighs exactly as the saved one; no row of the task is in it but those it may
show.
Leaves out: how it was found, and what its file looks like (:mod:`promptsearch.artifact`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from promptsearch.answering import Answering
from promptsearch.artifact import document_of, parts_from, read_document
from promptsearch.by_hand import demonstrations_from, reasoning_candidate, require_options
from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.errors import ArtifactError, DataError, MissingExtraError, ModelError, UserError
from promptsearch.evaluated_rows import EvaluatedRows
from promptsearch.files import index_beside, prefix_beside, saved_prefix_beside, write_whole
from promptsearch.lm.base import Engine, Rendered, TellsNext
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.measurement import Measurement
from promptsearch.multiple_choice import MultipleChoice
from promptsearch.parts import PromptParts
from promptsearch.prediction import Prediction
from promptsearch.reasoning import THINKING_TOKENS
from promptsearch.seen import SeenRows
from promptsearch.task import Example, Task, input_text
from promptsearch.template import TEMPLATES, Demonstration

if TYPE_CHECKING:
    from promptsearch.lm.llamacpp.prefix import PrefixState

__all__ = ["Prompt"]

_logger = logging.getLogger(__name__)
_CALIBRATION_ITEMS = 128
_BY_HAND = ("none", "contextual", "batch")  # "fitted" needs the labels of search rows
_EVALUATED_A_CALL = 256


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
        shown = demonstrations_from(task, demonstrations)
        if TEMPLATES[template].scores_options:
            require_options(task, template, calibration, shown)
        first = task.instructions[0] if task.instructions else ""
        candidate = Candidate(
            instruction=first if instruction is None else instruction,
            template=template,
            demonstrations=tuple(range(len(shown))),
            calibration=calibration,
        )
        if reasoning != "none":
            candidate = reasoning_candidate(candidate, shown, reasoning, thought, thinking_tokens, samples)
        self._opened = open_engine(model, weights)
        seen = SeenRows.of(input_text(each.inputs) for each in shown)
        self._connect(PromptParts(task, candidate, dict(enumerate(shown)), seen=seen))
        if task.answer_form.lines and not self._answering.builder.ends(
            TEMPLATES[template], (each.output for each in shown)
        ):
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
        self._parts = parts
        self._answering = Answering(parts, self._opened.engine)

    # -- what it is -----------------------------------------------------------------------------------------

    @property
    def parts(self) -> PromptParts:
        """What the prompt consists of."""
        return self._parts

    @property
    def opened(self) -> OpenedModel:
        """The model that it runs on."""
        return self._opened

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
        return self._answering.builder.multiple_choice if TEMPLATES[self.candidate.template].scores_options else None

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
            DataError: an item lacks a column or is blank; says which.
        """
        if isinstance(items, (str, Mapping)):
            raise DataError("predict takes a list of items; call the prompt itself with a single one")
        inputs = [self._inputs(number, item) for number, item in enumerate(items)]
        return self._answering.predict(inputs) if inputs else []

    def _inputs(self, number: int, item: str | Mapping[str, Any] | Example) -> dict[str, str]:
        try:
            return self.task.example_from(item)
        except DataError as error:
            raise DataError(f"item {number}: {error}") from None

    def evaluate(self, examples: object, metric: str | Callable[..., float] | None = None) -> Measurement:
        """Measure the prompt on rows with the task's columns, in any form that :class:`Task` takes.

        Items that do not fit or cannot be understood are wrong, and are counted in ``failures``. A row that is also
        among the prompt's examples never finds itself as its own neighbour; linear classifiers in the prior and a
        readout have seen its label all the same, so measure on rows that were not given to the search; a warning
        tells of such rows.

        Args:
            examples: the rows.
            metric: another metric than the task's, or the callable that a saved prompt could not keep.
        """
        return self._answering.measure(examples, metric, [self._parts.weighing])[0]

    def evaluate_rows(self, examples: object, metric: str | Callable[..., float] | None = None) -> EvaluatedRows:
        """The same as :meth:`evaluate`, with what the prompt says about each row, and what it takes for what.

        Args:
            examples: as for :meth:`evaluate`.
            metric: likewise.
        """
        return self._answering.measure_rows(examples, metric)

    def evaluate_twice(
        self, examples: object, metric: str | Callable[..., float] | None = None
    ) -> tuple[Measurement, Measurement]:
        """Measure the prompt as it is, and alone, without its prior; the model is asked once.

        Args:
            examples: as for :meth:`evaluate`.
            metric: likewise.
        """
        as_it_is, alone = self._answering.measure(examples, metric, [self._parts.weighing, self._alone])
        return as_it_is, alone

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
        inputs, render = self.task.example_from(item), self._answering.builder.render
        return [str(render(each, built.demonstrations, inputs)) for each, built in self._answering.build(inputs)]

    def messages(self, item: str | Mapping[str, Any] | Example) -> list[dict[str, str]]:
        """The prompt for an item as chat messages, for use with other systems; of an ensemble its first prompt."""
        inputs = self.task.example_from(item)
        candidate, built = self._answering.build(inputs)[0]
        return self._answering.builder.messages(candidate, built.demonstrations, inputs)

    def to_dspy(self) -> Any:
        """A ``dspy.Module`` that predicts the same."""
        from promptsearch.dspy.module import module_for

        return module_for(self)

    # -- keeping --------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, prefix_state: bool = False) -> Path:
        """Write one JSON file, and where the prompt needs similar examples a folder ``<name>.index`` beside it.

        The name is the file's without a last ``.json``.

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

            write_prefix_state(prefix_beside(target), state)
            document["prefix_state"] = True
        else:
            prefix_beside(target).unlink(missing_ok=True)  # one of an earlier prompt of this name
        retriever = self._parts.retriever
        if self._parts.needs_pool and retriever is not None and retriever.pool is not None:
            folder = index_beside(target)
            document["index_sha256"] = retriever.pool.save(folder)
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
        return self._answering.builder.render(candidate, candidate.demonstrations, inputs)

    @classmethod
    def load(
        cls, path: str | Path, model: object = None, *, encoder: object = None, weights: str | None = None
    ) -> Prompt:
        """Read a saved prompt.

        Args:
            path: the JSON file.
            model: another model than the saved one; None opens the saved one.
            encoder: another encoder than the saved one; None opens the saved one, which, unless it is the default
                one, is fetched from nowhere and
                has to be without code of its own.
            weights: weight type of a GGUF model; None for the one that the saved prompt was measured on, and for
                ``"auto"`` where ``model`` is given.

        Raises:
            ArtifactError: the file is none of ours, is damaged, or its index is missing.
        """
        source = Path(path)
        document = read_document(source)
        prompt = cls.from_document(document, source, model, encoder=encoder, weights=weights)
        if document.get("prefix_state") and prompt.opened.engine.fingerprint == document["model"]["fingerprint"]:
            prompt._take_prefix_state(saved_prefix_beside(source))
        return prompt

    @classmethod
    def from_document(
        cls,
        document: Mapping[str, Any],
        path: Path,
        model: object = None,
        *,
        encoder: object = None,
        weights: str | None = None,
        index: Mapping[str, bytes] | None = None,
        otherwise: OpenedModel | None = None,
    ) -> Prompt:
        """A prompt from what its file held.

        Args:
            document: what :func:`promptsearch.artifact.read_document` gave.
            path: the file, as errors name it.
            model: as for :meth:`load`.
            encoder: likewise.
            weights: likewise.
            index: the index's files by name; None where they lie beside the file.
            otherwise: what runs where no model is given and the document names none that can be opened; None for
                an error.

        Raises:
            ArtifactError: as :meth:`load`.
        """
        saved = document["model"]
        if model is None and otherwise is None:
            _require_named(saved, path)
        parts = parts_from(document, path, encoder, index)
        opened = _open_saved(saved, weights, otherwise) if model is None else open_engine(model, weights or "auto")
        if parts.read_tokens and not _tells_the_same(opened.engine, saved["fingerprint"]):
            _logger.warning("%s reads the tokens of another model; labels are told by their own words now", path)
            parts = parts.without_readout()
        if opened.engine.fingerprint != saved["fingerprint"]:
            _logger.warning(
                "%s was measured on model %s, and now runs on %s: its numbers may not hold",
                path,
                saved["fingerprint"],
                opened.engine.fingerprint,
            )
        return cls.from_parts(parts, opened)

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
            logs, offsets_of = self._answering.log_probabilities(inputs), contextual_offsets
        else:
            shown = {tuple(shown.inputs.items()) for shown in self.demonstrations}
            hidden = set(task.parts.test)
            kept = [each for each in task.examples if each.inputs not in shown and each.id not in hidden]
            if not kept:
                raise UserError("calibration='batch' needs inputs and the task has no rows; use 'contextual'")
            chosen = np.random.default_rng(0).permutation(len(kept))[:_CALIBRATION_ITEMS]
            logs, offsets_of = (
                self._answering.log_probabilities([kept[place].fields for place in sorted(chosen)]),
                batch_offsets,
            )
        return Weighing(calibration, tuple(offsets_of(normalized(logs)).tolist()))


def _is_server(saved: Mapping[str, Any]) -> bool:
    """Whether a saved model is a server: a file must not decide where texts and an API key are sent."""
    return str(saved["source"]).startswith(("http://", "https://"))


def _require_named(saved: Mapping[str, Any], path: Path) -> None:
    """Refuse a saved model that no file can name, or none may."""
    if not saved["source"]:
        raise ArtifactError(
            f"{str(path)!r} was made with a model object ({saved['name']}), which no file can hold; give it as model="
        )
    if _is_server(saved):
        raise ArtifactError(
            f"{str(path)!r} was made with the server {saved['source']!r}; give it as model= to use it"
        )


def _open_saved(saved: Mapping[str, Any], weights: str | None, otherwise: OpenedModel | None) -> OpenedModel:
    """The model that a saved prompt names, or the other one where it names none that can be opened."""
    if otherwise is not None and (not saved["source"] or _is_server(saved)):
        return otherwise
    try:
        return open_engine(saved["source"], weights or saved["weights"] or "auto")
    except (ModelError, MissingExtraError):
        if otherwise is None:
            raise
        return otherwise


def _tells_the_same(engine: Engine, fingerprint: str) -> bool:
    """Whether a model tells of the tokens of another: it is the same file, whatever weight type runs."""
    own, other = (each.split(":", 1)[0] for each in (engine.fingerprint, str(fingerprint)))
    return isinstance(engine, TellsNext) and own == other
