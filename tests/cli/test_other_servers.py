"""What happens to flags that people bring along from other servers."""

import pytest

from autoglm_serve.cli.main import VERBS, main, parser_of
from autoglm_serve.cli.other_servers import ENGINES_OWN, INSTEAD, SAME, translated
from autoglm_serve.core.errors import ExitCode

SERVE = next(verb for verb in VERBS if verb.name == "serve")


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == ExitCode.USAGE
    return capsys.readouterr().err


def test_a_flag_that_means_the_same_is_taken() -> None:
    argv = ["vllm/M", "--tensor-parallel-size", "2", "--ctx-size=8192", "-np", "4"]
    args = parser_of(SERVE).parse_strictly(translated(argv))
    assert (args.model, args.tp, args.max_model_len, args.max_num_seqs) == ("vllm/M", "2", "8192", "4")


def test_every_translation_ends_at_a_flag_that_there_is() -> None:
    assert set(SAME.values()) <= set(parser_of(SERVE).flags)


def test_no_flag_of_ours_is_taken_for_anothers() -> None:
    ours = set(parser_of(SERVE).flags)
    assert not ours & (set(SAME) | set(INSTEAD) | ENGINES_OWN)


def test_an_engines_flag_is_told_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["serve", "--trust-remote-code"], capsys)
    assert "autoglm serve --model M -- --trust-remote-code" in said


def test_a_flag_without_a_counterpart_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert "llama.cpp runs on the processor" in refusal(["serve", "-ngl", "99"], capsys)


def test_a_flag_that_nobody_knows_may_be_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["serve", "--zzz-zzz", "1"], capsys)
    assert "If it is the engine's own, write it after a bare --." in said
    assert "Did you mean" not in said


def test_what_follows_a_bare_dash_is_not_translated() -> None:
    assert translated(["--tp-size", "2"]) == ["--tp", "2"]
    assert main(["config", "show", "--json", "--", "--tp-size", "2"]) == ExitCode.OK


def test_a_model_needs_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    args = parser_of(SERVE).parse_strictly(["zai-org/AutoGLM-Phone-9B", "--port", "0"])
    assert args.model == "zai-org/AutoGLM-Phone-9B"
    assert "two models are named, a and b" in refusal(["serve", "a", "--model", "b"], capsys)
