"""Claim 11: demonstrations as implicit gradient steps (Dai et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Condition, Labelled, Surrogate
from benchmarks.lab.effects import LeftOut, Scores
from benchmarks.lab.words import Words

__all__ = ["Agreement", "claim"]


@dataclass(frozen=True)
class Agreement:
    """How much more often a surrogate is right than its control, among answers that demonstrations corrected.

    A correction is an item that the model gets wrong without demonstrations and right with them. The mean is a share
    of the corrections; each item's value is its part of that ratio and of the ratio's change with it (the delta method).
    """

    before: Condition
    after: Condition
    surrogate: Condition
    control: Condition

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Shape (seeds, items)."""
        corrected = (1 - scores.of(self.before)) * scores.of(self.after)
        share = float(corrected.mean())
        if not share:
            raise LeftOut("demonstrations corrected no answer")
        gained = scores.of(self.surrogate) - scores.of(self.control)
        ratio = float((corrected * gained).mean()) / share
        return np.asarray(ratio + corrected * (gained - ratio) / share)


def claim(setting: Setting) -> Claim:
    """The dual form as a surrogate, against the same form on other demonstrations."""
    shots = setting.shots
    none, shown = Labelled(), Labelled(shots)
    own, control = Surrogate(shots), Surrogate(shots, control=True)
    return Claim(
        number=11,
        slug="implicit-steps",
        title=Words("Demonstrations as implicit gradient steps", "演示作为隐式梯度更新"),
        says=Words(
            "Demonstrations act like gradient steps: in linear attention each adds an outer product to the weights (Dai et al. 2023). If so, this dual form should correct the answers that the model corrects.",
            "演示的作用类似梯度更新：在线性注意力中，每个演示给权重加上一个外积（Dai et al. 2023）。若果真如此，这一对偶形式应当纠正模型所纠正的那些错误。",
        ),
        method=Words(
            "The identity is derived in `benchmarks/lab/dual_form.py` and holds to 1e-10 on random tensors (a test). Here its "
            f"linear-attention form on sentence embeddings answers from the same {shots} demonstrations as the model; the "
            "control uses other demonstrations, drawn in the same way. Of the items that the model gets wrong without "
            "demonstrations and right with them, the share that the dual form gets right is counted: with the model's "
            "demonstrations, minus with the control's.",
            "恒等式的推导见 `benchmarks/lab/dual_form.py`，在随机张量上误差不超过 1e-10（有测试验证）。这里用它的线性注意力形式，在句向量上"
            f"根据与模型相同的 {shots} 个演示作答；对照使用以同样方式另行抽取的演示。在模型无演示时答错、有演示时答对的样本中，统计对偶形式答对的比例：用与模型相同的演示时的比例，减去用对照演示时的比例。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("model, none shown", "模型，无演示"), none),
            Arm(Words("model, demonstrations", "模型，有演示"), shown),
            Arm(Words("dual form, the same ones", "对偶形式，相同的演示"), own),
            Arm(Words("dual form, others", "对偶形式，其他演示"), control),
        ),
        contrasts=(
            Contrast(
                Words(
                    "share of the model's corrections that the dual form gets right: same over other demonstrations",
                    "模型所纠正的样本中对偶形式答对的比例：相同演示相对其他演示",
                ),
                Agreement(none, shown, own, control),
                above=0,
            ),
        ),
        remark=Words(
            "The claim is contested: untrained models score as high on the paper's similarity measures (Deutch et al. 2024), and "
            "order matters to models but not to a gradient step (Shen et al. 2024). Agreement above the control shows that "
            "similarity to the shown examples explains part of what a model does with them, not that it descends a gradient.",
            "这一论断存在争议：未经训练的模型在原论文的相似度指标上得分同样高（Deutch et al. 2024）；演示的顺序对模型有影响，对一步梯度更新却没有"
            "（Shen et al. 2024）。一致程度高于对照，只说明与演示样本的相似度能解释模型利用演示的一部分行为，并不说明模型在做梯度下降。",
        ),
    )
