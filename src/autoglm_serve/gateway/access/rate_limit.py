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
    requests, tokens = standing
    headers: Headers = ()
    if requests is not None:
        headers = (
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % requests.left),
            (b"x-ratelimit-reset-requests", b"%ds" % requests.reset_s),
        )
    if tokens is None:
        return headers
    return (
        *headers,
        (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
        (b"x-ratelimit-remaining-tokens", b"%d" % tokens.left),
        (b"x-ratelimit-reset-tokens", b"%ds" % tokens.reset_s),
    )
