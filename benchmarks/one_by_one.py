"""Texts that are asked for one after another: with speculative decoding, without it, and by ``create_completion``.

    python -m benchmarks.one_by_one --data DIR --json FILE

``reasoning``: GSM8K problems after two worked ones, 96 tokens at most. ``chat``: SST-2 reviews after eight answered
ones in the format of DSPy's ``ChatAdapter``, as DSPy programs ask. ``long``: sixteen news articles and a question
about them, as programs that retrieve ask. Every way answers the same prompts with the same weights, each from what
the prompt before left in memory; rounds alternate. ``lookup`` is the class's own prompt lookup, with the number of
tokens that its authors advise for processors. ``same`` counts texts equal to those without drafts: all, where drafts
change no text.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import dspy
import numpy as np
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from benchmarks.common import INSTRUCTIONS, Results, end_on_other_settings, read_dataset
from benchmarks.dspy_engine import open_llama
from benchmarks.throughput_cases import balanced_rows
from promptsearch.lm.base import Engine, GenerationParams
from promptsearch.lm.llamacpp import batching
from promptsearch.lm.llamacpp.weights import choose_weights
from promptsearch.lm.resolve import OpenedModel, open_engine, packaged_model
from promptsearch.template import ChatFormat

Way = Callable[[Sequence[str]], list[str]]
"""From prompts to the texts that follow them, one prompt after another."""

_LOOKUP_TOKENS = 2
_STOP = {"reasoning": "\n\n", "chat": "[[ ## completed ## ]]", "long": "\n"}
_ARTICLES = 16
_MAX_TOKENS = 96
_CONTEXT_TOKENS = 2048  # of the class: with drafts it keeps the logits of all


def main() -> None:
    """Measure every case that is not there yet, then print the table."""
    options = _options()
    settings = {"count": options.count, "rounds": options.rounds, "weights": options.weights}
    end_on_other_settings(Path(options.json), settings)
    opened = open_engine(None, options.weights)
    results = Results(Path(options.json), settings, opened.description)
    for name, make in {"reasoning": reasoning_prompts, "chat": chat_prompts, "long": long_prompts}.items():
        if name not in results:
            prompts = make(Path(options.data), options.count, opened.engine)
            results.add(name, measure_case(opened, prompts, _STOP[name], options.rounds))
    print(table(results.cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--count", type=int, default=24, help="prompts of each case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", default="auto", help="weight type, for every way")
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


def reasoning_prompts(folder: Path, count: int, engine: Engine) -> list[str]:
    """Problems after two worked ones."""
    data = read_dataset(folder, "gsm8k")
    shown = "".join(
        f"Question: {row['input']}\nAnswer: {row['rationale']} #### {row['output']}\n\n" for row in data.train[:2]
    )
    return [f"{shown}Question: {row['input']}\nAnswer:" for row in data.test[:count]]


def chat_prompts(folder: Path, count: int, engine: Engine) -> list[str]:
    """Reviews after eight answered ones, as DSPy's usual adapter and the model's chat template write them."""
    data = read_dataset(folder, "sst2")
    kinds = {"text": (str, dspy.InputField()), "label": (Literal[tuple(data.labels)], dspy.OutputField())}
    signature = dspy.Signature(kinds, INSTRUCTIONS["sst2"])
    shown = [{"text": row["input"], "label": row["output"]} for row in balanced_rows(data.train, data.labels, 8)]
    source = engine.chat_template
    assert source is not None
    chat = ChatFormat(source, engine.text_marks)
    adapter = dspy.ChatAdapter()
    asked = (adapter.format(signature, shown, {"text": row["input"]}) for row in data.test[:count])
    return [chat.render(messages) for messages in asked]


def long_prompts(folder: Path, count: int, engine: Engine) -> list[str]:
    """Articles, others for each prompt, and a question."""
    texts = [row["input"] for row in read_dataset(folder, "agnews").train[: count * _ARTICLES]]
    groups = ("\n\n".join(texts[start : start + _ARTICLES]) for start in range(0, len(texts), _ARTICLES))
    return [f"{group}\n\nQuestion: What is the last article about?\nAnswer:" for group in groups]


def measure_case(opened: OpenedModel, prompts: Sequence[str], stop: str, rounds: int) -> dict[str, Any]:
    """Seconds of each way in each round, and how many texts are those without drafts."""
    ways = _ways(opened, stop)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts: dict[str, list[str]] = {}
    for ask in ways.values():
        ask(prompts[:1])
    for _ in range(rounds):
        for name, ask in ways.items():
            start = time.perf_counter()
            texts[name] = [text.strip() for text in ask(prompts)]
            seconds[name].append(time.perf_counter() - start)
    engine = opened.engine
    written = sum(engine.count_tokens([text])[0] for text in texts["singly"] if text)
    same = {name: sum(map(str.__eq__, said, texts["singly"])) for name, said in texts.items()}
    return {"prompts": len(prompts), "written": written, "seconds": seconds, "same": same}


def _ways(opened: OpenedModel, stop: str) -> dict[str, Way]:
    engine = opened.engine
    params = GenerationParams(max_tokens=_MAX_TOKENS, stop=(stop,))
    path = str(choose_weights(packaged_model(), opened.kind).path)
    plain = open_llama(path, _CONTEXT_TOKENS)
    drafts = LlamaPromptLookupDecoding(num_pred_tokens=_LOOKUP_TOKENS)
    lookup = open_llama(path, _CONTEXT_TOKENS, logits_all=True, draft_model=drafts)

    def speculative(prompts: Sequence[str]) -> list[str]:
        return [engine.generate([prompt], params)[0].text for prompt in prompts]

    def singly(prompts: Sequence[str]) -> list[str]:
        with patch.object(batching, "_SPECULATIVE_ROWS", 0):
            return speculative(prompts)

    def by_class(llama: Any) -> Way:
        options = {"max_tokens": _MAX_TOKENS, "temperature": 0.0, "stop": [stop]}
        return lambda prompts: [
            llama.create_completion(str(each), **options)["choices"][0]["text"] for each in prompts
        ]

    return {"speculative": speculative, "singly": singly, "class": by_class(plain), "lookup": by_class(lookup)}


def table(cells: dict[str, Any]) -> str:
    """Medians over rounds: seconds, how many times as fast the speculative engine is, and equal texts."""
    lines = []
    for name, cell in cells.items():
        ours = np.array(cell["seconds"]["speculative"])
        lines.append(f"\n{name}: {cell['prompts']} prompts, {cell['written']} tokens written")
        for way, seconds in cell["seconds"].items():
            ratio = float(np.median(np.array(seconds) / ours))
            same = f"{cell['same'][way]} of {cell['prompts']} texts as without drafts"
            lines.append(f"  {way:<12} {np.median(seconds):6.2f} s  {ratio:5.2f} times as long; {same}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
