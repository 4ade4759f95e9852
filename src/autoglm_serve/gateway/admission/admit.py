"""Admission: from the bytes of a request to a `Call` that can be routed, or a refusal. Pure.

The body is parsed once. What goes to the engine is the client's own bytes, edited by splice only where the
contract with clients asks for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from autoglm_serve.core import multipart
from autoglm_serve.core.fleet import FleetView, ModelView, ReplicaView
from autoglm_serve.core.model import Capability
from autoglm_serve.core.refusal import Refusal, RefusalType
from autoglm_serve.gateway.admission.cost import likely_answer, request_cost
from autoglm_serve.gateway.admission.document import Json, is_light_json, parse_object
from autoglm_serve.gateway.admission.endpoints import BodyKind, Endpoint
from autoglm_serve.gateway.admission.fields import Asked, FieldPolicy, read_fields
from autoglm_serve.gateway.admission.media_policy import Media, MediaPolicy, read_media
from autoglm_serve.gateway.admission.plain import plain_json, without_half_pairs
from autoglm_serve.gateway.admission.undone import refuse_undone
from autoglm_serve.gateway.admission.validate import check_shape, described, refuse, rewritten
from autoglm_serve.gateway.wire.http import Request
from autoglm_serve.gateway.wire.splice import Path, Slot, edited, slot


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedMedia:
    """Media that are named by address and have to be fetched before an engine is asked."""

    body: bytes
    """The request, plain JSON, in which the addresses stand."""
    addresses: Mapping[Path, str]


class Call(NamedTuple):
    """An admitted request. Made for every one: a frozen dataclass takes three times as long."""

    endpoint: Endpoint
    model: ModelView
    body: bytes
    """What the engine is sent."""
    content_type: bytes
    cost_tokens: int
    answer_tokens: int = likely_answer(None)
    """Of those, what is likely to be written."""
    stream: bool = False
    usage: bool = False
    """A stream is to say at its end how many tokens it took."""
    tool_call: bool = False
    """The answer has to call a tool."""
    choices: int = 1
    """How many answers it asks for at once."""
    split_reasoning: bool = False
    """Move <think>…</think> to reasoning_content."""
    only_picture: str = ""
    """Where the only picture stands, as an error names it; empty where there is none, or more than one."""
    unread_pictures: tuple[Path, ...] = ()
    """Where pictures stand in the body that the engine would not read, or would see turned."""
    audio: int = 0
    """Parts with audio that the model cannot hear by itself."""
    named_media: NamedMedia | None = None
    """It cannot be sent as it is: these are fetched first."""
    named_model: str | None = None
    """The name that the client used, where it used one."""
    model_slot: Slot | None = None
    """Where it stands in the body, or should, if a replica calls the model by another name."""

    @property
    def streams_events(self) -> bool:
        """Its answer is a stream of server-sent events."""
        return self.stream and (self.endpoint.ends_with_done or self.endpoint.typed_events)


def admit(
    request: Request,
    endpoint: Endpoint,
    fleet: FleetView,
    policy: MediaPolicy,
    fields: FieldPolicy = FieldPolicy(),  # noqa: B008
) -> Call:
    """Raises Refusal, which names the field."""
    if endpoint.body is BodyKind.MULTIPART:
        return _admit_multipart(request, endpoint, fleet)
    raw = plain_json(request.body, request.headers)
    raw, body = _read(raw)
    check_shape(body, endpoint)
    model = find_model(body.get("model"), endpoint, fleet)
    replicas = fleet.replicas_of(model)
    engine = replicas[0].engine if replicas else ""
    asked = read_fields(body, endpoint.path, engine, fields, model.vocabulary)
    if asked.edits:
        body |= asked.edits
    if model.undone:
        refuse_undone(body, endpoint.path, model)
    media = read_media(body, policy, model.undone, endpoint.path)
    if (media.pictures or media.remote) and Capability.VISION not in model.capabilities:
        refuse("no_vision", f"The model '{model.name}' reads text only; it cannot see pictures.", "messages")
    for_engine = _for_engine(_edited(raw, body, asked, media), body)
    most_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    return Call(
        endpoint=endpoint,
        model=model,
        body=for_engine,
        model_slot=slot(for_engine, "model") if _is_renamed(body.get("model"), replicas) else None,
        content_type=b"application/json",
        cost_tokens=request_cost(
            text_bytes=len(raw) - media.bytes,
            pictures=[(each.width_px, each.height_px) for each in media.pictures],
            geometry=model.vision,
            max_answer_tokens=most_tokens,
            answers=asked.answers,
            guide_tokens=asked.guide_tokens,
        ),
        answer_tokens=likely_answer(most_tokens, asked.answers),
        stream=body.get("stream") is True,
        usage=_asks_for_usage(body, endpoint),
        tool_call=_asks_for_call(body),
        choices=asked.choices,
        split_reasoning=body.get("return_reasoning") is True and endpoint.path == "/v1/chat/completions",
        only_picture=media.places[0] if len(media.places) == 1 else "",
        unread_pictures=tuple(media.unread),
        audio=media.audio if _needs_ears(endpoint, model) else 0,
        named_media=NamedMedia(body=raw, addresses=media.remote) if media.remote else None,
        named_model=body.get("model"),
    )


def _edited(raw: bytes, body: Json, asked: Asked, media: Media) -> bytes:
    """The body in the form that engines expect; nearly always it is in that form."""
    edits: dict[Path, object] = {(name,): value for name, value in asked.edits.items()} if asked.edits else {}
    edits |= media.edits
    if "tools" in body:
        edits |= described(body)
    return edited(raw, edits) if edits else raw


def _read(raw: bytes) -> tuple[bytes, Json]:
    """The body and what is in it."""
    try:
        return raw, parse_object(raw)
    except Refusal as refusal:
        if "surrogate" not in refusal.message:
            raise
    raw = without_half_pairs(raw)
    return raw, parse_object(raw)


def is_light(request: Request) -> bool:
    """It is admitted in a few milliseconds."""
    if request.body_bytes > _LIGHT_FORM_BYTES:
        return False
    if b"content-encoding" in request.headers:
        return False
    is_form = request.headers.get(b"content-type", b"").startswith(b"multipart/")
    return is_form or is_light_json(request.body)


_LIGHT_FORM_BYTES = 4 << 20


def _is_renamed(name: str | None, replicas: Iterable[ReplicaView]) -> bool:
    """A replica calls the model by another name than the client."""
    for each in replicas:  # noqa: SIM110 (a generator takes twice as long, for every request)
        if each.upstream_model not in (None, name):
            return True
    return False


def find_model(name: str | None, endpoint: Endpoint, fleet: FleetView) -> ModelView:
    """The model that a request means; without a name, the first that can do what the path asks."""
    if name:
        model = fleet.model(name)
        if model is None:
            raise Refusal(
                404,
                "model_not_found",
                f"The model '{name[:200]}' is not served here. "
                f"Served: {', '.join(fleet.served_names) or 'none'}.",
                type=RefusalType.NOT_FOUND,
                param="model",
            )
        if endpoint.needs and endpoint.needs not in model.capabilities:
            raise Refusal(
                400,
                "model_cannot",
                f"The model '{model.name}' cannot do {endpoint.needs}, which {endpoint.path} asks for.",
                param="model",
            )
        return model
    for model in fleet.models:
        if endpoint.needs is None or endpoint.needs in model.capabilities:
            return model
    raise Refusal(
        404,
        "model_not_found",
        f"No model served here can do {endpoint.needs}. Served: {', '.join(fleet.served_names) or 'none'}.",
        type=RefusalType.NOT_FOUND,
    )


def _asks_for_usage(body: Json, endpoint: Endpoint) -> bool:
    """Streams of typed events have it in any case."""
    options = body.get("stream_options") or {}
    return endpoint.ends_with_done and options.get("include_usage") is True


def _asks_for_call(body: Json) -> bool:
    """OpenAI's way to say it, and Anthropic's."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    return bool(body.get("tools")) and kind in ("required", "function", "any", "tool")


