"""`autoglm plan` as a person runs it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_serve.cli.main import main
from autoglm_serve.core.errors import ExitCode
from autoglm_serve.demo import demo_model
from autoglm_serve.probe import gpus


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No config file and no measurements of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


def plan(*flags: str) -> int:
    return main(["plan", *flags])


def test_the_shown_example_works_offline(capsys: pytest.CaptureFixture[str]) -> None:
    code = plan("--hardware", "rtx4090:2", "--model", "zai-org/AutoGLM-Phone-9B", "--explain")
    said = capsys.readouterr().out
    assert code == ExitCode.OK
    assert "2 replicas of one GPU each" in said
    assert "What lost" in said


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "h200:4", "--json", "--", "--seed", "3") == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert said["chosen"]["replicas"] == 4
    assert said["chosen"]["argv"][-2:] == ["--seed", "3"]
    assert said["chosen"]["env"]["CUDA_VISIBLE_DEVICES"] == "0"


def test_json_without_a_gpu_is_a_document_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # where the machine has one, it is hidden
    assert plan("--json") == ExitCode.NO_PLAN
    told = json.loads(capsys.readouterr().out)
    assert "GPU" in told["problem"]
    assert told["why"]
    assert told["next_step"]


def test_the_command_can_be_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "h200:2", "--emit", "command") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "CUDA_VISIBLE_DEVICES=1" in lines[1]
    assert "--host 127.0.0.1" in lines[0]


def test_pins_come_from_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--tp", "2", "--max-num-seqs", "12", "--quantization", "fp8", "--gpus", "0,1")
    assert plan("--hardware", "h200:4", "--json", *flags) == ExitCode.OK
    chosen = json.loads(capsys.readouterr().out)["chosen"]
    assert chosen["tensor_parallel"] == 2
    assert chosen["max_num_seqs"] == 12
    assert chosen["quantization"] == "fp8"
    assert chosen["gpu_groups"] == [[0, 1]]


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--hardware", "rtx9999"), ExitCode.CONFIG, "no GPU is known as 'rtx9999'"),
        (("--hardware", "h200:2", "--tp", "3"), ExitCode.NO_PLAN, "tensor parallel 3 is not possible"),
        (("--hardware", "h200:2", "--tp", "4"), ExitCode.NO_PLAN, "4 GPUs were asked for"),
        (("--hardware", "rtx3060"), ExitCode.NO_PLAN, "does not fit"),
        (("--hardware", "h200", "--gpus", "7"), ExitCode.NO_PLAN, "shows GPU 0 alone"),
        (
            ("--hardware", "h200", "--quantization", "foo"),
            ExitCode.NO_PLAN,
            "foo makes the weights is not known",
        ),
        (
            ("--hardware", "h200:8", "--max-num-batched-tokens", "1"),
            ExitCode.NO_PLAN,
            "1 token a pass is too few",
        ),
        (("--hardware", "h200", "--gpus", "x"), ExitCode.CONFIG, "'x' is no GPU number"),
        (("--hardware", "h200", "--gpus", "²"), ExitCode.CONFIG, "'²' is no GPU number"),
        (("--hardware", "h200", "--gpus", "0,00", "--tp", "2"), ExitCode.NO_PLAN, "1 can be used"),
        (("--hardware", "h200", "--model", "./nowhere"), ExitCode.MODEL, "is not there"),
        (("--hardware", "h200", "--model", "."), ExitCode.MODEL, "is no model"),
        (("--hardware", "h200", "--model", "x.gguf"), ExitCode.CONFIG, "GGUF"),
        (("--model", "x.gguf", "--calibrate"), ExitCode.CONFIG, "--calibrate is about GPUs"),
        (("--model", "x.gguf"), ExitCode.MODEL, "There is no file or folder x.gguf"),
        (("--engine", "vllm", "--hardware", "h200", "--model", "x.gguf"), ExitCode.MODEL, "GGUF"),
        (("--model", "x" * 300 + ".gguf"), ExitCode.MODEL, "File name too long"),
        (("--hardware", "h200", "--model", "x" * 300), ExitCode.MODEL, "File name too long"),
        (("--engine", "llama_cpp", "--model", "a/b-GGUF:Q4_K_M"), ExitCode.MODEL, "before it is here"),
        (("--engine", "llama_cpp", "--replicas", "9000"), ExitCode.NO_PLAN, "too little"),
        (("--engine", "llama_cpp", "--max-model-len", "99999"), ExitCode.NO_PLAN, "context ends at 16,384"),
        (
            ("--hardware", "h200", "--model", "a/b", "--hub", "modelscope"),
            ExitCode.MODEL,
            "before it is here",
        ),
    ],
)
def test_a_mistake_is_plain_lines_with_a_next_step(
    flags: tuple[str, ...], code: ExitCode, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*flags) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Next:" in said
    assert "Traceback" not in said


def test_a_folder_with_a_broken_config_is_a_mistake_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert plan("--hardware", "h200", "--model", "./m") == ExitCode.MODEL
    assert "lacks hidden_size" in capsys.readouterr().err


def test_a_gguf_is_planned_for_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    gguf = str(demo_model().gguf)
    assert plan("--model", gguf, "--explain", "--replicas", "2", "--threads", "3", "--tp", "2") == ExitCode.OK
    said = capsys.readouterr().out
    assert "2 replicas of 3 threads; context 16,384, 4 sequences" in said
    assert "KV cache" in said
    assert "--tp has no say" in said


def test_a_gguf_s_plan_has_the_same_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "h200", "--json") == ExitCode.OK
    of_gpus = json.loads(capsys.readouterr().out)
    assert plan("--engine", "llama_cpp", "--json") == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert set(said) == set(of_gpus)
    assert set(said["chosen"]) == set(of_gpus["chosen"])
    assert said["hardware"]["source"] == "host"
    assert said["ledger"]["weights"] == said["model"]["bytes"] > 0
    assert said["ledger"]["kv_cache_tokens"] == 4 * said["chosen"]["max_model_len"]
    assert "autoglm_serve.engines.hosts.llama_cpp_host" in said["chosen"]["argv"]


def test_a_gguf_s_command_can_be_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--engine", "llama_cpp", "--replicas", "2", "--emit", "command") == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_help_names_the_model_that_is_planned_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan("--help")
    shown = "".join(capsys.readouterr().out.split())  # lines are broken anywhere
    assert "[zai-org/AutoGLM-Phone-9B;thebundleddemomodelwith--enginellama_cpp]" in shown
    assert "[thebundleddemomodel]" not in shown


def test_every_name_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "list") == ExitCode.OK
    said = capsys.readouterr().out
    assert "rtx4090" in said
    assert "b200" in said


@pytest.mark.process
def test_it_takes_less_than_two_seconds_and_no_torch() -> None:
    program = (
        "import sys; from autoglm_serve.cli.main import main; "
        "code = main(['plan', '--hardware', 'h200:8', '--explain']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert time.monotonic() - begun < 2.0


# --- questions -------------------------------------------------------------------------------------------


def test_targets_are_answered_with_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "rtx4090", "--sessions", "40", "--target-ttft", "2") == ExitCode.OK
    assert "needed    5x GeForce RTX 4090: 5x TP1" in capsys.readouterr().out


def test_phones_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "h200", "--phones", "--json") == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["phones"] > 8
    assert told["predicted"]["ttft_s"] <= 3.0


def test_a_published_load_can_be_stated(capsys: pytest.CaptureFixture[str]) -> None:
    load = ("--image", "none", "--prompt-tokens", "1024", "--output-tokens", "256", "--sessions", "1")
    assert plan("--hardware", "h200", "--explain", *load) == ExitCode.OK
    assert "1,024 tokens of text, 0 cached, 256 tokens out" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ("--image", "0x5"),
        ("--image", "big"),
        ("--image", "9999999x9999999"),
        ("--prompt-tokens", "0"),
        ("--prompt-tokens", "9" * 40),
        ("--output-tokens", "-1"),
        ("--think-time", "nan"),
        ("--think-time", "-1"),
    ],
)
def test_a_load_that_means_nothing_is_a_plain_error(flags: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        plan("--hardware", "h200", *flags)
    assert caught.value.code == ExitCode.USAGE


def test_the_rules_of_another_release_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--hardware", "h200", "--engine-version", "0.26.0") == ExitCode.OK
    assert "rules     vllm 0.26.0 (as --engine-version names it)" in capsys.readouterr().out
    assert plan("--hardware", "h200", "--engine-version", "new") == ExitCode.CONFIG
    assert "is no version" in capsys.readouterr().err


def test_without_a_gpu_it_is_said_what_serve_would_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # where the machine has one, it is hidden
    if gpus.read().gpus:
        pytest.skip("this machine has a GPU, and serve would use it")
    assert plan() == ExitCode.NO_PLAN
    said = capsys.readouterr()
    assert "`autoglm serve` would run this on the processor" in said.out
    assert "bundled demo model" in said.out
    assert "GPU" in said.err
