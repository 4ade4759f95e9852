"""What an address that already serves says of itself: the names of its models and how much they take."""

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

from autoglm_serve.core.errors import Unreachable
from autoglm_serve.probe.http_client import asked

MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteModel:
    """One entry of /v1/models."""

    name: str
    max_model_len: int | None
    owned_by: str | None = None
    """What it says of who owns the model: engines put their own name there."""


async def models_at(base_url: str, *, timeout_s: float, key: str = "") -> tuple[RemoteModel, ...]:
    """What it serves; empty where it wants a key before it tells. Raises Unreachable."""
    try:
        async with asyncio.timeout(timeout_s + 1):
            status, body = await asyncio.to_thread(_get, base_url, "/v1/models", timeout_s, key)
        if status in (401, 403):
            return ()
        if status != 200:
            raise ValueError(f"/v1/models answered {status}")
        return listed(json.loads(body))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as problem:
        raise Unreachable(
            f"{base_url} is not an OpenAI-compatible server, or does not answer.",
            why=str(problem) or type(problem).__name__,
            next_step="Check --upstream: the address without a path, such as http://127.0.0.1:8000",
        ) from problem


def _get(base_url: str, path: str, timeout_s: float, key: str) -> tuple[int, bytes]:
    with asked(base_url, "GET", path, key=key, timeout_s=timeout_s) as reply:
        return reply.status, reply.read(MOST_BYTES)


def listed(said: dict[str, Any]) -> tuple[RemoteModel, ...]:
    """The models in an answer of /v1/models. Raises KeyError or TypeError where it is of another shape."""
    return tuple(map(_model, said["data"]))


def _model(card: dict[str, object]) -> RemoteModel:
    """vLLM and SGLang say max_model_len, llama.cpp says meta.n_ctx."""
    meta = card.get("meta")
    length = card.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return RemoteModel(
        name=str(card["id"]),
        max_model_len=length if isinstance(length, int) else None,
        owned_by=str(card["owned_by"]) if card.get("owned_by") else None,
    )
