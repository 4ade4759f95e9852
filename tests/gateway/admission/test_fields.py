"""What fields may be: ordinary sampling passes, numbers are understood, what hurts engines is refused."""

from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.engines.catalog import ENGINES
from autoglm_serve.gateway.admission.cost import request_cost
from autoglm_serve.gateway.admission.fields import (
    MAX_ANSWERS,
    MAX_ENUM_VALUES,
    MAX_GRAMMAR_BYTES,
    MAX_NESTING,
    MAX_REPETITIONS,
    ON_REQUEST,
    Asked,
    FieldPolicy,
    read_fields,
)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
STRICT = FieldPolicy(refuse_unknown=True)


def read(path: str = CHAT, policy: FieldPolicy = STRICT, engine: str = "vllm", **fields: Any) -> Asked:
    return read_fields(fields, path, engine, policy)


def refusal(path: str = CHAT, policy: FieldPolicy = STRICT, engine: str = "vllm", **fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(path, policy, engine, **fields)
    assert caught.value.status == 400
    return caught.value


def schema(**properties: Any) -> dict[str, Any]:
    inner = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": inner}}


def nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"type": "array", "items": value}
    return value


TOOL = {
    "type": "function",
    "function": {
        "name": "open",
        "description": "Opens (or starts) an app? Yes! " * 20,
        "parameters": {"type": "object", "properties": {"app": {"type": "string", "pattern": "^[a-z.]+$"}}},
    },
}
ORDINARY: dict[str, tuple[str, dict[str, Any]]] = {
    "phone agent": (
        "vllm",
        {"max_tokens": 3000, "temperature": 0.0, "top_p": 0.85, "frequency_penalty": 0.2, "stream": True},
    ),
    "openai": (
        "vllm",
        {
            "n": 4,
            "seed": -1,
            "stop": ["\n", "Observation:"],
            "logit_bias": {"50256": -100},
            "logprobs": True,
            "top_logprobs": 5,
            "user": "u",
            "tools": [TOOL] * 100,
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "response_format": schema(a={"enum": ["x", "y"]}),
            "metadata": {},
            "reasoning_effort": "low",
            "stream_options": {"include_usage": True},
            "service_tier": "auto",
        },
    ),
    "vllm": (
        "vllm",
        {
            "top_k": 20,
            "min_p": 0.05,
            "repetition_penalty": 1.05,
            "ignore_eos": True,
            "min_tokens": 1,
            "stop_token_ids": [1, 2],
            "skip_special_tokens": False,
            "bad_words": ["x"],
            "use_beam_search": False,
            "structured_outputs": {"regex": r"\\d{3}-\\d{4}"},
            "guided_choice": ["yes", "no"],
            "chat_template_kwargs": {"enable_thinking": False},
            "include_reasoning": True,
            "guided_json": orjson.dumps(schema(a={"type": "integer"})).decode(),
        },
    ),
    "llama.cpp": (
        "llama.cpp",
        {
            "cache_prompt": True,
            "n_predict": -1,
            "samplers": ["top_k", "min_p"],
            "mirostat": 2,
            "n_probs": 3,
            "dry_multiplier": 0.8,
            "dry_penalty_last_n": -1,
            "dry_sequence_breakers": ["\n", ":"],
            "typical_p": 1,
            "repeat_last_n": 64,
            "grammar": 'root ::= (expr "=" term "\\n")+\nterm ::= [0-9]+ | "(" expr ")"',
        },
    ),
    "sglang": ("sglang", {"regex": "(yes|no)", "ebnf": 'root ::= "a" | "b"', "separate_reasoning": True}),
}


