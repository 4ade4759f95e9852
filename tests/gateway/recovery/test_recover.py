"""How a broken stream goes on: which way, with what request, and what the client sees of it. Pure."""

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.core.fleet import Continuation
from autoglm_serve.gateway.recovery.recover import Finish, Hopeless, Resumption, Way, resume
from autoglm_serve.gateway.recovery.seam import Diverged, Splicer
from autoglm_serve.gateway.recovery.sent import Sent, read_sent
from autoglm_serve.gateway.wire import sse

ASKED: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "max_tokens": 100,
}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "first", "created": 1, "model": "demo", "choices": [choice], **more}
    return sse.event(orjson.dumps(event))


def stream(*texts: str, id: str = "second") -> bytes:
    events = chunk({"role": "assistant", "content": ""}, id=id)
    for text in texts:
        events += chunk({"content": text}, id=id, model="other", created=2)
    return events + chunk({}, "stop", id=id) + sse.event(sse.DONE)


def sent(*texts: str) -> Sent:
    return read_sent([chunk({"role": "assistant", "content": ""}), *(chunk({"content": t}) for t in texts)])


def text_of(events: bytes) -> str:
    values = [orjson.loads(data) for data in sse.data_of(events) if data != sse.DONE]
    choices = [choice for value in values for choice in value["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def step(engine: Continuation = Continuation.PREFILL, told: Sent | None = None, **fields: Any) -> Any:
    told = told if told is not None else sent("one ", "two ")
    return resume(orjson.dumps({**ASKED, **fields}), told, engine)


def asked_again(resumption: Resumption) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(resumption.body)
    return body


def test_the_text_so_far_becomes_the_beginning_of_the_answer() -> None:
    resumption = step()
    assert resumption.way is Way.CONTINUE
    body = asked_again(resumption)
    assert body["messages"] == [*ASKED["messages"], {"role": "assistant", "content": "one two "}]
    assert "continue_final_message" not in body


def test_vllm_and_sglang_are_told_not_to_begin_a_new_turn() -> None:
    body = asked_again(step(Continuation.FLAGS))
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_the_limit_shrinks_by_what_was_written() -> None:
    assert asked_again(step(max_tokens=10))["max_tokens"] == 8
    assert asked_again(step(max_completion_tokens=7))["max_completion_tokens"] == 5


def test_a_beginning_that_the_client_gave_stays_in_front() -> None:
    messages = [*ASKED["messages"], {"role": "assistant", "content": "zero "}]
    assert asked_again(step(messages=messages))["messages"][-1]["content"] == "zero one two "


def test_penalties_and_sampling_are_kept() -> None:
    body = asked_again(step(temperature=0, top_p=0.85, frequency_penalty=0.2, seed=7))
    assert (body["temperature"], body["top_p"], body["frequency_penalty"], body["seed"]) == (0, 0.85, 0.2, 7)


def test_an_answer_at_its_limit_is_finished_here() -> None:
    finish = step(max_tokens=2)
    assert isinstance(finish, Finish)
    assert b'"finish_reason":"length"' in finish.events
    assert b'"id":"first"' in finish.events
    assert finish.events.endswith(b"data: [DONE]\n\n")


def test_before_any_text_the_same_is_asked_again() -> None:
    resumption = step(told=sent())
    assert resumption.way is Way.AGAIN
    assert orjson.loads(resumption.body) == ASKED
    events = resumption.splicer.feed(stream("all"))
    assert events.count(b'"role"') == 0  # it was sent already


def test_reasoning_that_the_engine_split_off_goes_back_into_its_tags() -> None:
    told = read_sent([chunk({"reasoning_content": "hm"}), chunk({"content": "so"})])
    assert asked_again(step(told=told))["messages"][-1]["content"] == "<think>hm</think>so"
    half = read_sent([chunk({"reasoning_content": "hm"})])
    assert asked_again(step(told=half))["messages"][-1]["content"] == "<think>hm"


def test_completions_go_on_from_their_prompt() -> None:
    event = {"id": "first", "choices": [{"index": 0, "text": " and", "finish_reason": None}]}
    told = read_sent([sse.event(orjson.dumps(event))])
    body = orjson.dumps({"prompt": "one", "max_tokens": 5})
    resumption = resume(body, told, Continuation.PREFILL)
    assert isinstance(resumption, Resumption)
    assert asked_again(resumption) == {"prompt": "one and", "max_tokens": 4}
    assert isinstance(resume(orjson.dumps({"prompt": ["a", "b"]}), told, Continuation.PREFILL), Hopeless)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_json": {"type": "object"}},
        {"grammar": "root ::= 'a'"},
        {"tool_choice": "required"},
    ],
)
def test_a_grammar_is_replayed_if_the_answer_can_be_repeated_and_given_up_otherwise(
    fields: dict[str, Any],
) -> None:
    assert isinstance(step(temperature=1, **fields), Hopeless)
    assert step(temperature=0, **fields).way is Way.REPLAY
    assert step(seed=3, **fields).way is Way.REPLAY


