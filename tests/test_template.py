"""From parts to a prompt: everything in order, users' texts unchanged and as data, chat templates on a leash."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import ModelError
from promptsearch.lm.base import Rendered
from promptsearch.template import (
    CHAT_TEMPLATES,
    OPTION_TEMPLATES,
    PLAIN_TEMPLATES,
    TEMPLATES,
    ChatFormat,
    Demonstration,
    Renderer,
    Template,
)

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<{{ message['role'] }}>{{ message['content'] | trim }}</{{ message['role'] }}>{% endfor %}<assistant>"
)
DEAF_TO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "<{{ message['role'] }}>{{ message['content'] }}{% endif %}{% endfor %}"
)
NASTY = "{ } {text} {{ 7*7 }} {% raise %} {# #} %s <|im_end|> \ue0000\ue001 \\n \u2028"

texts = st.text(min_size=1, max_size=30) | st.sampled_from([NASTY, "{name}: {text}", "{{ messages }}", "}"])
demonstrations = st.lists(
    st.builds(lambda text, output: Demonstration({"text": text}, output), texts, texts), max_size=4
)
templates = pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))


def renderer(*columns: str, source: str | None = CHATML, output: str = "label") -> Renderer:
    return Renderer(columns or ("text",), output, ChatFormat(source) if source else None)


def require_in_order(whole: str, parts: Sequence[str]) -> None:
    """Every part stands in the text, none before the end of the one before it."""
    place = 0
    for part in parts:
        found = whole.find(part, place)
        assert found >= 0, (part, whole)
        place = found + len(part)


def test_names() -> None:
    assert len(TEMPLATES) == len(PLAIN_TEMPLATES) + len(CHAT_TEMPLATES) + len(OPTION_TEMPLATES)
    assert all(name == template.name for name, template in TEMPLATES.items())
    assert next(iter(TEMPLATES)) == "fields"


PAIRS = [
    ("", ""),
    ("Text", ""),
    ("Review", ""),
    ("", "Mood"),
    ("Review", "Mood"),
    ("Mood", "Review"),
    ("{text}", "}"),
]


@pytest.mark.parametrize("columns", [("text",), ("text", "topic")])
def test_forms_are_alike_exactly_where_prompts_are(columns: tuple[str, ...]) -> None:
    item = dict.fromkeys(columns, "so so")
    shown = [Demonstration(item, "fine", "It says so.")]
    by_form: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for template in (*PLAIN_TEMPLATES, *CHAT_TEMPLATES):
        for names in PAIRS:
            named = template.named(*names)
            thoughts = ("", "Think") if template.takes_reasoning else ("",)
            prompts = tuple(str(renderer(*columns).render(named, "Say it.", shown, item, each)) for each in thoughts)
            by_form.setdefault(template.form(names, columns, "label"), set()).add(prompts)
    assert all(len(prompts) == 1 for prompts in by_form.values())
    assert len({prompts for found in by_form.values() for prompts in found}) == len(by_form)


def test_the_usual_form() -> None:
    shown = [Demonstration({"customer_text": "Fine."}, "good"), Demonstration({"customer_text": "Poor."}, "bad")]
    prompt = renderer("customer_text").render(TEMPLATES["fields"], "Say it.", shown, {"customer_text": "Well."})
    assert prompt == (
        "Say it.\n\nCustomer text: Fine.\nLabel: good\n\n"
        "Customer text: Poor.\nLabel: bad\n\nCustomer text: Well.\nLabel:"
    )


@templates
@given(instruction=texts, shown=demonstrations, query=texts)
def test_everything_is_there_in_order_and_unchanged(
    template: Template, instruction: str, shown: list[Demonstration], query: str
) -> None:
    prompt = renderer().render(template, instruction, shown, {"text": query})
    said = [part for each in shown for part in (each.inputs["text"], each.output)]
    require_in_order(prompt, [instruction, *said, query])
    assert "".join(segment.text for segment in prompt.segments) == prompt


@templates
@given(shown=demonstrations, query=texts)
def test_a_prompt_is_a_prefix_shared_by_its_queries(
    template: Template, shown: list[Demonstration], query: str
) -> None:
    """What stands before the query does not depend on it, or no prefix could be kept."""
    whole = renderer().render(template, "Do.", shown, {"text": f"a{query}"})
    other = renderer().render(template, "Do.", shown, {"text": f"b{query}"})
    same = next(place for place, (one, two) in enumerate(zip(whole, other, strict=True)) if one != two)
    require_in_order(whole[:same], ["Do.", *(part for each in shown for part in (each.inputs["text"], each.output))])
    assert whole[same:].startswith(f"a{query}")
    assert whole[same + 1 :] == other[same + 1 :]


@pytest.mark.parametrize("template", PLAIN_TEMPLATES, ids=lambda template: template.name)
@given(instruction=texts, shown=demonstrations, query=texts)
def test_plain_prompts_are_data_all_through(
    template: Template, instruction: str, shown: list[Demonstration], query: str
) -> None:
    prompt = renderer(source=None).render(template, instruction, shown, {"text": query})
    assert not any(segment.control for segment in prompt.segments)


@templates
def test_answers_read_on_as_demonstrations_do(template: Template) -> None:
    """A plain prompt with its answer is a demonstration; a chat answer begins its own turn."""
    each = renderer()
    prompt = each.render(template, "", [], {"text": "Fine."})
    answered = prompt + each.continuation(template, "good")
    shown = [Demonstration({"text": "Fine."}, "good")]
    following = each.render(template, "", shown, {"text": "Other."})
    assert following.startswith(answered) or template.chat == "user"
    assert prompt.endswith(":" if template.cue.endswith(":") and not template.chat else prompt[-1])


@pytest.mark.parametrize("template", PLAIN_TEMPLATES, ids=lambda template: template.name)
def test_several_columns_are_told_apart_by_name(template: Template) -> None:
    shown = [Demonstration({"premise": "P1", "hypothesis": "H1"}, "yes")]
    prompt = renderer("premise", "hypothesis").render(template, "", shown, {"hypothesis": "H2", "premise": "P2"})
    require_in_order(prompt, ["Premise: P1", "Hypothesis: H1", "yes", "Premise: P2", "Hypothesis: H2"])


@given(texts, texts)
def test_several_columns_hold_texts_unchanged(one: str, other: str) -> None:
    prompt = renderer("a", "b").render(TEMPLATES["bare"], "", [], {"a": one, "b": other})
    require_in_order(prompt, [f"A: {one}", f"B: {other}"])


@given(st.text(min_size=1, max_size=20))
def test_names_of_columns_may_hold_anything(name: str) -> None:
    prompt = Renderer([name], name, None).render(TEMPLATES["fields"], "", [], {name: "x"})
    assert "x" in prompt


# -- chat ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat-turns", "chat-user"])
@given(instruction=texts, shown=demonstrations, query=texts)
def test_contents_are_data_and_the_rest_is_control(
    name: str, instruction: str, shown: list[Demonstration], query: str
) -> None:
    each = renderer()
    messages = each.messages(TEMPLATES[name], instruction, shown, {"text": query})
    prompt = each.render(TEMPLATES[name], instruction, shown, {"text": query})
    assert [segment.text for segment in prompt.segments if not segment.control] == [
        message["content"] for message in messages
    ]
    control = "".join(segment.text for segment in prompt.segments if segment.control)
    expected = "".join(f"<|im_start|>{message['role']}\n<|im_end|>\n" for message in messages)
    assert control == expected + "<|im_start|>assistant\n"


@pytest.mark.parametrize("source", [CHATML, NO_SYSTEM, DEAF_TO_SYSTEM])
def test_usable_templates(source: str) -> None:
    assert ChatFormat(source).usable
    assert ChatFormat(source).keeps_system == (source == CHATML)


def test_turns() -> None:
    shown = [Demonstration({"text": "Fine."}, "good")]
    messages = renderer().messages(TEMPLATES["chat-turns"], "Say it.", shown, {"text": "Well."})
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in messages] == [
        "Say it.",
        "Text: Fine.\nLabel:",
        "good",
        "Text: Well.\nLabel:",
    ]


@pytest.mark.parametrize("source", [NO_SYSTEM, DEAF_TO_SYSTEM])
def test_without_a_system_role_the_instruction_goes_first(source: str) -> None:
    shown = [Demonstration({"text": "Fine."}, "good")]
    each = renderer(source=source)
    messages = each.messages(TEMPLATES["chat-turns"], "Say it.", shown, {"text": "Well."})
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"] == "Say it.\n\nText: Fine.\nLabel:"
    require_in_order(
        each.render(TEMPLATES["chat-turns"], "Say it.", shown, {"text": "Well."}),
        ["<user>Say it.", "Fine.", "<assistant>good", "<user>Text: Well."],
    )


def test_messages_without_a_chat_template_are_for_others() -> None:
    each = renderer(source=None)
    assert [m["role"] for m in each.messages(TEMPLATES["chat-turns"], "Do.", [], {"text": "x"})] == ["system", "user"]
    assert [m["role"] for m in each.messages(TEMPLATES["fields"], "Do.", [], {"text": "x"})] == ["user"]


def test_a_chat_prompt_needs_a_chat_template() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        renderer(source=None).render(TEMPLATES["chat-turns"], "", [], {"text": "x"})


@pytest.mark.parametrize(
    "source",
    [
        "{% for message in messages %}",
        "{{ messages[0]['content'",
        "{{ nothing.at.all }}{{ messages[0]['content'] }}",
        "{{ ''.__class__.__mro__ }}{{ messages[0]['content'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append('x') }}{{ messages[0]['content'] }}",
        "{{ messages[0].update(role='x') }}{{ messages[0]['content'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% include '/etc/passwd' %}{{ messages[0]['content'] }}",
        "{{ raise_exception('first line\nsecond line') }}",
        "{{ 1 / 0 }}{{ messages[0]['content'] }}",
        "{{ messages + 1 }}",
        "{{ messages | no_such_filter }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ undefined_function(1) }}",
        "{{ strftime_now(5) }}",
        "nothing of the message",
        "{{ messages[0]['content'] | upper | replace('\ue000', '') }}",
        "{{ messages[0]['content'] }}{{ messages[0]['content'] }}",
    ],
)
def test_templates_that_cannot_be_used(source: str) -> None:
    with pytest.raises(ModelError) as caught:
        ChatFormat(source).render([{"role": "user", "content": "x"}])
    assert str(caught.value).splitlines() == [str(caught.value)]
    assert not ChatFormat(source).keeps_system
    assert not ChatFormat(source).usable


def test_templates_may_ask_for_the_date_and_leave_loops() -> None:
    source = (
        "{{ strftime_now('%Y') | length }}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% break %}{% endif %}{% endfor %}"
    )
    prompt = ChatFormat(source).render([{"role": "user", "content": "{{ x }}"}])
    assert prompt == "4{{ x }}"
    assert isinstance(prompt, Rendered)


@given(st.lists(texts, min_size=1, max_size=12))
def test_any_number_of_messages(contents: list[str]) -> None:
    """Marks of messages 1 and 10 are not mistaken for each other."""
    prompt = ChatFormat(CHATML).render([{"role": "user", "content": content} for content in contents])
    assert prompt == "".join(f"<|im_start|>user\n{text}<|im_end|>\n" for text in contents) + "<|im_start|>assistant\n"


@templates
def test_stops(template: Template) -> None:
    assert renderer().stops(template) == (() if template.chat else ("\n",))


@templates
@given(shown=demonstrations, instruction=texts | st.just(""), items=st.tuples(texts, texts))
def test_prompts_of_two_items_share_what_stands_before_the_item(
    template: Template, shown: list[Demonstration], instruction: str, items: tuple[str, str]
) -> None:
    first, second = (renderer().render(template, instruction, shown, {"text": text}) for text in items)
    assert first.shared == second.shared
    assert first[: first.shared] == second[: second.shared]
    assert first[first.shared :].startswith(items[0])
    assert "".join(segment.text for segment in first.shared_segments) == first[: first.shared]


@templates
def test_several_columns_share_up_to_the_first_text(template: Template) -> None:
    shown = [Demonstration({"premise": "p", "hypothesis": "h"}, "o")]
    rendered = renderer("premise", "hypothesis").render(template, "", shown, {"premise": "P", "hypothesis": "H"})
    assert rendered[: rendered.shared].endswith("Premise: ")
    assert rendered[rendered.shared :].startswith("P")


def test_a_chat_template_that_writes_nothing_below_the_message() -> None:
    silent = renderer(source="{% for message in messages %}<{{ message['content'] }}{% endfor %}")
    rendered = silent.render(TEMPLATES["chat-user"], "Do.", [], {"text": "it"})
    assert rendered[rendered.shared :].startswith("it")
