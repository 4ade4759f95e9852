"""Requests of Ollama's API as OpenAI's: everything is asked, renamed or refused by the name that was sent."""

import base64
from typing import Any

import orjson
import pytest

from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.refusal import Refusal
from autoglm_serve.core.replica import ReplicaState
from autoglm_serve.gateway.admission.document import parse_object
from autoglm_serve.gateway.ollama.question import COMPLETIONS, EMBEDDINGS, Form, Translation, question
from tests.fakes.pictures import png

PICTURE = png().partition(",")[2]
LOOK = {"role": "user", "content": "look", "images": [PICTURE]}


def fleet(engine: str = "llama.cpp") -> FleetView:
    model = ModelView(names=("demo", "alias"), capabilities=frozenset({Capability.CHAT, Capability.VISION}))
    replica = ReplicaView(
        id="r0", slot=0, model="demo", engine=engine, state=ReplicaState.READY, base_url="http://x"
    )
    return FleetView(models=(model,), replicas=(replica,))


def asked(path: str, engine: str = "llama.cpp", **body: Any) -> Translation:
    return question(f"/api/{path}", {"model": "demo", **body}, fleet(engine))


def chat(*messages: dict[str, Any], **body: Any) -> dict[str, Any]:
    return asked("chat", messages=list(messages) or [{"role": "user", "content": "hi"}], **body).body


def refused(path: str = "chat", **body: Any) -> Refusal:
    with pytest.raises(Refusal) as told:
        asked(path, **({"messages": [LOOK]} if path == "chat" else {"prompt": "x"}) | body)
    return told.value


def test_a_chat_streams_unless_it_is_told_not_to_and_asks_what_it_took() -> None:
    body = chat()
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert chat(stream=False)["stream"] is False


@pytest.mark.parametrize(("named", "meant"), [("demo", "demo"), ("demo:latest", "demo"), ("x:latest", "x")])
def test_a_tag_behind_the_name_means_the_same_model(named: str, meant: str) -> None:
    assert chat(model=named)["model"] == meant
    assert asked("chat", messages=[LOOK], model=named).model == named


def test_pictures_stand_in_front_of_the_text_and_say_what_they_are() -> None:
    webp = base64.b64encode(b"RIFF\x00\x00\x00\x00WEBP").decode()
    [message] = chat({"role": "user", "content": "look", "images": [PICTURE, webp, png()]})["messages"]
    urls = [part["image_url"]["url"] for part in message["content"][:3]]
    assert [url[:16] for url in urls] == ["data:image/png;b", "data:image/webp;", "data:image/png;b"]
    assert message["content"][3] == {"type": "text", "text": "look"}


def test_tool_calls_get_ids_and_their_results_name_them() -> None:
    call = {"function": {"name": "tap", "arguments": {"x": 1}}}
    messages = chat(
        {"role": "assistant", "content": "", "tool_calls": [call, call]},
        {"role": "tool", "content": "done", "tool_name": "tap"},
        {"role": "tool", "content": "done too"},
        tools=[{"type": "function", "function": {"name": "tap"}}],
    )["messages"]
    calls = messages[0]["tool_calls"]
    assert [orjson.loads(each["function"]["arguments"]) for each in calls] == [{"x": 1}] * 2
    assert [each["tool_call_id"] for each in messages[1:]] == [each["id"] for each in calls]


@pytest.mark.parametrize(
    ("think", "meant"),
    [
        (True, {"enable_thinking": True, "return_reasoning": True}),
        (False, {"enable_thinking": False}),
        ("low", {"enable_thinking": True, "return_reasoning": True, "reasoning_effort": "low"}),
        (None, {}),
    ],
)
def test_thinking_is_asked_for_and_told_apart(think: object, meant: dict[str, object]) -> None:
    names = ("enable_thinking", "return_reasoning", "reasoning_effort")
    assert {name: value for name, value in chat(think=think).items() if name in names} == meant