def test_engines_are_known_by_the_names_that_they_have() -> None:
    for name in ("llama.cpp", "vllm", "sglang"):
        assert name in ENGINES
        others = {"min_new_tokens": 1} if name != "sglang" else {"mirostat": 1}
        assert refusal(engine=name, **cast("Any", others)).code == "unknown_field"


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_sampling_passes_untouched(name: str) -> None:
    engine, fields = ORDINARY[name]
    assert read(engine=engine, model="demo", messages=[], **fields).edits == {}
    assert read(engine="external", model="demo", messages=[], **fields).edits == {}


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        ("max_tokens", 3000.0, 3000),
        ("max_tokens", "16", 16),
        ("max_tokens", -1, None),
        ("max_completion_tokens", -1.0, None),
        ("n_predict", "-1", -1),
        ("n", 1.0, 1),
        ("seed", 1.0, 1),
        ("seed", "-7", -7),
        ("temperature", "0.5", 0.5),
        ("temperature", "1e-2", 0.01),
        ("top_p", "1", 1.0),
        ("top_k", -1.0, -1),
        ("n_discard", 3.0, 3),
    ],
)
def test_numbers_are_understood_as_clients_write_them(field: str, written: object, meant: object) -> None:
    [(name, value)] = read(**cast("Any", {field: written})).edits.items()
    assert (name, value, type(value)) == (field, meant, type(meant))


@pytest.mark.parametrize("value", [True, 1.5, "1.5", "", " ", "one", "0x10", "1_000", [], {}, "inf", -2])
def test_what_is_no_count_is_refused(value: object) -> None:
    assert refusal(max_tokens=value).param == "max_tokens"


@pytest.mark.parametrize("field", ["n_discard", "dry_allowed_length", "min_tokens", "n"])
def test_what_an_engine_subtracts_with_is_not_negative(field: str) -> None:
    assert refusal(engine="llama.cpp", **cast("Any", {field: -1})).param == field


@pytest.mark.parametrize("value", [True, "nan", "inf", "-inf", "1,5", "", {}, [1]])
def test_what_is_no_number_is_refused(value: object) -> None:
    assert refusal(temperature=value).code == "wrong_type"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 65},
        {"best_of": 65},
        {"stop": ["x"] * 33},
        {"stop": "x" * 1001},
        {"stop": ["x" * 1001]},
        {"logit_bias": {str(n): 1 for n in range(1025)}},
        {"bad_words": ["x"] * 257},
        {"stop_token_ids": [1] * 257},
        {"allowed_token_ids": [1] * 4097},
        {"top_logprobs": 129},
        {"prompt_logprobs": 129},
        {"n_probs": 129},
        {"tools": [TOOL] * 513},
        {"tools": [{"type": "function", "function": {"name": "x", "parameters": nested(40)}}]},
        {"response_format": schema(a=nested(40))},
        {"response_format": schema(a={"enum": [f"v{n}" for n in range(MAX_ENUM_VALUES + 1)]})},
        {"response_format": schema(a={"type": "string", "pattern": "(" * 33 + ")" * 33})},
        {"response_format": schema(a={"type": "string", "pattern": "a?" * 129})},
        {"response_format": schema(a={"type": "string", "pattern": "(a{2000}){2001}"})},
        {"response_format": schema(**{f"p{n}": {"pattern": "a" * 2000} for n in range(40)})},
        {"response_format": schema(**{f"p{n}": {"type": "string"} for n in range(12_000)})},
        {"guided_json": "[" * 100_000},
        {"guided_json": orjson.dumps(nested(40)).decode()},
        {"guided_grammar": "root ::= " + "(" * 33 + '"a"' + ")" * 33},
        {"grammar": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000},
        {"grammar": "root ::= " + '"a"? ' * (MAX_REPETITIONS + 1)},
        {"grammar": "x" * (MAX_GRAMMAR_BYTES + 1)},
        {"structured_outputs": {"grammar": "root ::= " + '"a"? ' * 500}},
        {"structured_outputs": {"regex": "((((((a+)+)+)+)+)+)+" + "(" * 40}},
        {"structured_outputs": {"choice": ["x"] * (MAX_ENUM_VALUES + 1)}},
        {"guided_regex": "x" * 3000},
        {"guided_choice": ["x"] * (MAX_ENUM_VALUES + 1)},
        {"dry_penalty_last_n": 100_000_000},
        {"repeat_last_n": 100_000_000},
        {"dry_sequence_breakers": ["x"] * 33},
        {"samplers": ["top_k"] * 33},
    ],
)
def test_what_hurts_an_engine_is_refused_by_name_until_it_is_allowed(fields: dict[str, Any]) -> None:
    [name] = fields
    refused = refusal(engine="external", **fields)
    assert refused.code == "out_of_bounds"
    assert name in refused.message
    assert f"--allow-field {name}" in refused.message
    assert read(policy=FieldPolicy(allowed=(name,)), **fields).edits == {}


