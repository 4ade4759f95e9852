"""The demo's tokenizers: byte-level BPE with GLM's special tokens and GLM's pre-tokenizer, on a small
vocabulary.

Owns which special tokens exist and how merges are learned. A Chinese character becomes one token and a
digit one token; whatever was never seen falls back to bytes, so any input tokenises. llama.cpp applies the
same rules under the name "glm4" (see `convert`).
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VISION_SPECIAL = (
    "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|image|>",
    "<|begin_of_video|>", "<|end_of_video|>", "<|video|>",
)  # fmt: skip
SPEECH_SPECIAL = (
    "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_audio|>", "<|end_of_audio|>", "<|pad|>",
)  # fmt: skip
MARKS = ("<think>", "</think>", "<answer>", "</answer>")
"""Tokens of their own that stay visible in the text, as in GLM-4.1V-Thinking; but for the last."""
END = "</answer>"
"""Ends an action as <|user|> ends talk, and is as little written out."""

GLM4_SPLIT = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ONE_BY_ONE = r"\p{N}|\p{Han}|[“”‘’，。？！：；、「」《》]"


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _bytes() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def learn(corpus: Iterable[str], *, special: tuple[str, ...], vocab_size: int) -> Tokenizer:
    """Learn merges inside words only: digits and Chinese characters are held apart while learning."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_split(GLM4_SPLIT), _split(ONE_BY_ONE), _bytes()])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special) - len(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_split(GLM4_SPLIT), _bytes()])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=token == END) for token in MARKS])
    return tokenizer


def wrap(tokenizer: Tokenizer, *, chat_template: str, context_tokens: int) -> PreTrainedTokenizerFast:
    """The same tokenizer as transformers and vLLM load it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template,
        model_max_length=context_tokens,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
