"""What a loaded model allows its memory to do.

llama.cpp keeps what a sequence holds in one of three ways, read from its sources and tried in
``tests/test_architectures.py``:

- Attention keeps a cell for each token. Cells belong to any number of sequences, so that a fork only marks them, a
  token can be decoded for many sequences at once, and a sequence can be cut back to an earlier token.
- Sliding-window attention does the same while its memory is as large as the other layers' (``swa_full``, the default
  of contexts). Only, a cell that no later token can see may be given away: a sequence can be forked and continued at
  its end, never cut back by more than was decoded since.
- A recurrent state is one value for all tokens of a sequence. It is forked as it stands; a token of several sequences
  is refused (by recurrent models) or costs a state for each (hybrid ones), and nothing is cut back.

Positions of several axes (M-RoPE) need no care: llama.cpp gives each axis of a text token the one position.

Invariant: reads the model's handle and changes nothing.
"""

from __future__ import annotations

from ctypes import create_string_buffer
from dataclasses import dataclass
from typing import Any

from promptsearch.lm.llamacpp.library import llama

__all__ = ["Traits", "metadata", "read_traits", "why_not_generator"]


@dataclass(frozen=True)
class Traits:
    """What kind of memory a model has.

    Attributes:
        recurrent: all layers keep a state instead of cells.
        hybrid: some layers keep a state, others cells.
        window: tokens that the layers with a sliding window see; 0 where there are none.
    """

    recurrent: bool = False
    hybrid: bool = False
    window: int = 0

    @property
    def has_state(self) -> bool:
        """Whether each sequence costs memory of its own, whatever its length."""
        return self.recurrent or self.hybrid

    @property
    def shares_tokens(self) -> bool:
        """Whether one row of a batch may belong to several sequences."""
        return not self.has_state

    @property
    def cuts_back(self) -> bool:
        """Whether the end of a sequence may be removed and another end decoded in its place."""
        return not self.has_state and self.window == 0

    @property
    def description(self) -> str:
        """How prompts run on it and why, for a log."""
        if self.has_state:
            kind = "recurrent" if self.recurrent else "hybrid"
            return f"a {kind} model: each prompt runs in a sequence of its own, shared beginnings are forked"
        window = f" with a sliding window of {self.window} tokens" if self.window else ""
        return f"an attention model{window}: shared tokens run once for many prompts"


def read_traits(model: Any) -> Traits:
    """The traits of a loaded model."""
    library = llama()
    return Traits(
        recurrent=bool(library.llama_model_is_recurrent(model)),
        hybrid=bool(library.llama_model_is_hybrid(model)),
        window=max(0, int(library.llama_model_n_swa(model))),
    )


def why_not_generator(model: Any) -> str | None:
    """What a model is instead of one that continues text; None for one that does."""
    library = llama()
    if library.llama_model_is_diffusion(model):
        return "a diffusion model, which does not write from left to right"
    if library.llama_model_has_encoder(model):
        kind = "an encoder with a decoder" if library.llama_model_has_decoder(model) else "an encoder"
        return f"{kind}, which does not continue its prompt"
    architecture = metadata(model, "general.architecture")
    if metadata(model, f"{architecture}.attention.causal") == "false":
        return "an encoder, which cannot continue text"
    if metadata(model, f"{architecture}.pooling_type") not in ("", "0"):
        return "an embedding model, which makes vectors and no text"
    return None


def metadata(model: Any, key: str) -> str:
    """A value of the file's metadata as text, at most 255 bytes; empty where there is none."""
    buffer = create_string_buffer(256)
    length = llama().llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return "" if length < 0 else buffer.value.decode("utf-8", errors="replace")
