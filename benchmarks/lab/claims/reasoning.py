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
            "Demonstrations that show reasoning beat demonstrations that show answers only, and “Let’s think step by step.” beats asking directly (Wei et al. 2022; Kojima et al. 2022).",
            "展示推理过程的演示优于只展示答案的演示；加上 “Let’s think step by step.”（让我们一步一步思考）优于直接提问（Wei et al. 2022；Kojima et al. 2022）。",
        ),
        method=Words(
            f"Answers are written by the model, and right if they equal the expected one (the last number; other answers apart from case, punctuation and articles). {setting.thinking_shots} demonstrations or none; without any, nothing tells the model the answer’s form. The reasoning shown is the dataset’s own for real tasks, and written by a program for the symbolic ones (`benchmarks/symbolic.py`). The model’s reasoning is cut after {setting.thinking_tokens} tokens.",
            f"答案由模型生成，与标准答案相同才算对（数值题取最后一个数；其他答案不计大小写、标点和冠词）。用 {setting.thinking_shots} 个演示或不用；不用时，模型无从知道答案的形式。演示中的推理，真实任务为数据集自带，符号任务由程序写出（`benchmarks/symbolic.py`）。模型的推理最多 {setting.thinking_tokens} 个 token。",
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
