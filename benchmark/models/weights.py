"""Read and write files of weights, and load them from the hub."""

import codecs
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmark.common.errors import BenchError, listed, reading_failed
from benchmark.common.hub import causes, hub_answers, one_line
from benchmark.models.loading import compared, require_whole
from benchmark.store.files import commit, follow_umask

NO_TENSORS = "found something other than names and tensors"


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the parameters and buffers of a model as safetensors. The file is complete, or it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors. The file is complete, or it is not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata)
        follow_umask(partial)
        commit(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load the weights that save_weights() wrote into a model of the same architecture.

    Raises ``BenchError`` naming the file and the first tensors that are missing, unexpected or of another shape. The
    model is unchanged then.
    """
    load_state(model, read_tensors(path), f"weights {path}")


def load_state(model: nn.Module, state: Mapping[str, Tensor], what: str, instead: str = "") -> None:
    """Load tensors into a model of the same architecture. Raises ``BenchError`` as require_whole() does.

    what: where they are from. The model is unchanged if it raises.
    """
    require_whole(compared(model, state), what, "dual encoder", strict=True, instead=instead)
    model.load_state_dict(state, strict=False)


def require_file(path: str | Path, expected: str) -> None:
    """Raise ``BenchError`` if the weights file does not exist."""
    if Path(path).is_dir():
        raise BenchError(f"weights {path}: a folder; expected {expected}, or the folder as name: local-dir:{path}")
    if not Path(path).is_file():
        raise BenchError(f"weights {path}: no such file (expected {expected})")


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Run a block that reads a file of weights.

    Raises ``BenchError`` if the file does not exist, is damaged, contains anything but tensors, or is not what was
    ``expected``.
    """
    require_file(path, expected)
    try:
        yield
    except pickle.UnpicklingError as error:
        raise BenchError(
            f"weights {path}: contains more than tensors, or is damaged, and is not read; save it as safetensors"
        ) from error
    except (AttributeError, StopIteration) as error:
        raise BenchError(f"weights {path}: expected {expected}, {NO_TENSORS}") from error
    except BenchError:
        raise
    except Exception as error:  # torch's reader raises whatever its parsers do
        raise reading_failed(f"weights {path}: expected {expected}: {one_line(error)}", error) from error


def read_tensors(path: str | Path, expected: str = "a state dict") -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pt, .pth or .bin file, without running any code in it.

    The weights in a training checkpoint are found (``state_dict``, ``model``), and the prefix of a distributed run is
    removed. Raises ``BenchError`` as reading() does.
    """
    with reading(path, expected):
        if Path(path).suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_counters()):
                state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise BenchError(f"weights {path}: expected {expected}, {NO_TENSORS}")
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise BenchError(f"weights {path}: expected {expected}, {NO_TENSORS} ({listed(others)})")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _counters() -> list[Any]:
    """What NumPy's numbers are saved as: training checkpoints have such losses and epochs beside the weights."""
    kinds = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")]
    # The module's older name is that of checkpoints from NumPy 1.
    return [np.dtype, *kinds, codecs.encode, scalar, (scalar, "numpy.core.multiarray.scalar")]


@contextmanager
def hub(wanted: str, instead: str, local: bool = False) -> Iterator[None]:
    """Run a block that loads files from the Hugging Face hub or its cache.

    Without network the libraries try for up to a minute and fail with a long traceback. Here the hub is asked once, and
    then only the cache is read. local: the files are in a folder, so the hub is not asked at all.

    Raises ``BenchError`` in one line: what was ``wanted``, why it failed, and what to do ``instead``.
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
        if any(isinstance(cause, pickle.UnpicklingError) for cause in causes(error)):
            place = "its weights hold more than tensors, or are damaged, and are not read"
            instead = "save them as safetensors"
        elif constants.HF_HUB_OFFLINE and any(isinstance(cause, absent) for cause in causes(error)):
            place = f"not in the cache {constants.HF_HUB_CACHE}, and the hub cannot be reached"
        else:
            place = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise BenchError(f"{wanted}: {place}; {instead}") from error
    finally:
        constants.HF_HUB_OFFLINE = before
