"""What engines say against a request, as they wrote it, and what the client is told."""

import time

import orjson
import pytest

from autoglm_serve.gateway.exchange.complaint import complaint

CHAT = "/v1/chat/completions"


def envelope(message: str, **more: object) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "BadRequestError", "code": 400, **more}})


TOO_LONG = [
    (
        envelope(
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8000 in "
            "the messages, 1000 in the completion). Please reduce the length of the messages or completion."
        ),
        ("8192", "8000", "1000"),
    ),
    (
        envelope(
            "This model's maximum context length is 8192 tokens. However, your request has 9001 input "
            "tokens. Please reduce the length of the input messages."
        ),
        ("8192", "9001"),
    ),
    (
        envelope(
            "You passed 9001 input tokens and requested 100 output tokens. However, the model's context "
            "length is only 8192 tokens, resulting in a maximum input length of 8092 tokens. Please reduce "
            "the length of the input messages. (parameter=input_tokens, value=9001)"
        ),
        ("8192", "9001", "100"),
    ),
    (
        envelope(
            "The decoder prompt (length 9001) is longer than the maximum model length of 8192. Make sure "
            "that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens."
        ),
        ("8192", "9001"),
    ),
    (
        envelope("The input (9001 tokens) is longer than the model's context length (8192 tokens)."),
        ("8192", "9001"),
    ),
    (
        envelope(
            "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested "
            "a total of 10001 tokens: 9001 tokens from the input messages and 1000 tokens for the completion."
        ),
        ("8192", "9001", "1000"),
    ),
    (
        envelope("request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it"),
        ("8192", "9001"),
    ),
    (
        envelope(
            "the request exceeds the available context size. try increasing it",
            n_prompt_tokens=9001,
            n_ctx=8192,
        ),
        ("8192", "9001"),
    ),
]


@pytest.mark.parametrize(("body", "counts"), TOO_LONG)
def test_a_prompt_that_is_too_long_is_told_with_its_counts(body: bytes, counts: tuple[str, ...]) -> None:
    refusal = complaint(400, body, CHAT)
    assert (refusal.status, refusal.code, refusal.param) == (400, "context_length_exceeded", "messages")
    assert all(count in refusal.message for count in counts)
    assert "--max-model-len" in refusal.message
    assert complaint(400, body, "/v1/completions").param == "prompt"
    assert complaint(400, body, "/v1/responses").param == "input"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"detail":"Not Found"}'),
        (501, envelope("This server does not support embeddings. Start it with `--embeddings`")),
        (400, envelope("The model does not support Embeddings API")),
        (405, b"Method Not Allowed"),
    ],
)
def test_what_the_engine_does_not_serve_the_model_cannot(status: int, body: bytes) -> None:
    refusal = complaint(status, body, "/v1/embeddings")
    assert (refusal.status, refusal.code, refusal.param) == (400, "model_cannot", "model")
    assert "--embeddings" not in refusal.message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("/models/x is not a multimodal model", "no_vision"),
        (
            "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            "no_vision",
        ),
        ("At most 1 image(s) may be provided in one prompt.", "too_many_media"),
        (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "tools_not_enabled",
        ),
        ("tools param requires --jinja flag", "tools_not_enabled"),
        ("Conversation roles must alternate user/assistant/user/assistant/...", "wrong_roles"),
        ("cannot identify image file <_io.BytesIO object at 0x7f>", "invalid_image"),
        ("Failed to load image or audio file", "invalid_image"),
    ],
)
def test_what_is_known_has_a_code_of_its_own_and_our_flags(message: str, code: str) -> None:
    refusal = complaint(400, envelope(message), CHAT)
    assert (refusal.status, refusal.code) == (400, code)
    assert refusal.param
    assert message not in refusal.message or code == "wrong_roles"


def test_what_is_not_known_is_quoted_without_what_the_client_sent_and_without_the_engines_flags() -> None:
    said = (
        "1 validation error:\n  {'type': 'missing', 'loc': ('body', 'messages', 0, 'role'), 'msg': 'Field "
        "required', 'input': {'content': 'my secret'}}\n\n  File \"/usr/lib/x.py\", line 5"
    )
    refusal = complaint(400, envelope(said), CHAT)
    assert (refusal.code, refusal.param) == ("engine_refused", "messages.0.role")
    assert "Field required" in refusal.message
    assert "secret" not in refusal.message
    assert "/usr/lib" not in refusal.message
    refusal = complaint(400, envelope("top_k must be positive. Start with --sampler greedy!"), CHAT)
    assert "top_k must be positive" in refusal.message
    assert "--sampler" not in refusal.message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"object":"error","message":"old vLLM","type":"BadRequestError","code":400}', "old vLLM"),
        (b'{"detail":"FastAPI"}', "FastAPI"),
        (b'{"detail":[{"loc":["body","n"],"msg":"field required","input":"secret"}]}', "n: field required"),
        (b'{"error":"TGI","error_type":"validation"}', "TGI"),
        (b"plain words", "plain words"),
        (b"<html>\xff</html>", "it answered 400"),
        (b"", "it answered 400"),
        (b"[]", "it answered 400"),
        (b'{"error":{}}', "it answered 400"),
        (b'{"error":{"message":null}}', "it answered 400"),
    ],
)
def test_engines_write_errors_in_many_ways(body: bytes, reason: str) -> None:
    refusal = complaint(400, body, CHAT)
    assert reason in refusal.message
    assert "secret" not in refusal.message
    assert "html" not in refusal.message


def test_a_code_is_a_string_and_a_field_is_one() -> None:
    refusal = complaint(422, envelope("no", code="bad_thing", param="top_p"), CHAT)
    assert (refusal.status, refusal.code, refusal.param) == (422, "bad_thing", "top_p")
    codes: tuple[object, ...] = (400, None, "400", [], {})
    for code in codes:
        assert complaint(400, envelope("no", code=code, param=7), CHAT).code == "engine_refused"


@pytest.mark.parametrize(
    ("status", "told", "code"), [(500, 500, "engine_failed"), (520, 502, "upstream_failed")]
)
def test_what_an_engine_says_of_itself_is_not_for_clients(status: int, told: int, code: str) -> None:
    refusal = complaint(status, envelope("CUDA error: /root/engine.py line 7"), CHAT, retry_after_s=3)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (told, code, 3)
    assert "CUDA" not in refusal.message


def test_what_the_speech_model_says_is_ours_already() -> None:
    body = orjson.dumps({"error": {"message": "It is silent.", "code": "audio_too_short", "param": "file"}})
    refusal = complaint(400, body, "/v1/audio/transcriptions")
    assert (refusal.code, refusal.message, refusal.param) == ("audio_too_short", "It is silent.", "file")


def test_what_is_quoted_of_a_complaint_takes_no_longer_for_what_it_repeats() -> None:
    began_s = time.process_time()
    for text in ("x y 12 " * 9_000, "(" * 60_000, "the messages, " * 4_000):
        assert complaint(400, text.encode(), CHAT).status == 400
        assert complaint(422, orjson.dumps({"detail": [{"msg": "bad " + text}]}), CHAT).status == 422
    assert time.process_time() - began_s < 1.0  # they took minutes at 16 MiB


def test_of_a_complaint_that_is_broken_off_its_message_is_told() -> None:
    whole = orjson.dumps({"error": {"message": 'top_k must be "positive"', "input": "A" * 100}})
    assert "top_k must be" in complaint(400, whole[:80], CHAT).message
