"""Whole commands beside those of peers: a training with open_clip's main, an evaluation with clip_benchmark, start-up.

Both read the same files, with models of the same size and random weights; every run is a process of its own.
"""

import gzip
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch

from benchmark.perf.data import FINDINGS, made_once, picture, sentence, temporary_folder
from benchmark.perf.measure import Side, Stopwatch, Taken, installed
from benchmark.perf.training import bare_training

BENCH = (sys.executable, "-c", "from benchmark.cli.main import main; main()")
PYTHON = (sys.executable, "-c")
COMMANDS = (sys.executable, "-m", "benchmark.perf.commands")
MERGES = 510
"""With 256 bytes, each at the end of a word or not, and two marks: 1,024 tokens, as many as the harness learns."""


WATCH = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(child.pid, 0)
wall, scale = time.perf_counter() - began, 1 if sys.platform == "darwin" else 1024
taken = {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "memory": used.ru_maxrss * scale}
with open(sys.argv[1], "w") as file:
    json.dump(taken | {"status": os.waitstatus_to_exitcode(status)}, file)
"""
"""A small process between this one and a command: the command's peak of memory begins with that of its parent."""


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Taken:
    """Run a command in a folder; return its seconds and the memory of its largest process.

    Raises ``RuntimeError`` with the last line of what it printed if it fails.
    """
    # Without a network, nothing may wait for one. Peers have their bytecode; ours is written at first.
    fixed = {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "", "TQDM_DISABLE": "1", "COLUMNS": "200"}
    with TemporaryDirectory() as own, TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        subprocess.run(
            (sys.executable, "-S", "-E", "-c", WATCH, f"{own}/taken.json", *command),
            cwd=folder,
            env={**os.environ, **fixed, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        taken = json.loads(Path(own, "taken.json").read_text(encoding="utf-8"))
        if taken.pop("status"):
            output.seek(0)
            raise RuntimeError(f"{command[-1]}: {(output.read().strip() or 'no output').splitlines()[-1]}")
    return {"cpu": taken["cpu"], "wall": taken["wall"], "memory": taken["memory"]}


def _suite(folder: Path, name: str, settings: Mapping[str, Any]) -> None:
    (folder / f"{name}.yaml").write_text(json.dumps(settings), encoding="utf-8")


RETRIEVAL = {
    "model": "tiny",
    "pretraining": ["set.yaml"],
    "datasets": ["set.yaml"],
    "methods": ["clip"],
    "tasks": ["retrieval"],
    "baselines": False,
}
"""A suite without its training: clip on a set, with retrieval on its test split."""


def _manifest(folder: Path, rows: Sequence[Mapping[str, str]], side: int) -> None:
    """Write a set of JPEGs with ``side`` pixels, and its card."""
    (folder / "images").mkdir()
    for number, row in enumerate(rows):
        picture(number, side).save(folder / row["image"], quality=90)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    columns = {"image": "image", "text": "text", "split": "split"}
    _suite(folder, "set", {"source": {"kind": "manifest", "file": "rows.jsonl", "columns": columns}})


def _cores(images: int) -> str:
    """Return the workers of a peer's loader: a few images, as of a test, are not worth a process."""
    return str(os.cpu_count() or 1) if images >= 64 else "0"


def job(scale: float) -> tuple[Side, Side, Side, Side]:
    """Build a training of clip with retrieval at the end: 512 JPEGs of 512 pixels, 64 to test on, 5 epochs, 64 a batch.

    The peer: open_clip's main with a model of the same widths, depths and vocabulary, and validation at the end.
    """
    from PIL import Image

    pairs, side, batch_size = max(8, round(512 * scale)), max(64, round(512 * scale)), max(4, round(64 * scale))
    epochs = max(1, round(5 * scale))
    own, fresh = temporary_folder(), count()
    rows = [
        {"image": f"images/{number}.jpg", "text": sentence(number), "split": "train" if number < pairs else "test"}
        for number in range(pairs + batch_size)
    ]
    training = {
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch": batch_size,
        "learning_rate": 5e-4,
        "weight_decay": 0.1,
        "gradient_clip": 0,
        "validations": 0,
        "augmentation": {"crop_scale": [0.9, 1], "crop_ratio": [0.75, 1.3333]},
    }

    def write(folder: Path) -> None:
        _manifest(folder, rows, side)
        _suite(folder, "job", {**RETRIEVAL, "training": training})
        for split in ("train", "test"):
            lines = [f"{row['image']}\t{row['text']}" for row in rows if row["split"] == split]
            (folder / f"{split}.tsv").write_text("\n".join(["filepath\ttitle", *lines]), encoding="utf-8")

    folder = made_once(write)

    def ours(cache: str) -> Taken:
        results = str(own / f"results {next(fresh)}")
        command = (*BENCH, "run", "--suite", "job.yaml", "--device", "cpu", "--results", results)
        return run(command, folder, {"BENCH_CACHE": str(own / cache)})

    def peer() -> Taken:
        installed("open_clip_torch")
        model = _open_clip_config(own)
        options: dict[str, object] = {
            "model": "like-tiny",
            "dataset-type": "csv",
            "train-data": "train.tsv",
            "val-data": "test.tsv",
            "val-frequency": epochs,
            "epochs": epochs,
            "batch-size": batch_size,
            "workers": _cores(pairs),
            "lr": 5e-4,
            "wd": 0.1,
            "beta1": 0.9,
            "beta2": 0.98,
            "eps": 1e-6,
            "warmup": max(1, epochs * (pairs // batch_size) // 10),
            "precision": "fp32",
            "device": "cpu",
            "save-frequency": epochs,
            "logs": str(own / "logs"),
            "name": f"run {next(fresh)}",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return run((*PYTHON, OPEN_CLIP, str(model), *arguments), folder)

    bare = bare_training(pairs, epochs, batch_size)

    def limit() -> Taken:
        started = run((*PYTHON, "import torch"), folder)
        watch = Stopwatch().start()
        for row in rows:
            with Image.open(folder / row["image"]) as file:
                file.draft("RGB", (64, 64))
                file.convert("RGB").resize((64, 64))
        bare()
        return _sum(started, watch.stop())

    return (lambda: ours(f"cache {next(fresh)}")), (lambda: ours("cache")), peer, limit


OPEN_CLIP = (
    "import sys, open_clip; open_clip.add_model_config(sys.argv[1]); "
    "from open_clip_train.main import main; main(sys.argv[2:])"
)


def _sum(one: Taken, other: Taken) -> Taken:
    return {
        "cpu": one["cpu"] + other["cpu"],
        "wall": one["wall"] + other["wall"],
        "memory": max(one["memory"], other["memory"]),
    }


def _open_clip_config(folder: Path) -> Path:
    """Write open_clip's configuration of a model like ``tiny``; return its path.

    Its vocabulary begins like open_clip's.
    """
    from open_clip.tokenizer import default_bpe

    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    merges = folder / "merges.txt.gz"
    merges.write_bytes(gzip.compress("\n".join(lines[: MERGES + 1]).encode()))
    config = {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "head_width": 32, "patch_size": 16},
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 514 + MERGES,
            "width": 128,
            "heads": 4,
            "layers": 2,
            "tokenizer_kwargs": {"bpe_path": str(merges)},
        },
    }
    path = folder / "like-tiny.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


# Evaluation

SETS = ("a", "b", "c")
SPLITS = {"train": 100, "val": 50, "test": 100}
"""Images of each set."""
KINDS = ("classification", "retrieval")
PROMPT = "a picture of {}"
SHARDS = 4
"""Of each split: no worker may be without one."""
OWN_TASKS = ["zero_shot", "retrieval", "linear_probe"]
LOCAL_MODEL = "local-dir:model"


def evaluation(scale: float) -> tuple[Side, Side, Side, Side, Side]:
    """Build three tasks on three sets of 250 JPEGs of 256 pixels in tar shards, by a small vision transformer.

    The peer: clip_benchmark, with its search for the probe's weight decay on the validation split; its probe asks for a
    GPU, so what it calls of CUDA is replaced by the CPU.
    """
    own, fresh = temporary_folder(), count()
    counts = {split: max(10, round(images * scale)) for split, images in SPLITS.items()}
    suite = {
        "pretraining": [f"{SETS[0]}.yaml"],
        "methods": ["clip"],
        "datasets": [f"{name}.yaml" for name in SETS],
        "tasks": OWN_TASKS,
        "baselines": False,
        "training": {"steps": 1},
    }

    def write(folder: Path) -> None:
        for number, name in enumerate(SETS):
            _shards(folder, name, counts, max(64, round(256 * scale)), 10_000 * number)
        _model(folder / "model", max(64, round(224 * scale)))
        _suite(folder, "evaluation", suite)

    folder = made_once(write)

    def ours(results: str, cache: str) -> Taken:
        command = (*BENCH, "eval", "--suite", "evaluation.yaml", "--device", "cpu", "--results", str(own / results))
        return run((*command, "--model", f"open_clip:{LOCAL_MODEL}"), folder, {"BENCH_CACHE": str(own / cache)})

    def cold() -> Taken:
        number = next(fresh)
        return ours(f"results {number}", f"cache {number}")

    def warm() -> Taken:
        number = next(fresh)
        return ours(f"results {number}", "cache")

    def peer(features: str) -> Taken:
        installed("clip_benchmark")
        installed("webdataset")
        workers = str(min(SHARDS, int(_cores(counts["test"]))))
        return run((*COMMANDS, "clip_benchmark", str(own / features), LOCAL_MODEL, "64", workers, *SETS), folder)

    return (
        cold,
        warm,
        lambda: peer(f"features {next(fresh)}"),
        lambda: peer("features"),
        lambda: run((*COMMANDS, "encode_once", LOCAL_MODEL, *SETS), folder),
    )


def _shards(folder: Path, name: str, counts: Mapping[str, int], side: int, first: int) -> None:
    """Write a set of classes and captions as tar shards, with the files that clip_benchmark wants beside them."""
    for split, images in counts.items():
        for shard in range(SHARDS):
            numbers = range(first + shard, first + images, SHARDS)
            data = _shard(numbers, side, f"{split} {name}")
            for kind in KINDS:
                path = folder / kind / name / split / f"{shard}.tar"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        first += images
    templates = "zeroshot_classification_templates.txt"
    for kind in KINDS:
        texts = {"dataset_type.txt": kind, "classnames.txt": "\n".join(FINDINGS), templates: PROMPT.format("{c}")}
        texts |= {f"{split}/nshards.txt": str(SHARDS) for split in counts}
        for file, text in texts.items():
            (folder / kind / name / file).write_text(text, encoding="utf-8")
    shards = {split: [f"{KINDS[0]}/{name}/{split}/*.tar"] for split in counts}
    columns = {"image": "image", "text": "txt", "label": "cls", "id": "key"}
    source = {"kind": "webdataset", "shards": shards, "columns": columns}
    _suite(folder, name, {"classes": list(FINDINGS), "prompts": [PROMPT], "source": source})


def _shard(numbers: Iterable[int], side: int, where: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for number in numbers:
            buffer = io.BytesIO()
            picture(number, side).save(buffer, "JPEG", quality=90)
            text, label = f"{sentence(number)} of {where}", str(number % len(FINDINGS))
            for suffix, content in (("jpg", buffer.getvalue()), ("cls", label.encode()), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def _model(folder: Path, size: int) -> None:
    """Write a folder of open_clip with random weights: a ViT of 12 layers, width 192, and a text tower of 6 layers."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 192,
        "vision_cfg": {"image_size": size, "layers": 12, "width": 192, "head_width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 6},
    }
    folder.mkdir()
    written = folder.parent / "small.json"
    written.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(written)
    logging.disable(logging.WARNING)  # that weights are random
    torch.manual_seed(0)
    model = open_clip.create_model("small")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"size": [size, size], "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}
    preprocess |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    whole = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(whole), encoding="utf-8")


# Start-up


def start_up(scale: float) -> tuple[Side, Side, Side, Side, Side]:
    """Build what a user waits for before anything is computed: a list, a plan, and a run that is finished."""
    rows = [{"image": f"images/{n}.jpg", "text": sentence(n), "split": ("train", "test")[n % 2]} for n in range(16)]
    training = {"steps": 1, "batch_size": 8, "micro_batch": 8, "validations": 0}

    def write(folder: Path) -> None:
        _manifest(folder, rows, 64)
        _suite(folder, "finished", {**RETRIEVAL, "training": training})

    folder, own = made_once(write), temporary_folder()

    def side(*command: str) -> Side:
        return lambda: run(command, folder, {"BENCH_CACHE": str(own / "cache"), "BENCH_RESULTS": str(own / "results")})

    return (
        side(*BENCH, "list", "methods"),
        side(*BENCH, "plan", "--device", "cpu"),
        side(*BENCH, "run", "--suite", "finished.yaml", "--device", "cpu"),
        side(*PYTHON, "import open_clip"),
        side(*PYTHON, "import torch"),
    )
