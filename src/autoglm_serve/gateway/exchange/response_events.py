"""Events of /v1/responses made complete by the schema: what an engine leaves out, clients rely on.

OpenAI's clients and those that follow it read every event against a schema: its number, the places of items
and parts, a whole response at either end. llama.cpp leaves most of that out. An engine whose first event is
complete is believed, and nothing of it is touched. Pure.
"""

from typing import Any

from autoglm_serve.gateway.wire import sse

Json = dict[str, Any]

_OF_A_COMPLETE_ONE = (b'"sequence_number"', b'"model"', b'"created_at"', b'"output"')
_ITEM = "response.output_item."
_PART = "response.content_part."
_COUNTS = {
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}
_TEXTS = ("response.output_text.", "response.refusal.", "response.reasoning_text.")


class ResponseFiller:
    """Fills one stream, whole events in, whole events out, whichever replica they come from."""

    def __init__(self, *, model: str, created_s: int) -> None:
        self._defaults: Json = {"object": "response", "created_at": created_s, "model": model, "output": []}
        self._defaults |= {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}}
        self._defaults |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        self._defaults |= {"temperature": None, "top_p": None, "usage": None}
        self._complete: bool | None = None
        """The engine's events need nothing; None before the first."""
        self.number = 0
        """Of the next event."""
        self._items: list[str] = []
        self._parts: dict[str, int] = {}
        """By item, how many parts have begun."""

    def feed(self, events: bytes) -> bytes:
        if self._complete is None and b"data:" in events:
            self._complete = all(name in events for name in _OF_A_COMPLETE_ONE)
        if self._complete:
            return events
        return b"".join(self._filled(data) for data in sse.data_of(events))

    def _filled(self, data: bytes) -> bytes:
        event = sse.parsed(data)
        if event is None or not isinstance(event.get("type"), str):
            return sse.event(data)
        kind = event["type"]
        if isinstance(event.get("response"), dict):
            self._fill_response(event)
        if kind.startswith(_ITEM):
            self._fill_item(event)
        elif "item_id" in event:
            self._fill_place(event, kind)
        event["sequence_number"] = self.number
        self.number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), sse.dumps(event))

    def _fill_response(self, event: Json) -> None:
        response = {**self._defaults, **event["response"]}
        usage = response["usage"]
        if isinstance(usage, dict):
            for name, counts in _COUNTS.items():
                usage[name] = {**counts, **sse.mapping(usage.get(name))}
        event["response"] = response

    def _fill_item(self, event: Json) -> None:
        item = sse.mapping(event.get("item"))
        event.setdefault("output_index", self._index(str(item.get("id"))))
        if event["type"].endswith("added"):
            item.setdefault("status", "in_progress")

    def _fill_place(self, event: Json, kind: str) -> None:
        item_id = str(event["item_id"])
        event.setdefault("output_index", self._index(item_id))
        if kind.startswith(_PART):
            self._parts[item_id] = self._parts.get(item_id, 0) + kind.endswith("added")
            part = sse.mapping(event.get("part"))
            if part.get("type") == "output_text":
                part.setdefault("annotations", [])
        if kind.startswith((_PART, *_TEXTS)):
            event.setdefault("content_index", max(0, self._parts.get(item_id, 1) - 1))
        if kind.startswith("response.output_text."):
            event.setdefault("logprobs", [])
        if kind.startswith("response.reasoning_summary"):
            event.setdefault("summary_index", 0)

    def _index(self, item_id: str) -> int:
        """Items are counted as they appear."""
        if item_id not in self._items:
            self._items.append(item_id)
        return self._items.index(item_id)
