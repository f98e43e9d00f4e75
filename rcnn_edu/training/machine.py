"""What figures were measured on: whoever compares them wants to know."""

import datetime
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import torchvision


def describe_machine() -> dict[str, Any]:
    """Return the date, the versions, the processor, and the code's commit where there is one."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or an installed package
        return "unknown"


def _cpu_model() -> str:
    linux = Path("/proc/cpuinfo")
    if linux.exists():
        for line in linux.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
