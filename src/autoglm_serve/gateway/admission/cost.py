"""What a request will cost a replica, in tokens, before any tokenizer has seen it. Pure.

The number only has to order replicas by load, so it is cheap and rough: text from its bytes, pictures from
their width and height, the answer from what is asked for.
"""

from collections.abc import Iterable

from autoglm_serve.core.model import VisionGeometry

_BYTES_PER_TOKEN = 4  # English about 4 bytes a token; Chinese about 3 bytes a character and 0.7 tokens
_USUAL_ANSWER_TOKENS = 256  # a phone agent asks for 3,000 and gets 50 to 300
_TOKENS_PER_PICTURE = 1024  # where the model's geometry is not known


def request_cost(
    *,
    text_bytes: int,
    pictures: Iterable[tuple[int, int]],
    geometry: VisionGeometry | None,
    max_answer_tokens: int | None,
    answers: int = 1,
    guide_tokens: int = 0,
) -> int:
    """Tokens to prefill (text, and pictures given as width x height in pixels) plus those likely decoded,
    of all answers, and a share of processor time for what has to be compiled."""
    cost = text_cost(text_bytes) + 1
    for width_px, height_px in pictures:
        cost += geometry.tokens(width_px, height_px) if geometry else _TOKENS_PER_PICTURE
    return cost + likely_answer(max_answer_tokens, answers) + guide_tokens


def likely_answer(max_answer_tokens: int | None, answers: int = 1) -> int:
    """The tokens of all answers together."""
    return answers * min(max_answer_tokens or _USUAL_ANSWER_TOKENS, _USUAL_ANSWER_TOKENS)


def text_cost(text_bytes: int) -> int:
    return text_bytes // _BYTES_PER_TOKEN
