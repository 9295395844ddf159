"""A prompt as a file: plain JSON, and a FAISS index beside it where it finds neighbours.

Invariant: reading gives back the very parts that were written, or one error that says what is wrong; it runs no code.
Leaves out: the model, which :mod:`promptsearch.prompt` opens, and its prefix state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.embed.base import encoder_name
from promptsearch.embed.cache import CachedEncoder
from promptsearch.errors import ArtifactError
from promptsearch.lm.resolve import OpenedModel
from promptsearch.multiple_choice import MultipleChoice
from promptsearch.parts import PromptParts, Retriever
from promptsearch.pool import Pool
from promptsearch.prior import LabelPrior
from promptsearch.routing import Router
from promptsearch.seen import SeenRows
from promptsearch.task import Task, input_text
from promptsearch.template import TEMPLATES, Demonstration
from promptsearch.version import __version__

__all__ = ["checked_document", "document_of", "parts_from", "read_document"]

_FORMAT = "promptsearch prompt"
_SCHEMA = 3
_WEIGHINGS = ("weighing", "weighing_alone", "weighing_words", "weighing_words_alone")
_VOTE_SCHEMA = 1  # its prior is a vote of neighbours and nothing else
_VECTORS_SCHEMA = 2  # its prior knows vectors and no characters


def document_of(parts: PromptParts, opened: OpenedModel) -> dict[str, Any]:
    """A prompt as plain values, without its index."""
    needed = parts.examples if parts.needs_pool else parts.candidate.shown
    return {
        "format": _FORMAT,
        "schema": _SCHEMA,
        "version": __version__,
        "task": parts.task.to_spec(),
        "candidate": parts.candidate.to_dict(),
        "examples": [
            {
                "number": number,
                "inputs": dict(parts.examples[number].inputs),
                "output": parts.examples[number].output,
                **({"rationale": parts.examples[number].rationale} if parts.candidate.reasons else {}),
            }
            for number in needed
        ],
        **{name: None if weighing is None else weighing.to_dict() for name, weighing in _weighings_of(parts).items()},
        "prior": parts.prior.to_dict() if parts.prior and parts.uses_prior else None,
        "router": parts.router.to_list() if parts.router is not None else None,
        "encoder": _encoder_source(parts.retriever) if parts.needs_vectors else None,
        "model": {
            "source": opened.source,
            "name": opened.engine.name,
            "fingerprint": opened.engine.fingerprint,
            "weights": opened.kind,
        },
        "measured": dict(parts.measured),
        "seen": parts.seen.to_text(),
    }


def _weighings_of(parts: PromptParts) -> dict[str, Weighing | None]:
    """A prompt's weighings by their names."""
    return {name: getattr(parts, name) for name in _WEIGHINGS}


def _encoder_source(retriever: Retriever | None) -> dict[str, str] | None:
    if retriever is None:
        return None
    return {"source": retriever.source, "fingerprint": encoder_name(retriever.encoder)}