def test_answers_are_counted_over_prompts_and_bounded() -> None:
    asked = read(COMPLETIONS, prompt=["a", "b", "c"], n=2, best_of=4)
    assert (asked.choices, asked.answers) == (6, 12)
    assert read(COMPLETIONS, prompt=[1, 2, 3]).answers == 1
    assert read(COMPLETIONS, prompt=[[1, 2], [3]]).answers == 2
    assert refusal(COMPLETIONS, prompt=["a"] * (MAX_ANSWERS + 1)).code == "out_of_bounds"
    assert refusal(COMPLETIONS, prompt=["a"] * 20, n=5).code == "out_of_bounds"


@pytest.mark.parametrize(
    "prompt", [[-1], [1 << 40], [[5, -3]], [1.5], [True], [None], [{"x": 1}], {"x": 1}, 7]
)
def test_a_prompt_is_texts_or_tokens_of_a_vocabulary(prompt: object) -> None:
    assert (refusal(COMPLETIONS, prompt=prompt).param or "").startswith("prompt")


@pytest.mark.parametrize("name", sorted(ON_REQUEST))
def test_what_reaches_deep_into_an_engine_passes_only_when_it_is_allowed(name: str) -> None:
    for policy in (STRICT, FieldPolicy()):
        assert refusal(policy=policy, **cast("Any", {name: {}})).code == "field_not_allowed"
    assert read(policy=FieldPolicy(allowed=(name,)), **cast("Any", {name: {}})).edits == {}


@pytest.mark.parametrize(
    "kwargs", [{"chat_template": "{{ x }}"}, {"tokenize": True}, {"enable_thinking": {"a": 1}}]
)
def test_arguments_of_the_template_are_its_known_switches(kwargs: dict[str, Any]) -> None:
    refused = refusal(chat_template_kwargs=kwargs)
    assert (refused.code, refused.param) == (
        "field_not_allowed",
        f"chat_template_kwargs.{next(iter(kwargs))}",
    )


def test_unknown_fields_pass_or_are_refused_by_name() -> None:
    assert read(policy=FieldPolicy(), new_thing=1).edits == {}
    refused = refusal(new_thing=1)
    assert (refused.code, refused.param) == ("unknown_field", "new_thing")
    assert read(policy=FieldPolicy(refuse_unknown=True, allowed=("new_thing",)), new_thing=1).edits == {}
    assert refusal(engine="vllm", mirostat=1).code == "unknown_field"  # llama.cpp's


def test_what_is_asked_for_weighs() -> None:
    def cost(**fields: Any) -> int:
        asked = read(**fields)
        return request_cost(
            text_bytes=0,
            pictures=(),
            geometry=None,
            max_answer_tokens=None,
            answers=asked.answers,
            guide_tokens=asked.guide_tokens,
        )

    assert cost() < cost(response_format=schema(a={"enum": ["x" * 50] * 100})) < cost(n=16)


@given(
    st.dictionaries(
        st.sampled_from(
            ["n", "prompt", "stop", "tools", "grammar", "guided_json", "logit_bias", "seed", "text"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_value_passes_or_is_refused(fields: dict[str, Any]) -> None:
    for path in (CHAT, COMPLETIONS, "/v1/embeddings"):
        try:
            read(path, **fields)
        except Refusal as refused:
            assert refused.status == 400  # noqa: PT017
    assert MAX_NESTING < 40
