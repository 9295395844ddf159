"""The user's problem: rows, columns, labels, instructions and a metric, checked once and then fixed.

Invariant: every `Example` has non-empty inputs and output, its id is its place in `Task.examples`, and
`Task.fingerprint` is the same in every process that reads the same data.
It leaves out models, prompts and files; importing it loads neither pandas nor scikit-learn.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any

from promptsearch.answer_form import AnswerForm
from promptsearch.data.duplicates import united_answers
from promptsearch.data.labels import LabelSpace, LabelSpec, resolve_labels
from promptsearch.data.records import Row, declared_labels, read_rows
from promptsearch.data.splits import Parts, Splits, make_splits
from promptsearch.data.text import as_text, clean_text, is_missing, listed, quoted
from promptsearch.errors import ArtifactError, DataError
from promptsearch.metrics import Metric, reading_answers, resolve_metric

__all__ = ["Example", "Task", "function_identity", "input_text"]

_logger = logging.getLogger(__name__)


def input_text(inputs: Mapping[str, str]) -> str:
    """The inputs as one text, as it is embedded: the value itself, or a "column: value" line for each."""
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    return "\n".join(f"{column}: {value}" for column, value in inputs.items())


@dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
        id: place in `Task.examples`.
        inputs: pairs of column and text, in the order of `Task.inputs`.
        output: the words that the model sees for a label, or the text.
        value: what stands in the data.
        rationale: written reasoning, if there is any.
        answers: all accepted outputs, `output` first; `output` alone if not given.
    """

    id: int
    inputs: tuple[tuple[str, str], ...]
    output: str
    value: Any = field(hash=False)
    rationale: str | None = None
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.answers:
            object.__setattr__(self, "answers", (self.output,))

    @property
    def fields(self) -> dict[str, str]:
        """The inputs by column."""
        return dict(self.inputs)

    @property
    def text(self) -> str:
        """The inputs as one text; see `input_text`."""
        return input_text(self.fields)