def test_a_text_format_is_no_grammar() -> None:
    assert step(response_format={"type": "text"}).way is Way.CONTINUE


def test_several_answers_at_once_are_given_up() -> None:
    assert isinstance(step(n=2, temperature=0), Hopeless)


def test_a_half_sent_tool_call_is_given_up_or_replayed() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "tap", "arguments": '{"x":'}}
    told = read_sent([chunk({"role": "assistant"}), chunk({"tool_calls": [call]})])
    assert isinstance(step(told=told, temperature=1), Hopeless)
    resumption = step(told=told, temperature=0)
    assert resumption.way is Way.REPLAY
    whole = {**call, "id": "new", "function": {"name": "tap", "arguments": '{"x":12}'}}
    events = resumption.splicer.feed(chunk({"tool_calls": [whole]}, id="second"))
    (value,) = [orjson.loads(data) for data in sse.data_of(events)]
    (again,) = value["choices"][0]["delta"]["tool_calls"]
    assert again == {"index": 0, "function": {"name": "", "arguments": "12}"}}


def test_an_engine_of_which_nothing_is_known_is_only_asked_what_can_be_checked() -> None:
    assert step(Continuation.NONE, temperature=0).way is Way.REPLAY
    assert isinstance(step(Continuation.NONE, temperature=1), Hopeless)


def test_what_diverged_once_is_not_replayed_again() -> None:
    body = orjson.dumps({**ASKED, "temperature": 0, "guided_json": {}})
    assert isinstance(resume(body, sent("a"), Continuation.PREFILL, may_replay=False), Hopeless)


def test_the_client_sees_one_identity_one_role_one_end() -> None:
    events = step().splicer.feed(stream("three ", "four"))
    values = [orjson.loads(data) for data in sse.data_of(events) if data != sse.DONE]
    assert {(value["id"], value["created"], value["model"]) for value in values} == {("first", 1, "demo")}
    assert b'"role"' not in events
    assert text_of(events) == "three four"
    assert [value["choices"][0]["finish_reason"] for value in values].count("stop") == 1
    assert events.count(b"[DONE]") == 1


