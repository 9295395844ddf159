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
    first, later = Words("first switch", "首次切换"), Words("later switch", "再次切换")
    return Claim(
        number=15,
        slug="switching",
        title=Words("Switching tasks without training", "无需训练即可切换任务"),
        says=Words(
            "One model serves many tasks by their demonstrations alone; a switch costs less than training a small "
            "classifier for the new task.",
            "同一个模型仅凭演示即可服务多个任务；切换的代价低于为新任务训练一个小分类器。",
        ),
        method=Words(
            f"{', '.join(setting.switched)} in turn on one engine, {setting.shots} demonstrations each. The first switch to a "
            "task decodes its demonstrations, later ones find their state kept; both are timed with one query, the same one. "
            f"For comparison: embedding {turns.rows} labelled rows, or only the {setting.shots} shown, and training a logistic "
            "regression on them. The effect is training time divided by switching time, as a geometric mean over tasks and "
            "rounds. The verdict is about time alone; accuracies (40 items, one draw, the model's calibrated) stand beside "
            "it. A classifier that was trained and kept costs nothing to switch to either.",
            f"同一引擎轮流服务 {'、'.join(setting.switched)}，每个任务 {setting.shots} 个演示。首次切换到某个任务时需要解码它的演示，"
            f"之后切换可直接恢复已保存的状态；两者都连同同一次查询计时。作为对照：对 {turns.rows} 个（或仅所示的 {setting.shots} 个）带标签的样本"
            "编码并训练逻辑回归。效应为训练时间除以切换时间，取各任务、各轮的几何平均。结论只涉及时间；准确率（40 个样本、一次抽取，模型为校准后）供对照。"
            "已训练并保留的分类器，切换时同样没有代价。",
        ),
        datasets=(ALL,),
        ways=("seconds",),
        also=(Needed(setting.main, ALL, turns),),
        contrasts=tuple(
            Contrast(
                Words(
                    f"{switch.en}: how many times as fast as training on {rows} rows",
                    f"{switch.zh}：速度是用 {rows} 个样本训练的几倍",
                ),
                Speedup(turns, fast, slow),
                above=1,
                main=is_main,
            )
            for switch, fast, rows, slow, is_main in (
                (first, "first_switch", turns.rows, "training_on_rows", True),
                (later, "later_switch", turns.rows, "training_on_rows", False),
                (first, "first_switch", setting.shots, "training_on_shots", False),
                (later, "later_switch", setting.shots, "training_on_shots", False),
            )
        ),
        timed=turns,
    )
