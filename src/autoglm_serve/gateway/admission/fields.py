"""The field policy: what each top-level field of a request may be, by API and engine. Pure.

One table says of a field that it passes with bounds, that it passes only where the operator has said so
(`--allow-field NAME`), or nothing, which makes it unknown: passed on where the service is for this machine
alone, refused by name beyond. Numbers as clients write them become what engines expect.

The bounds are far above what agents and SDKs ask for, and below what has stopped an engine.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

import orjson

from autoglm_serve.core.refusal import Refusal
from autoglm_serve.gateway.admission.document import Json, LongText, kind_of


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_ANSWERS = 64
"""Of one request: prompts times n."""
MAX_GRAMMAR_BYTES = 16 * 1024
MAX_REGEX_BYTES = 2 * 1024
MAX_NESTING = 32
"""Of brackets in a grammar or a regular expression, and of objects and arrays in a schema."""
MAX_REPETITIONS = 128
"""Operators such as ? * + {2,5} in a grammar: llama.cpp takes a time that grows with their cube."""
MAX_REPEATED = 2_000
"""What such an operator may count to."""
MAX_UNROLLED = 50_000
"""Of a grammar or pattern: counts within counts multiply."""
MAX_SCHEMA_VALUES = 20_000
"""Of all schemas of one field."""
MAX_ENUM_VALUES = 1_000
MAX_TOKEN_ID = 1 << 20
"""Above any vocabulary: an id beyond it has ended engines."""

MAX_COMPILED_BYTES = 64 * 1024
"""Of all patterns and grammars in one field."""

_SWITCHES = _names(
    """
    enable_thinking thinking thinking_budget reasoning_effort preserve_thinking clear_thinking
    add_vision_id builtin_tools documents date_string current_date xml_tools python_tools
    """
)
"""Arguments of chat templates that are known to be switches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPolicy:
    """What the operator has said of fields."""

    allowed: tuple[str, ...] = ()
    """Fields that pass as they are."""
    refuse_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the fields come to."""

    edits: dict[str, object] = field(default_factory=dict)
    """Fields in the form that engines expect, where they came in another."""
    choices: int = 1
    """Answers that come: n for each prompt."""
    answers: int = 1
    """Answers that are made, of which the best come."""
    guide_tokens: int = 0
    """The size of what is compiled before it is answered."""


_ORDINARY = Asked()
_MULTIPLY = frozenset({"n", "best_of", "prompt"})
_TOKENS = frozenset({"stop_token_ids", "allowed_token_ids", "bad_words_ids", "logit_bias"})
"""Fields whose numbers are tokens. Those of a prompt are looked at with the prompt."""

_Check = Callable[[Any, str], Any]
"""The value as engines expect it. Raises Refusal, which names the field."""


def read_fields(
    body: Json, path: str, engine: str, policy: FieldPolicy, vocabulary: int | None = None
) -> Asked:
    """Check every top-level field that the table knows, and those that it does not know as is said.

    `vocabulary` is how many tokens the model has, where that is known.
    """
    asked: dict[str, object] = {}
    guide_bytes = 0
    table, allowed = _PATH_FIELDS.get(path, _FIELDS), policy.allowed
    for name, value in body.items():
        check = table.get(name)
        if check is None:
            if name not in _SAID_BY_ALL and name not in allowed:
                _check_unknown(name, path, engine, policy)
            continue
        if value is None or name in allowed:
            continue
        expected = check(value, name)
        if expected is not value:
            asked[name] = expected
        if name in _GUIDES:
            guide_bytes += _size_of(value)
    if not body.keys().isdisjoint(_TOKENS):
        _check_vocabulary(body, allowed, vocabulary or MAX_TOKEN_ID)
    if not asked and not guide_bytes and body.keys().isdisjoint(_MULTIPLY):
        return _ORDINARY
    usual = body | asked if asked else body
    prompts, n = _prompts(usual.get("prompt")), _times(usual.get("n"))
    answers = prompts * max(n, _times(usual.get("best_of")))
    if answers > MAX_ANSWERS and not {"n", "best_of", "prompt"} & set(policy.allowed):
        _too_much("n", f"{answers} answers are asked for at once; at most {MAX_ANSWERS} are given")
    return Asked(edits=asked, choices=prompts * n, answers=answers, guide_tokens=guide_bytes // 4)


def _check_unknown(name: str, path: str, engine: str, policy: FieldPolicy) -> None:
    if name in ON_REQUEST:
        _refuse_until_allowed(name)
    if policy.refuse_unknown and name not in _known(engine):
        _refuse(
            "unknown_field",
            f"'{name[:100]}' is no field that this service knows for {path}. Leave it out, or have the "
            f"service started with --allow-field {name[:100]}, or with --unknown-fields pass.",
            name[:100],
        )


def _check_vocabulary(body: Json, allowed: Collection[str], vocabulary: int) -> None:
    """Ids of tokens are indices into a GPU's memory for some engines, which trust them."""
    for name in _TOKENS & body.keys() - set(allowed):
        value = body[name]
        for each in value if isinstance(value, list | dict) else ():
            for token in each if isinstance(each, list) else (each,):
                if _names_no_token(token, vocabulary):
                    _refuse(
                        "out_of_bounds",
                        f"'{name}' holds {str(token)[:20]}, which is no token of this model.",
                        name,
                    )


