"""What a failed download is told as, whatever the library wraps it in."""

import errno
import os

import pytest

from autoglm_serve.probe.hub_failures import explain


def wrapped(cause: Exception) -> Exception:
    try:
        raise RuntimeError("Data processing error") from cause
    except RuntimeError as problem:
        return problem


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "the disk is full: /cache/blob"),
        (errno.EDQUOT, "your quota of that disk is used up: /cache/blob"),
        (errno.EROFS, "the folder is on a disk that cannot be written to: /cache/blob"),
        (errno.EACCES, "you may not write there: /cache/blob"),
    ],
)
def test_what_this_machine_refuses_is_told_with_the_place(number: int, why: str) -> None:
    failure = explain(wrapped(OSError(number, os.strerror(number), "/cache/blob")))
    assert (failure.why, failure.here) == (why, True)
    assert "HF_HOME" in failure.next_step


@pytest.mark.parametrize(
    ("words", "remedy", "here"),
    [
        ("IO Error: No space left on device (os error 28)", "HF_HOME", True),
        ("Client error '401 Unauthorized' for url", "HF_TOKEN", True),
        ("403 Forbidden: you cannot access this", "hf auth login", True),
        ("429 Client Error: Too Many Requests", "Wait", False),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate in chain", "SSL_CERT_FILE", False),
        ("ProxyError: Cannot connect to proxy", "HTTPS_PROXY", False),
        ("[Errno -2] Name or service not known", "HF_ENDPOINT", False),
        ("The read operation timed out", "--hub modelscope", False),
    ],
)
def test_what_the_network_says_has_a_remedy_each(words: str, remedy: str, here: bool) -> None:
    failure = explain(wrapped(Exception(words)))
    assert remedy in failure.next_step
    assert failure.here is here


def test_what_nobody_knows_is_told_in_its_own_words() -> None:
    assert explain(ValueError("odd\nsecond line")).why == "odd"
