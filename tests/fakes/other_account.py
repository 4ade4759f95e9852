"""What somebody else on the same machine may try: a few lines of Python, run as another account."""

import os
import subprocess
import sys

import pytest

UID = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
_BECOME = f"import json, os, socket, sys\nos.setgroups([]); os.setgid({UID}); os.setuid({UID})\n"
"""With all that it needs imported: it may not read where Python lies."""


def tries(program: str, *arguments: str) -> str:
    """What it prints."""
    argv = [sys.executable, "-I", "-c", _BECOME + program, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def begins(program: str, *arguments: str) -> "subprocess.Popen[str]":
    """A program that goes on; the test ends it."""
    argv = [sys.executable, "-I", "-c", _BECOME + program, *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