def _names_no_token(token: object, vocabulary: int) -> bool:
    if isinstance(token, str):  # a key of logit_bias; of other fields it is a text
        token = int(token) if _IS_ID.fullmatch(token) else 0
    return type(token) is int and not 0 <= token < vocabulary


_IS_ID = re.compile(r"-?[0-9]{1,18}")


def _times(value: object) -> int:
    return max(1, value) if type(value) is int else 1


def _prompts(prompt: object) -> int:
    """One for each that stands in a list, of texts, or of texts as tokens."""
    if isinstance(prompt, list) and all(isinstance(each, str | list) for each in prompt):
        return max(1, len(prompt))
    return 1


def _size_of(value: object) -> int:
    """Characters in it, roughly: a guide is compiled, not read."""
    size, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            size += sum(map(len, each))
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        else:
            size += len(each) if isinstance(each, str) else 4
    return size


# --- what a value may be


def _whole(value: Any, where: str) -> int:
    """An integer, as JSON writers of other languages write it: 16.0, and "16"."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return _wrong(where, "an integer", value)


def _number(value: Any, where: str) -> float:
    if type(value) in (int, float):
        return value  # type: ignore[no-any-return]
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value)
    return _wrong(where, "a number", value)


_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,3})?")


def _between(low: int, high: int, *, no_limit: bool = False) -> _Check:
    """An integer within bounds; -1 for no limit leaves the field to the engine, where that is its meaning."""

    def check(value: Any, where: str) -> object:
        number = _whole(value, where)
        if no_limit and number == -1:
            return None
        if not low <= number <= high:
            _out_of_bounds(where, number, low, high)
        return value if type(value) is int else number

    return check


def _out_of_bounds(where: str, number: int, low: int, high: int) -> NoReturn:
    if number < low:
        kind = "wrong_type" if low == 0 else "out_of_bounds"
        _refuse(kind, f"'{where}' must be an integer of at least {low}, not {number}.", where)
    _too_much(where, f"'{where}' is {number}; at most {high:,} is taken")


def _any_whole(value: Any, where: str) -> object:
    return value if type(value) is int else _whole(value, where)


def _any_number(value: Any, where: str) -> object:
    return value if type(value) in (int, float) else _number(value, where)


def _flag(value: Any, where: str) -> object:
    return value if isinstance(value, bool) else _wrong(where, "true or false", value)


def _object(value: Any, where: str) -> object:
    return value if isinstance(value, dict) else _wrong(where, "an object", value)


def _text(value: Any, where: str) -> object:
    return value if isinstance(value, str) else _wrong(where, "a string", value)


def _short(most: int) -> _Check:
    def check(value: Any, where: str) -> object:
        if isinstance(value, str) and len(value) > most:
            _too_much(where, f"'{where}' has more than {most:,} characters")
        return value

    return check


def _few(most: int, most_characters: int = 1_000, *, or_text: bool = True) -> _Check:
    """A list of so many short strings, numbers or small lists; a single string where that is usual."""

    def check(value: Any, where: str) -> object:
        if isinstance(value, str) and or_text:
            return _short(most_characters)(value, where)
        if not isinstance(value, list):
            _wrong(where, "a string or an array" if or_text else "an array", value)
        if len(value) > most:
            _too_much(where, f"'{where}' has {len(value):,} entries; at most {most:,} are taken")
        if any(isinstance(each, str | list | dict) and len(each) > most_characters for each in value):
            _too_much(where, f"'{where}' has an entry of more than {most_characters:,} characters")
        return value

    return check


def _few_keys(most: int) -> _Check:
    def check(value: Any, where: str) -> object:
        if isinstance(value, dict | list) and len(value) > most:
            _too_much(where, f"'{where}' has {len(value):,} entries; at most {most:,} are taken")
        return value

    return check


def _prompt(value: Any, where: str) -> object:
    """A text, tokens, or a list of either."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        _wrong(where, "a string or an array", value)
    for index, each in enumerate(value):
        if isinstance(each, list):
            for token in each:
                _check_token(token, f"{where}[{index}]")
        elif not isinstance(each, str):
            _check_token(each, f"{where}[{index}]")
    return value


