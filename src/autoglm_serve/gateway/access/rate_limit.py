"""A limit of a key in the words and headers that OpenAI's clients know. Pure."""

from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.wire.http import Headers
from autoglm_serve.keys.quota import Denied, Standing

_UNITS = {
    "requests_per_minute": ("requests a minute", RefusalType.REQUESTS),
    "requests_per_day": ("requests a day", RefusalType.REQUESTS),
    "concurrency": ("requests at the same time", RefusalType.REQUESTS),
    "tokens_per_minute": ("tokens a minute", RefusalType.TOKENS),
    "tokens_per_day": ("tokens a day", RefusalType.TOKENS),
    "budget_tokens": ("tokens in all", RefusalType.NO_BUDGET),
}


def beyond(denied: Denied, tokens: int) -> Refusal:
    """429, with how long to wait where that helps."""
    unit, type = _UNITS[denied.limit]
    message = f"This API key has {denied.most} {unit}, and this request would go beyond that"
    message += f" (it is likely to take {tokens} tokens)." if type is not RefusalType.REQUESTS else "."
    code = "insufficient_quota" if type is RefusalType.NO_BUDGET else "rate_limit_exceeded"
    never = denied.retry_after_s is None and type is RefusalType.TOKENS
    message += " Make it smaller." if never else ""
    headers: Headers = ((b"x-ratelimit-limit", denied.limit.encode()),)
    return Refusal(429, code, message, type=type, retry_after_s=denied.retry_after_s, headers=headers)


def told(standing: tuple[Standing | None, Standing | None]) -> Headers:
    """What is left, beside an answer."""
    headers: Headers = ()
    for names, each in zip(_NAMES, standing, strict=True):
        if each is not None:
            headers += (
                (names[0], b"%d" % each.limit),
                (names[1], b"%d" % each.left),
                (names[2], b"%ds" % each.reset_s),
            )
    return headers


_NAMES = tuple(
    tuple(b"x-ratelimit-%b-%b" % (what, of) for what in (b"limit", b"remaining", b"reset"))
    for of in (b"requests", b"tokens")
)