def test_a_format_is_a_response_format() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert chat(format="json")["response_format"] == {"type": "json_object"}
    assert chat(format=schema)["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in chat(format="")
    assert refused(format="xml").param == "format"


def test_options_have_the_names_that_the_engine_knows() -> None:
    options = {"num_predict": 9, "repeat_penalty": 1.1, "top_k": 3, "stop": ["x"], "num_ctx": 4096, "seed": 1}
    both = {"max_tokens": 9, "top_k": 3, "stop": ["x"], "seed": 1}
    for engine, penalty in (("llama.cpp", "repeat_penalty"), ("vllm", "repetition_penalty")):
        body = asked("chat", engine, messages=[LOOK], options=options).body
        assert {name: body.get(name) for name in both} == both
        assert (body[penalty], "num_ctx" in body) == (1.1, False)
    assert "max_tokens" not in chat(options={"num_predict": -1})


def test_what_an_engine_does_not_do_is_refused_unless_it_means_nothing() -> None:
    assert asked("chat", "llama.cpp", messages=[LOOK], options={"mirostat": 2}).body["mirostat"] == 2
    assert "mirostat" not in asked("chat", "vllm", messages=[LOOK], options={"mirostat": 0}).body
    with pytest.raises(Refusal) as told:
        asked("chat", "vllm", messages=[LOOK], options={"mirostat": 2})
    assert told.value.param == "options.mirostat"


def test_a_refusal_names_the_fields_that_were_sent() -> None:
    made = asked("chat", messages=[{"role": "system", "content": "s"}, LOOK], options={"num_predict": "x"})
    at = "messages[1].content[0].image_url.url"
    told = made.in_their_words(Refusal(400, "invalid_image", f"'{at}' is no picture.", param=at))
    assert (told.message, told.param) == ("'messages[1].images[0]' is no picture.", "messages[1].images[0]")
    assert (
        made.in_their_words(Refusal(400, "x", "'max_tokens' …", param="max_tokens")).param
        == "options.num_predict"
    )


def test_generate_is_a_chat_with_one_message_or_a_plain_completion() -> None:
    made = asked("generate", prompt="p", system="s", images=[PICTURE])
    assert [message["role"] for message in made.body["messages"]] == ["system", "user"]
    assert made.theirs["messages[1].content[0].image_url.url"] == "images[0]"
    raw = asked("generate", prompt="p", raw=True)
    assert (raw.path, raw.body["prompt"], "messages" in raw.body) == (COMPLETIONS, "p", False)
    filled = asked("generate", prompt="p", suffix="s")
    assert (filled.path, filled.body["suffix"]) == (COMPLETIONS, "s")


@pytest.mark.parametrize("field", ["context", "template"])
def test_what_is_not_done_is_refused_by_name(field: str) -> None:
    assert (refused("generate", **{field: [1]}).code, refused("generate", **{field: [1]}).param) == (
        "not_supported",
        field,
    )


def test_nothing_to_say_loads_the_model_and_unloading_is_refused() -> None:
    assert asked("chat", messages=[]).only_load
    assert asked("generate").only_load
    assert asked("generate", keep_alive="5m").only_load
    for nothing in (0, "0", "0s"):
        with pytest.raises(Refusal, match="keep_alive"):
            asked("generate", keep_alive=nothing)


def test_embeddings_of_both_kinds() -> None:
    for path, field, form in (("embed", "input", Form.EMBED), ("embeddings", "prompt", Form.EMBEDDING)):
        made = asked(path, **{field: "text"})
        assert (made.path, made.body["input"], made.form) == (EMBEDDINGS, "text", form)


def test_fields_of_nobodys_go_on_for_the_gateway_to_judge() -> None:
    assert chat(logprobs=True, top_logprobs=2, priority=3)["priority"] == 3
    assert "keep_alive" not in chat(keep_alive="5m")


def test_long_strings_of_a_very_large_body_are_copied_as_they_stood() -> None:
    long_image, long_text = "iVBORw0KGgo" + "A" * (9 << 20), "é\n" * 4000
    raw = orjson.dumps(
        {"model": "demo", "messages": [{"role": "user", "content": long_text, "images": [long_image]}]}
    )
    made = question("/api/chat", parse_object(raw), fleet())
    parts = orjson.loads(made.written())["messages"][0]["content"]
    assert parts[0]["image_url"]["url"] == "data:image/png;base64," + long_image
    assert parts[1]["text"] == long_text


@pytest.mark.parametrize(
    "messages",
    ["x", [1], [{"role": "user", "content": "x", "images": "x"}], [{"tool_calls": [1], "role": "x"}]],
)
def test_another_shape_is_refused(messages: object) -> None:
    assert refused(messages=messages).status == 400
