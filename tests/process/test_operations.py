"""What is done to a running service while clients ask it: none of them may notice."""

import os
import signal
import socket
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ExitCode
from autoglm_serve.launch import handover
from autoglm_serve.launch.listeners import admit_no_more
from tests.fakes.engine_process import running_engine
from tests.process.clients import asking
from tests.process.service_process import PATIENCE_S, ServiceProcess, running_service
from tests.process.test_service import alive, all_ready, autoglm, wait_for_log

pytestmark = pytest.mark.process


def test_the_control_plane_may_be_killed_and_comes_back_to_what_runs(tmp_path: Path) -> None:
    with (
        running_service("--replicas", "2", "--gateway-workers", "2", state_dir=tmp_path) as first,
        asking(first) as clients,
    ):
        first.wait_for_replicas(all_ready)
        before = first.records()
        first.process.kill()
        first.process.wait()
        clients.wait_for(20)  # nobody is in control, and nobody notices
        assert (
            "Next: Start it with the flags of before" in autoglm("status", "--port", str(first.port)).stderr
        )
        with running_service(
            "--replicas", "2", "--gateway-workers", "2", "--port", str(first.port), state_dir=tmp_path
        ) as second:
            assert second.records() == before
            clients.wait_for(20)
            assert all_ready(second.replicas())
            os.kill(before["r0"], signal.SIGKILL)
            second.wait_for_replicas(lambda replicas: replicas[0]["restarts"] == 1 and all_ready(replicas))
            clients.wait_for(20)
            clients.stop()
    assert clients.failures == []
    assert not any(alive(pid) for pid in before.values())


def test_a_control_plane_that_was_killed_as_it_began_to_stop_leaves_no_closed_door(tmp_path: Path) -> None:
    with running_engine() as engine:
        flags = ("--engine", "external", "--upstream", engine.url, "--gateway-workers", "1")
        with running_service(*flags, state_dir=tmp_path) as first:
            first.wait_for_workers()
            before = first.records()
            door = handover.take(handover.path(tmp_path, 0), lambda: True)
            assert door is not None
            with door:
                admit_no_more(door)
            first.process.kill()
            first.process.wait()
            with running_service(*flags, "--port", str(first.port), state_dir=tmp_path) as second:
                assert second.records() == before
                assert second.ask("GET", "/health")[0] == 200


def pids(service: ServiceProcess) -> dict[str, int]:
    """Of the replicas that run."""
    return {name: pid for name, pid in service.records().items() if name.startswith("r") and "-" not in name}


def test_all_replicas_are_restarted_one_at_a_time_and_nobody_notices() -> None:
    with running_service("--replicas", "2") as service, asking(service) as clients:
        before = pids(service)
        done = autoglm("restart", "--port", str(service.port))
        clients.stop()
        assert done.returncode == 0, done.stderr
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["r0", "r0", "r1", "r1", "r2"]
        assert not set(before.values()) & set(pids(service).values())
        assert [replica["restarts"] for replica in service.replicas()] == [0, 0, 0]
    assert clients.failures == []


def test_the_only_replica_is_stood_in_for_while_it_restarts() -> None:
    with running_service("--replicas", "1", "--no-speech") as service, asking(service) as clients:
        before = pids(service)
        done = autoglm("restart", "--replica", "0", "--port", str(service.port))
        clients.stop()
        assert done.returncode == 0, done.stderr
        assert "in place of r0" in done.stdout
        assert pids(service).keys() == before.keys()
        assert pids(service) != before
    assert clients.failures == []


def test_a_stream_that_does_not_end_in_time_goes_on_elsewhere() -> None:
    flags = ("--replicas", "2", "--drain-timeout-s", "0.2", "--no-speech")
    with running_service(*flags) as service, asking(service, tokens=800) as clients:
        done = autoglm("restart", "--port", str(service.port))
        clients.stop()
        assert done.returncode == 0, done.stderr
        assert "go on elsewhere" in done.stdout
    assert clients.failures == []


def test_the_workers_are_restarted_on_the_same_socket() -> None:
    flags = ("--replicas", "1", "--gateway-workers", "2", "--no-speech")
    with running_service(*flags) as service, asking(service, streams=4) as clients:
        before = service.records()
        done = autoglm("restart", "--workers", "--port", str(service.port))
        assert done.returncode == 0, done.stderr
        clients.wait_for(20)
        clients.stop()
        after = service.records()
        assert before["r0"] == after["r0"]
        workers = {pid for name, pid in after.items() if name.startswith("gateway")}
        assert len(workers) == 2
        assert not workers & set(before.values())
        assert service.status()["gateway"]["restarts"] == 0
    assert clients.failures == []


