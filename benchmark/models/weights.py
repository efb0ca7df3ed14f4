"""Weights: reading and writing files of tensors, and reaching those that lie on the hub."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmark.common.errors import BenchError
from benchmark.common.hub import causes, hub_answers


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the model's parameters and buffers as safetensors; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, part)
    os.replace(part, path)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read what save_weights() wrote into a model of the same architecture.

    Raises BenchError naming the file and the first tensor that is missing, unexpected or of another shape; the model is
    then unchanged.
    """
    state = read_tensors(path)
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise BenchError(f"{path}: tensor '{name}' is missing, which the model has")
        if state[name].shape != tensor.shape:
            found, expected = list(state[name].shape), list(tensor.shape)
            raise BenchError(f"{path}: tensor '{name}' has shape {found}, the model's has {expected}")
    for name in state:
        if name not in own:
            raise BenchError(f"{path}: tensor '{name}' is not one of the model's")
    model.load_state_dict(state)


def require_file(path: str | Path, expected: str) -> None:
    """Raise BenchError when the file of weights is not there."""
    if not Path(path).is_file():
        raise BenchError(f"weights {path}: no such file (expected {expected})")


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Run a block that reads a file of weights. Raises BenchError when it is not there, is damaged, has anything but
    tensors in it, or is not what was ``expected``.
    """
    require_file(path, expected)
    try:
        yield
    except pickle.UnpicklingError as error:
        raise BenchError(
            f"weights {path}: has more in it than tensors, or is damaged, and is not read; save it as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"weights {path}: expected {expected}: {reason[:300]}") from error


def read_tensors(path: str | Path, expected: str = "a state dict") -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pt, .pth or .bin file, which is read without running any code in it.

    A training checkpoint is opened (``state_dict``, ``model``), and the prefix of a distributed run taken off.
    Raises BenchError as reading() does.
    """
    with reading(path, expected):
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BenchError(f"weights {path}: expected {expected}: found something else than names and tensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


@contextmanager
def hub(what: str, instead: str, local: bool = False) -> Iterator[None]:
    """Run a block that finds files on the Hugging Face hub or in its cache; ``local``: in a folder, so that the hub is
    left alone.

    Without network the libraries try for up to a minute and fail with a long trace; here the hub is asked once, then
    only the cache is read. Raises BenchError in one line: what was looked for, where, and what to do ``instead``.
    """
    from huggingface_hub import constants, errors

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or local or not hub_answers()
    absent = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.EntryNotFoundError)
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        if constants.HF_HUB_OFFLINE and any(isinstance(cause, absent) for cause in causes(error)):
            place = f"not in the cache {constants.HF_HUB_CACHE}, and the hub cannot be reached"
        else:
            place = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise BenchError(f"{what}: {place}; {instead}") from error
    finally:
        constants.HF_HUB_OFFLINE = before