def read_document(path: Path) -> dict[str, Any]:
    """The file of a saved prompt as plain values, of the current schema.

    Raises:
        ArtifactError: it is none of ours, or is damaged.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no saved prompt {str(path)!r}; give the file that save() wrote") from error
    except IsADirectoryError as error:
        raise ArtifactError(f"{str(path)!r} is a folder; give the file that save() wrote") from error
    except OSError as error:
        raise ArtifactError(f"{str(path)!r} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{str(path)!r} is no saved prompt, or a damaged one ({error}); give the file that save() wrote"
        ) from error
    return checked_document(document, path)


def checked_document(document: Any, path: Path) -> dict[str, Any]:
    """What a saved prompt's file held, of the current schema.

    Args:
        document: what was read.
        path: what errors call its file.

    Raises:
        ArtifactError: it is none of ours, or is damaged.
    """
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        is_program = isinstance(document, dict) and "dspy" in str(document.get("metadata", ""))
        way_out = "promptsearch.dspy.load reads DSPy's programs" if is_program else "give the file that save() wrote"
        raise ArtifactError(f"{str(path)!r} is no saved prompt; {way_out}")
    if document.get("schema") == _VOTE_SCHEMA:
        document = _from_vote_schema(document)
    elif document.get("schema") == _VECTORS_SCHEMA:
        document = {**document, "schema": _SCHEMA}
    if document.get("schema") != _SCHEMA:
        raise ArtifactError(
            f"{str(path)!r} has schema {document.get('schema')!r} and this version reads {_SCHEMA}; "
            "use the version that wrote it"
        )
    missing = {"task", "candidate", "examples", "weighing", "prior", "encoder", "model", "measured"} - set(document)
    model = document.get("model")
    if missing or not isinstance(model, dict) or not {"source", "name", "fingerprint", "weights"} <= set(model):
        raise ArtifactError(f"{str(path)!r} is damaged: it lacks {', '.join(sorted(missing)) or 'its model'}")
    return dict(document)


def _from_vote_schema(document: dict[str, Any]) -> dict[str, Any]:
    """A document whose prior is a vote, as it would be written now."""
    current = {name: value for name, value in document.items() if name != "vote"} | {"schema": _SCHEMA}
    if "vote" in document:
        vote = document["vote"]
        alone = {"vote": vote, "vote_weight": 1.0, "linear": None, "linear_weight": 0.0}
        current["prior"] = alone if vote else None
    return current


def parts_from(
    document: Mapping[str, Any], path: Path, encoder: object, index: Mapping[str, bytes] | None = None
) -> PromptParts:
    """The parts of a saved prompt.

    Args:
        document: what :func:`read_document` gave.
        path: the file, beside which its index lies.
        encoder: another encoder than the saved one; None opens the saved one.
        index: the index's files by name, where they do not lie beside the file.

    Raises:
        ArtifactError: anything that does not hold together.
    """
    candidate = Candidate.from_dict(document["candidate"])
    task = Task.from_spec(document["task"])
    unknown_template = next((each.template for each in candidate.members if each.template not in TEMPLATES), None)
    if unknown_template is not None:
        raise ArtifactError(f"{str(path)!r} uses the unknown template {unknown_template!r}; save it anew")
    try:
        examples = {
            int(row["number"]): Demonstration(
                {column: str(row["inputs"][column]) for column in task.inputs},
                str(row["output"]),
                str(row.get("rationale") or ""),
            )
            for row in document["examples"]
        }
        weighings = {name: Weighing.from_dict(document[name]) if document.get(name) else None for name in _WEIGHINGS}
        weighing = weighings["weighing"]
        saved = document["prior"]
        prior = LabelPrior.from_dict(saved, len(task.labels or ())) if saved else None
        router = Router.from_list(document["router"]) if document.get("router") else None
        measured = dict(document["measured"])
        if "seen" in document:
            seen = SeenRows.from_text(document["seen"])
        else:  # written before it was kept
            seen = SeenRows.of(input_text(shown.inputs) for shown in examples.values())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtifactError(f"{str(path)!r} is damaged ({type(error).__name__}: {error}); save it anew") from error
    if candidate.reasons and not TEMPLATES[candidate.template].takes_reasoning:
        raise ArtifactError(f"{str(path)!r} is damaged: it reasons where reasoning has no place; save it anew")
    if TEMPLATES[candidate.template].scores_options:
        _require_options(path, task, examples)
    if candidate.reasoning in ("gold", "self"):
        bare = [
            n for n in candidate.shown or candidate.among or examples if n in examples and not examples[n].rationale
        ]
        if bare:
            raise ArtifactError(f"{str(path)!r} is damaged: example {bare[0]} has no reasoning to show; save it anew")
    lost = [number for number in candidate.shown if number not in examples]
    if lost:
        raise ArtifactError(f"{str(path)!r} is damaged: demonstration {lost[0]} is missing; save it anew")
    if any(len(each.offsets) != len(task.labels or ()) for each in weighings.values() if each is not None):
        raise ArtifactError(f"{str(path)!r} is damaged: its offsets do not match its labels; save it anew")
    if (weighing is None) != (task.labels is None):
        raise ArtifactError(f"{str(path)!r} is damaged: its weights do not match its labels; save it anew")
    unknown = {shown.output for shown in examples.values()} - set(task.labels or ()) if prior is not None else ()
    if unknown:
        raise ArtifactError(f"{str(path)!r} is damaged: an example has no label of the task; save it anew")
    if weighing is not None and weighing.prior_weight > 0 and prior is None:
        raise ArtifactError(f"{str(path)!r} is damaged: it lacks its prior; save it anew")
    retriever = _retriever_from(document, path, examples, encoder, index)
    if (candidate.mode == "routed") != (router is not None) or (router and router.count != len(candidate.routes)):
        raise ArtifactError(f"{str(path)!r} is damaged: it does not say which query takes which route; save it anew")
    _check_index(None if retriever is None else retriever.pool, candidate, router, path)
    if any(len(each.shifts) not in (0, len(candidate.routes)) for each in weighings.values() if each is not None):
        raise ArtifactError(f"{str(path)!r} is damaged: its weights do not match its routes; save it anew")
    parts = PromptParts(
        task,
        candidate,
        examples,
        prior=prior,
        retriever=retriever,
        router=router,
        measured=measured,
        seen=seen,
        **weighings,
    )
    _require_words(path, parts)
    if parts.needs_pool and (retriever is None or retriever.pool is None):
        raise ArtifactError(f"{str(path)!r} is damaged: it does not name its index; save it anew")
    if parts.needs_vectors and retriever is None:
        raise ArtifactError(f"{str(path)!r} is damaged: it does not name its encoder; save it anew")
    return parts


def _require_words(path: Path, parts: PromptParts) -> None:
    """Refuse a readout without what serves another model, and readouts that read different tokens or prompts."""
    readouts = [each.readout for each in (parts.weighing, parts.weighing_alone) if each is not None]
    read = {readout.tokens for readout in readouts if readout is not None}
    words = (parts.weighing_words, parts.weighing_words_alone)
    candidate = parts.candidate
    scores_options = any(TEMPLATES[each.template].scores_options for each in candidate.members)
    tells_otherwise = candidate.reasons or candidate.mode == "routed" or scores_options
    prompts = {readout.prompts for readout in readouts if readout is not None}
    if prompts - {len(candidate.members)} or (candidate.ensemble and scores_options):
        raise ArtifactError(f"{str(path)!r} is damaged: what it reads are not its prompts; save it anew")
    if len(read) > 1 or (read and (None in words or tells_otherwise)):
        raise ArtifactError(f"{str(path)!r} is damaged: what it reads does not hold together; save it anew")
    if any(each is not None and each.readout is not None for each in words):
        raise ArtifactError(f"{str(path)!r} is damaged: its weights without a readout have one; save it anew")


def _require_options(path: Path, task: Task, examples: Mapping[int, Demonstration]) -> None:
    """Refuse a prompt that scores options, and whose examples list none."""
    listed = MultipleChoice(tuple(task.labels or ()))
    bare = [
        n for n, shown in examples.items() if listed.find(shown.inputs) is None or shown.output not in listed.labels
    ]
    if not listed.labels or bare:
        raise ArtifactError(f"{str(path)!r} is damaged: it scores options, and its examples list none; save it anew")


def _check_index(pool: Pool | None, candidate: Candidate, router: Router | None, path: Path) -> None:
    """Refuse examples that the index lacks, and centres of other vectors than its own."""
    if pool is None:
        return
    lost = set(candidate.among).difference(pool.ids.tolist())
    if lost:
        raise ArtifactError(f"{str(path)!r} is damaged: its index lacks example {min(lost)}; save it anew")
    if len(set(candidate.among)) < len(candidate.among):
        raise ArtifactError(f"{str(path)!r} is damaged: it retrieves among the same example twice; save it anew")
    if router is not None and router.centres.shape[1] != pool.dimension:
        raise ArtifactError(
            f"{str(path)!r} is damaged: its routes have {router.centres.shape[1]} dimensions and its index "
            f"{pool.dimension}; save it anew"
        )


def _retriever_from(
    document: Mapping[str, Any],
    path: Path,
    examples: Mapping[int, Demonstration],
    encoder: object,
    index: Mapping[str, bytes] | None,
) -> Retriever | None:
    saved = document["encoder"]
    if not saved:
        return None
    if not isinstance(saved, dict):
        raise ArtifactError(f"{str(path)!r} is damaged: it does not name its encoder; save it anew")
    from promptsearch.embed.transformer import encoder_source, resolve_encoder, saved_encoder

    pool = _pool_from(document, path, examples, saved.get("fingerprint"), index) if document.get("index") else None
    source, fingerprint = str(saved.get("source", "")), saved.get("fingerprint")
    if encoder is None and not source:
        raise ArtifactError(
            f"{str(path)!r} was made with an encoder object, which no file can hold; give it as encoder="
        )
    given: Any = encoder  # checked there
    found = saved_encoder(source) if encoder is None else resolve_encoder(given)
    opened = found if isinstance(found, CachedEncoder) else CachedEncoder(found)
    if opened.fingerprint != fingerprint:
        raise ArtifactError(
            f"{str(path)!r} was made with vectors of {fingerprint!r}, and the encoder is now "
            f"{opened.fingerprint!r}; give the one it was made with as encoder="
        )
    return Retriever(pool, opened, encoder_source(source if encoder is None else encoder) or source)


def _pool_from(
    document: Mapping[str, Any],
    path: Path,
    examples: Mapping[int, Demonstration],
    fingerprint: Any,
    index: Mapping[str, bytes] | None,
) -> Pool:
    """The index of a saved prompt, from its files or beside it."""
    name = Path(str(document["index"])).name
    if not name:
        raise ArtifactError(f"{str(path)!r} is damaged: it does not name its index; save it anew")
    digest = document.get("index_sha256")
    if index is None:
        pool = Pool.load(path.with_name(name), encoder=fingerprint, digest=digest)
    else:
        pool = Pool.from_files(_reader(index, path), path, encoder=fingerprint, digest=digest)
    lost = [int(number) for number in pool.ids if int(number) not in examples]
    if lost:
        raise ArtifactError(f"the index of {str(path)!r} does not belong to it: example {lost[0]} is unknown")
    return pool


def _reader(files: Mapping[str, bytes], path: Path) -> Callable[[str], bytes]:
    """Reads an index's files where they stand in the file itself."""

    def read(name: str) -> bytes:
        if name not in files:
            raise ArtifactError(f"{str(path)!r} is damaged: it lacks its index's {name}; save it anew")
        return files[name]

    return read