def _texts_or_tokens(value: Any, where: str) -> object:
    """What is embedded; of tokens, that they are some."""
    for each in value if isinstance(value, list) else ():
        for token in each if isinstance(each, list) else (each,):
            if type(token) is int:
                _check_token(token, where)
    return value


def _check_token(token: Any, where: str) -> None:
    if type(token) is not int:
        _wrong(where, "a string, or a token of the model's vocabulary", token)
    if not 0 <= token < MAX_TOKEN_ID:
        _refuse("out_of_bounds", f"'{where}' holds {token}, which is no token of any vocabulary.", where)


def _switches(value: Any, where: str) -> object:
    """Arguments of the chat template: those that are known, and are plain."""
    _object(value, where)
    for name, each in value.items():
        plain = (
            isinstance(each, bool | int | float)
            or each is None
            or (isinstance(each, str) and len(each) <= 100)
        )
        if name not in _SWITCHES or not (plain or name == "documents"):
            _refuse_until_allowed(where, f"{where}.{name[:100]}")
    return value


# --- guides: grammars, schemas, regular expressions


def _guide(value: Any, where: str) -> object:
    """Anything that an engine compiles before it answers."""
    _check_guide(value, where, where)
    return value


def _grammar(value: Any, where: str) -> object:
    _check_text_guide(_text(value, where), where, MAX_GRAMMAR_BYTES)
    return value


def _regex(value: Any, where: str) -> object:
    _check_text_guide(_text(value, where), where, MAX_REGEX_BYTES)
    return value


def _tools(value: Any, where: str) -> object:
    if not isinstance(value, list):
        _wrong(where, "an array", value)
    if len(value) > 512:
        _too_much(where, f"'{where}' has {len(value):,} entries; at most 512 are taken")
    _check_guide(value, where, where)
    return value


def _check_guide(value: Any, where: str, name: str) -> None:
    """Bound a schema by its values, depth, lists of choices, and the texts in it that are compiled."""
    waiting: list[tuple[Any, int, str]] = [(value, 1, name)]
    seen = enums = compiled = 0
    while waiting:
        each, depth, key = waiting.pop()
        seen += 1
        if seen > MAX_SCHEMA_VALUES:
            _too_much(where, f"'{where}' has more than {MAX_SCHEMA_VALUES:,} values")
        if depth > MAX_NESTING:
            _too_much(where, f"'{where}' nests more than {MAX_NESTING} objects and arrays deep")
        if isinstance(each, str):
            if key in _TEXT_GUIDES:
                compiled += len(each)
                if compiled > MAX_COMPILED_BYTES:
                    _too_much(where, f"'{where}' has more than {MAX_COMPILED_BYTES:,} characters of patterns")
                _check_text_guide(each, where, _TEXT_GUIDES[key])
            elif depth == 1:  # a schema as text
                waiting.append((_schema_in(each, where), 2, ""))
        elif isinstance(each, dict):
            waiting += [(inner, depth + 1, inner_key) for inner_key, inner in each.items()]
        elif isinstance(each, list):
            enums += len(each) if key in ("enum", "choice") else 0
            if enums > MAX_ENUM_VALUES:
                _too_much(where, f"'{where}' lists more than {MAX_ENUM_VALUES:,} choices")
            waiting += [(inner, depth + 1, "") for inner in each]


def _schema_in(text: str, where: str) -> object:
    if len(text) > MAX_COMPILED_BYTES or isinstance(text, LongText):
        _too_much(where, f"'{where}' is a schema of more than {MAX_COMPILED_BYTES:,} characters")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None  # the engine has words for it


_TEXT_GUIDES = MappingProxyType(
    {
        "grammar": MAX_GRAMMAR_BYTES,
        "ebnf": MAX_GRAMMAR_BYTES,
        "regex": MAX_REGEX_BYTES,
        "pattern": MAX_REGEX_BYTES,
    }
)