def test_usage_counts_what_was_written_before_as_written() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    last = sse.event(orjson.dumps({"id": "second", "choices": [], "usage": usage}))
    (data,) = sse.data_of(step().splicer.feed(last))
    assert orjson.loads(data)["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def test_a_replay_brings_only_what_is_new() -> None:
    splicer = Splicer(sent("one ", "two "), replay=True)
    assert text_of(splicer.feed(stream("one two th", "ree"))) == "three"


@given(st.text("ab", max_size=12), st.data())
def test_a_replay_completes_the_text_wherever_either_was_cut(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    pieces, rest = [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    told = sent(*text[:cut])
    events = Splicer(told, replay=True).feed(stream(*pieces))
    assert text[:cut] + text_of(events) == text


def test_a_replay_that_says_something_else_is_noticed() -> None:
    with pytest.raises(Diverged):
        Splicer(sent("one ", "two "), replay=True).feed(stream("one ", "too"))
    with pytest.raises(Diverged):
        Splicer(sent("one ", "two "), replay=True).feed(stream("one "))


# --- valid JSON of another shape than the API's

SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "stop", "a.b"])
NAMES = st.sampled_from(
    "choices delta content text index finish_reason usage completion_tokens role tool_calls function name "  # noqa: SIM905
    "arguments id reasoning_content logprobs other".split()
)
ODD = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner))