class Task:
    r"""Labelled examples, and what counts as a right answer.

    Args:
        data: a list of dicts, a path (.jsonl, .json, .csv, .tsv, .parquet), a pandas DataFrame or a
            ``datasets.Dataset``.
        inputs: one column or several.
        output: column of the expected output; a list in it holds several accepted answers. So do, of free text, rows
            with the same inputs and other outputs: they count as one.
        instruction: one instruction or several to search among.
        labels: None infers (a ``ClassLabel`` column brings its own names), a list fixes the label space, a
            dict gives the words that the model sees, False is free text.
        rationale: column with written reasoning.
        metric: "accuracy", "macro_f1", "exact_match", "numeric", "f1", or a callable
            ``(example, prediction) -> float`` from 0 to 1, which is tried on the first row's own output at once;
            ``example`` is an :class:`Example`, ``prediction`` a text. None picks by kind of task.
        answer: of free text the regular expression that finds the answer in each expected output, and in what the
            model writes: its last match, or the first group of that. ``r"####\s*(.+)"`` finds 18 in
            "9 * 2 = 18 #### 18". Demonstrations show outputs whole; metrics, callables among them, are given what was
            found. What holds no match is wrong. Columns that declare labels are refused, and outputs that look like
            labels are warned of. None for the whole text.
        validation: rows to search on, in any form that ``data`` takes; otherwise split from ``data``.
        test: rows to measure the result on, likewise.

    Attributes:
        inputs: names of the input columns.
        output: name of the output column.
        instructions: instructions to search among; empty if none was given.
        labels: words of the labels; None for free text.
        label_values: value in the data for each label's words.
        examples: all rows of ``data``, ``validation`` and ``test``, in this order.
        parts: which rows of ``examples`` came from which of the three.
        dropped: rows left out because an input or the output is missing or blank.
        united: rows of free text that are no examples of their own, but give further answers to one with the same
            inputs; it comes from the same of the three.
        metric: how predictions are scored; None only in a task made by `from_spec` from a callable's name.
        answer_form: how written answers look.

    Raises:
        DataError: rows, columns, labels, instructions or the metric cannot be used.
    """

    inputs: tuple[str, ...]
    output: str
    instructions: tuple[str, ...]
    rationale: str | None
    examples: tuple[Example, ...]
    parts: Parts
    dropped: int
    united: int
    metric_name: str
    metric: Metric | None
    answer_form: AnswerForm
    _space: LabelSpace | None
    _score_function: Callable[..., Any] | None
    _places: list[tuple[str, int]]

    def __init__(
        self,
        data: object,
        *,
        inputs: str | Sequence[str],
        output: str,
        instruction: str | Sequence[str] | None = None,
        labels: LabelSpec = None,
        rationale: str | None = None,
        metric: str | Callable[..., float] | None = None,
        answer: str | None = None,
        validation: object = None,
        test: object = None,
    ) -> None:
        self.inputs, self.output, self.rationale = _checked_columns(inputs, output, rationale)
        self.instructions = _checked_instructions(instruction)
        if data is None:
            raise DataError("data is None, which holds no rows; give a list of dicts or the path of a file")
        given = {"data": data, "validation": validation, "test": test}
        read = {name: self._read(name, source) for name, source in given.items() if source is not None}
        self.dropped = sum(source.dropped for source in read.values())
        rows = [row for source in read.values() for row in source.rows.values()]
        if self.rationale is not None:
            _require_columns(list(read["data"].rows.values()), [self.rationale], "data")
        if answer is not None and labels not in (None, False):
            raise DataError(
                f"answer={quoted(answer)} finds answers in free text, and labels={quoted(labels)} makes the output a "
                "label; give one of them"
            )
        if labels is None:
            labels = declared_labels(data, self.output)
            if labels is not None and answer is not None:
                raise DataError(
                    f"answer={quoted(answer)} finds answers in free text, and the column {self.output!r} declares "
                    f"its labels, {listed(list(labels.values()))}; leave answer out, or give labels=False"
                )
            if answer is not None:
                labels = False
                self._warn_of_labels(rows)
        self._space = resolve_labels(labels, [_present(row[self.output]) for row in rows])
        found: dict[str, dict[int, Example]] = {}
        for name, source in read.items():
            found[name] = self._examples(source, first=sum(map(len, found.values())))
        self.examples = tuple(example for own in found.values() for example in own.values())
        self.united = len(rows) - len(self.examples)
        self._places = [(read[name].name, number) for name, own in found.items() for number in own]
        self.parts = _parts([len(found.get(name, ())) for name in given])
        texts = [] if self.is_classification else [text for example in self.examples for text in example.answers]
        self.answer_form = AnswerForm.of(texts, answer)
        self.metric = self.resolve(metric, self.examples)
        self.metric_name = self.metric.name
        if self.metric.is_custom:
            self.metric(self.examples[0], self.examples[0].output)  # one that fails does so before anything slow
        self._score_function = metric if callable(metric) else None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Words of the labels, in a fixed order; None for free text."""
        return None if self._space is None else self._space.words

    @property
    def label_values(self) -> dict[str, Any]:
        """Value in the data for each label's words; empty for free text."""
        return {} if self._space is None else dict(zip(self._space.words, self._space.values, strict=True))

    @property
    def is_classification(self) -> bool:
        """Whether the output is one of `labels`."""
        return self._space is not None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that defines the task: rows, splits given, labels, instructions, metric."""
        digest = hashlib.sha256()
        score = None if self._score_function is None else function_identity(self._score_function)
        _feed(digest, [self.to_spec(), score, self.parts.train, self.parts.validation, self.parts.test])
        for example in self.examples:
            _feed(digest, [example.inputs, example.output, example.rationale, example.answers])
        return digest.hexdigest()

    def row_name(self, number: int) -> str:
        """Where an example stands in what was given, such as "row 12 of data 'reviews.csv'"; rows count from 1.

        Args:
            number: place in `examples`.
        """
        source, row = self._places[number]
        return f"row {row} of {source}"

    def split(self, seed: int = 0) -> Splits:
        """Divide `examples` into pool, search, confirm and test; same seed, same splits.

        Raises:
            DataError: too few rows, or a test split that is also training data.
        """
        return make_splits(
            [example.text for example in self.examples],
            [example.output for example in self.examples],
            self.parts,
            seed=seed,
            stratified=self.is_classification,
            united=self.united,
        )

    def example_from(self, item: object) -> dict[str, str]:
        """Inputs by column from what a user asks about: a text, a dict (other keys are ignored), an example.

        Raises:
            DataError: the item has another form, lacks a column, or is blank.
        """
        if isinstance(item, Example):
            item = item.fields
        if isinstance(item, str) and len(self.inputs) == 1:
            item = {self.inputs[0]: item}
        if not isinstance(item, Mapping):
            wanted = "a text or a dict" if len(self.inputs) == 1 else "a dict"
            raise DataError(f"the item is {quoted(item)}; give {wanted} with {listed(self.inputs)}")
        missing = [column for column in self.inputs if is_missing(item.get(column))]
        if missing:
            raise DataError(
                f"the item {quoted(dict(item))} has no text in {listed(missing)}; every input column needs some"
            )
        return {column: as_text(item[column]) for column in self.inputs}

    def examples_from(self, data: object, *, name: str = "data", unite: bool = True) -> tuple[Example, ...]:
        """Examples from other rows, in any form that `Task` takes; rows with a blank are left out, with a warning.

        They are numbered from zero. A list of `Example` comes back as it is.

        Args:
            data: the rows.
            name: what messages call them.
            unite: whether rows of free text that have the same inputs and other answers count as one, with a warning.

        Raises:
            DataError: the rows cannot be read, an output is no label of this task, or it holds no answer.
        """
        return tuple(example for example, _ in self.rows_from(data, name=name, unite=unite))

    def rows_from(self, data: object, *, name: str = "data", unite: bool = True) -> list[tuple[Example, Row]]:
        """What :meth:`examples_from` gives, each with its row as it stands in the data, all columns of it.

        Of rows that count as one this is the first.

        Raises:
            DataError: as there.
        """
        if isinstance(data, (list, tuple)) and data and all(isinstance(item, Example) for item in data):
            return [(item, self._row_of(item)) for item in data]
        source = self._read(name, data)
        if source.dropped:
            wanted, lacking = listed([*self.inputs, self.output]), source.dropped
            _logger.warning(
                "%d of %d rows of %s lack text in one of %s and are left out",
                lacking,
                lacking + len(source.rows),
                source.name,
                wanted,
            )
        examples = self._examples(source, unite=unite)
        if len(examples) < len(source.rows):
            _logger.warning(
                "%d of %d rows of %s give further answers to the inputs of a row before, and count with it as one",
                len(source.rows) - len(examples),
                len(source.rows),
                source.name,
            )
        self.answer_form.require([example.output for example in examples.values()])
        return [(example, source.rows[number]) for number, example in examples.items()]

    def _row_of(self, example: Example) -> Row:
        """A row as it could stand in the data."""
        answers = [example.value, *(self._value_of(words) for words in example.answers[1:])]
        row = {**example.fields, self.output: answers if len(answers) > 1 else example.value}
        return row if self.rationale is None else {**row, self.rationale: example.rationale}

    def _value_of(self, words: str) -> Any:
        return words if self._space is None else self.label_values[words]

    def resolve(self, metric: str | Callable[..., float] | Metric | None, examples: Sequence[Example]) -> Metric:
        """A metric for some of the task's rows: what `Task` takes, asked about the answers that its texts hold.

        A :class:`Metric` is taken as it is.

        Raises:
            DataError: no such metric, or one that does not suit the task.
        """
        if isinstance(metric, Metric):
            return metric
        find = self.answer_form.find
        golds = [answer for example in examples if (answer := find(example.output)) is not None]
        found = resolve_metric(metric, is_classification=self.is_classification, golds=golds)
        return reading_answers(found, find) if self.answer_form.pattern else found

    def require_metric(self) -> Metric:
        """The metric.

        Raises:
            DataError: the task was loaded, and its metric was a callable, which no file can hold.
        """
        if self.metric is None:
            raise DataError(
                f"metric {self.metric_name!r} is a Python callable and was saved by name only; "
                "give it again to measure with it: evaluate(rows, metric=...)"
            )
        return self.metric

    def describe(self) -> str:
        """One line for people."""
        kind = "free text" if self.labels is None else f"{len(self.labels)} labels: {listed(self.labels)}"
        columns = " + ".join(self.inputs)
        return f"{len(self.examples):,} rows, {columns} -> {self.output} ({kind}), metric {self.metric_name}"

    def __repr__(self) -> str:
        return f"<Task {self.describe()}>"

    def to_spec(self) -> dict[str, Any]:
        """What a saved prompt needs to know of the task, ready for JSON; no rows."""
        values = self.label_values.items()
        return {
            "inputs": list(self.inputs),
            "output": self.output,
            "rationale": self.rationale,
            "instructions": list(self.instructions),
            "labels": [[words, _json_value(value)] for words, value in values] if self.labels else None,
            "metric": self.metric_name,
            "metric_is_custom": self.metric is None or self.metric.is_custom,
            "answer": None if self.is_classification else self.answer_form.to_json(),
        }

    @classmethod
    def from_dspy(cls, trainset: Sequence[Any], signature: Any, **options: Any) -> Task:
        """Make a task of DSPy examples.

        Args:
            trainset: examples that hold the signature's input fields and its output field.
            signature: a ``dspy.Signature``, its text such as ``"text -> label"``, or a module with one predictor; it
                has one output field, beside one named ``reasoning`` or ``rationale``.
            **options: arguments of :class:`Task` that take the place of what the signature says, or add to it:
                ``metric``, ``validation``, ``test``, ``instruction``, ``labels``.

        Raises:
            DataError: the signature has several outputs, or an example lacks a field.
        """
        from promptsearch.dspy.tasks import task_arguments

        given = {**task_arguments(trainset, signature), **options}
        return cls(given.pop("data"), **given)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Task:
        """Make a task without rows from what `to_spec` returned.

        Raises:
            ArtifactError: the description is not one of a task.
        """
        task = cls.__new__(cls)
        try:
            task.inputs, task.output, task.rationale = _checked_columns(
                spec["inputs"], spec["output"], spec["rationale"]
            )
            task.instructions = _checked_instructions(spec["instructions"])
            task._space = _space_from_spec(spec["labels"])
            task.metric_name = str(spec["metric"])
            form = spec.get("answer")
            task.answer_form = AnswerForm() if form is None else AnswerForm.from_json(form)
            task.metric = None if spec["metric_is_custom"] else task.resolve(task.metric_name, ())
        except (KeyError, TypeError, ValueError, DataError) as error:
            raise ArtifactError(
                f"the saved task {quoted(spec)} cannot be used ({type(error).__name__}: {error}); save anew"
            ) from error
        task.examples, task.parts, task.dropped, task.united = (), Parts(()), 0, 0
        task._score_function, task._places = None, []
        return task

    def _warn_of_labels(self, rows: list[Row]) -> None:
        try:
            found = resolve_labels(None, [_present(row[self.output]) for row in rows])
        except DataError:  # one label only: nothing to choose among
            found = None
        if found is not None:
            _logger.warning(
                "answer= makes the outputs free text, and they look like labels: %s; without answer= they are "
                "scored, which is faster and more accurate",
                listed(found.words),
            )

    def _read(self, name: str, source: object) -> _Source:
        rows = read_rows(source, name=name)
        wanted = [*self.inputs, self.output]
        _require_columns(rows, wanted, name)
        kept = {
            number: row
            for number, row in enumerate(rows, start=1)
            if not any(is_missing(row.get(column)) for column in wanted)
        }
        if not kept:
            raise DataError(f"all {len(rows)} rows of {name} lack text in {listed(wanted)}; fill them in")
        file = f" {quoted(os.fspath(source), limit=200)}" if isinstance(source, (str, os.PathLike)) else ""
        return _Source(f"{name}{file}", kept, len(rows) - len(kept))

    def _examples(self, source: _Source, *, first: int = 0, unite: bool = True) -> dict[int, Example]:
        """Examples by the number of their row, counted from ``first``."""
        found: dict[int, Example] = {}
        for number, row in source.rows.items():
            try:
                found[number] = self._example(first + len(found), row)
            except DataError as error:
                raise DataError(f"row {number} of {source.name}: {error}") from error
        if self.is_classification or not unite:
            return found
        numbers, examples = list(found), list(found.values())
        united = united_answers([each.inputs for each in examples], [each.answers for each in examples])
        return {
            numbers[place]: replace(examples[place], id=first + count, answers=answers)
            for count, (place, answers) in enumerate(united.items())
        }

    def _example(self, number: int, row: Row) -> Example:
        value = _present(row[self.output])
        if isinstance(value, Mapping):
            raise DataError(
                f"the output column {self.output!r} holds {quoted(value)}; give a text, a number or a list of answers"
            )
        values = value if isinstance(value, list) else [value]
        answers = tuple(dict.fromkeys(self._output_words(item) for item in values))
        reasoning = row.get(self.rationale) if self.rationale else None
        return Example(
            id=number,
            inputs=tuple((column, as_text(row[column])) for column in self.inputs),
            output=answers[0],
            value=values[0],
            rationale=None if is_missing(reasoning) else as_text(reasoning),
            answers=answers,
        )

    def _output_words(self, value: object) -> str:
        if self._space is None:
            return as_text(value)
        words = self._space.words_for(value)
        if words is None:
            raise DataError(f"the output {quoted(value)} is no label of this task; use {listed(self._space.values)}")
        return words


@dataclass(frozen=True)
class _Source:
    """Where rows came from.

    Attributes:
        name: what messages call it.
        rows: those that have all they need, by their number among all, from 1; a header is none.
        dropped: how many have not.
    """

    name: str
    rows: dict[int, Row]
    dropped: int


def _checked_columns(inputs: object, output: object, rationale: object) -> tuple[tuple[str, ...], str, str | None]:
    """Names of columns: texts, at least one input, and none in two roles."""
    columns = (inputs,) if isinstance(inputs, str) else inputs
    if not isinstance(columns, Sequence) or not columns or not all(_is_name(column) for column in columns):
        raise DataError(f"inputs={quoted(inputs)} names no column; give a column name or a list of them")
    if not _is_name(output):
        raise DataError(f"output={quoted(output)} names no column; give one column name")
    if rationale is not None and not _is_name(rationale):
        raise DataError(f"rationale={quoted(rationale)} names no column; give one column name or None")
    names = [*columns, output, *([] if rationale is None else [rationale])]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"the column {listed(twice)} has two roles; inputs, output and rationale must differ")
    return tuple(columns), str(output), None if rationale is None else str(rationale)


def _is_name(column: object) -> bool:
    return isinstance(column, str) and column != ""


def _checked_instructions(instruction: object) -> tuple[str, ...]:
    """Instructions without blanks and repetitions, in the order given."""
    given = [] if instruction is None else [instruction] if isinstance(instruction, str) else instruction
    if not isinstance(given, Sequence) or not all(isinstance(item, str) for item in given):
        raise DataError(f"instruction={quoted(instruction)} is no text; give a text or a list of texts")
    cleaned = (clean_text(item) for item in given)
    return tuple(dict.fromkeys(item for item in cleaned if item))


def _require_columns(rows: list[Row], wanted: Sequence[str], name: str) -> None:
    present: dict[str, None] = {}
    for row in rows:
        present.update(dict.fromkeys(row))
    missing = [column for column in wanted if column not in present]
    if missing:
        only = next(iter(present), "")
        found = next((mark for mark in (";", "\t", "|") if len(present) == 1 and mark in only), None)
        hint = f"; the header is divided by {found!r}, so give a file divided by commas, or a .tsv" if found else ""
        raise DataError(f"{name} has no column {listed(missing)}; its columns are {listed(present)}{hint}")


def _present(value: Any) -> Any:
    """An output value; of several answers those that say something, as a list."""
    if hasattr(value, "tolist") and not isinstance(value, str):
        value = value.tolist()  # numpy arrays and scalars
    if isinstance(value, (list, tuple)):
        answers = [item for item in value if not is_missing(item)]
        return answers[0] if len(answers) == 1 else answers
    return value


def _parts(sizes: list[int]) -> Parts:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    ranges = [tuple(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    return Parts(*ranges)


def _json_value(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else as_text(value)


def _space_from_spec(pairs: Any) -> LabelSpace | None:
    if pairs is None:
        return None
    return resolve_labels({value: words for words, value in pairs}, [])


def _feed(digest: Any, value: object) -> None:
    """Add a value to a hash so that no two sequences of values look alike."""
    digest.update(json.dumps(value, ensure_ascii=True, sort_keys=True).encode() + b"\n")


def function_identity(function: Callable[..., Any]) -> list[Any]:
    """What a callable is, without memory addresses: name, code, and the plain values it is bound to.

    The same in every process that has the same code.
    """
    target = function if hasattr(function, "__qualname__") else type(function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    captured = [*(cell.cell_contents for cell in cells), *(getattr(function, "__defaults__", None) or ())]
    plain = [repr(value) for value in captured if isinstance(value, (str, int, float, bool))]
    return [target.__module__, target.__qualname__, _code_identity(code), plain]


def _code_identity(code: object) -> Any:
    """Instructions, names and constants of compiled code; constants may hold code and sets of any order."""
    if isinstance(code, CodeType):
        return [code.co_code.hex(), list(code.co_names), [_code_identity(item) for item in code.co_consts]]
    if isinstance(code, frozenset):
        return sorted(map(repr, code))
    return repr(code)