def _check_text_guide(text: Any, where: str, most_bytes: int) -> None:
    if len(text) > most_bytes or isinstance(text, LongText):
        _too_much(where, f"'{where}' holds a grammar or pattern of more than {most_bytes:,} characters")
    if _nesting(text) > MAX_NESTING:
        _too_much(where, f"'{where}' nests brackets more than {MAX_NESTING} deep")
    if len(_REPETITION.findall(text)) > MAX_REPETITIONS:
        _too_much(where, f"'{where}' repeats more than {MAX_REPETITIONS} times (? * + and counts)")
    if any(int(count) > MAX_REPEATED for count in _COUNTED.findall(text)):
        _too_much(where, f"'{where}' repeats something more than {MAX_REPEATED:,} times")
    if "{" in text and _unrolled(text) > MAX_UNROLLED:
        _too_much(where, f"'{where}' is more than {MAX_UNROLLED:,} long with its repetitions written out")


_REPETITION = re.compile(r"[?*+]|\{[0-9]+,?[0-9]*\}")
_COUNTED = re.compile(r"(?<=[{,])([0-9]{1,18})(?=[,}])")


def _unrolled(text: str) -> int:
    """How long a pattern or grammar is with every count written out, which is what compilers do."""
    sizes, last, at = [0], 0, 0
    while at < len(text):
        counted = _COUNT_AT.match(text, at)
        if counted is not None:
            grown = last * max(1, int(counted[2] or counted[1]))
            sizes[-1] += grown - last
            last, at = grown, counted.end()
            continue
        if text[at] == "(":
            sizes.append(0)
        elif text[at] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        else:
            last = 1
            sizes[-1] += 1
            at += text[at] == "\\"  # what it escapes
        at += 1
    return sum(sizes)


_COUNT_AT = re.compile(r"\{([0-9]{1,9}),?([0-9]{0,9})\}")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


# --- the tables

_COUNT = _between(0, 1 << 31, no_limit=True)
_WINDOW = _between(-1, 65_536)

_OPENAI: Mapping[str, _Check] = {
    "model": _text,
    "stream": _flag,
    "stream_options": _object,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "max_output_tokens": _COUNT,
    "n": _between(0, 64),
    "best_of": _between(0, 64),
    "temperature": _any_number,
    "top_p": _any_number,
    "frequency_penalty": _any_number,
    "presence_penalty": _any_number,
    "seed": _any_whole,
    "stop": _few(32),
    "stop_sequences": _few(32),
    "logit_bias": _few_keys(1_024),
    "top_logprobs": _between(0, 128),
    "tools": _tools,
    "functions": _tools,
    "response_format": _guide,
    "text": _guide,
    "prompt": _prompt,
}
_EXTENSIONS: Mapping[str, _Check] = {  # of vLLM, llama.cpp and SGLang
    "enable_thinking": _flag,
    "return_reasoning": _flag,
    "chat_template_kwargs": _switches,
    "min_tokens": _between(0, 1 << 31),
    "n_predict": _between(-2, 1 << 31),
    "n_discard": _between(0, 1 << 20),
    "n_keep": _between(-1, 1 << 20),
    "top_k": _any_whole,
    "min_p": _any_number,
    "repetition_penalty": _any_number,
    "repeat_penalty": _any_number,
    "stop_token_ids": _few(256, or_text=False),
    "bad_words": _few(256),
    "allowed_token_ids": _few(4_096, or_text=False),
    "prompt_logprobs": _between(-1, 128),
    "n_probs": _between(0, 128),
    "truncate_prompt_tokens": _any_whole,
    "structured_outputs": _guide,
    "guided_json": _guide,
    "guided_choice": _few(MAX_ENUM_VALUES, or_text=False),
    "guided_regex": _regex,
    "guided_grammar": _grammar,
    "guided_whitespace_pattern": _regex,
    "structural_tag": _guide,
    "json_schema": _guide,
    "grammar": _grammar,
    "ebnf": _grammar,
    "regex": _regex,
    "repeat_last_n": _WINDOW,
    "dry_penalty_last_n": _WINDOW,
    "dry_allowed_length": _between(0, 65_536),
    "dry_sequence_breakers": _few(32, 64, or_text=False),
    "samplers": _few(32, 64),
    "grammar_triggers": _few(64, or_text=False),
    "preserved_tokens": _few(256, or_text=False),
}
_FIELDS: Mapping[str, _Check] = MappingProxyType({**_OPENAI, **_EXTENSIONS})
_PATH_FIELDS: Mapping[str, Mapping[str, _Check]] = MappingProxyType(
    {
        "/v1/completions": {**_FIELDS, "logprobs": _between(0, 128)},
        "/v1/images/generations": {**_FIELDS, "prompt": _text},
        "/v1/embeddings": {**_FIELDS, "input": _texts_or_tokens},
    }
)
_GUIDES = frozenset({"response_format", "structured_outputs", "guided_json", "json_schema", "tools", "text"})