def test_a_restart_of_what_is_not_there_says_what_there_is() -> None:
    with running_service("--replicas", "1", "--no-speech") as service:
        done = autoglm("restart", "--replica", "r7", "--port", str(service.port))
        assert done.returncode != 0
        assert "There are r0" in done.stderr


def test_settings_are_read_again_at_sighup(tmp_path: Path) -> None:
    settings = tmp_path / "autoglm.toml"
    settings.write_text("replicas = 1\nspeech = false\n")
    with running_service("--config", str(settings)) as service, asking(service) as clients:
        settings.write_text('replicas = 1\nspeech = "perhaps"\n')
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "the settings were not taken")
        settings.write_text("replicas = 2\nspeech = false\nmax_body_mb = 1\nport = 1\n")
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "the settings are in force")
        assert all_ready(service.replicas())
        assert len(service.replicas()) == 2
        assert service.ask("POST", "/v1/chat/completions", b"x" * 2**21)[0] == 413
        settings.write_text("replicas = 1\nspeech = false\nserved_model_name = ['mine']\n")
        del service.log[:]
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "the settings are in force")
        assert len(service.replicas()) == 1
        assert service.chat(model="mine")[0] == 200
        clients.stop()
    assert clients.failures == []


def test_a_stop_does_not_wait_for_the_download_of_a_model_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "autoglm.toml"
    settings.write_text("replicas = 1\nspeech = false\n")
    with socket.create_server(("127.0.0.1", 0)) as hub:  # one that never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        with running_service("--config", str(settings), "--engine", "llama_cpp") as service:
            settings.write_text("replicas = 1\nspeech = false\nmodel = 'org/name'\n")
            service.process.send_signal(signal.SIGHUP)
            asked, _ = hub.accept()
            with asked:
                assert service.stop() == ExitCode.OK


def test_settings_with_which_no_replica_can_start_are_taken_back(tmp_path: Path) -> None:
    settings = tmp_path / "autoglm.toml"
    good = "replicas = 2\nspeech = false\n"
    settings.write_text(good)
    with running_service("--config", str(settings)) as service, asking(service) as clients:
        service.wait_for_replicas(all_ready)
        before = pids(service)
        settings.write_text(good + 'engine_args = ["--no-such-flag"]\nmax_body_mb = 1\n')
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "those before are in force")
        told = [str(entry["message"]) for entry in service.log]
        assert any("did not come back" in line and "--no-such-flag" in line for line in told), told
        assert "going back to the settings before" in told
        assert all_ready(service.wait_for_replicas(all_ready))
        assert pids(service)["r1"] == before["r1"]  # it was never touched
        assert service.ask("POST", "/v1/chat/completions", b"x" * 2**21)[0] == 400  # nor were the workers
        settings.write_text(good.replace("2", "1"))
        service.process.send_signal(signal.SIGHUP)
        wait_for_log(service, "the settings are in force")
        assert len(service.replicas()) == 1
        clients.stop()
    assert clients.failures == []


def test_a_new_version_takes_over_on_the_same_port(tmp_path: Path) -> None:
    flags = ("--gateway-workers", "2", "--no-speech")
    with (
        running_service("--replicas", "2", *flags, state_dir=tmp_path) as first,
        asking(first) as clients,
    ):
        first.wait_for_replicas(all_ready)
        before = first.records()
        port = ("--port", str(first.port))
        with running_service("--replicas", "2", "--takeover", *flags, *port, state_dir=tmp_path) as second:
            assert first.process.wait(timeout=PATIENCE_S) == ExitCode.OK
            wait_for_log(second, "gateway worker 1: pid")
            after = second.records()
            assert {name: after[name] for name in ("r0", "r1")} == {
                name: before[name] for name in ("r0", "r1")
            }
            workers = {pid for name, pid in after.items() if name.startswith("gateway")}
            assert not workers & set(before.values())
            clients.wait_for(10)
            with running_service("--replicas", "1", "--takeover", *flags, *port, state_dir=tmp_path) as third:
                wait_for_log(third, "the settings are in force")
                assert len(third.replicas()) == 1
                clients.wait_for(10)
                clients.stop()
    assert clients.failures == []
