"""What a deployment says of options that it has no use for, and of plans that a person should think over."""

import asyncio
from dataclasses import replace

import pytest

from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError
from autoglm_serve.core.fleet import MOST_REPLICAS
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.demo import demo_model
from autoglm_serve.deploy import decide, embedded, planning
from autoglm_serve.deploy.embedded import without_effect
from autoglm_serve.probe import hardware_table


def test_what_only_gpus_know_is_named() -> None:
    assert without_effect(Options()) == []
    said = without_effect(Options(tp=2, gpus=("0",)))
    assert [line.split()[0] for line in said] == ["--tp", "--gpus"]


def test_a_context_shorter_than_a_step_is_warned_of_on_the_processor() -> None:
    def said(context: int | None) -> tuple[str, ...]:
        options = Options(max_model_len=context)
        return embedded.warnings(options, embedded.embedded_here(options))

    assert said(None) == ()
    assert "a phone agent's step has about 2,6" in said(1024)[0]  # its pictures have at most 330 tokens


def test_what_to_know_of_a_plan_is_said_where_it_is_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(planning, "probed", lambda environ, own: hardware_table.hardware("h200"))
    options = Options(engine="vllm", model=str(demo_model().hf_dir), max_model_len=1024)
    asyncio.run(decide.decide(options, lambda download: None))
    assert "a phone agent's step has about" in caplog.text


def test_more_replicas_than_the_gateway_can_tell_apart_are_refused_with_the_number() -> None:
    member = embedded.embedded_here(Options(speech=False))

    def of(replicas: int) -> Member:
        return replace(member, plan=replace(member.plan, placements=replicas * member.plan.placements[:1]))

    most = of(MOST_REPLICAS)
    assert decide.within_bounds(Deployment(members=(most,))).members == (most,)
    with pytest.raises(ConfigError, match="1,025 replicas"):
        decide.within_bounds(Deployment(members=(most, of(1))))


def test_the_speech_model_goes_by_the_names_it_is_given() -> None:
    def names(options: Options) -> tuple[str, ...]:
        return asyncio.run(decide.decide(options, lambda download: None)).members[1].names

    assert names(Options()) == ("glm-asr-demo",)
    assert names(Options(speech_name=("hears", "whisper-1"))) == ("hears", "whisper-1")
    with pytest.raises(ConfigError, match="Two models would answer to phone"):
        names(Options(served_model_name=("phone",), speech_name=("whisper-1", "phone")))
