"""What labelled examples say without any model, part by part: the prior's test accuracy, and what it takes to fit.

    python -m benchmarks.prior --data DIR --datasets sst2,trec,agnews,banking77,chnsenticorp --json FILE

For each dataset, number of labelled rows (``--rows``; ``all`` are the dataset's own training and validation rows) and
seed: the neighbours' vote, vote and linear classifier of embeddings ("vectors"), the linear classifier of characters
("characters", by itself), and all of them together ("together", what a prompt's prior is).

    python -m benchmarks.prior --data DIR --datasets agnews,chnsenticorp --tokens 60000,130000 --json FILE

The prior where a budget of so many tokens of the packaged model leaves rows without vectors: of those with vectors
alone ("together"), and with what the classifier of characters learns from the others ("further").
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.common import Results, end_on_other_settings, read_dataset
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.lm.base import FloatArray
from promptsearch.prior import fit_label_prior, fit_ngram_classifier
from promptsearch.row_limits import RowLimits, drawn_order, first_rows, further_rows, read_size
from promptsearch.run.workbench import Neighbourhood, embed_splits, nearest_labels, with_prior

PARTS = ("vote", "vectors", "characters", "together", "further")
_PARAMETERS = 134_515_008  # of the packaged model


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    settings = {"test_rows": options.test_rows}
    end_on_other_settings(Path(options.json), settings)
    encoder = CachedEncoder(resolve_encoder(None))
    results = Results(Path(options.json), settings)
    for seed in range(options.seeds):
        for name in options.datasets.split(","):
            dataset = read_dataset(Path(options.data), name)
            for rows in options.rows.split(","):
                task = dataset.task(None if rows == "all" else int(rows), options.test_rows, seed)
                for tokens in options.tokens.split(",") if options.tokens else [""]:
                    key = "|".join(filter(None, [name, rows, str(seed), tokens]))
                    if key not in results:
                        cell = limited(task, seed, encoder, int(tokens)) if tokens else measured(task, seed, encoder)
                        results.add(key, cell)
    print(table(results.cells))


def limited(task: ps.Task, seed: int, encoder: CachedEncoder, tokens: int) -> dict[str, Any]:
    """One cell of a budget: accuracies on all test rows, without and with what rows without vectors tell."""
    whole, labels = task.split(seed), task.labels or ()
    sizes = [read_size(example.text) for example in task.examples]
    drawn = drawn_order(whole.pool, [example.output for example in task.examples], seed)
    counts = RowLimits(whole, drawn, sizes, _PARAMETERS, len(labels)).counts(tokens)
    counts = counts._replace(test=len(whole.test))
    near = embed_splits(
        task,
        first_rows(whole, drawn, counts, further_rows(drawn, sizes, counts.pool, len(labels))),
        encoder,
        lambda done, total: None,
    )
    test, cell, said_by = list(near.splits.test), {}, ""
    judge = near.judge(task, task.require_metric(), prior=False)
    for part, splits in (("together", replace(near.splits, further=())), ("further", near.splits)):
        began = time.perf_counter()
        fitted = with_prior(task, replace(near, splits=splits))
        seconds = time.perf_counter() - began
        assert fitted.prior is not None
        said_by = fitted.prior.description
        said = np.stack([fitted.priors[item] for item in test])
        cell[part] = judge.measure(test, judge.judge_labels(test, said)).to_dict()
    rows = {**near.splits.sizes, "further": len(near.splits.further)}
    return {**cell, "rows": rows, "prior": said_by, "seconds": seconds}


def measured(task: ps.Task, seed: int, encoder: CachedEncoder) -> dict[str, Any]:
    """One cell: accuracies on the test rows, numbers of rows, and the seconds that fitting all parts takes."""
    near = embed_splits(task, task.split(seed), encoder, lambda done, total: None)
    began = time.perf_counter()
    whole = with_prior(task, near)
    seconds = time.perf_counter() - began
    assert whole.prior is not None
    test = list(near.splits.test)
    judge = near.judge(task, task.require_metric(), prior=False)
    said = {
        "vote": np.stack([whole.votes[item] for item in test]),
        **_apart(task, near),
        "together": np.stack([whole.priors[item] for item in test]),
    }
    accuracies = {part: judge.measure(test, judge.judge_labels(test, logs)).to_dict() for part, logs in said.items()}
    return {**accuracies, "rows": near.splits.sizes, "prior": whole.prior.description, "seconds": seconds}


def _apart(task: ps.Task, near: Neighbourhood) -> dict[str, FloatArray]:
    """What vectors and characters say of the test rows, each fitted without the other; characters may lack."""
    labels = {word: number for number, word in enumerate(task.labels or ())}
    pool, ids, test = near.pool, near.pool.ids.tolist(), list(near.splits.test)
    label_of = np.zeros(len(task.examples), dtype=np.int64)
    label_of[ids] = [labels[task.examples[number].output] for number in ids]
    asked, right = near.matcher.queries(test), label_of[ids]
    judged_by_others = nearest_labels(pool, label_of, pool.vectors, exclude=ids)
    prior = fit_label_prior([""] * len(ids), pool.vectors, right, judged_by_others, len(labels))
    voters = nearest_labels(pool, label_of, asked.vectors)
    said = {"vectors": prior.log_probabilities(asked.texts, asked.vectors, voters, len(labels))}
    ngrams = fit_ngram_classifier([task.examples[number].text for number in ids], right, len(labels))
    if ngrams is not None:
        said["characters"] = ngrams.classifier.log_probabilities(asked.texts, len(labels))
    return said


def table(cells: dict[str, Any]) -> str:
    """Accuracies in percent, one cell a line."""
    lines = [
        f"{'dataset':14}{'pool':>7}{'seed':>6}" + "".join(f"{part:>12}" for part in PARTS) + f"{'seconds':>9}  prior"
    ]
    for key, cell in cells.items():
        name, _, seed, *_ = key.split("|")
        values = "".join(f"{100 * cell[part]['value']:12.1f}" if part in cell else f"{'-':>12}" for part in PARTS)
        lines.append(f"{name:14}{cell['rows']['pool']:7,}{seed:>6}{values}{cell['seconds']:9.1f}  {cell['prior']}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", maxsplit=1)[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--datasets", default="sst2,trec,agnews,banking77,chnsenticorp")
    parser.add_argument("--rows", default="100,1000,all", help="labelled rows, which are divided by the protocol")
    parser.add_argument("--tokens", default="", help="budgets that limit which rows get vectors; none: all do")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
