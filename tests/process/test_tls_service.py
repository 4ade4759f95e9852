"""The whole service over HTTPS."""

import http.client
import json
from contextlib import closing
from pathlib import Path

import pytest

from autoglm_serve.core.errors import ExitCode
from tests.fakes.certificates import authority
from tests.process.service_process import running_service
from tests.process.test_service import autoglm

pytestmark = pytest.mark.process


def test_one_flag_more_and_it_speaks_tls(tmp_path: Path) -> None:
    signer = authority(tmp_path / "authority")
    certificate, key = signer.sign("localhost")
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key), "--replicas", "1")
    with running_service(*flags) as service:
        assert service.url.startswith("https://")
        connection = http.client.HTTPSConnection("localhost", service.port, context=signer.client())
        with closing(connection):
            body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            assert connection.getresponse().status == 200


def test_a_certificate_that_is_no_use_ends_the_start_in_words(tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    done = autoglm("serve", "--tls-cert", str(none), "--port", "0")
    assert done.returncode == ExitCode.CONFIG
    assert f"{none}: No such file" in done.stderr
    assert "--tls-key" in done.stderr
