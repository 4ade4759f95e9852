"""What a figure was measured on."""

import os
import platform
import re
from pathlib import Path


def hardware() -> str:
    """Processors and Python, as every benchmark names them."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} x {name}, Python {platform.python_version()}"


def hardware_and_load() -> str:
    return f"{hardware()}, load average {os.getloadavg()[0]:.1f}"
