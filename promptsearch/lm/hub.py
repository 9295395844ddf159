"""GGUF models in repositories of the Hugging Face hub: which of them a name means, and where its files are.

Invariant: a name means one model, or is an error that lists what there is; no other model's files are fetched. A
model in parts is one model, and none where parts are missing. Every name that :func:`cached_models` gives can be
opened, also without a network.
Leaves out: opening a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from promptsearch.errors import ModelError
from promptsearch.optional import require

__all__ = ["HubModel", "cached_model", "cached_models", "choose_model", "fetch_model", "models_among"]

_NAME = re.compile(r"hf:(?P<repository>(?:[\w.-]+/)?[\w.-]+)(?::(?P<wanted>.+))?")
_SUFFIX = ".gguf"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_QUANTIZATION = re.compile(r"(?:^|[-._/])((?:UD-)?(?:I?Q\d|TQ\d|MXFP\d|B?F16|F32)\w*)$", re.IGNORECASE)
_PROJECTOR = "mmproj"  # what turns images into a model's tokens, and is none itself
_SECONDS = 10.0  # for the hub to say what a repository holds
_MOST_LISTED = 40


@dataclass(frozen=True)
class HubModel:
    """One model of a repository.

    Attributes:
        name: its path in the repository, without the suffix and without the number of a part.
        files: its file, or its parts in their order, as paths in the repository.
    """

    name: str
    files: tuple[str, ...]


_Kept = tuple[HubModel, Path]
"""A model, and the folder of the version that has it."""


def models_among(files: Iterable[str]) -> list[HubModel]:
    """The models that a repository holds whole, by name.

    Args:
        files: paths in the repository, of whatever files.
    """
    stems = {file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX) and not _is_projector(file)} - {
        ""
    }
    parts: dict[tuple[str, str], dict[int, str]] = {}
    found = []
    for stem in stems:
        part = _PART.fullmatch(stem)
        if part is None:
            found.append(HubModel(stem, (stem + _SUFFIX,)))
        else:
            parts.setdefault((part["stem"], part["count"]), {})[int(part["number"])] = stem
    taken = {model.name for model in found}
    for (stem, count), numbered in sorted(parts.items()):
        if sorted(numbered) == list(range(1, int(count) + 1)):
            name = numbered[1] if stem in taken else stem
            taken.add(name)
            found.append(HubModel(name, tuple(numbered[number] + _SUFFIX for number in sorted(numbered))))
    return sorted(found, key=lambda model: model.name)


def choose_model(models: Sequence[HubModel], wanted: str, repository: str) -> HubModel:
    """The one model that is meant.

    Args:
        models: those of a repository.
        wanted: a model's name, the name of a file, or a part of one between its separators, such as ``"Q4_K_M"``, in
            upper or lower case; empty for the only one that there is.
        repository: what messages call it.

    Raises:
        ModelError: none is meant, or several are.
    """
    meant = _meant(models, wanted) if wanted else list(models)
    if len(meant) == 1:
        return meant[0]
    if not models:
        raise ModelError(f"{repository!r} holds no GGUF model; name a repository that does")
    whole = f"hf:{repository}" + (f":{wanted}" if wanted else "")
    problem = f"means {len(meant)} models" if meant else "means none of the models there"
    shown = [repr(f"hf:{repository}:{_short_name(model, models)}") for model in meant or models]
    more = f" and {len(shown) - _MOST_LISTED} more" if len(shown) > _MOST_LISTED else ""
    raise ModelError(f"{whole!r} {problem}; give one of {', '.join(shown[:_MOST_LISTED])}{more}")


def fetch_model(name: str) -> Path:
    """The file of a model, or its first part; it is fetched where the hub's cache lacks it.

    Args:
        name: ``"hf:owner/repo:quant"``.

    Raises:
        ModelError: it names no model, or one that cannot be fetched.
    """
    repository, wanted = _parsed(name)
    hub = require("huggingface_hub", install="huggingface_hub")
    kept = _kept_models(repository)
    try:  # one question: without a network, other calls try again for more than a minute
        siblings = hub.HfApi().model_info(repository, timeout=_SECONDS).siblings
    except Exception as error:  # the hub raises many kinds: no network, no such repository, no permission
        if not kept:
            raise _not_fetched(name, error) from error
        try:
            return _kept_file(kept, wanted, repository)
        except ModelError as unknown:
            raise ModelError(
                f"the hub does not answer ({type(error).__name__}), and in its cache {unknown}"
            ) from error
    models = models_among(file.rfilename for file in siblings or ())
    if wanted in kept and wanted not in {model.name for model in models}:
        return _kept_file(kept, wanted, repository)  # the repository has it no longer
    chosen = choose_model(models, wanted, repository)
    try:
        folder = Path(hub.snapshot_download(repository, allow_patterns=[escape(file) for file in chosen.files]))
        lost = [file for file in chosen.files if not (folder / file).is_file()]
        if lost:
            raise FileNotFoundError(lost[0])
    except Exception as error:
        if chosen.name not in kept:
            raise _not_fetched(name, error) from error
        return _kept_file(kept, chosen.name, repository)
    return folder / chosen.files[0]


def cached_model(name: str) -> Path:
    """The file of a model, or its first part, in the hub's cache.

    Args:
        name: ``"hf:owner/repo:quant"``.

    Raises:
        ModelError: it names no model, or one that is not there.
    """
    repository, wanted = _parsed(name)
    kept = _kept_models(repository)
    if not kept:
        raise ModelError(f"{name!r} is not in the hub's cache; fetch it by optimizing with --model {name}")
    return _kept_file(kept, wanted, repository)


def cached_models() -> list[tuple[str, Path]]:
    """Every model that the hub's cache holds whole: what :func:`fetch_model` takes, and its file or first part."""
    return [
        (f"hf:{_repository_of(folder)}:{name}", version / model.files[0])
        for folder in _cache_folders()
        for name, (model, version) in sorted(_kept_in(folder).items())
    ]


