"""Folders of models: which library wrote one, the files that its outputs depend on, and those of the hub."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from benchmark.common.errors import BenchError, listed
from benchmark.models.weights import hub
from benchmark.store.hashing import file_digest

Layout = Literal["open_clip", "timm", "adapter", "transformers"]
OPEN_CLIP, CONFIG, ADAPTER = "open_clip_config.json", "config.json", "adapter_config.json"
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
READ = (".json", ".txt", ".model", ".safetensors", ".bin")
"""Suffixes of the files of a repository of the hub that models and tokenizers are read from."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ``BenchError`` naming the file."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(config, dict):
        raise BenchError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def layouts(folder: Path) -> list[Layout]:
    """Tell by its files which libraries can read a folder: some hold a model in two layouts."""
    kinds: list[Layout] = ["open_clip"] if (folder / OPEN_CLIP).is_file() else []
    if (folder / ADAPTER).is_file():
        kinds.append("adapter")
    elif (folder / CONFIG).is_file():
        config = read_config(folder / CONFIG)
        kinds += ["transformers"] if "model_type" in config else ["timm"] if "architecture" in config else []
    return kinds


def written_as(folder: Path) -> str:
    """What ``--model`` takes for a folder, or what is in it where it has no known layout; for messages."""
    forms = {"open_clip": "open_clip:local-dir:", "timm": "timm:", "adapter": "hf:", "transformers": "hf:"}
    kinds = layouts(folder)
    return f"write --model {forms[kinds[0]]}{folder}" if kinds else f"it is of no known layout, with {contents(folder)}"


def contents(folder: Path) -> str:
    """The names of a folder's files, for messages."""
    return listed(sorted(path.name for path in folder.iterdir()))


def require_weights(folder: Path, expected: str) -> None:
    """Raise ``BenchError`` for a folder without any file of weights, or without one that its index names."""
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        raise BenchError(f"model folder {folder}: no weights; expected {expected}, found {contents(folder)}")
    for index in sorted(folder.glob("*.index.json")):
        shards = sorted({str(name) for name in dict(read_config(index).get("weight_map") or {}).values()})
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise BenchError(
                f"model folder {folder}: {len(missing)} of {len(shards)} files of weights that {index.name} names "
                f"are missing ({listed(missing)}); copy the whole folder again"
            )


def base_of(folder: Path) -> Path | None:
    """Return the folder of the model that an adapter of peft changes; None for a folder that is no adapter.

    Raises ``BenchError`` for one that names no model, or a model that is not here and not on the hub.
    """
    if "adapter" not in layouts(folder):
        return None
    config = read_config(folder / ADAPTER)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    where = f"{folder / ADAPTER}: base_model_name_or_path"
    if not name:
        raise BenchError(f"{where} is empty; write the folder or the hub name of the model that the adapter changes")
    for path in (folder / name, Path(name)):
        if path.is_dir():
            return path
    if not HUB_NAME.fullmatch(name):
        raise BenchError(f"{where} is '{name}', which is no folder; write the folder of the adapter's model")
    instead = f"set base_model_name_or_path in {folder / ADAPTER} to a folder"
    return hub_folder(f"{name}@{revision}" if revision else name, instead)


def hub_folder(name: str, instead: str = "download it where there is a network, or name a folder") -> Path:
    """Return the folder in the hub's cache with the files of a model; downloads what is missing.

    name: ``ORG/NAME`` or ``ORG/NAME@REVISION``. Raises ``BenchError`` saying what to do ``instead``.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    repository, _, revision = name.partition("@")
    with hub(f"model '{name}'", instead):
        ignored = ["*/*"]
        if not constants.HF_HUB_OFFLINE:
            names = HfApi().list_repo_files(repository, revision=revision or None)
            if any(PurePosixPath(file).suffix == ".safetensors" for file in names):
                ignored.append("*.bin")
        read = [f"*{suffix}" for suffix in READ]
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=read, ignore_patterns=ignored)
        )


def file_hashes(folder: Path, of_hub: bool = False) -> dict[str, str]:
    """Hash everything that the outputs of a model in a folder depend on, by the name below the folder.

    That is each file, also in sub-folders, and the model that an adapter changes. of_hub: whether it is hub_folder()'s,
    which has more or less of a repository on each machine: then only the files that are read.
    Raises ``BenchError`` where there is no folder.
    """
    if not folder.is_dir():
        raise BenchError(f"model folder {folder}: no such folder")
    hashes = {str(PurePosixPath(path.relative_to(folder))): file_digest(path) for path in _files(folder, of_hub)}
    base = base_of(folder)
    if base is not None:
        of_base = file_hashes(base, base.parent.name == "snapshots")
        hashes |= {f"base model: {name}": value for name, value in of_base.items()}
    for block in ("text_cfg", "vision_cfg"):
        # open_clip reads the tokenizer, and the architecture, of a text model of transformers from a folder of its own.
        hashes |= _named_folders(folder, block)
    return hashes


def _files(folder: Path, of_hub: bool) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    if not of_hub:
        return files
    read = [path for path in files if path.suffix in READ and path.parent == folder]
    safe = any(path.suffix == ".safetensors" for path in read)
    return [path for path in read if not (safe and path.suffix == ".bin")]


def _hidden(path: Path) -> bool:
    """Whether a file lies in a hidden folder, as version control and downloads keep for themselves."""
    return any(part.startswith(".") for part in path.parts[:-1])


def _named_folders(folder: Path, block: str) -> dict[str, str]:
    if not (folder / OPEN_CLIP).is_file():
        return {}
    settings = (read_config(folder / OPEN_CLIP).get("model_cfg") or {}).get(block) or {}
    named = {key: Path(value) for key, value in settings.items() if isinstance(value, str) and value}
    return {
        f"{block}.{key}: {name}": value
        for key, path in named.items()
        if path.is_dir() and path.resolve() != folder.resolve()
        for name, value in file_hashes(path).items()
    }


def check_open_clip_folder(folder: Path, weights: bool = True) -> None:
    """Raise ``BenchError`` for a folder without open_clip's configuration, or without ``weights``."""
    if not folder.is_dir():
        raise BenchError(f"model folder {folder}: no such folder")
    if "open_clip" not in layouts(folder):
        raise BenchError(f"model folder {folder}: no {OPEN_CLIP}, so open_clip did not write it; {written_as(folder)}")
    if weights:
        require_weights(folder, "open_clip_model.safetensors or open_clip_pytorch_model.bin")
