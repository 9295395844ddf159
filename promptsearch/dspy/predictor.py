"""A ``dspy.Predict`` that can do what a search finds: calibrated choices, and demonstrations found for each query.

It is DSPy's own class with more state. That state is saved in the program's JSON beside the demonstrations, and names
the adapter that it belongs to: the plain one, under which a loaded program predicts the same whatever is configured
by then, or whichever is configured.
Invariant: without that state it behaves as ``dspy.Predict`` does under its adapter.
Leaves out: finding the state, see :mod:`promptsearch.dspy.demo_search`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy

from promptsearch.calibration import Weighing
from promptsearch.dspy.adapter import STYLES, PlainAdapter
from promptsearch.dspy.engine import LocalEngine
from promptsearch.dspy.fields import choices_of
from promptsearch.dspy.library import Library
from promptsearch.dspy.module import holds_prompt, loading, module_from, now_loading
from promptsearch.embed.base import Encoder
from promptsearch.errors import ArtifactError, UserError

__all__ = ["Predict", "become_ours", "load", "model_identity"]

_logger = logging.getLogger("promptsearch.dspy")

_KEY = "promptsearch"
_SCHEMA = 1
_PLAIN, _CONFIGURED = "plain", "configured"


class Predict(dspy.Predict):  # type: ignore[misc]  # dspy has no types
    """``dspy.Predict`` with calibrated choices and demonstrations found for each query.

    Args:
        signature: as of ``dspy.Predict``.
        scored: whether an output of few values is chosen by log-probabilities where the engine can; False has the
            model write it.
        **config: as of ``dspy.Predict``.

    Attributes:
        adapter: ``"plain"`` for :class:`PlainAdapter`, ``"configured"`` for whatever is configured.
        scored: see above.
        style: the words around the fields, one of :data:`promptsearch.dspy.adapter.STYLES`.
        titles: what the prompt calls fields, by name; others are called by their own name.
        weighings: for output fields that are chosen, how log-probabilities become scores.
        choices: for the same fields the texts that they choose among; others are chosen among without a weighing.
        library: where each query's demonstrations are found; None shows ``demos`` to every query.
        model: what tells the language model that the weighings were fitted with from others; empty without any.
    """

    # Of the class, so that a predictor of somebody's program can become one of ours in place.
    adapter: str = _PLAIN
    scored: bool = True
    style: str = "listed"
    titles: Mapping[str, str] = {}
    weighings: Mapping[str, Weighing] = {}
    choices: Mapping[str, tuple[str, ...]] = {}
    library: Library | None = None
    model: str = ""

    def __init__(self, signature: Any, *, scored: bool = True, **config: Any) -> None:
        super().__init__(signature, **config)
        self.scored = scored

    def reset(self) -> None:
        """Forget demonstrations and what was learnt."""
        super().reset()
        self.weighings, self.library, self.model = {}, None, ""
        self.style, self.titles, self.choices = "listed", {}, {}

    def forward(self, **kwargs: Any) -> Any:
        """Predict; see ``dspy.Predict``."""
        with dspy.context(adapter=self._adapter(kwargs)):
            return super().forward(**self._with_found(kwargs))

    async def aforward(self, **kwargs: Any) -> Any:
        """Predict without blocking the event loop."""
        with dspy.context(adapter=self._adapter(kwargs)):
            return await super().aforward(**await asyncio.to_thread(self._with_found, kwargs))

    # -- what is shown --------------------------------------------------------------------------------------

    def _adapter(self, call: Mapping[str, Any]) -> Any:
        if self.adapter != _PLAIN:
            return dspy.settings.adapter
        weighings = self.weighings
        lm = self._lm(call)
        if weighings and self.model and lm is not None and model_identity(lm) != self.model:
            _warn(f"calibrated with {self.model} and runs on {model_identity(lm)}")
            weighings = {}
        signature = call.get("signature", self.signature)
        fitting = {name: each for name, each in weighings.items() if self._is_of(name, signature)}
        if len(fitting) < len(weighings):
            _warn("calibrated for other choices than its signature has")
        weighings = fitting
        return PlainAdapter(scored=self.scored, weighings=weighings, style=self.style, titles=self.titles, owner=self)

    def _is_of(self, name: str, signature: Any) -> bool:
        """Whether a weighing belongs to the choices of a signature's field."""
        field = dspy.signatures.ensure_signature(signature).output_fields.get(name)
        choices = None if field is None else choices_of(field)
        return choices is not None and choices.texts == tuple(self.choices.get(name, choices.texts))

    def _lm(self, call: Mapping[str, Any]) -> Any:
        return call.get("lm") or self.lm or dspy.settings.lm

    def _with_found(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The call with the demonstrations of its query, as many as fit."""
        if self.library is None or "demos" in call:
            return dict(call)
        found = self.library.find({name: call.get(name) for name in self.signature.input_fields})
        return {**call, "demos": self._fitting(found, call)}

    def _fitting(self, found: list[dict[str, Any]], call: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Found demonstrations without the least similar ones, until the engine's context holds the prompt."""
        lm = self._lm(call)
        engine = getattr(lm, "engine", None)
        if not isinstance(engine, LocalEngine) or self.library is None:
            return found
        room = (lm.kwargs.get("max_tokens") or 0) * len(self.signature.output_fields)
        adapter = PlainAdapter(style=self.style, titles=self.titles)
        while found and not engine.fits(adapter.text(self.signature, found, call), room):
            found = self.library.without_last(found)
        return found

    # -- saved ----------------------------------------------------------------------------------------------

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """DSPy's state and ours, as plain values."""
        state: dict[str, Any] = super().dump_state(json_mode=json_mode)
        state[_KEY] = {
            "schema": _SCHEMA,
            "fields": list(self.signature.fields),
            "adapter": self.adapter,
            "scored": self.scored,
            "style": self.style,
            "titles": dict(self.titles),
            "model": self.model,
            "weighings": {name: weighing.to_dict() for name, weighing in self.weighings.items()},
            "choices": {name: list(texts) for name, texts in self.choices.items()},
            "library": None if self.library is None else self.library.dump_state(),
        }
        return state

    def load_state(
        self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False, encoder: str | Encoder | None = None
    ) -> Predict:
        """Take over a saved state, DSPy's own too.

        Args:
            state: what :meth:`dump_state` gave, or ``dspy.Predict`` did.
            allow_unsafe_lm_state: as of ``dspy.Predict``.
            encoder: what encodes queries for found demonstrations, or its name; None for what the state names.

        Raises:
            ArtifactError: our part is damaged, or of a predictor with other fields.
        """
        theirs = {name: value for name, value in state.items() if name != _KEY}
        ours = state.get(_KEY)
        read = {"adapter": _CONFIGURED}
        if ours is not None:
            read = _read_state(ours, list(self.signature.fields), encoder or now_loading().encoder)
        super().load_state(theirs, allow_unsafe_lm_state=allow_unsafe_lm_state)
        for name, value in read.items():
            setattr(self, name, value)
        return self


def _read_state(state: Any, fields: list[str], encoder: str | Encoder | None) -> dict[str, Any]:
    """Our attributes from the saved state of a predictor with these fields."""
    try:
        if state["fields"] != fields:
            raise ArtifactError(
                f"the saved predictor has the fields {', '.join(map(str, state['fields']))}, and this one "
                f"{', '.join(fields)}; give an instance of the saved class"
            )
        if state["schema"] != _SCHEMA or state["adapter"] not in (_PLAIN, _CONFIGURED):
            raise ValueError(f"schema {state['schema']!r}, adapter {state['adapter']!r}")
        if state["style"] not in STYLES:
            raise ValueError(f"style {state['style']!r}")
        library = state["library"]
        return {
            "adapter": str(state["adapter"]),
            "scored": bool(state["scored"]),
            "style": str(state["style"]),
            "titles": {str(name): str(title) for name, title in state["titles"].items()},
            "model": str(state["model"]),
            "weighings": {str(name): Weighing.from_dict(each) for name, each in state["weighings"].items()},
            "choices": {str(name): tuple(map(str, texts)) for name, texts in state["choices"].items()},
            "library": None if library is None else Library.load_state(library, encoder),
        }
    except ArtifactError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"the saved predictor cannot be read ({error}); save it anew with this version of promptsearch"
        ) from error


