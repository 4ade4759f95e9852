"""Laws that hold for every plan: it fits, it divides, more memory never hurts, pins stay."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_serve.core.hardware import GIB
from autoglm_serve.engines import vllm_versions
from autoglm_serve.plan.memory import MARGIN_BYTES
from autoglm_serve.plan.request import Goal, Pins
from autoglm_serve.probe import hardware_table
from tests.plan.worlds import autoglm, chosen, planned, with_memory

HOSTS = st.builds(
    lambda spec, count: f"{spec.key}:{count}",
    st.sampled_from([spec for spec in hardware_table.SPECS if not spec.integrated]),
    st.integers(1, 8),
)
VERSIONS = st.sampled_from(["0.19.0", "0.21.0", "0.26.0", "0.28.1", "0.33.0"]).map(vllm_versions.traits)
GOALS = st.sampled_from([Goal.BALANCED, Goal.THROUGHPUT, Goal.LATENCY])
FACTS = autoglm()


@settings(deadline=None, max_examples=60)
@given(host=HOSTS, traits=VERSIONS, goal=GOALS, sessions=st.integers(1, 300))
def test_a_plan_fits_its_memory(host: str, traits: object, goal: Goal, sessions: int) -> None:
    decision = planned(host, facts=FACTS, traits=traits, goal=goal, sessions=sessions)  # type: ignore[arg-type]
    if decision.chosen is None:
        assert decision.problem
        return
    plan = decision.chosen
    ledger = plan.ledger
    assert ledger is not None
    assert plan.max_model_len is not None
    assert plan.gpu_memory_utilization is not None
    assert ledger.kv_cache_tokens >= plan.max_model_len
    free_now = ledger.total_bytes - ledger.other_bytes
    assert plan.gpu_memory_utilization * ledger.total_bytes <= free_now
    assert ledger.free_bytes >= ledger.unprofiled_bytes + MARGIN_BYTES // 2


@settings(deadline=None, max_examples=60)
@given(host=HOSTS, goal=GOALS)
def test_a_plan_divides_its_heads_and_uses_each_gpu_once(host: str, goal: Goal) -> None:
    decision = planned(host, facts=FACTS, goal=goal)
    if decision.chosen is None:
        return
    plan = decision.chosen
    text = FACTS.text
    assert text.heads % plan.tensor_parallel == 0
    assert text.kv_heads % plan.tensor_parallel == 0 or plan.tensor_parallel % text.kv_heads == 0
    assert FACTS.vision is not None
    assert plan.encoder_data_parallel or FACTS.vision.heads % plan.tensor_parallel == 0
    used = [index for group in plan.gpu_groups for index in group]
    assert len(used) == len(set(used)) == plan.replicas * plan.tensor_parallel * plan.pipeline_parallel
    assert set(used) <= {gpu.index for gpu in hardware_table.hardware(host).gpus}


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 4),
    total=st.integers(12, 100),
    more=st.integers(0, 60),
    traits=VERSIONS,
)
def test_more_memory_never_makes_a_plan_infeasible(count: int, total: int, more: int, traits: object) -> None:
    host = hardware_table.hardware(f"rtx4090:{count}")
    small = with_memory(host, total * GIB, (total - 1) * GIB)
    large = with_memory(host, (total + more) * GIB, (total + more - 1) * GIB)
    fits = planned(small, facts=FACTS, traits=traits).chosen  # type: ignore[arg-type]
    if fits is not None:
        bigger = planned(large, facts=FACTS, traits=traits).chosen  # type: ignore[arg-type]
        assert bigger is not None


@settings(deadline=None, max_examples=60)
@given(
    host=HOSTS,
    tensor_parallel=st.sampled_from([None, 1, 2, 4]),
    pipeline_parallel=st.sampled_from([None, 1, 2]),
    max_model_len=st.sampled_from([None, 4096, 25_480]),
    max_num_seqs=st.sampled_from([None, 1, 7, 300]),
    quantization=st.sampled_from([None, "none", "fp8"]),
)
def test_pinned_stays_pinned(
    host: str,
    tensor_parallel: int | None,
    pipeline_parallel: int | None,
    max_model_len: int | None,
    max_num_seqs: int | None,
    quantization: str | None,
) -> None:
    pins = Pins(
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        quantization=quantization,
    )
    plan = planned(host, facts=FACTS, pins=pins).chosen
    if plan is None:
        return
    assert tensor_parallel in (None, plan.tensor_parallel)
    assert pipeline_parallel in (None, plan.pipeline_parallel)
    assert max_model_len in (None, plan.max_model_len)
    assert max_num_seqs in (None, plan.max_num_seqs)
    assert plan.quantization == (quantization if quantization == "fp8" else None)


@settings(deadline=None, max_examples=30)
@given(host=HOSTS)
def test_the_same_question_has_the_same_answer(host: str) -> None:
    assert planned(host, facts=FACTS) == planned(host, facts=FACTS)


def test_kv_heads_are_copied_once_there_are_fewer_than_gpus() -> None:
    """GLM-4.1V has 2: four GPUs hold no more tokens a GiB than two."""
    two = chosen(planned("h200:4", pins=Pins(tensor_parallel=2))).ledger
    four = chosen(planned("h200:4", pins=Pins(tensor_parallel=4))).ledger
    assert two is not None
    assert four is not None
    assert two.kv_cache_bytes // two.kv_cache_tokens == four.kv_cache_bytes // four.kv_cache_tokens == 20_480


def test_a_smaller_max_num_seqs_frees_memory() -> None:
    many = chosen(planned("h200", pins=Pins(max_num_seqs=1024))).ledger
    few = chosen(planned("h200", pins=Pins(max_num_seqs=16))).ledger
    assert many is not None
    assert few is not None
    assert few.kv_cache_tokens > many.kv_cache_tokens
    assert replace(few, kv_cache_tokens=0).free_bytes > 0
