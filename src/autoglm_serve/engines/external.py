"""Anything OpenAI-compatible that somebody else runs: no process of ours, only addresses."""

from autoglm_serve.core.model import Feature
from autoglm_serve.core.plan import Member, Placement
from autoglm_serve.core.replica import Diagnosis, ExitCause, ExitFacts
from autoglm_serve.engines.base import Command, Engine, Listen, Place


class External(Engine):
    """The `Engine` that is only watched."""

    name = title = option = "external"
    place = Place.ELSEWHERE
    gives_finish = False
    undone: frozenset[Feature] = frozenset()  # it may do anything, and says no by itself
    takes_key = True
    start_timeout_s = float("inf")

    def command(self, member: Member, placement: Placement, listen: Listen) -> Command:
        raise NotImplementedError("an external engine is somebody else's to start")

    def diagnose(self, facts: ExitFacts) -> Diagnosis:
        return Diagnosis(cause=ExitCause.UNKNOWN, summary="It does not answer.")
