"""HTTPS: under whose certificate, for whom, and what a renewal changes."""

import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ConfigError
from autoglm_serve.gateway.wire.tls import Certificate, TlsFiles, context
from tests.fakes.certificates import Authority, authority
from tests.fakes.engine_process import EngineProcess
from tests.gateway.gateway_process import running_gateway


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


def files_of(signer: Authority, *, mutual: bool = False) -> TlsFiles:
    certificate, key = signer.sign("localhost")
    return TlsFiles(certificate=certificate, key=key, client_authority=signer.certificate if mutual else None)


@pytest.mark.process
def test_chats_and_streams_are_served_over_tls(
    tmp_path: Path, engine: EngineProcess, signer: Authority
) -> None:
    with running_gateway(tmp_path, [engine.url], tls=files_of(signer), trusts=signer.client()) as gateway:
        assert gateway.chat()[0] == 200
        status, _, body = gateway.chat(stream=True)
        assert status == 200
        assert body.endswith(b"data: [DONE]\n\n")
        picture = {"type": "text", "text": "x" * 3_000_000}
        assert gateway.chat([picture])[0] == 200


@pytest.mark.process
def test_who_shows_no_certificate_is_not_heard_where_one_is_asked_for(
    tmp_path: Path, engine: EngineProcess, signer: Authority
) -> None:
    known = signer.client(signer.sign("agent"))
    stranger = authority(tmp_path / "stranger").sign("agent")
    with running_gateway(tmp_path, [engine.url], tls=files_of(signer, mutual=True), trusts=known) as gateway:
        assert gateway.chat()[0] == 200
        for unknown in (signer.client(), signer.client(stranger)):
            gateway.trusts = unknown
            with pytest.raises((ssl.SSLError, ConnectionError)):
                gateway.chat()


@pytest.mark.process
def test_a_renewed_certificate_is_used_for_new_connections(
    tmp_path: Path, engine: EngineProcess, signer: Authority
) -> None:
    files, other = files_of(signer), authority(tmp_path / "other")
    with running_gateway(tmp_path, [engine.url], tls=files, trusts=signer.client()) as gateway:
        assert gateway.chat()[0] == 200
        for made, used in zip(other.sign("localhost"), (files.certificate, files.key), strict=True):
            shutil.copy(made, used)
        gateway.trusts = other.client()
        deadline_s = time.monotonic() + 20
        while True:
            try:
                assert gateway.chat()[0] == 200
                break
            except ssl.SSLError:
                assert time.monotonic() < deadline_s


def test_files_that_do_not_fit_together_change_nothing(tmp_path: Path) -> None:
    signer = authority(tmp_path)
    files = files_of(signer)
    certificate = Certificate(files)
    assert not certificate.look()
    shutil.copy(signer.sign("else")[0], files.certificate)
    assert not certificate.look()  # the key is still the old one's
    shutil.copy(signer.folder / "else.key", files.key)
    assert certificate.look()


@pytest.mark.parametrize("fault", ["absent", "empty", "no key", "another's key"])
def test_a_certificate_that_is_no_use_is_said_at_once(tmp_path: Path, fault: str) -> None:
    signer = authority(tmp_path)
    files = files_of(signer)
    match fault:
        case "absent":
            files.certificate.unlink()
        case "empty":
            files.certificate.write_text("")
        case "no key":
            files.key.write_text("no key")
        case _:
            shutil.copy(signer.sign("else")[1], files.key)
    with pytest.raises(ConfigError, match="cannot be used") as refused:
        context(files)
    assert "--tls-cert" in refused.value.next_step


def test_a_key_with_a_password_asks_no_terminal(tmp_path: Path) -> None:
    files = files_of(authority(tmp_path))
    locked = tmp_path / "locked.key"
    argv = ["openssl", "ec", "-in", str(files.key), "-aes128", "-passout", "pass:word", "-out", str(locked)]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    with pytest.raises(ConfigError):
        context(TlsFiles(certificate=files.certificate, key=locked))


def test_clients_cannot_be_known_by_what_is_no_certificate(tmp_path: Path) -> None:
    files = files_of(authority(tmp_path))
    (tmp_path / "none.pem").write_text("none")
    with pytest.raises(ConfigError, match="--tls-client-ca"):
        context(
            TlsFiles(certificate=files.certificate, key=files.key, client_authority=tmp_path / "none.pem")
        )
