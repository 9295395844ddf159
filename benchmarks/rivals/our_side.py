"""Ours, and the plain recipes on the same engine, each in a process of its own.

Ours begins with nothing of an earlier run: model, encoder and vectors are loaded or made within the time that is
reported. Only what the library measures once on a machine (which weights run fastest, how fast) is there already.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import promptsearch as ps
from benchmarks.recipes import PLAIN_RECIPES, Bench
from benchmarks.rivals.budgeted import BUDGETED
from benchmarks.rivals.jobs import OursJob, RecipeJob
from benchmarks.throughput_processes import Spec
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.lm.resolve import open_engine

__all__ = ["OursContender", "RecipeContender"]


class OursContender:
    """``optimize`` in a fresh process; its prompt is measured on all test rows afterwards."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def measure(self, job: OursJob) -> dict[str, Any]:
        """Search, then answer the test rows."""
        task = job.task.task()
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            result = ps.optimize(
                task,
                self._spec.model,
                job.budget,
                encoder=CachedEncoder(resolve_encoder(None), Path(folder) / "vectors.sqlite3"),
                weights=self._spec.weights,
                space=ps.Space(prior=job.prior),
                seed=job.task.seed,
                progress=False,
            )
            seconds = time.perf_counter() - start
            test = [task.examples[number] for number in task.parts.test]
            measured = {"test": result.prompt.evaluate(test).to_dict()}
            if job.prior:
                measured["test_without_prior"] = result.prompt.without_prior().evaluate(test).to_dict()
        return {
            "seconds": seconds,
            "tokens": result.cost.tokens,
            "usage": {"calls": result.cost.evaluations, "evaluated_tokens": result.cost.tokens},
            **measured,
            "inside": {
                "test": result.test.to_dict(),
                "test_without_prior": result.test_without_prior.to_dict(),
                "validation": result.validation.to_dict(),
                "mode": result.prompt.mode,
                "shots": result.prompt.candidate.shots,
                "trials": len(result.trials),
                "seconds": dict(result.cost.seconds),
                "stopped_by": result.stopped_by,
            },
        }


class RecipeContender:
    """The recipes; vectors of the rows are kept between them and are not timed."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def measure(self, job: RecipeJob) -> dict[str, Any]:
        """Make the choice, then answer the test rows."""
        bench = Bench(job.task.task(), open_engine(self._spec.model, self._spec.weights), job.task.seed)
        start = time.perf_counter()
        if job.recipe == "plain":
            measured = {name: value.to_dict() for name, value in bench.plain_recipes().items()}
            return {"seconds": time.perf_counter() - start, "recipes": sorted(PLAIN_RECIPES), "measured": measured}
        found = BUDGETED[job.recipe](bench, job.tokens)
        whole = bench.spent
        return {
            "seconds": time.perf_counter() - start,
            "tokens_allowed": job.tokens,
            "usage": {"evaluated_tokens": found.spent},
            "test_usage": {"evaluated_tokens": whole - found.spent},
            "measured": {f"{job.recipe}{how}": value.to_dict() for how, value in found.test.items()},
            "details": found.details,
        }
