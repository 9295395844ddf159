"""Tiny models of many architectures with random weights, so that every memory that llama.cpp has gets tested.

A text is a prompt of bytes: each byte is a token, and a few pairs of bytes are one; some models have a sentencepiece
vocabulary of a few words instead. Weights are 32-bit and so large that one wrong token anywhere shows in the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

__all__ = ["CONTROL", "GENERATORS", "OTHERS", "SENTENCEPIECE", "WINDOW", "write_model"]

WIDTH = 64
HEADS = 4
LAYERS = 4
CONTEXT = 2048
WINDOW = 32
CONTROL = "<|end|>"
MERGES = ["Ġ t", "Ġ a", "e r", "i n", "o n", "Ġt h"]
WORDS = ["▁good", "good", "▁bad", "▁badly", "ness", "▁▁", "▁a", "=▁", "\n\n", ".\n", "日本"]


Build = Callable[["_Model"], None]


class _Model:
    """A file in the making."""

    def __init__(self, path: Path, architecture: str, seed: int, vocabulary: Build) -> None:
        self.writer = gguf.GGUFWriter(path, architecture)
        self.architecture = architecture
        self.rng = np.random.default_rng(seed)
        vocabulary(self)
        self.writer.add_context_length(CONTEXT)
        self.writer.add_embedding_length(WIDTH)
        self.writer.add_block_count(LAYERS)
        self.writer.add_feed_forward_length(2 * WIDTH)

    def byte_level(self) -> None:
        """A vocabulary of bytes."""
        letters = _byte_letters()
        self.tokens = [*letters, *(merge.replace(" ", "") for merge in MERGES), CONTROL]
        control = len(self.tokens) - 1
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list(self.tokens)
        self.writer.add_token_types([gguf.TokenType.NORMAL] * control + [gguf.TokenType.CONTROL])
        self.writer.add_token_merges(MERGES)
        self.writer.add_bos_token_id(control)
        self.writer.add_eos_token_id(control)
        self.writer.add_add_bos_token(False)

    def sentencepiece(self, space: bool | None) -> None:
        """A vocabulary of words, letters and bytes; ``space``: what the file says of a space before each text."""
        letters = [letter for letter in dict.fromkeys("▁" + "".join(WORDS)) if letter != "\n"]  # that is a byte
        beginnings = dict.fromkeys(word[:end] for word in WORDS for end in range(2, len(word) + 1))
        special, data = ["<unk>", "<s>", CONTROL], [f"<0x{byte:02X}>" for byte in range(256)]
        pieces = [*letters, *beginnings]
        self.tokens = [*special, *data, *pieces]
        kinds = gguf.TokenType
        self.writer.add_tokenizer_model("llama")
        self.writer.add_token_list(self.tokens)
        self.writer.add_token_types(
            [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * len(data), *[kinds.NORMAL] * len(pieces)]
        )
        self.writer.add_token_scores([0.0] * (len(special) + len(data)) + [float(len(piece)) for piece in pieces])
        self.writer.add_bos_token_id(1)
        self.writer.add_eos_token_id(2)
        if space is not None:
            self.writer.add_add_space_prefix(space)

    def key(self, name: str, value: Any) -> None:
        """A key of the architecture: a number, or one for each layer."""
        full = f"{self.architecture}.{name}"
        if isinstance(value, list):
            self.writer.add_array(full, value)
        elif isinstance(value, bool):
            self.writer.add_bool(full, value)
        elif isinstance(value, int):
            self.writer.add_uint32(full, value)
        else:
            self.writer.add_float32(full, value)

    def random(self, name: str, *shape: int, size: float = 1.0) -> None:
        """A matrix of outputs by inputs, that keeps the length of what it is given, times ``size``."""
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(size / np.sqrt(shape[-1]))
        self.tensor(name, values)

    def around(self, name: str, middle: float, *shape: int, by: float = 0.2) -> None:
        """Values near a middle, such as the weights of a norm."""
        self.tensor(name, (middle + by * self.rng.standard_normal(shape)).astype(np.float32))

    def tensor(self, name: str, values: np.ndarray) -> None:
        self.writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))

    def embeddings(self, *, norm: str = "output_norm") -> None:
        self.random("token_embd.weight", len(self.tokens), WIDTH, size=8.0)
        self.random("output.weight", len(self.tokens), WIDTH, size=4.0)
        self.around(f"{norm}.weight", 1.0, WIDTH)

    def attention(self, layer: int, *, norm: bool = True) -> None:
        """Attention with half as many heads for keys and values."""
        inner = WIDTH // 2
        if norm:
            self.around(f"blk.{layer}.attn_norm.weight", 1.0, WIDTH)
        self.random(f"blk.{layer}.attn_q.weight", WIDTH, WIDTH, size=1.5)
        self.random(f"blk.{layer}.attn_k.weight", inner, WIDTH, size=1.5)
        self.random(f"blk.{layer}.attn_v.weight", inner, WIDTH)
        self.random(f"blk.{layer}.attn_output.weight", WIDTH, WIDTH, size=2.0)

    def feed_forward(self, layer: int, *, gate: bool = True, norm: bool = True) -> None:
        if norm:
            self.around(f"blk.{layer}.ffn_norm.weight", 1.0, WIDTH)
        if gate:
            self.random(f"blk.{layer}.ffn_gate.weight", 2 * WIDTH, WIDTH)
        self.random(f"blk.{layer}.ffn_up.weight", 2 * WIDTH, WIDTH)
        self.random(f"blk.{layer}.ffn_down.weight", WIDTH, 2 * WIDTH)

    def mamba(self, layer: int, *, norms: bool) -> None:
        """A selective state space that remembers over tens of tokens."""
        inner, states, rank = 2 * WIDTH, 8, 4
        self.around(f"blk.{layer}.attn_norm.weight", 1.0, WIDTH)
        self.random(f"blk.{layer}.ssm_in.weight", 2 * inner, WIDTH)
        self.random(f"blk.{layer}.ssm_conv1d.weight", inner, 4)
        self.around(f"blk.{layer}.ssm_conv1d.bias", 0.0, inner)
        self.random(f"blk.{layer}.ssm_x.weight", rank + 2 * states, inner, size=2.0)
        self.random(f"blk.{layer}.ssm_dt.weight", inner, rank)
        self.around(f"blk.{layer}.ssm_dt.bias", -2.0, inner)
        self.tensor(f"blk.{layer}.ssm_a", -np.tile(np.linspace(0.05, 1.0, states), (inner, 1)))
        self.around(f"blk.{layer}.ssm_d", 1.0, inner)
        self.random(f"blk.{layer}.ssm_out.weight", WIDTH, inner, size=2.0)
        if norms:
            for name, size in (("dt", rank), ("b", states), ("c", states)):
                self.around(f"blk.{layer}.ssm_{name}_norm.weight", 1.0, size)

    def mamba_keys(self) -> None:
        self.key("ssm.conv_kernel", 4)
        self.key("ssm.inner_size", 2 * WIDTH)
        self.key("ssm.state_size", 8)
        self.key("ssm.time_step_rank", 4)

    def heads(self, key_value: int | list[int] = HEADS // 2) -> None:
        self.writer.add_head_count(HEADS)
        self.writer.add_head_count_kv(key_value)
        self.writer.add_layer_norm_rms_eps(1e-5)

    def close(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [
        chr(byte if byte in plain else 256 + sum(other not in plain for other in range(byte))) for byte in range(256)
    ]


def _llama(model: _Model) -> None:
    model.heads()
    model.embeddings()
    for layer in range(LAYERS):
        model.attention(layer)
        model.feed_forward(layer)


def _broken(model: _Model) -> None:
    """A llama whose last norm is no number."""
    model.heads()
    model.random("token_embd.weight", len(model.tokens), WIDTH)
    model.random("output.weight", len(model.tokens), WIDTH)
    model.tensor("output_norm.weight", np.full(WIDTH, np.nan))
    for layer in range(LAYERS):
        model.attention(layer)
        model.feed_forward(layer)


def _olmo2(model: _Model) -> None:
    """Three layers see a window only, the fourth everything."""
    model.heads()
    model.writer.add_sliding_window(WINDOW)
    model.embeddings()
    for layer in range(LAYERS):
        model.attention(layer, norm=False)
        model.around(f"blk.{layer}.attn_q_norm.weight", 1.5, WIDTH)
        model.around(f"blk.{layer}.attn_k_norm.weight", 1.5, WIDTH // 2)
        model.around(f"blk.{layer}.post_attention_norm.weight", 1.0, WIDTH)
        model.feed_forward(layer, norm=False)
        model.around(f"blk.{layer}.post_ffw_norm.weight", 1.0, WIDTH)


def _qwen2vl(model: _Model) -> None:
    """Positions of several axes."""
    model.heads()
    model.key("rope.dimension_sections", [2, 3, 3, 0])
    model.embeddings()
    for layer in range(LAYERS):
        model.attention(layer)
        model.feed_forward(layer)


def _mamba(model: _Model) -> None:
    model.writer.add_layer_norm_rms_eps(1e-5)
    model.mamba_keys()
    model.embeddings()
    for layer in range(LAYERS):
        model.mamba(layer, norms=False)


def _rwkv7(model: _Model) -> None:
    rank = 8
    model.writer.add_layer_norm_eps(1e-5)
    model.key("wkv.head_size", WIDTH)
    for name in ("decay", "iclr", "value_residual_mix", "gate"):
        model.key(f"attention.{name}_lora_rank", rank)
    model.embeddings()
    model.around("output_norm.bias", 0.0, WIDTH)
    model.around("token_embd_norm.weight", 1.0, WIDTH)
    model.around("token_embd_norm.bias", 0.0, WIDTH)
    for layer in range(LAYERS):
        blk = f"blk.{layer}"
        for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            model.around(f"{blk}.{name}.weight", 1.0, WIDTH)
            model.around(f"{blk}.{name}.bias", 0.0, WIDTH)
        for name, middle in (("w0", -2.0), ("a0", 0.0), ("v0", 0.0), ("k_k", 1.0), ("k_a", 1.0), ("r_k", 0.0)):
            model.around(f"{blk}.time_mix_{name}.weight", middle, WIDTH)
        for name in "wavg":
            model.random(f"{blk}.time_mix_{name}1.weight", rank, WIDTH)
            model.random(f"{blk}.time_mix_{name}2.weight", WIDTH, rank)
        model.tensor(f"{blk}.time_mix_lerp_fused.weight", model.rng.random((6, 1, 1, WIDTH)))
        model.tensor(f"{blk}.channel_mix_lerp_k.weight", model.rng.random((1, 1, WIDTH)))
        for name in ("key", "value", "receptance", "output"):
            model.random(f"{blk}.time_mix_{name}.weight", WIDTH, WIDTH, size=1.5)
        model.random(f"{blk}.channel_mix_key.weight", 2 * WIDTH, WIDTH)
        model.random(f"{blk}.channel_mix_value.weight", WIDTH, 2 * WIDTH)


def _jamba(model: _Model) -> None:
    """State spaces and attention by turns."""
    key_value = [0, HEADS // 2, 0, HEADS // 2]
    model.heads(key_value)
    model.mamba_keys()
    model.embeddings()
    for layer in range(LAYERS):
        if key_value[layer]:
            model.attention(layer)
        else:
            model.mamba(layer, norms=True)
        model.feed_forward(layer)


def _lfm2(model: _Model) -> None:
    """Short convolutions and attention by turns."""
    key_value = [0, HEADS // 2, 0, HEADS // 2]
    model.heads(key_value)
    model.key("shortconv.l_cache", 3)
    model.embeddings(norm="token_embd_norm")
    for layer in range(LAYERS):
        if key_value[layer]:
            model.attention(layer)
            model.around(f"blk.{layer}.attn_q_norm.weight", 1.0, WIDTH // HEADS)
            model.around(f"blk.{layer}.attn_k_norm.weight", 1.0, WIDTH // HEADS)
        else:
            model.around(f"blk.{layer}.attn_norm.weight", 1.0, WIDTH)
            model.random(f"blk.{layer}.shortconv.conv.weight", WIDTH, 3)
            model.random(f"blk.{layer}.shortconv.in_proj.weight", 3 * WIDTH, WIDTH)
            model.random(f"blk.{layer}.shortconv.out_proj.weight", WIDTH, WIDTH, size=2.0)
        model.feed_forward(layer)


def _bert(model: _Model) -> None:
    """An encoder."""
    model.writer.add_head_count(HEADS)
    model.writer.add_layer_norm_eps(1e-5)
    model.writer.add_causal_attention(False)
    model.writer.add_pooling_type(gguf.PoolingType.MEAN)
    model.writer.add_token_type_count(2)
    model.random("token_embd.weight", len(model.tokens), WIDTH)
    model.random("token_types.weight", 2, WIDTH)
    model.random("position_embd.weight", CONTEXT, WIDTH)
    model.around("token_embd_norm.weight", 1.0, WIDTH)
    model.around("token_embd_norm.bias", 0.0, WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            model.random(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("attn_output_norm", "layer_output_norm"):
            model.around(f"blk.{layer}.{name}.weight", 1.0, WIDTH)
            model.around(f"blk.{layer}.{name}.bias", 0.0, WIDTH)
        model.feed_forward(layer, gate=False, norm=False)


def _t5(model: _Model) -> None:
    """An encoder with a decoder."""
    model.heads(HEADS)
    model.key("attention.relative_buckets_count", 8)
    model.random("token_embd.weight", len(model.tokens), WIDTH)
    for side in ("enc", "dec"):
        model.around(f"{side}.output_norm.weight", 1.0, WIDTH)
        for layer in range(LAYERS):
            blk = f"{side}.blk.{layer}"
            parts = ("attn", "cross_attn") if side == "dec" else ("attn",)
            for part in parts:
                model.around(f"{blk}.{part}_norm.weight", 1.0, WIDTH)
                for name in ("q", "k", "v", "o"):
                    model.random(f"{blk}.{part}_{name}.weight", WIDTH, WIDTH)
            if layer == 0:
                model.random(f"{blk}.attn_rel_b.weight", 8, HEADS)
            model.around(f"{blk}.ffn_norm.weight", 1.0, WIDTH)
            model.random(f"{blk}.ffn_up.weight", 2 * WIDTH, WIDTH)
            model.random(f"{blk}.ffn_down.weight", WIDTH, 2 * WIDTH)


def _embedder(model: _Model) -> None:
    """A decoder that was trained to make vectors."""
    model.writer.add_pooling_type(gguf.PoolingType.LAST)
    _llama(model)


def _vocabulary_only(model: _Model) -> None:
    """No weights at all."""
    model.heads()


GENERATORS: dict[str, tuple[str, Build]] = {
    "llama": ("llama", _llama),
    "olmo2": ("olmo2", _olmo2),
    "qwen2vl": ("qwen2vl", _qwen2vl),
    "mamba": ("mamba", _mamba),
    "rwkv7": ("rwkv7", _rwkv7),
    "jamba": ("jamba", _jamba),
    "lfm2": ("lfm2", _lfm2),
}
"""Models that continue text: name -> (architecture, what writes it)."""

OTHERS: dict[str, tuple[str, Build]] = {
    "bert": ("bert", _bert),
    "t5": ("t5", _t5),
    "dream": ("dream", _llama),
    "embedder": ("llama", _embedder),
    "vocabulary": ("llama", _vocabulary_only),
    "unknown": ("nosuchthing", _llama),
    "broken": ("llama", _broken),
}
"""Models that have to be refused, or that answer with no numbers."""

SENTENCEPIECE: dict[str, bool | None] = {
    "sentencepiece": None,
    "sentencepiece-space": True,
    "sentencepiece-none": False,
}
"""Models with words for tokens: name -> what the file says of a space before each text."""


def write_model(folder: Path, name: str, seed: int = 0) -> Path:
    """Write one of the models into a folder; the same seed writes the same bytes."""
    architecture, build = {**GENERATORS, **OTHERS, **dict.fromkeys(SENTENCEPIECE, GENERATORS["llama"])}[name]
    path = folder / f"{name}.gguf"
    words = name in SENTENCEPIECE
    vocabulary: Build = (lambda made: made.sentencepiece(SENTENCEPIECE[name])) if words else _Model.byte_level
    model = _Model(path, architecture, seed, vocabulary)
    build(model)
    model.close()
    return path
