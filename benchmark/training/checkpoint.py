"""The files of a training: checkpoints, the log, and what a step that is not finite leaves."""

import json
import os
from pathlib import Path
from typing import IO, Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.method import Method

LAST, BEST, RESUME, LOG = "last.safetensors", "best.safetensors", "resume.safetensors", "log.jsonl"


STEPS = "steps"


FINITE, NOT_FINITE = "finite.safetensors", "finite.json"
"""The weights before a step whose loss is not finite, and what that step was."""


def load_weights(method: Method, path: Path) -> None:
    """The weights of a finished training into a method that is set up, left in its last stage."""
    for stage in method.stages():
        method.enter(stage)
    method.load_state_dict(load_file(path))


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them (tied weights do)."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


def _truncate(log: IO[str], step: int) -> None:
    """Drop the lines of steps after the checkpoint, which are about to be done again, and a half-written one."""
    log.seek(0)
    kept = []
    for line in log:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            break
    log.seek(0)
    log.truncate()
    log.writelines(kept)
    log.flush()
