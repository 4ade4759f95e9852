"""What the journal can tell of a stream from the bytes that went out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.gateway.recovery.journal import Journal, Usage, usage_of

FINISH = b'data: {"choices":[{"delta":{},"finish_reason": "stop"}]}\n\n'
PIECE = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n'
DONE = b"data: [DONE]\n\n"


def journal(*chunks: bytes, choices: int = 1) -> Journal:
    made = Journal(choices)
    for chunk in chunks:
        made.chunks.append(chunk)
    return made


@pytest.mark.parametrize(
    ("chunks", "finished"),
    [
        ((PIECE, FINISH, DONE), True),
        ((PIECE + FINISH + DONE,), True),
        ((PIECE, DONE), False),
        ((PIECE,), False),
        ((PIECE.replace(b"null", b'""'), DONE), False),
        ((), False),
        ((b'data: {"choices":[{"delta":{"content":"\\"finish_reason\\":\\"stop\\""}}]}\n\n',), False),
        ((b'event: message_stop\ndata: {"type":"message_stop"}\n\n',), True),
        ((b'data: {"type": "response.completed", "response": {}}\n\n',), True),
    ],
)
def test_only_a_finish_reason_ends_a_stream(chunks: tuple[bytes, ...], finished: bool) -> None:
    assert journal(*chunks).finished is finished


def choice(index: int, finish: str = "null") -> bytes:
    said = b'data: {"choices":[{"index":%d,"delta":{"content":"x"},"finish_reason":%b}]}\n\n'
    return said % (index, finish.encode())


def test_of_several_answers_at_once_each_has_to_end() -> None:
    first, begun, cut = choice(0, '"stop"'), choice(1), [choice(0), choice(1)]
    assert not journal(*cut, first).finished
    assert not journal(*cut, first, begun).finished
    assert not journal(*cut, first).would_be_finished(begun)
    assert journal(*cut, first).would_be_finished(choice(1, '"length"'))
    assert journal(*cut, choice(1, '"length"'), *[choice(0)] * 50, first, DONE).finished


def test_usage_is_that_of_the_last_event_that_has_any() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":2}}\n\n'
    assert journal(PIECE, usage % 1, FINISH + usage % 7, DONE).usage() == Usage(
        prompt_tokens=7, completion_tokens=2
    )
    assert journal(PIECE, b'data: {"usage":null}\n\n').usage() == Usage()


@pytest.mark.parametrize("body", [b"", b'"usage"', b'{"usage":3}', b'["usage"]', b'{"usage":'])
def test_what_has_no_usage_has_none(body: bytes) -> None:
    assert usage_of(body) is None


@pytest.mark.parametrize("count", [b"18446744073709551615", b"-5", b"true", b"1.5", b'"3"', b"null"])
def test_what_is_no_count_of_tokens_counts_nothing(count: bytes) -> None:
    assert usage_of(b'{"usage":{"prompt_tokens":%b,"completion_tokens":2}}' % count) == Usage(
        completion_tokens=2
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}',
        b'{"usage" : {"details":{"cached_tokens":1},"prompt_tokens":3,"completion_tokens":5},"x":[1]}',
        b'{"usage":null,"response":{"usage":{"input_tokens":3,"output_tokens":5}}}',
        b'{"usage":{"prompt_tokens":3,"completion_tokens":5},"said":"\\"usage\\": {\\"prompt_tokens\\": 9}"}',
        b'{"pad":"' + b"x" * (1 << 20) + b'","usage":{"prompt_tokens":3,"completion_tokens":5}}',
    ],
)
def test_token_counts_are_found_wherever_an_engine_puts_them(body: bytes) -> None:
    assert usage_of(body) == Usage(prompt_tokens=3, completion_tokens=5)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"usage":null}',
        b'{"usage":7,"x":{}}',
        b'{"usage":{"prompt_tokens":3',
        b'{"usage":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    ],
)
def test_what_is_no_count_of_tokens_is_none(body: bytes) -> None:
    assert usage_of(body) is None


def test_of_answers_that_were_asked_for_and_have_not_begun_none_has_ended() -> None:
    assert not journal(choice(0), choice(0, '"stop"'), DONE, choices=2).finished
    assert journal(choice(0, '"stop"'), choice(1, '"stop"'), DONE, choices=2).finished


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40), st.integers(1, 4))
def test_looking_while_they_come_finds_what_reading_all_at_the_end_does(
    events: list[tuple[int, bool, bool]], choices: int
) -> None:
    watched, late = Journal(choices), Journal(choices)
    for index, ends, looks in events:
        event = choice(index, '"stop"') if ends else choice(index)
        assert watched.would_be_finished(event) == journal(*late.chunks, event, choices=choices).finished
        watched.chunks.append(event)
        late.chunks.append(event)
        if looks:
            watched.look()
    assert watched.finished == late.finished
