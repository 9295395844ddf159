"""The candidates that every search tries first: the baselines, one of each kind of reasoning, and every wording once.

Leaves out: racing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptsearch.candidate import CUES, SHOWN_THOUGHT, Candidate
from promptsearch.run.job import Job
from promptsearch.run.workbench import Neighbourhood
from promptsearch.search.drawing import draw_balanced, draw_fresh, draw_shown_reasoning
from promptsearch.search.space import SearchSpace
from promptsearch.task import Task
from promptsearch.template import TEMPLATES

__all__ = ["BASELINE_SHOTS", "WORDING_SHOTS", "first_candidates", "nearest_count"]

BASELINE_SHOTS = 8
WORDING_SHOTS = 4
_NEAREST_TOKENS = 250  # a query with nearest demonstrations: dearer ones would leave few test rows to measure
_TELLING_VOTE = 0.5  # mean score of the label vote, from which neighbours tell most labels


def first_candidates(
    job: Job, space: SearchSpace, near: Neighbourhood
) -> tuple[list[Candidate], dict[str, Candidate]]:
    """Candidates that every search tries, the baselines first; and the baselines by name."""
    rng = np.random.default_rng([job.seed, 3])
    instruction, template = space.instructions[0], space.templates[0]
    zero = Candidate(instruction=instruction, template=template)
    shots = min(BASELINE_SHOTS, len(space.pool))
    random = replace(zero, demonstrations=draw_balanced(space, shots, rng))
    while not space.fits(random) and random.demonstrations:
        random = replace(random, demonstrations=random.demonstrations[:-1])
    nearest = replace(zero, mode="retrieved", count=nearest_count(space, zero))
    baselines = {"zero_shot": zero, "random": random, "nearest": nearest}
    by_options = next((name for name in space.templates if TEMPLATES[name].scores_options), None)
    if by_options is not None and by_options != template:  # the last ones are left out where a budget is small
        options = {
            f"{name}_options": replace(baselines[name], template=by_options) for name in ("zero_shot", "random")
        }
        baselines = {"zero_shot": zero, **options, "random": random, "nearest": nearest}
    first = [nearest] if _needs_neighbours(job.task, near) else []
    anchors = [
        *first,
        *baselines.values(),
        *_reasoned(space, zero, rng),
        *_wordings(space, random, job.task.instructions[1:], rng),
    ]
    usable = [anchor for anchor in anchors if space.allows(anchor)]
    usable = usable or [draw_fresh(space, rng)]
    return [replace(anchor, calibration=space.calibration) for anchor in dict.fromkeys(usable)], baselines


def _needs_neighbours(task: Task, near: Neighbourhood) -> bool:
    """Whether labels are more than a usual prompt shows, and similar rows tell most of them by their votes alone.

    Then what retrieves is looked at first: where a budget is small, nothing else would be left for it.
    """
    labels, rows = task.labels, near.splits.search
    if labels is None or len(labels) <= BASELINE_SHOTS:
        return False
    voted = near.judge(task, task.require_metric(), prior=False).judge_labels(
        rows, np.stack([near.votes[row] for row in rows])
    )
    return float(voted.scores.mean()) > _TELLING_VOTE


def nearest_count(space: SearchSpace, zero: Candidate) -> int:
    """Neighbours that the baseline shows: four, fewer where they are long."""
    for count in (4, 2, 1):
        if space.query_tokens(replace(zero, mode="retrieved", count=count)) <= _NEAREST_TOKENS:
            return count
    return 1


def _reasoned(space: SearchSpace, zero: Candidate, rng: np.random.Generator) -> list[Candidate]:
    """One candidate of each kind of reasoning, in the usual words."""
    found = []
    for kind in space.reasonings:
        ids = space.rationales[kind].ids if kind in space.rationales else ()
        count = max((count for count in space.shots if count <= min(WORDING_SHOTS, len(ids))), default=0)
        found.append(
            replace(
                zero,
                template=zero.template if zero.template in space.plain_templates else space.plain_templates[0],
                demonstrations=draw_shown_reasoning(space, kind, count, rng) if ids and count else (),
                reasoning=kind,
                thought=CUES[0] if kind == "cue" else SHOWN_THOUGHT,
                thinking_tokens=max(space.space.thinking_tokens),
            )
        )
    return found


def _wordings(
    space: SearchSpace, random: Candidate, given: Sequence[str], rng: np.random.Generator
) -> list[Candidate]:
    """Every instruction, pair of names and template once, with the same few demonstrations for all.

    The user's other instructions come first, the rest in random order, so that no kind of words is always what a
    small budget cannot pay for.
    """
    count = max((count for count in space.shots if count <= WORDING_SHOTS), default=0)
    few = replace(random, demonstrations=random.demonstrations[:count])
    own = [replace(few, instruction=text) for text in given]
    others: list[Candidate] = [
        *(replace(few, input_name=names[0], output_name=names[1]) for names in space.names[1:]),
        *(replace(few, instruction=text) for text in space.instructions[1:] if text not in given),
        *(replace(few, template=name) for name in space.templates[1:]),
    ]
    others = [each for each in dict.fromkeys(map(space.usual, others)) if each != few]
    return [few, *own, *(others[place] for place in rng.permutation(len(others)))]
