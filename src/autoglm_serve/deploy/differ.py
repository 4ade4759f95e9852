"""What other settings would change in a running service, and what it would run then."""

from dataclasses import dataclass, replace

from autoglm_serve.config.options import Options, Section, declared
from autoglm_serve.core.plan import Deployment
from autoglm_serve.deploy.decide import decide
from autoglm_serve.deploy.own_memory import Own
from autoglm_serve.deploy.remember import DECISIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What other settings would change in a running service."""

    options: Options
    """The settings that would be in force: the new ones where they can be."""
    live: tuple[str, ...]
    not_live: tuple[str, ...]
    for_deployment: bool
    for_workers: bool


def change_of(before: Options, after: Options) -> Change:
    """The difference between two sets of options, by what it takes to go over. Pure."""
    changed = [o for o in declared() if getattr(before, o.name) != getattr(after, o.name)]
    fixed = [o.name for o in changed if o.doc.section in _FIXED or not o.doc.live]
    live = [o for o in changed if o.name not in fixed]
    return Change(
        options=replace(after, **{name: getattr(before, name) for name in fixed}),
        live=tuple(o.name for o in live),
        not_live=tuple(fixed),
        for_deployment=any(o.doc.section in DECISIVE for o in live),
        for_workers=any(o.doc.section in _OF_WORKERS for o in live),
    )


_OF_WORKERS = frozenset({Section.GATEWAY, Section.ACCESS})
_FIXED = frozenset({Section.ADDRESS, Section.STATE})
_AMENDABLE = frozenset({"served_model_name", "engine_args"})
"""Options that change a replica on GPUs and not its plan: what runs there is not measured anew for them."""


async def revise(before: Deployment, change: Change, own: Own) -> Deployment:
    """What to run instead, in place of what is `own`. Raises ServeError where that cannot be."""
    if not change.for_deployment:
        return before
    amended = all(name in _AMENDABLE or not _is_decisive(name) for name in change.live)
    if not (amended and before.members[0].plan.gpu_groups):
        return await decide(change.options, lambda download: None, own)
    first, *others = before.members
    names = change.options.served_model_name or first.names
    plan = replace(first.plan, engine_args=change.options.engine_args)
    return Deployment(members=(replace(first, names=names, plan=plan), *others))


def _is_decisive(name: str) -> bool:
    return name in {option.name for option in declared() if option.doc.section in DECISIVE}
