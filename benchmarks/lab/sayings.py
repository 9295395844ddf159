"""The words around the numbers of a page, by language."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DATASETS", "REFERENCES", "SAYINGS"]

SAYINGS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "references": "References",
        "column": "{dataset}, {way}",
        "cell": "{number}: **{verdict}**",
        "part": "{name} {number} ({verdict})",
        "written": "written answers",
        "on axis": "{axis} → {condition}",
        "title": "Laboratory: what makes demonstrations work",
        "other": "[中文](laboratory.zh.md)",
        "intro": (
            "Fifteen claims about in-context learning, each tested on a model file by one command. “A over B” is the accuracy "
            "with A minus the accuracy with B, averaged over draws of demonstrations and test items, every dataset counting "
            "equally; its 95 % interval accounts for both draws and items, and the verdict follows from it alone. Unless stated "
            "otherwise a prompt has no task description, the form “label” of experiment 1, and demonstrations drawn with all "
            "labels equally often. Where labels are scored, results are given twice: as the model answers (the likeliest "
            "label), and calibrated (batch calibration, Zhou et al. 2023: each label's mean log-probability over all test "
            "items is subtracted; no true label is used)."
        ),
        "machine": "Measured on:",
        "scale": "Scale:",
        "claim": "claim",
        "verdict": "verdict",
        "verdicts": (
            "A claim has one or more parts. A part *holds* where its whole interval lies on the side that the claim names, is "
            "*contradicted* where all of it lies on the other side, and is *undecided* (not shown by this model) where it lies "
            "on both: these items and draws are then too few to tell. The claim *holds* if every part does; *partly*: some parts "
            "hold, the others are undecided; *mixed*: some hold, others are contradicted; *contradicted*: none holds and at "
            "least one is contradicted; *undecided*: every part is. “(at least)” marks a lower bound: it can show that an "
            "effect is large, never that it is small. About one 95 % interval in twenty misses by chance, so do not build on a "
            "single one."
        ),
        "effect": "effect, percentage points [95 % interval]; with ×: how many times faster",
        "claimed": "the claim says",
        "holds": "holds",
        "partly": "partly",
        "contradicted": "contradicted",
        "mixed": "mixed",
        "not shown": "undecided",
        "unmeasured": "not measured",
        "direct": "as the model answers",
        "calibrated": "calibrated",
        "seconds": "measured",
        "above": "above {}",
        "below": "below {}",
        "sentence": "For this model the claim {verdict}{way}: {parts}.",
        "sentence holds": "holds",
        "sentence partly": "holds in part",
        "sentence mixed": "holds in part and is contradicted in part",
        "sentence contradicted": "is contradicted",
        "sentence not shown": "is undecided",
        "sentence way": " ({})",
        "no number": "could not be measured",
        "counts": "{verdict} ({hold} of {parts} parts hold, {contradicted} contradicted)",
        "join": "; ",
        "condition": "accuracy, % [95 % interval]",
        "model": "model",
        "loss": "bits per byte",
        "gain": "gain, {}",
        "task": "task",
        "first_switch": "first switch, s",
        "later_switch": "later switch, s",
        "no_switch": "same task again, s",
        "training_on_shots": "training on the shown rows, s",
        "training_on_rows": "training on more rows, s",
        "classifier_accuracy": "the classifier's accuracy, %",
        "left_out": "Left out, since it did not fit the model's context or there were too few rows to show: {} of {} cells.",
        "each dataset": "Each dataset by itself",
        "set": "set",
        "lowest": "lowest, {}",
        "median": "median, {}",
        "highest": "highest, {}",
        "on": " (on {})",
        "at least": " (at least)",
        "model_accuracy": "the model's accuracy, %",
        "aside": " (for comparison)",
        "scale line": (
            "{items} test items (all, where a dataset has fewer) of each of {datasets}; {seeds} draws of demonstrations; {shots} "
            "demonstrations unless stated otherwise; written answers on {tasks} with {thinking_items} items and "
            "{thinking_seeds} draws; {tokens} tokens in all."
        ),
    },
    "zh": {
        "references": "参考文献",
        "column": "{dataset}，{way}",
        "cell": "{number}：**{verdict}**",
        "part": "{name} {number}（{verdict}）",
        "written": "生成的答案",
        "on axis": "{axis} → {condition}",
        "title": "实验室：是什么让演示起作用",
        "other": "[English](laboratory.md)",
        "intro": (
            "关于上下文学习的十五个论断，每个都用一条命令在一个模型文件上检验。“A 相对 B”指用 A 时的准确率减去用 B 时的准确率，对演示的各次抽取和测试样本"
            "取平均，各数据集权重相同；其 95 % 置信区间同时计入抽取和样本的随机性，结论只由区间得出。除另有说明外，提示词不含任务描述，采用实验 1 的形式“label”，"
            "抽取演示时各标签次数尽量相等。对标签打分的实验给出两种结果：未校准，即模型原样作答（取概率最大的标签）；校准后，即批次校准（Zhou et al. 2023："
            "先减去每个标签的对数概率在全部测试样本上的平均值，不使用真实标签）。图中文字为英文：as the model answers 即未校准，calibrated 即校准后。"
        ),
        "machine": "测量环境：",
        "scale": "规模：",
        "claim": "论断",
        "verdict": "结论",
        "verdicts": (
            "每个论断有一个或多个部分。某个部分的整个区间落在论断所说的一侧，则*成立*；全部落在另一侧，则*被否定*；跨越两侧，则*未能判定*（这个模型未能表明），"
            "即现有样本和抽取次数不足以判断。论断各部分都成立为*成立*；一些成立、其余未能判定为*部分成立*；一些成立、另一些被否定为*部分成立、部分被否定*；"
            "没有成立且至少一个被否定为*被否定*；全部未能判定为*未能判定*。“（至少）”表示下界：它能说明效应大，不能说明效应小。约每二十个 95 % 区间会有一个"
            "因偶然而偏离，不宜依据单个区间下结论。"
        ),
        "effect": "效应，百分点 [95 % 区间]；带 × 者为速度的倍数",
        "claimed": "论断主张",
        "holds": "成立",
        "partly": "部分成立",
        "mixed": "部分成立、部分被否定",
        "contradicted": "被否定",
        "not shown": "未能判定",
        "unmeasured": "未测量",
        "direct": "未校准",
        "calibrated": "校准后",
        "seconds": "实测",
        "above": "高于 {}",
        "below": "低于 {}",
        "sentence": "对这个模型，该论断{verdict}{way}：{parts}。",
        "sentence holds": "成立",
        "sentence partly": "部分成立",
        "sentence mixed": "部分成立、部分被否定",
        "sentence way": "（{}）",
        "no number": "无法测量",
        "counts": "{verdict}（{parts} 个部分中 {hold} 个成立、{contradicted} 个被否定）",
        "sentence contradicted": "被否定",
        "sentence not shown": "未能判定",
        "join": "；",
        "condition": "准确率，% [95 % 区间]",
        "model": "模型",
        "loss": "每字节比特数",
        "gain": "增益（{}）",
        "task": "任务",
        "first_switch": "首次切换（秒）",
        "later_switch": "再次切换（秒）",
        "no_switch": "同一任务再次查询（秒）",
        "training_on_shots": "用所示样本训练（秒）",
        "training_on_rows": "用更多样本训练（秒）",
        "classifier_accuracy": "分类器准确率（%）",
        "left_out": "因超出模型的上下文长度或可用样本太少而略去的单元：{} 个（共 {} 个）。",
        "each dataset": "各数据集分别的结果",
        "set": "组",
        "lowest": "最低（{}）",
        "median": "中位（{}）",
        "highest": "最高（{}）",
        "on": "（{}）",
        "at least": "（至少）",
        "model_accuracy": "模型准确率（%）",
        "aside": "（供对照）",
        "scale line": (
            "{datasets} 各 {items} 个测试样本（不足则全部）；演示抽取 {seeds} 次；除另有说明外用 {shots} 个演示；由模型写出答案的任务为 {tasks}，"
            "各 {thinking_items} 个测试样本、{thinking_seeds} 次抽取；共 {tokens} 个 token。"
        ),
    },
}

DATASETS: Mapping[str, Mapping[str, str]] = {
    "sst2": {"en": "sentiment of reviews, 2 labels (chance 50 %)", "zh": "影评情感，2 类（随机水平 50 %）"},
    "trec": {"en": "type of question, 6 labels (17 %)", "zh": "问题类型，6 类（17 %）"},
    "agnews": {"en": "topic of news, 4 labels (25 %)", "zh": "新闻主题，4 类（25 %）"},
    "rte": {"en": "entailment, 2 labels", "zh": "文本蕴含，2 类"},
    "chnsenticorp": {"en": "sentiment of Chinese reviews, 2 labels", "zh": "中文评论情感，2 类"},
    "lookup": {"en": "sum of two prices in a list", "zh": "价目表中两个价格之和"},
    "coin_flip": {"en": "which side of a coin is up", "zh": "硬币朝上的一面"},
    "two_hops": {"en": "which thing is in a person's box", "zh": "某人的盒子里是什么"},
    "gsm8k": {"en": "school mathematics", "zh": "小学数学题"},
}
"""What is asked in datasets and tasks that are often used."""

REFERENCES = (
    ("Dai et al. 2023", "Why Can GPT Learn In-Context?", "2212.10559"),
    ("Deutch et al. 2024", "In-context Learning and Gradient Descent Revisited", "2311.07772"),
    ("Du et al. 2024", "Understanding Emergent Abilities of Language Models from the Loss Perspective", "2403.15796"),
    ("Kojima et al. 2022", "Large Language Models are Zero-Shot Reasoners", "2205.11916"),
    ("Lu et al. 2022", "Fantastically Ordered Prompts and Where to Find Them", "2104.08786"),
    ("Min et al. 2022", "Rethinking the Role of Demonstrations", "2202.12837"),
    ("Shen et al. 2024", "Do pretrained Transformers Learn In-Context by Gradient Descent?", "2310.08540"),
    ("Wei et al. 2022", "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models", "2201.11903"),
    ("Wei et al. 2023", "Larger language models do in-context learning differently", "2303.03846"),
    ("Zhao et al. 2021", "Calibrate Before Use", "2102.09690"),
    ("Zhou et al. 2023", "Batch Calibration", "2309.17249"),
)
"""Name, beginning of the title, and arXiv number."""