def _needs_ears(endpoint: Endpoint, model: ModelView) -> bool:
    return endpoint.path == "/v1/chat/completions" and Capability.HEARING not in model.capabilities


def _for_engine(raw: bytes, body: Json) -> bytes:
    """`enable_thinking` as LangChain's extra_body sends it becomes the chat template's argument."""
    thinking = body.get("enable_thinking")
    if thinking is None:
        return raw
    arguments = {"enable_thinking": thinking} | (body.get("chat_template_kwargs") or {})
    return rewritten(raw, "chat_template_kwargs", arguments)


def _admit_multipart(request: Request, endpoint: Endpoint, fleet: FleetView) -> Call:
    content_type = request.headers.get(b"content-type", b"")
    parts: dict[str, multipart.FormPart] = {}
    for part in multipart.parts(content_type, request.body):
        if part.name in parts and part.name in _READ_IN_FORMS:  # the engine might read the other one
            refuse("repeated_field", f"The form has more than one '{part.name}'.", part.name)
        parts[part.name] = part
    if "file" not in parts:
        refuse("missing_field", "The form has no 'file' with the audio.", "file")
    name = _text(request.body, parts.get("model"))
    return Call(
        endpoint=endpoint,
        model=find_model(name, endpoint, fleet),
        body=request.body,
        content_type=content_type,
        cost_tokens=request_cost(
            text_bytes=len(request.body) // 16,  # compressed or not, a rough order is all that is needed
            pictures=(),
            geometry=None,
            max_answer_tokens=None,
        ),
        stream=_text(request.body, parts.get("stream")) == "true",
        named_model=name,
        model_slot=_form_slot(parts.get("model")),
    )


def _form_slot(part: multipart.FormPart | None) -> Slot | None:
    return Slot(start=part.start, end=part.end) if part else None


_READ_IN_FORMS = frozenset({"model", "stream"})
_LONGEST_READ_BYTES = 1024


def _text(body: bytes, part: multipart.FormPart | None) -> str | None:
    """What a small field says; of one that is none, the beginning."""
    if part is None:
        return None
    return body[part.start : min(part.end, part.start + _LONGEST_READ_BYTES)].decode("utf-8", "replace")
