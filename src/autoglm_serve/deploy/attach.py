"""From addresses that already serve a model to the member that stands for them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.model import Capability, ModelFiles, ModelFormat, VisionGeometry
from autoglm_serve.core.plan import Member, Placement, Plan
from autoglm_serve.engines.catalog import owner_of
from autoglm_serve.engines.external import External
from autoglm_serve.probe.upstream import RemoteModel, models_at

ASK_TIMEOUT_S = 10.0
CAPABILITIES = frozenset({Capability.CHAT, Capability.VISION, Capability.HEARING, Capability.EMBEDDING})
"""What a request is let through for: the engine behind it knows best, and says no by itself."""


async def attach(upstreams: Sequence[str], names: Sequence[str] = (), key_file: Path | None = None) -> Member:
    """The member that serves what runs at these addresses.

    One address that answers is enough: the others are used as soon as they do. Raises Unreachable where none
    does, ConfigError where they do not serve one and the same model.
    """
    key = _key_in(key_file)
    answers = await asyncio.gather(
        *(models_at(url, timeout_s=ASK_TIMEOUT_S, key=key) for url in upstreams), return_exceptions=True
    )
    told = [answer for answer in answers if not isinstance(answer, BaseException)]
    if not told:
        raise next(answer for answer in answers if isinstance(answer, BaseException))
    model = _common(told, names)
    return Member(
        names=tuple(names) or (model.name,),
        files=ModelFiles(reference=", ".join(upstreams), format=ModelFormat.REMOTE),
        plan=_plan(upstreams, model, unanswered=len(upstreams) - len(told)),
        capabilities=CAPABILITIES,
        vision=VisionGeometry(),
        upstream_model=model.name,
        upstream_engine=_engine_of(model),
    )


def _key_in(file: Path | None) -> str:
    """The key that this service has there. Raises ConfigError for a file that holds none."""
    if file is None:
        return ""
    try:
        key = file.read_text(encoding="ascii").strip()
        why = "" if key.isprintable() and key else "it has to be one line of text"
    except (OSError, UnicodeDecodeError) as problem:
        key, why = "", str(problem)
    if why:
        raise ConfigError(
            f"{file} holds no key for --upstream.", why=why, next_step="Correct --upstream-key-file."
        )
    return key


def _common(answers: Sequence[Sequence[RemoteModel]], names: Sequence[str]) -> RemoteModel:
    """The one model that every address serves: the one that was asked for by name, or the only one."""
    lists = [answer for answer in answers if answer]
    if not lists:
        if names:  # they want a key before they tell
            return RemoteModel(name=names[0], max_model_len=None)
        raise ConfigError(
            "The servers at --upstream do not tell what they serve without a key.",
            next_step="Give it with --upstream-key-file, or name the model with --served-model-name.",
        )
    shared = [model for model in lists[0] if all(model.name in _names(other) for other in lists)]
    asked = [model for model in shared if model.name in names]
    if len(asked or shared) == 1:
        return (asked or shared)[0]
    raise ConfigError(
        "The servers at --upstream do not serve one and the same model.",
        why="; ".join(", ".join(_names(answer)) for answer in lists),
        next_step="Name one that all of them serve with --served-model-name."
        if shared
        else "Put servers of one model behind one service.",
    )


def _names(models: Sequence[RemoteModel]) -> list[str]:
    return [model.name for model in models]


def _plan(addresses: Sequence[str], model: RemoteModel, *, unanswered: int) -> Plan:
    count = len(addresses)
    reasons = [f"{count} addresses already serve {model.name}" if count > 1 else f"It serves {model.name}"]
    if unanswered:
        reasons.append(f"{unanswered} of them do not answer yet")
    return Plan(
        engine=External.name,
        placements=tuple(Placement(address=address) for address in addresses),
        max_model_len=model.max_model_len,
        reasons=tuple(reasons),
    )


def _engine_of(model: RemoteModel) -> str | None:
    """Our name of what runs there, where it says so."""
    engine = owner_of(model.owned_by) if model.owned_by else None
    return engine.name if engine else None
