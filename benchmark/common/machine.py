"""What machine and versions a result was made with."""

import os
import platform
from functools import cache
from importlib.metadata import version

import torch

_PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "numpy", "scikit-learn")


@cache
def machine() -> dict[str, str | int]:
    """Processor, cores in use, accelerator, system and package versions; nothing that identifies the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
