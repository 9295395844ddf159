"""Claim 10: the order of the same demonstrations (Lu et al. 2022)."""

from __future__ import annotations

from benchmarks.lab.claim import Arm, Claim, Contrast, Needed, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import Best, Less, OfModel, Range, Shift, Spread
from benchmarks.lab.words import Words

__all__ = ["claim"]

_SHOTS = 4


def claim(setting: Setting) -> Claim:
    """Spread over permutations, and whether good ones carry over to other models and to quantizations."""
    orders = tuple(Labelled(_SHOTS, order=number) for number in range(setting.orders))
    others = (*setting.models[1:], *setting.quantizations[:1])
    spread = Spread(orders)
    own = Best(orders)
    return Claim(
        number=10,
        slug="order",
        title=Words("Order", "演示的顺序"),
        says=Words(
            "The order of the same demonstrations moves accuracy by ten points and more, and less when calibrated (Lu et al. "
            "2022; Zhao et al. 2021).",
            "同样的演示，仅改变顺序就会使准确率变化 10 个百分点以上，校准后变化较小（Lu et al. 2022；Zhao et al. 2021）。",
        ),
        method=Words(
            f"{setting.orders} orders of {_SHOTS} demonstrations, {setting.order_seeds} sets, on "
            f"{', '.join(setting.order_datasets)}. The range is best minus worst order, less what chance among the items adds to "
            "it. Beside it stands what choosing the best and the worst order on one half of the items makes on the other half. "
            f"Whether good orders carry over is seen by what the order that is best for {setting.main} gains over the average "
            "order in another model, beside what that model's own best one gains.",
            f"{_SHOTS} 个演示的 {setting.orders} 种顺序，共 {setting.order_seeds} 组演示，数据集为 {'、'.join(setting.order_datasets)}。"
            "极差为最好与最差顺序之差，已扣除样本随机性造成的部分；另给出在一半样本上选出最好与最差顺序、在另一半上比较所得的差距。"
            f"好的顺序能否迁移，看 {setting.main} 上最好的顺序在另一个模型上相对平均顺序的增益，并与该模型自己最好的顺序的增益对照。",
        ),
        datasets=setting.order_datasets,
        seeds=setting.order_seeds,
        spread=True,
        arms=tuple(Arm(Words(f"order {each.order}", f"顺序 {each.order}"), each) for each in orders),
        also=tuple(
            Needed(other, dataset, each) for other in others for dataset in setting.order_datasets for each in orders
        ),
        contrasts=(
            Contrast(
                Words("range of the orders, not calibrated", "各顺序的极差（未校准）"),
                spread,
                above=0.10,
                ways=("direct",),
            ),
            Contrast(
                Words("range of the orders, calibrated", "各顺序的极差（校准后）"),
                spread,
                main=False,
                ways=("calibrated",),
            ),
            Contrast(
                Words("range lost by calibration", "校准所缩小的极差"),
                Shift(spread, "direct", "calibrated"),
                above=0,
                ways=("direct",),
            ),
            Contrast(
                Words("best over worst order, chosen on other items", "最好顺序相对最差顺序（在另一半样本上选出）"),
                Range(orders),
                main=False,
            ),
            Contrast(Words("best order over the average one", "最好顺序相对平均顺序"), own, main=False),
            *(
                contrast
                for other in others
                for contrast in (
                    Contrast(
                        Words(
                            f"best order of {setting.main} over the average one, in {other}",
                            f"{setting.main} 的最好顺序在 {other} 上相对平均顺序",
                        ),
                        Best(orders, counted_in=other),
                        main=False,
                    ),
                    Contrast(
                        Words(
                            f"in {other}: its own best order over the best order of {setting.main}",
                            f"在 {other} 上：自己的最好顺序相对 {setting.main} 的最好顺序",
                        ),
                        Less(OfModel(own, other), Best(orders, counted_in=other)),
                        main=False,
                    ),
                )
            ),
        ),
        remark=Words(
            f"{setting.quantizations[0]} is the same model with its weights quantized: an order that carries over to it need "
            "not carry over to another model.",
            f"{setting.quantizations[0]} 是同一模型权重量化后的版本：能迁移到它的顺序，未必能迁移到别的模型。",
        ),
    )
