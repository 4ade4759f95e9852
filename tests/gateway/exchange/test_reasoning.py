"""<think> moves to reasoning_content; how the text was cut on its way must not show."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.exchange.reasoning import StreamSplitter, ThinkSplitter, split_reply
from autoglm_serve.gateway.wire.sse import data_of, event

TAGGED = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "</", "\n", " ", "look up", "<answer>", "点", "<"]),
    max_size=10,
).map("".join)


def split(*pieces: str) -> tuple[str, str]:
    splitter = ThinkSplitter()
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.end()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@given(TAGGED, st.data())
def test_the_output_does_not_depend_on_the_cuts(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(*pieces) == split(text) == split(*text)


@given(TAGGED)
def test_text_that_does_not_open_with_the_tag_is_left_alone(text: str) -> None:
    if not text.lstrip().startswith("<think>"):
        assert split(text) == ("", text)


def test_the_line_breaks_around_the_tags_go_with_them() -> None:
    assert split("\n<think>\nlook\nup\n</think>\n\n<answer>do()") == ("look\nup", "<answer>do()")


def test_thinking_that_was_cut_off_is_all_reasoning() -> None:
    assert split("<think>look</thi") == ("look</thi", "")


def test_a_later_tag_is_content() -> None:
    assert split("<think>a</think>b<think>c</think>") == ("a", "b<think>c</think>")


def test_a_whole_reply_is_split_in_every_choice() -> None:
    reply = {"choices": [{"message": {"content": "<think>a</think>b"}}, {"message": {"content": "c"}}]}
    messages = [choice["message"] for choice in orjson.loads(split_reply(orjson.dumps(reply)))["choices"]]
    assert messages == [
        {"content": "b", "reasoning_content": "a"},
        {"content": "c", "reasoning_content": ""},
    ]


def test_what_is_no_chat_completion_stays_as_it_is() -> None:
    for body in (b"not json", b"[1]", b'{"choices":3}', b'{"choices":[null,{"message":"x"}]}'):
        assert split_reply(body) == body


def test_a_stream_is_split_event_by_event_for_each_choice() -> None:
    def chunk(index: int, content: str | None, finish: str | None = None) -> bytes:
        delta = {} if content is None else {"content": content}
        return event(orjson.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}))

    splitter, seen = StreamSplitter(), {0: ["", ""], 1: ["", ""]}
    events = [
        *(chunk(0, "<thi"), chunk(1, "plain"), chunk(0, "nk>why</th"), chunk(0, "ink>\nwhat")),
        *(chunk(1, None, "stop"), chunk(0, None, "stop"), b": ping\n\n", event(b"[DONE]")),
    ]
    out = b"".join(splitter.feed(item) for item in events)
    for data in data_of(out):
        for choice in orjson.loads(data)["choices"] if data != b"[DONE]" else ():
            seen[choice["index"]][0] += choice["delta"].get("reasoning_content", "")
            seen[choice["index"]][1] += choice["delta"].get("content", "")
    assert seen == {0: ["why", "what"], 1: ["", "plain"]}
    assert out.endswith(b"data: [DONE]\n\n")


def test_events_that_are_no_chunks_pass() -> None:
    for data in (b"not json", b"[]", b'{"choices":null}', b'{"choices":[{"index":[],"delta":null}]}'):
        assert list(data_of(StreamSplitter().feed(event(data)))) == [data]
