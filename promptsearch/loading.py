"""``promptsearch.load``: the other end of ``Prompt.save``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptsearch.prompt import Prompt

__all__ = ["load"]


def load(path: str | Path, model: object = None, *, encoder: object = None, weights: str | None = None) -> Prompt:
    """Read a prompt that :meth:`promptsearch.Prompt.save` wrote.

    Args:
        path: the JSON file.
        model: another model than the saved one; None opens the saved one.
        encoder: another encoder than the saved one; None opens the saved one, which, unless it is the default
            one, is fetched from nowhere and has
            to be without code of its own.
        weights: weight type of a GGUF model; None for the one that the saved prompt was measured on, and for
            ``"auto"`` where ``model`` is given.

    Raises:
        ArtifactError: the file is no saved prompt, is damaged, or its index is missing.
        ModelError: the model or the encoder cannot be opened.
    """
    from promptsearch.prompt import Prompt

    return Prompt.load(path, model, encoder=encoder, weights=weights)
