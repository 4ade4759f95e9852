"""What the planner's tests plan for: the shipped model, smaller relatives of it, hosts from the table."""

from dataclasses import replace

from autoglm_serve.core.engine_traits import Constants, EngineTraits
from autoglm_serve.core.facts import ModelFacts
from autoglm_serve.core.hardware import Hardware
from autoglm_serve.core.plan import Plan
from autoglm_serve.core.workload import Workload
from autoglm_serve.engines import vllm_versions
from autoglm_serve.plan.choose import Decision, decide
from autoglm_serve.plan.request import Goal, Pins, PlanRequest
from autoglm_serve.probe import hardware_table, model_facts

AUTOGLM = "zai-org/AutoGLM-Phone-9B"
NEWEST = vllm_versions.traits(None)


def autoglm() -> ModelFacts:
    facts = model_facts.from_profile(AUTOGLM)
    assert facts is not None
    return facts


def planned(
    hardware: str | Hardware,
    *,
    facts: ModelFacts | None = None,
    pins: Pins | None = None,
    goal: Goal = Goal.BALANCED,
    sessions: int = 32,
    traits: EngineTraits = NEWEST,
    constants: Constants | None = None,
    target_ttft_s: float | None = None,
    target_tpot_s: float | None = None,
) -> Decision:
    return decide(
        facts or autoglm(),
        hardware_table.hardware(hardware) if isinstance(hardware, str) else hardware,
        PlanRequest(
            goal=goal,
            workload=Workload(sessions=sessions),
            pins=pins or Pins(),
            target_ttft_s=target_ttft_s,
            target_tpot_s=target_tpot_s,
        ),
        traits,
        constants or Constants(),
    )


def chosen(decision: Decision) -> Plan:
    assert decision.chosen is not None, decision.problem
    return decision.chosen


def with_memory(hardware: Hardware, total_bytes: int, free_bytes: int) -> Hardware:
    gpus = tuple(replace(gpu, total_bytes=total_bytes, free_bytes=free_bytes) for gpu in hardware.gpus)
    return replace(hardware, gpus=gpus)
