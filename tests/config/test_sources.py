"""Sources: precedence, provenance, and errors that name the value and where it came from."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_serve.config.options import Option, Options, declared
from autoglm_serve.config.sources import CLIENT_VARIABLES, Reread, Source, load
from autoglm_serve.core.errors import ConfigError, ExitCode


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def load_in(
    cwd: Path,
    *,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    file: str | None = None,
) -> tuple[Options, Mapping[str, tuple[Source, str]]]:
    """Load with `file` as ./autoglm.toml and a home folder that is empty."""
    if file is not None:
        (cwd / "autoglm.toml").write_text(file, encoding="utf-8")
    options, provenance = load(flags or {}, {"HOME": str(cwd / "home"), **(env or {})}, cwd)
    return options, {name: (origin.source, origin.where) for name, origin in provenance.origins.items()}


def refusal(cwd: Path, **sources: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_in(cwd, **sources)  # type: ignore[arg-type]
    assert caught.value.exit_code is ExitCode.CONFIG
    return str(caught.value)


# --- precedence and provenance --------------------------------------------------------------------------


def test_without_any_source_every_value_is_the_default(tmp_path: Path) -> None:
    options, origins = load_in(tmp_path)
    assert options == Options()
    assert set(origins.values()) == {(Source.DEFAULT, "default")}
    assert list(origins) == [field.name for field in fields(Options)]


@given(sources=st.sets(st.sampled_from(["flag", "environment", "file"])))
def test_the_strongest_source_wins_and_is_remembered(
    sources: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    options, origins = load_in(
        tmp_path_factory.mktemp("cwd"),
        flags={"port": "1"} if "flag" in sources else {},
        env={"AUTOGLM_PORT": "2"} if "environment" in sources else {},
        file="\nport = 3\n" if "file" in sources else None,
    )
    strongest = next((name for name in ("flag", "environment", "file") if name in sources), "default")
    assert (options.port, *origins["port"]) == {
        "flag": (1, Source.FLAG, "--port"),
        "environment": (2, Source.ENVIRONMENT, "AUTOGLM_PORT"),
        "file": (3, Source.FILE, "autoglm.toml:2"),
        "default": (8000, Source.DEFAULT, "default"),
    }[strongest]


def test_sources_are_merged_option_by_option(tmp_path: Path) -> None:
    options, _ = load_in(
        tmp_path, flags={"port": "1"}, env={"AUTOGLM_REPLICAS": "3"}, file='host = "0.0.0.0"\nport = 9\n'
    )
    assert (options.host, options.port, options.replicas) == ("0.0.0.0", 1, 3)


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    options, origins = load_in(tmp_path, env={"AUTOGLM_PORT": ""})
    assert options.port == 8000
    assert origins["port"][0] is Source.DEFAULT


# --- which file is read ---------------------------------------------------------------------------------


def test_the_first_file_that_applies_is_read_and_no_other(tmp_path: Path, home: Path) -> None:
    def write(path: Path, port: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"port = {port}", encoding="utf-8")
        return path

    env = {"HOME": str(home)}
    assert load({}, env, tmp_path)[1].config_file is None

    personal = write(home / ".config/autoglm/autoglm.toml", 1)
    assert load({}, env, tmp_path)[1].config_file == personal
    xdg = write(tmp_path / "xdg/autoglm/autoglm.toml", 2)
    env["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert load({}, env, tmp_path)[1].config_file == xdg
    here = write(tmp_path / "autoglm.toml", 3)
    assert load({}, env, tmp_path)[1].config_file == here
    by_variable = write(tmp_path / "variable.toml", 4)
    env["AUTOGLM_CONFIG"] = "variable.toml"
    assert load({}, env, tmp_path)[1].config_file == by_variable
    write(tmp_path / "flag.toml", 5)
    options, provenance = load({"config": "flag.toml"}, env, tmp_path)
    assert (options.port, provenance.config_file) == (5, tmp_path / "flag.toml")


@pytest.mark.parametrize(
    ("flags", "env", "source"),
    [({"config": "no.toml"}, {}, "--config"), ({}, {"AUTOGLM_CONFIG": "no.toml"}, "AUTOGLM_CONFIG")],
)
def test_a_file_that_was_named_must_be_there(
    tmp_path: Path, flags: dict[str, object], env: dict[str, str], source: str
) -> None:
    assert f"{source}: there is no file {tmp_path / 'no.toml'}" in refusal(tmp_path, flags=flags, env=env)


def test_a_file_that_is_no_toml_is_named_with_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, file="host = 'a'\nport = = 3\n")
    assert "autoglm.toml is not valid TOML" in message
    assert "line 2" in message
    assert "Next: " in message


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "autoglm.toml").write_bytes(b'host = "\xff"')
    message = refusal(tmp_path)
    assert "autoglm.toml cannot be read" in message
    assert "Next: " in message


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        ({"config": "x" * 300}, {}),
        ({}, {"AUTOGLM_CONFIG": "x" * 300}),
        ({}, {"XDG_CONFIG_HOME": "/" + "x" * 300}),
    ],
)
def test_a_file_that_the_system_refuses_to_look_at_is_named(
    tmp_path: Path, flags: dict[str, object], env: dict[str, str]
) -> None:
    message = refusal(tmp_path, flags=flags, env=env)
    assert "cannot be read.\nWhy: File name too long\nNext: " in message


# --- what is wrong is named -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        pytest.param(
            {"flags": {"port": "70000"}},
            "--port: '70000' is not a whole number from 0 to 65535.",
            id="out of bounds",
        ),
        pytest.param(
            {"env": {"AUTOGLM_REPLICAS": "two"}},
            "AUTOGLM_REPLICAS: 'two' is not a whole number, 1 or more, or auto.",
            id="wrong type",
        ),
        pytest.param(
            {"file": "\n\nspeech = 'perhaps'"},
            "autoglm.toml:3: speech: 'perhaps' is not true or false.",
            id="wrong type, file and line",
        ),
        pytest.param(
            {"file": "replicas = true"},
            "autoglm.toml:1: replicas: true is not a number.",
            id="a switch for a number",
        ),
        pytest.param({"file": "host = 5"}, "autoglm.toml:1: host: 5 is not text.", id="a number for text"),
        pytest.param(
            {"flags": {"engine": "vlm"}},
            "--engine: 'vlm' is not one of auto, llama_cpp, vllm, sglang, external. Did you mean vllm?",
            id="misspelt choice",
        ),
        pytest.param(
            {"env": {"AUTOGLM_HEADER_TIMEOUT_S": "nan"}},
            "AUTOGLM_HEADER_TIMEOUT_S: 'nan' is not a number of seconds, 0.1 or more.",
            id="not a number",
        ),
        pytest.param(
            {"file": "port = 1\nhosst = 'a'"},
            "autoglm.toml:2: unknown key 'hosst'. Did you mean host?",
            id="unknown key",
        ),
        pytest.param(
            {"file": "max-body-mb = 3"},
            "autoglm.toml:1: unknown key 'max-body-mb'. Did you mean max_body_mb?",
            id="a flag's spelling in the file",
        ),
        pytest.param({"file": "port = 1\n[zzz]\na = 1"}, "autoglm.toml:2: unknown key 'zzz'.", id="a table"),
        pytest.param(
            {"flags": {"served_model_name": ["a,b", "a"]}},
            "--served-model-name: 'a' is given twice.",
            id="a name twice",
        ),
        pytest.param(
            {"flags": {"engine": "external", "upstream": ["http://a:1,ftp://b"]}},
            "--upstream: 'ftp://b' is not an address such as http://127.0.0.1:8001.",
            id="no address",
        ),
        pytest.param(
            {"flags": {"upstream": ["http://a:1"]}},
            "--upstream is for the engine external; the engine here is auto (default).",
            id="an upstream without external",
        ),
        pytest.param(
            {"file": "engine = 'external'"},
            "The engine is external, and no address is given.",
            id="no upstream",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, sources: dict[str, object], message: str) -> None:
    assert refusal(tmp_path, **sources).splitlines()[0] == message


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, flags={"port": "x"}, env={"AUTOGLM_HUB": "y"}, file="prot = 1")
    assert message.startswith("3 options are wrong:")
    for where in ("--port:", "AUTOGLM_HUB:", "autoglm.toml:1:"):
        assert f"\n  {where}" in message


def test_variables_of_phone_agent_clients_are_left_alone(tmp_path: Path) -> None:
    options, _ = load_in(tmp_path, env=dict.fromkeys(CLIENT_VARIABLES, "anything"))
    assert options == Options()


def test_an_unknown_variable_is_told_of_and_stops_nothing(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "AUTOGLM_REPLICA": "2", "AUTOGLM_TEAM": "phones"}
    options, provenance = load({}, environ, tmp_path)
    assert options == Options()
    assert provenance.unknown == (
        "AUTOGLM_REPLICA: no option has this name. Did you mean AUTOGLM_REPLICAS?",
        "AUTOGLM_TEAM: no option has this name.",
    )


def test_what_kubernetes_says_of_a_service_of_our_name_is_no_setting(tmp_path: Path) -> None:
    links = {
        "AUTOGLM_PORT": "tcp://10.0.0.1:80",
        "AUTOGLM_SERVICE_HOST": "10.0.0.1",
        "AUTOGLM_PORT_80_TCP": "x",
    }
    options, provenance = load({}, {"HOME": str(tmp_path), **links}, tmp_path)
    assert options == Options()
    assert provenance.unknown == ()


def test_no_variable_is_both_ours_and_a_clients() -> None:
    assert not CLIENT_VARIABLES & {option.variable for option in declared()}


@given(option=st.sampled_from(declared()), value=st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_whatever_is_written_is_a_value_or_a_mistake_of_the_person(
    option: Option, value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with suppress(ConfigError):
        load({}, {"HOME": "/nowhere", option.variable: value}, tmp_path_factory.getbasetemp())


# --- values ---------------------------------------------------------------------------------------------


def test_a_list_may_be_written_with_commas_in_the_file_or_as_repeated_flags(tmp_path: Path) -> None:
    as_commas, _ = load_in(tmp_path, env={"AUTOGLM_SERVED_MODEL_NAME": "a, b,"})
    as_list, _ = load_in(tmp_path, file='served_model_name = ["a", "b"]')
    as_flags, _ = load_in(tmp_path, flags={"served_model_name": ["a", "b"]})
    assert (
        as_commas.served_model_name == as_list.served_model_name == as_flags.served_model_name == ("a", "b")
    )


def test_an_empty_list_in_the_file_is_a_value(tmp_path: Path) -> None:
    assert load_in(tmp_path, file="allow_origin = []")[0].allow_origin == ()


def test_engine_flags_are_words_in_a_variable_and_a_list_in_the_file(tmp_path: Path) -> None:
    words = ("--chat-template", "a b", "--flag")
    by_variable, _ = load_in(tmp_path, env={"AUTOGLM_ENGINE_ARGS": "--chat-template 'a b' --flag"})
    by_file, _ = load_in(tmp_path, file='engine_args = ["--chat-template", "a b", "--flag"]')
    assert by_variable.engine_args == by_file.engine_args == words


AUTO = [option.name for option in declared() if option.expects.endswith("or auto")]


@pytest.mark.parametrize("name", AUTO)
def test_auto_is_the_same_as_not_set(tmp_path: Path, name: str) -> None:
    assert getattr(load_in(tmp_path, flags={name: "auto"}, file=f"{name} = 1")[0], name) is None


def test_the_home_of_a_user_that_there_is_not_is_a_mistake_of_the_person(tmp_path: Path) -> None:
    assert "AUTOGLM_STATE_DIR: '~nobody-here/x'" in refusal(
        tmp_path, env={"AUTOGLM_STATE_DIR": "~nobody-here/x"}
    )


def test_choices_are_taken_in_any_case(tmp_path: Path) -> None:
    assert load_in(tmp_path, env={"AUTOGLM_LOG_LEVEL": "INFO"})[0].log_level == "info"


def test_an_upstream_may_carry_the_v1_that_clients_write(tmp_path: Path) -> None:
    options, _ = load_in(
        tmp_path, flags={"engine": "external", "upstream": ["http://a:1/v1/,http://[::1]:2", "http://c"]}
    )
    assert options.upstream == ("http://a:1", "http://[::1]:2", "http://c")


def test_a_file_that_has_lost_all_that_it_said_is_no_new_settings(tmp_path: Path) -> None:
    file = tmp_path / "autoglm.toml"
    file.write_text("replicas = 2\n")
    reread = Reread({}, {"HOME": str(tmp_path)}, tmp_path)
    file.write_text("replicas = 3\n")
    assert reread().replicas == 3
    for vanish in (lambda: file.write_text(""), lambda: file.write_text("# soon\n"), file.unlink):
        vanish()
        with pytest.raises(ConfigError, match="says nothing any more"):
            reread()
    file.write_text("replicas = 1\n")
    assert reread().replicas == 1


def test_who_never_had_a_file_may_get_one_and_reads_on(tmp_path: Path) -> None:
    reread = Reread({}, {"HOME": str(tmp_path)}, tmp_path)
    assert reread().replicas is None
    (tmp_path / "autoglm.toml").write_text("replicas = 3\n")
    assert reread().replicas == 3
