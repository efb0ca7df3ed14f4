"""The files of a training: checkpoints, the log, and the report of a step whose loss is not finite."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from benchmark.common.errors import cut
from benchmark.config.training import AVERAGE, checkpoint_at
from benchmark.method import METHODS, Method
from benchmark.models.weights import load_state, write_tensors
from benchmark.store.files import SEAL, DamagedError, read_record, set_aside, write_json, write_record, write_whole
from benchmark.training.accumulation import NotFiniteError
from benchmark.training.average import WeightAverage

LAST, BEST, RESUME, LOG = "last.safetensors", "best.safetensors", "resume.safetensors", "log.jsonl"
COST = "cost.json"
"""What a training cost, written when it has reached its end."""
STEPS = "steps"
"""The file with the number of steps of a time budget, so that a resumed training keeps its schedule."""
TEMPORARY = (RESUME, STEPS)
"""The files that a finished cell does not need. They go once it is whole: until then they can spare the training."""
FROM_THE_START = "the training starts from the beginning"
FINITE, NOT_FINITE = "finite.safetensors", "finite.json"
"""The weights before a step whose loss is not finite, and the report of that step."""


def load_weights(method: Method, path: Path) -> None:
    """Load the weights of a finished training into a method after setup(), and leave it in its last stage.

    Raises ``BenchError`` for weights that do not fit the method's current code.
    """
    for stage in method.stages():
        method.enter(stage)
    load_method(method, load_file(path), path)


def load_method(method: Method, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of a method from a file of its training. Raises ``BenchError`` for those of other code."""
    instead = f"they do not fit the current code of method '{method.name}': remove the folder and train again"
    load_state(method, state, f"weights {path}", instead)


def save_cost(folder: Path, cost: Mapping[str, Any]) -> None:
    """Write what a training cost, to a file that is complete or absent."""
    write_record(folder / COST, cost)


def read_cost(folder: Path) -> dict[str, Any] | None:
    """Read what save_cost() wrote; None if the training had not reached its end.

    If weights are damaged since, the file is set aside: the training goes on from the checkpoint before.
    """
    if not (folder / COST).is_file():
        return None
    try:
        cost = read_record(folder / COST, dict, "the training goes on from the checkpoint before").content
        check_weights(folder / LAST)
        for path in folder.glob("*.safetensors"):
            if path.name not in (*TEMPORARY, FINITE):
                check_weights(path)
    except DamagedError as error:
        set_aside(folder / COST, error)
        return None
    return dict(cost)


def save_weights(method: Method, path: Path) -> None:
    """Write all weights and buffers of a method to a file that is complete or absent."""
    _write_weights(path, _detached(method.state_dict()))


def save_checkpoint(method: Method, average: WeightAverage | None, path: Path) -> None:
    """Write the weights of a method, and beside them their moving average if there is one."""
    save_weights(method, path)
    if average is not None:
        _write_weights(path.with_stem(path.stem + AVERAGE), _detached(average.state_dict()))


def check_weights(path: Path) -> None:
    """Raise ``DamagedError`` if weights that save_checkpoint() wrote are gone or not what was written."""
    for each in (path, *([average] if (average := path.with_stem(path.stem + AVERAGE)).exists() else [])):
        try:
            with safe_open(each, "pt") as file:
                seal = (file.metadata() or {}).get(SEAL)
                whole = seal is None or seal == _digest({n: file.get_tensor(n) for n in file.keys()}, {})  # noqa: SIM118
        except FileNotFoundError:
            raise DamagedError(each, "is missing", FROM_THE_START) from None
        except SafetensorError as error:
            raise DamagedError(each, f"is damaged ({cut(str(error))})", FROM_THE_START) from None
        if not whole:
            raise DamagedError(each, "is damaged: it is not what was written", FROM_THE_START)


class Reached(TypedDict):
    """How far a training was when a checkpoint was kept: pairs trained on, and seconds of steps and validations."""

    samples: int
    seconds: float