ON_REQUEST = _names(
    """
    chat_template mm_processor_kwargs media_io_kwargs prompt_embeds kv_transfer_params cache_salt
    logits_processors custom_logit_processor custom_params vllm_xargs priority request_id rid lora
    lora_path lora_request lora_name adapter adapters adapter_id id_slot slot_id session_params
    session_id bootstrap_host bootstrap_port bootstrap_room data_parallel_rank return_hidden_states
    input_embeds image_data multimodal_data mm_hashes ec_transfer_params chat_parser chat_format
    """
)
"""Passed only where the operator has named them: they run templates and code, load adapters, choose slots and
addresses, or read what other requests have left."""

_SAID_BY_ALL = _names(
    """
    messages input system instructions documents query queries top_n encoding_format dimensions user
    metadata store service_tier tool_choice parallel_tool_calls logprobs reasoning reasoning_effort
    modalities audio prediction function_call echo suffix truncation include previous_response_id
    conversation background max_tool_calls thinking context_management output_config verbosity
    safety_identifier prompt_cache_key container prompt_cache_retention web_search_options text_1
    text_2 data_1 data_2 size quality moderation output_compression output_format partial_images
    style voice speed response_format stream_format language timestamp_granularities
    chunking_strategy mcp_servers betas extra_headers extra_body top_logprobs stream
    """
)
_VLLM = _names(
    """
    use_beam_search length_penalty include_stop_str_in_output ignore_eos skip_special_tokens
    spaces_between_special_tokens add_generation_prompt continue_final_message add_special_tokens
    guided_decoding_backend return_tokens_as_token_ids return_token_ids include_reasoning activation
    thinking_token_budget normalize softmax use_activation instruction truncation_side task
    return_metadata max_tokens_per_doc
    """
)
_LLAMA_CPP = _names(
    """
    dynatemp_range dynatemp_exponent xtc_probability xtc_threshold typical_p top_n_sigma mirostat
    mirostat_tau mirostat_eta dry_multiplier dry_base min_keep n_keep n_indent ignore_eos
    cache_prompt timings_per_token return_progress return_tokens reasoning_format
    post_sampling_probs t_max_predict_ms response_fields parse_tool_calls add_generation_prompt
    thinking_forced_open reasoning_in_content reasoning_budget n_discard penalize_nl tfs_z
    """
)
_SGLANG = _names(
    """
    min_new_tokens max_new_tokens no_stop_trim separate_reasoning stream_reasoning ignore_eos
    skip_special_tokens continue_final_message stop_regex top_logprobs_num logprob_start_len
    spaces_between_special_tokens return_routed_experts input_ids
    """
)
_BY_ENGINE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "vllm": _SAID_BY_ALL | _VLLM,
        "llama.cpp": _SAID_BY_ALL | _LLAMA_CPP,
        "sglang": _SAID_BY_ALL | _SGLANG,
    }
)
_ALL = _SAID_BY_ALL | _VLLM | _LLAMA_CPP | _SGLANG


def _known(engine: str) -> frozenset[str]:
    """Fields without a bound of their own; of an address whose engine is not known, those of any."""
    return _BY_ENGINE.get(engine, _ALL)


# --- refusals


def _wrong(where: str, expected: str, value: object) -> NoReturn:
    _refuse("wrong_type", f"'{where}' must be {expected}, not {kind_of(value)}.", where)


def _too_much(where: str, what: str) -> NoReturn:
    name = where.partition("[")[0]
    _refuse(
        "out_of_bounds",
        f"{what}. Ask for less, or have the service started with --allow-field {name}, which takes the bound "
        "away.",
        where,
    )


def _refuse_until_allowed(name: str, where: str = "") -> NoReturn:
    where = where or name
    _refuse(
        "field_not_allowed",
        f"'{where}' reaches deep into an engine and is not passed on. Leave it out, or have the service "
        f"started with --allow-field {name}.",
        where,
    )


def _refuse(code: str, message: str, param: str) -> NoReturn:
    raise Refusal(400, code, message, param=param)
