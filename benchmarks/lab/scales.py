"""Quick and full: how large the experiments are."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["FULL", "QUICK", "Scale"]


@dataclass(frozen=True)
class Scale:
    """Sizes; see :class:`benchmarks.lab.claim.Setting` for those not named here.

    Attributes:
        datasets: with labels.
        tasks: with free answers.
        items: rows of each dataset that are asked about.
        thinking_items: rows of each task with free answers.
        pieces: of plain text.
        quantizations: types that the first model's weights are quantized to.
        order_dataset_count: how many of the datasets orders and losses are measured on.
        channel_dataset_count: how many of them inputs are scored on.
    """

    datasets: tuple[str, ...] = ("sst2", "trec", "agnews")
    tasks: tuple[str, ...] = ("lookup", "coin_flip", "two_hops", "gsm8k")
    switched: tuple[str, ...] = ("sst2", "trec", "agnews", "rte", "chnsenticorp")
    items: int = 500
    thinking_items: int = 100
    pieces: int = 64
    seeds: int = 5
    thinking_seeds: int = 5
    shots: int = 8
    counts: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    thinking_shots: int = 8
    thinking_tokens: int = 256
    orders: int = 24
    order_seeds: int = 5
    templates: tuple[str, ...] = ("label", "fields", "bare", "category", "question", "arrow", "lines", "rules")
    quantizations: tuple[str, ...] = ("Q4_0", "Q8_0", "Q5_0", "Q4_K_M", "Q3_K_M", "Q2_K")
    order_dataset_count: int = 1
    channel_dataset_count: int = 3


FULL = Scale()
QUICK = replace(
    FULL,
    datasets=("sst2", "trec"),
    tasks=("lookup", "gsm8k"),
    items=56,
    thinking_items=16,
    pieces=16,
    seeds=3,
    thinking_seeds=3,
    counts=(0, 2, 4, 8, 16, 32),
    thinking_shots=4,
    thinking_tokens=96,
    orders=6,
    order_seeds=3,
    templates=("label", "fields", "question", "arrow"),
    quantizations=("Q4_0", "Q5_0", "Q2_K"),
    order_dataset_count=1,
    channel_dataset_count=1,
)
