"""Claim 3: reasoning before the answer, shown or only asked for."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Thinking
from benchmarks.lab.effects import difference
from benchmarks.lab.words import Words

__all__ = ["claim", "reasoning_arms"]


def reasoning_arms(setting: Setting) -> dict[str, Arm]:
    """Direct answers and reasoning, without and with demonstrations."""
    shots = setting.thinking_shots
    return {
        "zero": Arm(Words("zero-shot, direct", "零样本，直接作答"), Thinking()),
        "cue": Arm(Words("zero-shot, step by step", "零样本，逐步推理"), Thinking("cue")),
        "few": Arm(Words(f"{shots} shown, direct", f"{shots} 个演示，直接作答"), Thinking("none", shots)),
        "shown": Arm(Words(f"{shots} shown with reasoning", f"{shots} 个带推理的演示"), Thinking("shown", shots)),
    }


def claim(setting: Setting) -> Claim:
    """Few-shot and zero-shot reasoning against direct answers."""
    arms = reasoning_arms(setting)
    zero, cue, few, shown = (arm.condition for arm in arms.values())
    return Claim(
        number=3,
        slug="reasoning",
        title=Words("Reasoning before the answer", "先推理再作答"),
        says=Words(
            "Demonstrations that show reasoning beat demonstrations that show answers only, and “let's think step by "
            "step” beats asking directly.",
            "展示推理的演示优于只展示答案的演示；加上“让我们一步一步思考”优于直接提问。",
        ),
        method=Words(
            "Answers are written, not scored; the reasoning shown is the dataset's own (Wei et al. 2022; Kojima et al. "
            "2022). Reasoning is cut after "
            f"{setting.thinking_tokens} tokens. Symbolic tasks are generated (`benchmarks/symbolic.py`).",
            "答案由模型写出，而不是靠打分选出；演示中的推理为数据集自带（Wei et al. 2022；Kojima et al. 2022）。"
            f"推理最多 {setting.thinking_tokens} 个 token。符号任务由程序生成（`benchmarks/symbolic.py`）。",
        ),
        datasets=setting.tasks,
        arms=tuple(arms.values()),
        ways=("direct",),
        contrasts=(
            Contrast(
                Words("reasoning shown over answers shown", "展示推理相对只展示答案"), difference(shown, few), above=0
            ),
            Contrast(
                Words("step by step over direct, nothing shown", "逐步推理相对直接作答（零样本）"),
                difference(cue, zero),
                above=0,
            ),
        ),
    )