_warned: set[str] = set()


def _warn(problem: str) -> None:
    """Say once that a calibration does not apply."""
    if problem not in _warned:
        _warned.add(problem)
        _logger.warning("the program was %s: its choices are not calibrated; compile it again", problem)


def model_identity(lm: Any) -> str:
    """What tells one language model from another; of a model file it is the file, however its weights are run."""
    engine = getattr(lm, "engine", None)
    if isinstance(engine, LocalEngine):
        return f"{engine.engine.name}@{engine.engine.fingerprint.split(':')[0][:12]}"
    return str(getattr(lm, "model", ""))


def become_ours(program: Any, *, adapter: str = _PLAIN, scored: bool = True) -> Any:
    """Turn every plain ``dspy.Predict`` of a program into ours, in place; what it learnt stays.

    Args:
        program: any module.
        adapter: what they show the task with, ``"plain"`` or ``"configured"``.
        scored: whether outputs of few values are chosen by log-probabilities.

    Returns:
        The same program.
    """
    for predictor in program.predictors():
        if type(predictor) is dspy.Predict:
            predictor.__class__ = Predict
        if isinstance(predictor, Predict):
            predictor.adapter, predictor.scored = adapter, scored
    return program


def load(
    path: Any, program: Any = None, *, model: object = None, encoder: str | Encoder | None = None, **options: Any
) -> Any:
    """Load a saved program's state into a program that was written with ``dspy.Predict``.

    DSPy's own ``program.load`` knows nothing of calibration and found demonstrations unless the program's predictors
    are ours already.

    Args:
        path: the JSON file that ``program.save`` wrote.
        program: a fresh instance of the program's class; None for a file of ``Prompt.to_dspy().save``, which needs
            none.
        model: what the prompt of such a file runs on, as for :func:`promptsearch.load`; None for the model that the
            file names. Programs run on the language model that DSPy is configured with, and prompts within them on
            their own model where their state names none that can be opened.
        encoder: what encodes queries of a program or prompt that needs them, or its name; None for what the file
            names, which is opened only where it is on this machine and has no code of its own.
        **options: as of ``dspy.Module.load``; none without a program.

    Returns:
        The program, loaded.

    Raises:
        ArtifactError: the file is damaged, or of another program.
        UserError: ``program`` is no module, or None where one is needed, or ``model`` is given with one.
    """
    if program is None:
        if options:
            raise UserError(f"{sorted(options)[0]}= belongs to a program, and none is given; leave it out")
        return module_from(path, model, encoder)
    if model is not None:
        raise UserError(
            "model= belongs to a file of one prompt, which needs no program; leave it out, and give dspy.configure "
            "the program's language model"
        )
    if not isinstance(program, dspy.Module):
        raise UserError(f"program={program!r} is no dspy.Module; give an instance of the program's class")
    if program.predictors() and Path(path).suffix == ".json" and holds_prompt(path):
        raise UserError(
            f"{str(path)!r} holds the module of a prompt, which needs no program; call load with the path alone"
        )
    become_ours(program)
    try:
        with loading(path, encoder):
            program.load(path, **options)
    except KeyError as error:
        raise ArtifactError(
            f"{str(path)!r} holds another program: it has nothing for {error}; give an instance of the saved class"
        ) from error
    return program
