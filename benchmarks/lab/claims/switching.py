"""Claim 15: switching tasks without training."""

from __future__ import annotations

from benchmarks.lab.claim import ALL, Claim, Contrast, Needed, Setting
from benchmarks.lab.conditions import Turns
from benchmarks.lab.effects import Speedup
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """One engine serves several tasks in turn."""
    turns = Turns(setting.shots)
    return Claim(
        number=15,
        slug="switching",
        title=Words("Switching tasks without training", "无需训练即可切换任务"),
        says=Words(
            "One model serves many tasks by their demonstrations alone; a switch costs less than training a small "
            "classifier anew.",
            "同一个模型仅凭演示即可服务多个任务；一次切换的开销低于重新训练一个小分类器。",
        ),
        method=Words(
            f"Five tasks in turn on one engine, {setting.shots} demonstrations each. The first switch to a task decodes its "
            "demonstrations, later ones find their state kept; both are timed with one query. Beside it: embedding labelled "
            f"rows and training a logistic regression on them, {setting.shots} rows or {turns.rows}. How many times faster is "
            "the ratio's geometric mean over tasks and rounds.",
            f"同一引擎轮流服务五个任务，每个任务 {setting.shots} 个演示。首次切换到某个任务时需解码其演示，之后再切换时其状态已有保存；两者的计时均含一次查询。"
            f"对照：对带标签的样本（{setting.shots} 个或 {turns.rows} 个）做嵌入并训练逻辑回归。“快多少倍”是各任务、各轮比值的几何平均。",
        ),
        datasets=(ALL,),
        ways=("seconds",),
        also=(Needed(setting.main, ALL, turns),),
        contrasts=(
            Contrast(
                Words(f"later switch over training on {turns.rows} rows", f"再次切换相对 {turns.rows} 个样本训练"),
                Speedup(turns, "later_switch", "training_on_rows"),
                above=1,
            ),
            Contrast(
                Words(f"first switch over training on {turns.rows} rows", f"首次切换相对 {turns.rows} 个样本训练"),
                Speedup(turns, "first_switch", "training_on_rows"),
                above=1,
                main=False,
            ),
            Contrast(
                Words(
                    f"later switch over training on {setting.shots} rows", f"再次切换相对 {setting.shots} 个样本训练"
                ),
                Speedup(turns, "later_switch", "training_on_shots"),
                above=1,
                main=False,
            ),
        ),
        timed=turns,
    )