@st.composite
def oddly_shaped(draw: st.DrawFn) -> Any:
    """An event of a chat with anything at one of its places."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}
    event: Any = {
        "id": "first",
        "choices": [{"index": 0, "delta": {"content": "x", "tool_calls": [call]}}],
        "usage": {"completion_tokens": 1},
    }
    place = event
    while isinstance(place, dict | list) and place:
        at = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
        if draw(st.booleans()) or not isinstance(place[at], dict | list):
            place[at] = draw(ODD)
            break
        place = place[at]
    return event


@given(st.lists(oddly_shaped(), max_size=3), st.lists(oddly_shaped(), max_size=3), st.data())
def test_what_has_another_shape_does_no_harm(
    first: list[Any], second: list[Any], data: st.DataObject
) -> None:
    asked: dict[str, Any] = data.draw(
        st.sampled_from([{}, {"temperature": 0}, {"tool_choice": "required", "seed": 1}])
    )
    told = read_sent([chunk({"role": "assistant"}), *(sse.event(orjson.dumps(each)) for each in first)])
    if isinstance(way := step(told=told, **asked), Resumption):
        with contextlib.suppress(Diverged):
            way.splicer.feed(b"".join(sse.event(orjson.dumps(each)) for each in second) + stream("one"))


def test_events_of_another_path_cannot_be_handed_over() -> None:
    asked = {"model": "demo", "prompt": "hi", "stream": True}
    assert isinstance(resume(orjson.dumps(asked), sent("one"), Continuation.PREFILL), Hopeless)


# --- what else engines say


@pytest.mark.parametrize(
    "delta",
    [
        {"audio": {"data": "AAAA", "transcript": "hi"}},
        {"audio": {"id": "a"}},
        {"content": [{"type": "text", "text": "A1 "}]},
        {"images": [{"image_url": {"url": "data:"}}]},
        {"annotations": [{"type": "url_citation", "url": "x"}]},
        {"tool_calls": [{"index": 0, "custom": {"name": "f", "input": "x"}}]},
        {"something_new": "x"},
    ],
)
@pytest.mark.parametrize("temperature", [0, 1])
def test_what_is_not_known_counts_as_said_and_is_not_said_again(
    delta: dict[str, Any], temperature: int
) -> None:
    told = read_sent([chunk({"role": "assistant", "content": ""}), chunk(delta)])
    hopeless = step(told=told, temperature=temperature)
    assert isinstance(hopeless, Hopeless)
    assert next(iter(delta)) in hopeless.reason


@pytest.mark.parametrize(
    "delta",
    [
        {},
        {"content": None, "tool_calls": None, "refusal": None, "reasoning_content": None},
        {"audio": {}, "annotations": [], "something_new": ""},
        {"tool_calls": 5},
    ],
)
def test_an_empty_field_says_nothing(delta: dict[str, Any]) -> None:
    told = read_sent([chunk({"role": "assistant", "content": ""}), chunk(delta, stop_reason=None)])
    assert step(told=told).way is Way.AGAIN


def test_an_event_that_cannot_be_read_counts_as_said() -> None:
    lone = b'data: {"choices":[{"index":0,"delta":{"content":"\\ud83d"},"finish_reason":null}]}\n\n'
    assert isinstance(step(told=read_sent([lone]), temperature=0), Hopeless)


@pytest.mark.parametrize(
    "half", [{"refusal": "I can"}, {"function_call": {"name": "f", "arguments": '{"a'}}], ids=str
)
def test_a_refusal_and_a_function_call_are_told_again_or_given_up(half: dict[str, Any]) -> None:
    told = read_sent([chunk(half)])
    assert isinstance(step(told=told, temperature=1), Hopeless)
    splicer = step(told=told, temperature=0).splicer
    whole = orjson.loads(orjson.dumps(half).replace(b"can", b"cannot").replace(b'\\"a', b'\\"a\\": 1}'))
    (data,) = sse.data_of(splicer.feed(chunk(whole)))
    assert b"not" in data or b'\\": 1}' in data
    with pytest.raises(Diverged):
        step(told=told, temperature=0).splicer.feed(chunk({next(iter(half)): {"name": "g"}}) + stream("x"))


def test_half_a_character_cannot_be_handed_over() -> None:
    assert isinstance(step(told=sent("caf\ufffd")), Hopeless)


def test_thoughts_stay_in_the_field_in_which_they_began() -> None:
    for known, other in (("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")):
        splicer = step(told=read_sent([chunk({known: "one "})])).splicer
        (data,) = sse.data_of(splicer.feed(chunk({other: "two"})))
        assert orjson.loads(data)["choices"][0]["delta"] == {known: "two"}


# --- limits, usage, stop strings


def test_what_the_engine_counts_is_believed_over_what_is_seen() -> None:
    counted = chunk({"content": "x"}, usage={"prompt_tokens": 9, "completion_tokens": 6})
    assert read_sent([counted]).tokens == 6
    assert (
        read_sent([chunk({"content": "x"}, timings={"predicted_n": 5}), chunk({"content": "y"})]).tokens == 6
    )
    probable = {"content": [{"token": "a"}, {"token": "b"}, {"token": "c"}]}
    event = {"choices": [{"index": 0, "delta": {"content": "abc"}, "logprobs": probable}]}
    assert read_sent([sse.event(orjson.dumps(event))]).tokens == 3
    assert sent("a b ", "c d ", "e").tokens == 5  # at least a token a word


def test_a_limit_of_none_is_none_and_a_round_number_is_a_number() -> None:
    assert asked_again(step(max_tokens=-1))["max_tokens"] == -1
    assert asked_again(step(max_tokens=10.0))["max_tokens"] == 8


def test_an_answer_at_its_limit_still_has_the_usage_that_was_asked_for() -> None:
    closing = step(max_tokens=2, stream_options={"include_usage": True}, min_tokens=2, n=1, logprobs=True)
    assert closing.way is Way.CLOSE
    body = asked_again(closing)
    assert (body["max_tokens"], body["messages"]) == (1, ASKED["messages"])
    assert not body.keys() & {"min_tokens", "n", "logprobs", "max_completion_tokens"}
    usage = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
    events = closing.splicer.feed(chunk({"role": "assistant", "content": ""}))
    events += closing.splicer.feed(stream("never seen")[: -len(sse.event(sse.DONE))])
    events += closing.splicer.feed(sse.event(orjson.dumps({"choices": [], "usage": usage})))
    first, last = [orjson.loads(data) for data in sse.data_of(events)]
    assert first["choices"][0]["finish_reason"] == "length"
    assert last["usage"] == {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}
    assert {first["id"], last["id"]} == {"first"}


def test_an_answer_that_lacks_only_its_usage_is_asked_for_that_alone() -> None:
    ended = read_sent([chunk({"content": "a"}), chunk({}, "tool_calls")])
    closing = step(told=ended, stream_options={"include_usage": True}, tools=[{}], temperature=1)
    assert closing.way is Way.CLOSE
    assert closing.splicer.feed(stream("x")) == sse.event(sse.DONE)


def test_several_answers_of_which_one_has_ended_are_given_up() -> None:
    ended = read_sent([chunk({}, "stop")])
    assert isinstance(step(told=ended, n=2), Hopeless)
    other = sse.event(orjson.dumps({"choices": [{"index": 1, "delta": {"content": "x"}}]}))
    assert isinstance(step(told=read_sent([other]), temperature=0), Hopeless)


@pytest.mark.parametrize(
    ("before", "after"), [("abc EN", ["D tail"]), ("a E", ["N", "D"]), ("x", ["E", "END"])]
)
def test_a_stop_string_over_the_seam_is_noticed(before: str, after: list[str]) -> None:
    splicer = step(told=sent(before), stop=["nothing", "END"]).splicer
    if before == "x":  # it begins behind the seam: the engine sees it
        assert text_of(splicer.feed(stream(*after))) == "".join(after)
        return
    with pytest.raises(Diverged):
        splicer.feed(stream(*after))


def test_a_replay_tells_no_counts_of_what_it_holds_back() -> None:
    splicer = Splicer(sent("one ", "two "), replay=True)
    again = [chunk({"content": t}, usage={"completion_tokens": n}) for n, t in enumerate(["one ", "two "])]
    assert splicer.feed(b"".join(again)) == b""
    assert b'"usage"' in splicer.feed(chunk({"content": "three"}, usage={"completion_tokens": 3}))


def test_log_probabilities_of_other_pieces_than_were_sent_are_not_shown() -> None:
    def probable(text: str) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text}]}}
        return sse.event(orjson.dumps({"choices": [choice]}))

    told = read_sent([probable("one ")])
    assert text_of(Splicer(told, replay=True).feed(probable("one ") + probable("two"))) == "two"
    with pytest.raises(Diverged):
        Splicer(told, replay=True).feed(probable("one two"))


def test_an_engine_that_begins_anew_when_asked_to_go_on_is_not_shown_twice() -> None:
    told = sent("The ", "cat ")
    assert text_of(step(told=told).splicer.feed(stream("The ", "cat sat"))) == "sat"
    for rest in ("The dog", "on", "The c"):
        assert text_of(step(told=told).splicer.feed(stream(*rest))) == rest
    assert text_of(step(told=sent("ha ")).splicer.feed(stream("ha ", "ha"))) == "ha ha"  # too short to tell


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


@given(TEXTS, TEXTS, st.booleans(), st.integers(0, 3))
def test_a_large_body_goes_on_as_a_small_one_does(said: str, more: str, own: bool, pictures: int) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A\\" * 40_000}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": said}, *[picture] * pictures]}
    ]
    messages += [{"role": "assistant", "content": said + "long \u00e9" * 1_000}] * own
    long_name = {"x" * 5_000: "y" * 70_000}
    resumption = step(
        Continuation.FLAGS, sent("a beginning ", more or "more"), messages=messages, **long_name
    )
    assert isinstance(resumption, Resumption)
    body, text = asked_again(resumption), "a beginning " + (more or "more")
    if own:
        messages[-1] = {"role": "assistant", "content": messages[-1]["content"] + text}
    else:
        messages.append({"role": "assistant", "content": text})
    assert body["messages"] == messages
    assert body["x" * 5_000] == "y" * 70_000


@given(TEXTS, st.booleans())
def test_a_long_prompt_goes_on_where_it_ends(said: str, blank: bool) -> None:
    prompt = "long \u00e9\n" * 20_000 + said + " " * blank
    told = read_sent([sse.event(orjson.dumps({"id": "c", "choices": [{"index": 0, "text": 'one "two"'}]}))])
    body = orjson.dumps({"model": "m", "prompt": prompt, "max_tokens": 50})
    resumption = resume(body, told, Continuation.PREFILL)
    assert isinstance(resumption, Resumption)
    assert asked_again(resumption)["prompt"] == prompt + 'one "two"'