def _parsed(name: str) -> tuple[str, str]:
    """Repository, and which of its models; empty where that is not said."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ModelError(f"{name!r} names no hub file; write 'hf:owner/repo:quant', such as '...:Q4_K_M'")
    return match["repository"], match["wanted"] or ""


def _is_projector(file: str) -> bool:
    return _PROJECTOR in re.split(r"[^a-z]+", file.lower())


def _meant(models: Sequence[HubModel], wanted: str) -> list[HubModel]:
    """The models that a name fits best: letter by letter, in any case, without the folder, or as a part of theirs."""
    folded = wanted.casefold()
    names = [(model, _names_of(model)) for model in models]
    part = re.compile(rf"(?<![^\W_]){re.escape(folded)}(?!\w)")
    rules = (
        [model for model in models if wanted == model.name],
        [model for model, each in names if folded in each],
        [model for model, each in names if folded in {name.rpartition("/")[2] for name in each}],
        [model for model in models if part.search(model.name.casefold())],
    )
    return next((found for found in rules if found), [])


def _names_of(model: HubModel) -> set[str]:
    """What may stand for a model: its name or that of a file, with or without the suffix."""
    whole = [model.name, model.name + _SUFFIX, *model.files, *(file.removesuffix(_SUFFIX) for file in model.files)]
    return {name.casefold() for name in whole}


def _short_name(model: HubModel, models: Sequence[HubModel]) -> str:
    """The quantization of a model where that tells it from the others, else its name."""
    end = _QUANTIZATION.search(model.name)
    return end[1] if end and _meant(models, end[1]) == [model] else model.name


def _not_fetched(name: str, error: Exception) -> ModelError:
    forbidden = type(error).__name__ == "OfflineModeIsEnabled"
    way_out = "unset HF_HUB_OFFLINE" if forbidden else "check name and network"
    return ModelError(
        f"{name!r} cannot be fetched ({type(error).__name__}); {way_out}, or give the path of a GGUF file"
    )


def _cache_folders() -> list[Path]:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return []
    return sorted(Path(HF_HUB_CACHE).glob("models--*"))


def _repository_of(folder: Path) -> str:
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def _kept_models(repository: str) -> dict[str, _Kept]:
    """The models of a repository that the cache holds whole, by name; its owner may be written in another case."""
    folders = {_repository_of(folder): folder for folder in _cache_folders()}
    found = next(
        (name for name in (repository, *folders) if name.lower() == repository.lower() and name in folders), None
    )
    return {} if found is None else _kept_in(folders[found])


def _kept_in(folder: Path) -> dict[str, _Kept]:
    """The models that a folder of the cache holds whole, each from the newest version that has it."""
    kept: dict[str, _Kept] = {}
    for version in _versions(folder):
        files = [path.relative_to(version).as_posix() for path in version.rglob(f"*{_SUFFIX}") if path.is_file()]
        for model in models_among(files):
            kept.setdefault(model.name, (model, version))
    return kept


def _kept_file(kept: Mapping[str, _Kept], wanted: str, repository: str) -> Path:
    model, version = kept[choose_model([model for model, _ in kept.values()], wanted, repository).name]
    return version / model.files[0]


def _versions(folder: Path) -> list[Path]:
    """The versions of a repository in the cache: the one that is current there, then the others from the newest."""
    main = folder / "refs" / "main"
    current = main.read_text("utf-8").strip() if main.is_file() else ""
    versions = [version for version in folder.glob("snapshots/*") if version.is_dir()]
    return sorted(versions, key=lambda version: (version.name != current, -version.stat().st_mtime, version.name))