@dataclass
class Position:
    """The state of a training between two steps, apart from tensors.

    stage: the current one. step: steps done. seconds: spent in steps and validations. best: the lowest validation
    loss of the stage, infinite before the first. last_validation: the latest validation loss, NaN before the first.
    peak_memory: of a step, in bytes, 0 before it was measured. capacity: of the ``Division``, 0 for a set micro-batch.
    """

    stage: str
    step: int
    seconds: float
    best: float
    last_validation: float
    peak_memory: int
    capacity: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to resume from, as written by ``save_resume``.

    method: its state dict. optimizer: its state by the number of the parameter. average: the moving average by the
    name of the weight, empty if there is none.
    """

    position: Position
    method: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    average: dict[str, Tensor]


def save_resume(
    folder: Path, method: Method, optimizer: torch.optim.Optimizer, average: WeightAverage | None, position: Position
) -> None:
    """Write everything that a training needs to resume from ``position``."""
    tensors = {f"method.{name}": tensor for name, tensor in _detached(method.state_dict()).items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in _detached(average.tensors).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in _detached(state).items()}
    metadata = {name: json.dumps(value) for name, value in asdict(position).items()}
    write_tensors(folder / RESUME, tensors, metadata | {SEAL: _digest(tensors, metadata)})


def read_resume(folder: Path, device: torch.device) -> Checkpoint | None:
    """Read the checkpoint of ``save_resume`` onto ``device``; None if there is nothing to resume.

    One that is damaged is set aside: the training starts from the beginning.
    """
    path = folder / RESUME
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        seal = metadata.pop(SEAL, None)
        if seal is not None and seal != _digest(tensors, metadata):
            raise DamagedError(path, "is damaged: it is not what was written", FROM_THE_START)
        position = Position(**{name: json.loads(value) for name, value in metadata.items()})
    except DamagedError as error:
        set_aside(path, error)
        return None
    except (SafetensorError, ValueError, TypeError) as error:
        set_aside(path, DamagedError(path, f"is damaged ({cut(str(error))})", FROM_THE_START))
        return None
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    method: dict[str, Tensor] = {}
    average: dict[str, Tensor] = {}
    optimizer: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "method":
            method[rest] = tensor
        elif owner == "average":
            average[rest] = tensor
        else:
            number, _, key = rest.partition(".")
            optimizer.setdefault(int(number), {})[key] = tensor
    return Checkpoint(position, method, optimizer, average)


def truncate_log(path: Path, step: int) -> None:
    """Drop the lines after ``step``, as their steps will be repeated, and an incomplete last line.

    The log becomes a new file: a process that was suspended may still have the old one open.
    """
    kept = []
    with path.open("a+", encoding="utf-8") as log:
        log.seek(0)
        for line in log:
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError:
                break
    write_whole(path, "".join(kept))


def reached(folder: Path, shares: Mapping[int, float]) -> dict[str, Reached]:
    """Read from the log how far a training was at some steps, by the names of the checkpoints that were kept there.

    shares: of the training, by the number of the step.
    """
    found: dict[str, Reached] = {}
    with (folder / LOG).open(encoding="utf-8") as log:
        for line in map(json.loads, log):
            if line["step"] in shares:
                name = checkpoint_at(shares[line["step"]])
                found[name] = Reached(samples=line["samples"], seconds=line["seconds"])
    return found


def keep_not_finite(folder: Path, method: Method, step: int, error: NotFiniteError, ids: list[str]) -> str:
    """Save the weights before a bad step and the ids of its batch; return the message for the user.

    Checkpoints are left alone: training the cell again resumes from the last one.
    """
    weights, report = folder / FINITE, folder / NOT_FINITE
    save_weights(method, weights)
    fields = {"step": step, "loss": error.loss, "gradient_norm": error.norm, "ids": ids}
    write_json(report, fields)
    some = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "")
    return (
        f"{METHODS.title(type(method))}, step {step}: {error} (expected finite numbers) on records {some}; "
        f"all {len(ids)} ids are in {report}, the last finite weights in {weights}"
    )


def _detached(state: dict[str, Any]) -> dict[str, Tensor]:
    """Copy tensors to the CPU so that none share memory (tied weights do), as safetensors requires."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hash tensors and metadata."""
    content = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def _write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    write_tensors(path, tensors, {SEAL: _digest(tensors, {})})
