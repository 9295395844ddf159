"""From the rounds of a case of ``benchmarks.throughput`` to the cell that the results keep.

Invariant: pure; every figure is computed round by round, and its median is what counts.
Leaves out: the arithmetic itself, and what figures must reach (``throughput_figures``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.throughput_cases import CASES
from benchmarks.throughput_figures import Spread, agreement, ratios, spread, whole_seconds
from benchmarks.throughput_rounds import Contender, Rounds

__all__ = ["make_cell"]

_OWN_PROMPT = ("dspy",)  # it reads another prompt, so that neither its tokens nor its answers are comparable
_PROFILED = ("llama_decode", "llama_tokenize", "other C", "planning", "everything else")


def make_cell(rounds: Rounds, main: str) -> dict[str, Any]:
    """Plain values, ready for JSON and for the table.

    Args:
        rounds: what was measured.
        main: the weight type that targets are about.
    """
    case = rounds.case
    asked = {name: each for name, each in rounds.contenders.items() if each.kind not in ("raw", "profile")}
    figures = _ratios(rounds, asked, main)
    figures.update(_beyond_the_tree(rounds))
    figures.update(_hardware(rounds, main))
    figures.update(_profile(rounds.contenders.get(f"profile {main}")))
    return {
        "title": CASES[case.key],
        "prompts": len(case.prompts),
        "groups": len(case.groups),
        "labels": len(case.labels),
        "tree": rounds.tree.to_dict(),
        "notes": _notes(rounds, asked),
        "contenders": {name: _contender(rounds, each) for name, each in asked.items()},
        "others": {name: each.rounds for name, each in rounds.contenders.items() if name not in asked},
        "skipped": rounds.skipped,
        "agreement": _agreements(asked, main),
        "figures": {name: value.to_dict() for name, value in figures.items()},
    }


def _contender(rounds: Rounds, contender: Contender) -> dict[str, Any]:
    speed = None if contender.kind in _OWN_PROMPT else spread(_tokens_per_second(rounds, contender)).to_dict()
    return {
        "measured_prompts": len(contender.part.prompts),
        "seconds": spread(_seconds(rounds, contender)).to_dict(),
        "tokens_per_second": speed,
        "rounds": [{key: value for key, value in each.items() if key != "answers"} for each in contender.rounds],
    }


def _seconds(rounds: Rounds, contender: Contender) -> list[float]:
    """Seconds of the whole case in each round; where a part was asked, extrapolated."""
    case, share = rounds.case, len(rounds.case.prompts) / len(contender.part.prompts)
    return [
        whole_seconds(each["items"], len(case.groups), len(case.groups[0]))
        if "items" in each
        else each["seconds"] * share
        for each in contender.rounds
    ]


def _tokens_per_second(rounds: Rounds, contender: Contender) -> list[float]:
    """Of the tree, by the seconds of the whole; where text is generated: generated ones, of what was asked."""
    if rounds.case.labels:
        return [rounds.tree.size / seconds for seconds in _seconds(rounds, contender)]
    return [
        each["generated"] / (sum(map(sum, each["items"])) if "items" in each else each["seconds"])
        for each in contender.rounds
    ]


def _ratios(rounds: Rounds, asked: dict[str, Contender], main: str) -> dict[str, Spread]:
    """How many times faster ours is: by seconds, or by generated tokens per second, as texts may end early."""
    name = f"ours {main}"
    if name not in asked:
        return {}
    others = {other: each for other, each in asked.items() if other != name}
    if rounds.case.labels:
        ours = _seconds(rounds, asked[name])
        return {f"{name} over {other}": ratios(_seconds(rounds, each), ours) for other, each in others.items()}
    speeds = _tokens_per_second(rounds, asked[name])
    return {
        f"{name} over {other}": ratios(speeds, _tokens_per_second(rounds, each)) for other, each in others.items()
    }


def _beyond_the_tree(rounds: Rounds) -> dict[str, Spread]:
    """What ours decoded beyond the tree of its prompts and the generated tokens that it read again."""
    beyond = [
        each["decoded"] - rounds.trees[name].size - each.get("read_again", 0)
        for name, contender in rounds.contenders.items()
        if name in rounds.trees
        for each in contender.rounds
    ]
    return {"tokens beyond the tree": spread([max(beyond)])} if beyond else {}  # one call too many fails


def _hardware(rounds: Rounds, main: str) -> dict[str, Spread]:
    """What one sequence gets out of the hardware, and how much of that ours reaches."""
    raw, ours = rounds.contenders.get(f"raw {main}"), rounds.contenders.get(f"ours {main}")
    if raw is None:
        return {}

    def of_raw(value: Callable[[dict[str, float]], float]) -> Spread:
        return spread([value(rates) for rates in raw.rounds])

    rates = {
        "raw prefill, tokens/s": of_raw(lambda each: each["prefill"]),
        "raw prefill with all logits, tokens/s": of_raw(lambda each: each["all_logits"]),
        "raw generation, tokens/s": of_raw(lambda each: each["generation"]),
    }
    if ours is None:
        return rates
    size, seconds = rounds.tree.size, _seconds(rounds, ours)
    if rounds.case.labels:
        needed = [size / each["prefill"] for each in raw.rounds]
        return {"share of raw prefill": ratios(needed, seconds), **rates}
    needed = [
        size / each["prefill"] + answered["generated"] / each["all_logits"]
        for each, answered in zip(raw.rounds, ours.rounds, strict=True)
    ]
    return {
        **rates,
        "full batches over one sequence": of_raw(lambda each: each["all_logits"] / each["generation"]),
        "share of what full batches allow": ratios(needed, seconds),
    }


def _profile(profile: Contender | None) -> dict[str, Spread]:
    """Shares of a call's time by where they went."""
    if profile is None:
        return {}
    in_c = [
        (each["llama_decode"] + each["llama_tokenize"] + each["other C"]) / each["total"] for each in profile.rounds
    ]
    return {
        "Python's share": spread([1 - share for share in in_c]),
        **{f"share of {part}": spread([each[part] / each["total"] for each in profile.rounds]) for part in _PROFILED},
    }


def _agreements(asked: dict[str, Contender], main: str) -> dict[str, dict[str, int]]:
    """Whether ours and the rivals with equal weights, and ours with other weights, give the same answers."""
    found = {}
    for name, each in asked.items():
        own = f"ours {main}" if each.kind == "ours" else f"ours {each.weights}"
        if name == own or own not in asked or each.kind in _OWN_PROMPT:
            continue
        ours, theirs = asked[own].rounds[-1]["answers"], each.rounds[-1]["answers"]
        found[f"{own} and {name}"] = agreement(ours, theirs, lambda answer: answer is not None)
    return found


def _notes(rounds: Rounds, asked: dict[str, Contender]) -> list[str]:
    counted = "those of the prefix tree by the seconds of the whole"
    if not rounds.case.labels:
        counted = "generated ones, and so are the ratios"
    notes = [f"tokens/s: {counted}; raw rates: behind {rounds.depth:,} tokens of one sequence"]
    for name, each in asked.items():
        unparsable = [measured["unparsable"] for measured in each.rounds if "unparsable" in measured]
        if unparsable:
            notes.append(f"{name} could not parse {max(unparsable)} of {len(each.part.prompts)} answers")
    return notes
