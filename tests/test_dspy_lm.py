"""A ``dspy.LM`` as an engine, on a small engine of DSPy's kind that answers by rule."""

from __future__ import annotations

from typing import Any

import dspy
import numpy as np
import pytest

from promptsearch.errors import BackendError, ContextError, ModelError, UserError
from promptsearch.lm.base import GenerationParams
from promptsearch.lm.dspy_lm import DspyLM


class RuleEngine:
    """Answers by the prompt's words and keeps the requests."""

    supported_params = ("temperature", "max_tokens", "top_p", "top_k", "stop", "seed")

    def __init__(self, error: Exception | None = None, finish: str = "stop") -> None:
        self.requests: list[Any] = []
        self.error = error
        self.finish = finish

    def complete(self, request: dspy.lm15.Request) -> dspy.lm15.Response:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        prompt = request.messages[-1].text
        text = "Positive." if "good" in prompt else "negative" if "bad" in prompt else "who knows"
        return dspy.lm15.Response(
            id=None,
            model=request.model,
            message=dspy.lm15.Message.assistant(text),
            finish_reason=self.finish,
            usage=dspy.lm15.Usage(input_tokens=7, output_tokens=2, total_tokens=9),
        )

    def __deepcopy__(self, memo: dict[int, object]) -> RuleEngine:
        return self


def opened(engine: RuleEngine) -> DspyLM:
    return DspyLM(dspy.LM("test/rules", engine=engine, cache=False, num_retries=0))


def test_labels_are_scored_by_the_answer() -> None:
    lm = opened(RuleEngine())
    scores = lm.score(["good", "bad", "odd"], [" negative", " positive"])
    assert scores.tolist() == [[-np.inf, 0.0], [0.0, -np.inf], [-np.inf, -np.inf]]
    assert lm.tokens_decoded == 3 * 9
    assert lm.name == "test/rules"
    assert lm.name in lm.fingerprint


def test_parameters_are_passed_on() -> None:
    engine = RuleEngine()
    params = GenerationParams(max_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",), seed=4)
    completions = opened(engine).generate(["good", "bad"], params)
    assert [completion.text for completion in completions] == ["Positive.", "negative"]
    assert [completion.tokens for completion in completions] == [2, 2]
    configs = [request.config for request in engine.requests]
    assert all((c.max_tokens, c.temperature, c.top_p, c.stop) == (9, 0.5, 0.9, ("\n",)) for c in configs)
    assert len({config.seed for config in configs}) == 2


def test_without_sampling_no_seed_is_sent() -> None:
    engine = RuleEngine()
    opened(engine).generate(["good"], GenerationParams())
    config = engine.requests[0].config
    assert (config.temperature, config.seed, config.top_p) == (0.0, None, None)


def test_a_cut_answer_says_so() -> None:
    completion = opened(RuleEngine(finish="length")).generate(["good"], GenerationParams())[0]
    assert completion.finish == "length"


def test_a_failing_model_is_one_line() -> None:
    lm = opened(RuleEngine(error=RuntimeError("out\nof order")))
    with pytest.raises(BackendError, match="out of order") as caught:
        lm.generate(["good"], GenerationParams())
    assert "\n" not in str(caught.value)


def test_a_full_context_is_a_context_error() -> None:
    lm = opened(RuleEngine(error=dspy.lm15.ContextLengthError("too long")))
    with pytest.raises(ContextError, match="shorten"):
        lm.generate(["good"], GenerationParams())


@pytest.mark.parametrize(
    "options", [{"grammar": 'root ::= "a"'}, {"json_schema": {"type": "null"}}, {"log_probabilities": True}]
)
def test_what_not_every_dspy_engine_follows_is_refused(options: dict[str, Any]) -> None:
    engine = RuleEngine()
    with pytest.raises(UserError, match=f"cannot follow {next(iter(options))}"):
        opened(engine).generate(["good"], GenerationParams(**options))
    assert engine.requests == []


def test_something_else_is_no_model() -> None:
    with pytest.raises(ModelError, match="a str is no dspy"):
        DspyLM("openai/gpt")


def test_closed_is_closed() -> None:
    lm = opened(RuleEngine())
    lm.close()
    with pytest.raises(BackendError, match="closed"):
        lm.score(["good"], [" yes", " no"])
