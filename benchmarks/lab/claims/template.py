"""Claim 1: a prompt's parts, and its form."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.lab.claim import Arm, Claim, Contrast, Setting
from benchmarks.lab.conditions import Labelled
from benchmarks.lab.effects import Range, difference
from benchmarks.lab.prompts import form_of
from benchmarks.lab.words import Words

__all__ = ["claim"]


def claim(setting: Setting) -> Claim:
    """Description, demonstrations, query; formats and separators."""
    query, described = Labelled(), Labelled(described=True)
    shown, both = Labelled(setting.shots), Labelled(setting.shots, described=True)
    forms = tuple(Labelled(setting.shots, template=name) for name in setting.templates)
    return Claim(
        number=1,
        slug="template",
        title=Words("Template", "模板"),
        says=Words(
            "A prompt has a task description, demonstrations and the query. Demonstrations add the most, and the form "
            "(names, separators) matters by itself.",
            "提示词由任务描述、演示和查询组成。演示带来的增益最大，而形式（字段名、分隔符）本身也有影响。",
        ),
        method=Words(
            f"The query alone, with the description, with {setting.shots} demonstrations, with both; then the same "
            f"demonstrations in {len(forms)} forms. A difference above 5 points between best and worst form counts as "
            f"mattering. {_written(setting.templates)}.",
            f"分别只给查询、加任务描述、加 {setting.shots} 个演示、两者都加；再把同样的演示写成 {len(forms)} 种形式，"
            f"最好与最差相差 5 个百分点以上视为有影响。{_written(setting.templates)}。",
        ),
        datasets=setting.datasets,
        arms=(
            Arm(Words("query alone", "只有查询"), query),
            Arm(Words("description", "任务描述"), described),
            Arm(Words("demonstrations", "演示"), shown),
            Arm(Words("both", "两者"), both),
            *(
                Arm(Words(f"form “{name}”", f"形式“{name}”"), form)
                for name, form in zip(setting.templates, forms, strict=True)
            ),
        ),
        contrasts=(
            Contrast(
                Words("demonstrations over the query alone", "演示相对只有查询"), difference(shown, query), above=0
            ),
            Contrast(
                Words("description over the query alone", "任务描述相对只有查询"),
                difference(described, query),
                above=0,
                main=False,
            ),
            Contrast(
                Words("demonstrations over the description", "演示相对任务描述"),
                difference(shown, described),
                above=0,
            ),
            Contrast(
                Words("both over demonstrations alone", "两者相对只有演示"),
                difference(both, shown),
                above=0,
                main=False,
            ),
            Contrast(
                Words("best over worst form, chosen on other items", "最好相对最差形式（在另一半样本上选出）"),
                Range(forms),
                above=0.05,
            ),
        ),
    )


def _written(names: Sequence[str]) -> str:
    """The forms as they look, with what stands between examples."""
    shown = []
    for name in names:
        form = form_of(name)
        looks = f"{form.field.format(text='…')}{form.joint}{form.cue} …"
        shown.append(f"{name}: `{_visible(looks)}` `{_visible(form.separator)}`")
    return "; ".join(shown)


def _visible(text: str) -> str:
    return text.replace("\n", "⏎")
