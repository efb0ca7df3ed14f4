"""The works of `bench perf`: the harness and a peer library on the same work, and the least that the work takes.

``python -m benchmark.perf.peers WORK SCALE SIDE`` serves one side of one work; see ``measure.py``.
"""

import io
import json
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from itertools import count as numbers
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from benchmark.common.errors import unknown
from benchmark.perf.data import made_once, picture, temporary_folder, tokenizer
from benchmark.perf.jobs import evaluation, job, start_up
from benchmark.perf.measure import Row, Side, Work, compared, installed, serve, side_command
from benchmark.perf.training import step
from benchmark.store.store import Store

if TYPE_CHECKING:
    from benchmark.data.batch import Batch
    from benchmark.data.loader import PairSet
    from benchmark.evaluation.evaluation import Evaluation


def training_step(scale: float) -> tuple[Side, Side]:
    """Build the gradient of clip's loss: in micro-batches, and over the whole batch at once.

    On the CPU: ``tiny``, 1,024 pairs in micro-batches of 64. On a GPU: ViT-B/16 in bf16, 512 pairs in micro-batches of
    128; smaller ones would be limited by kernel launches.
    """
    from benchmark.method import METHODS
    from benchmark.models import build_model, load_model_card
    from benchmark.perf.steps import random_batches
    from benchmark.training.accumulation import accumulate
    from benchmark.training.schedule import autocast

    on_gpu = _device().type == "cuda"
    name, size, part = ("vit-b-16", 512, 128) if on_gpu else ("tiny", 1024, 64)
    model = build_model(load_model_card(name), 0, weights=False)
    method = METHODS["clip"](model, METHODS["clip"].Config()).to(_device()).train()
    count, micro = max(8, round(size * scale)), max(4, round(part * scale))
    precision = "bf16" if on_gpu else "fp32"
    parts, whole = (random_batches(method, count, of, 77 if on_gpu else 32, _device()) for of in (micro, count))

    def gradient(batches: "list[Batch]") -> None:
        accumulate(method, batches, "cached", 0, lambda: autocast(precision, _device()))

    return (lambda: gradient(parts)), lambda: gradient(whole)


def probe(scale: float) -> tuple[Side, Side]:
    """Build a linear probe's logistic regressions, for all strengths, on 8,000 x 512 standardised features, 9 classes.

    Both sides come within 1e-6 nats of the minimum; with its default tolerance the peer stops up to 5e-4 above it.
    """
    from sklearn.linear_model import LogisticRegression

    from benchmark.evaluation.logistic import logistic_path
    from benchmark.task import TASKS

    n, d, classes = round(8000 * scale), max(16, round(512 * scale)), 9
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, d))
    label = rng.integers(classes, size=n)
    x = (centres[label] + 4 * rng.normal(size=(n, d))).astype(np.float64)
    x /= x.std(axis=0)
    config: Any = TASKS["linear_probe"].Config()
    strengths = config.strengths

    def peer() -> None:
        for strength in strengths:
            LogisticRegression(C=strength, tol=1e-6, max_iter=10_000).fit(x, label)

    features, labels = torch.from_numpy(x).to(_device()), torch.from_numpy(label).to(_device())
    return (lambda: logistic_path(features, labels, classes, strengths)), peer


def folds(scale: float) -> tuple[Side, Side]:
    """Build a linear probe with five folds: 8,012 examples of HAM10000's 7 classes, 512 features of a random network.

    The other side is the limit: the matrix products that these fits are made of, in the same precision, and nothing
    else.
    """
    from benchmark.evaluation.logistic import logistic_paths
    from benchmark.evaluation.probe import deviation
    from benchmark.task import TASKS

    n, d = max(200, round(8012 * scale)), max(16, round(512 * scale))
    rng = np.random.default_rng(0)
    label = rng.choice(7, n, p=np.array([327, 514, 1099, 115, 1113, 6705, 142]) / 10_015)
    x = 0.55 * rng.normal(size=(7, 40))[label] + rng.normal(size=(n, 40))
    for _ in range(2):
        x = np.maximum(x @ rng.normal(size=(x.shape[1], d)) / np.sqrt(x.shape[1]) + 0.3 * rng.normal(size=d), 0)
    features, labels = torch.from_numpy(x).to(_device()), torch.from_numpy(label).to(_device())
    parts = torch.ones(6, n, dtype=torch.bool, device=_device())
    for fold in range(5):
        parts[fold + 1, fold::5] = False
    scales = torch.stack([deviation(features[part]) for part in parts])
    config: Any = TASKS["linear_probe"].Config()

    def ours() -> None:
        logistic_paths(features, labels, 7, config.strengths, parts, scales)

    products = _products_of(ours)
    inputs = {dtype: features.to(dtype) for dtype in (torch.float32, torch.float64)}

    def limit() -> None:
        for (rows, dtype), count in products.items():
            x = inputs[dtype]
            weights = torch.ones(rows, x.shape[1], dtype=dtype, device=x.device)
            for _ in range(count):
                (weights @ x.T) @ x

    return ours, limit


def _products_of(fits: Side) -> "Counter[tuple[int, torch.dtype]]":
    """Count the gradients that fits take, by how many columns each has and its precision."""
    from benchmark.evaluation.logistic import Inputs

    counts: Counter[tuple[int, torch.dtype]] = Counter()
    sums = Inputs.sums

    def counted(self: Inputs, residual: torch.Tensor) -> torch.Tensor:
        counts[residual.shape[0] * residual.shape[1], residual.dtype] += 1
        return sums(self, residual)

    Inputs.sums = counted  # type: ignore[method-assign]
    try:
        fits()
    finally:
        Inputs.sums = sums  # type: ignore[method-assign]
    return counts


def retrieval(scale: float) -> tuple[Side, Side, Side]:
    """Build retrieval in both directions between 2,500 images and 12,500 texts, with embeddings of 512 dimensions.

    Ours: all metrics. The peer: recall@1, 5 and 10, in batches of 32. The limit: the products in float32.
    """
    from benchmark.task import TASKS

    n = round(2500 * scale)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(n, 512)).astype(np.float32)
    texts = np.repeat(images, 5, axis=0) + 3 * rng.normal(size=(5 * n, 512)).astype(np.float32)
    for matrix in (images, texts):
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    task = TASKS["retrieval"](TASKS["retrieval"].Config())
    data = _embedded(images, texts)

    def ours() -> None:
        list(task.evaluate(data, 0))

    class Embedded(torch.nn.Module):
        """An encoder that receives embeddings in place of pixels and tokens."""

        encode_image = encode_text = staticmethod(lambda embeddings: embeddings)

    batches = [range(start, min(start + 32, n)) for start in range(0, n, 32)]
    pairs = [(torch.from_numpy(images[list(rows)]), [range(5 * i, 5 * i + 5) for i in rows]) for rows in batches]

    def peer() -> None:
        installed("clip_benchmark")
        from clip_benchmark.metrics.zeroshot_retrieval import evaluate

        with redirect_stderr(io.StringIO()):
            evaluate(Embedded(), pairs, lambda rows: torch.from_numpy(texts[rows]), _device().type, False, [1, 5, 10])

    on_device = [torch.from_numpy(matrix).to(_device()) for matrix in (images, texts)]

    def limit() -> None:
        for queries, candidates in (on_device, on_device[::-1]):
            for part in torch.split(queries, 500):
                part @ candidates.T

    return ours, peer, limit


def _embedded(images: np.ndarray, texts: np.ndarray) -> "Evaluation":
    """Wrap embeddings as a task's data. Each image has equally many texts, ordered by image."""
    import pyarrow as pa

    from benchmark.data.prepared import Prepared
    from benchmark.evaluation.encoder import Encoded
    from benchmark.evaluation.evaluation import Evaluation

    names = [str(i) for i in range(len(images))]
    of_each = len(texts) // len(images)
    rows = {
        "id": names,
        "group": names,
        "text": [[f"{name} {j}" for j in range(of_each)] for name in names],
        "text_id": [[] for _ in names],
    }

    class Embedded(Evaluation):
        def __init__(self) -> None:
            self._prepared = Prepared(np.empty(0), pa.table(rows), "")

        @property
        def device(self) -> torch.device:
            return _device()

        def records(self, split: str) -> Prepared:
            return self._prepared

        def images(self, split: str) -> Encoded:
            return Encoded(images, images)

        def texts(self, each: Sequence[str], keep: bool = True) -> Encoded:
            return Encoded(texts, texts)

    return Embedded()


def loading(scale: float) -> tuple[Side, Side, Side, Side]:
    """Build an epoch of 512 images of 1024 x 1024 for a model of 224 pixels.

    Ours: from the prepared cache; once: preparing it. The peer: decodes each JPEG and crops it with torchvision, in as
    many workers as there are cores. The limit: reads the prepared images.
    """
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset
    from benchmark.data.loader import PreparedPairs
    from benchmark.data.prepared import prepare

    count, side, size = max(4, round(512 * scale)), max(64, round(1024 * scale)), max(16, round(224 * scale))
    rows = [{"image": f"{i}.jpg", "text": f"picture {i}", "split": "train"} for i in range(count)]

    def write(folder: Path) -> None:
        for number, row in enumerate(rows):
            picture(number, side).save(folder / row["image"], quality=90)
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        columns = "{image: image, text: text, split: split}"
        (folder / "set.yaml").write_text(f"source: {{kind: manifest, file: rows.jsonl, columns: {columns}}}")

    folder, own = made_once(write), temporary_folder()
    dataset = open_dataset(load_card(folder / "set.yaml"), cache=folder / "cache")
    prepared = prepare(dataset, "train", size, folder / "cache")
    ours = _epoch(PreparedPairs(prepared, tokenizer(), folder / "cache"), count)
    crop = v2.Compose([v2.RandomResizedCrop(size, scale=(0.8, 1.0), antialias=True), v2.ToDtype(torch.float32, True)])
    fresh = numbers()

    def once() -> None:
        prepare(dataset, "train", size, own / f"cache {next(fresh)}")

    class Pictures(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return count

        def __getitem__(self, number: int) -> torch.Tensor:
            with Image.open(folder / rows[number]["image"]) as file:
                cropped: torch.Tensor = crop(v2.functional.pil_to_tensor(file.convert("RGB")))
            return cropped

    def peer() -> None:
        # A few pictures, as of a test, are not worth a process.
        workers = (os.cpu_count() or 1) if count >= 64 else 0
        for _ in DataLoader(Pictures(), 64, shuffle=True, num_workers=workers):
            pass

    def limit() -> None:
        for begin in range(0, count, 64):
            prepared.images[np.arange(begin, min(begin + 64, count))]

    return ours, once, peer, limit


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    data = tar.extractfile(member)
    assert data
    return data.read()


def streaming(scale: float) -> tuple[Side, Side, Side]:
    """Build an epoch of 2,048 images of 320 x 256 from eight tar shards for a model of 224 pixels.

    The peer: webdataset with its shuffle buffer, decoding with Pillow and torchvision. The limit: decodes with Pillow.
    """
    from PIL import Image
    from torchvision.transforms import v2

    from benchmark.data.card import load_card
    from benchmark.data.streamed import Stream, StreamedPairs

    count, size = max(8, round(2048 * scale)), max(16, round(224 * scale))

    def write(folder: Path) -> None:
        for shard in range(8):
            with tarfile.open(folder / f"{shard}.tar", "w") as tar:
                for number in range(shard, count, 8):
                    buffer = io.BytesIO()
                    picture(number, 256, 320).save(buffer, "JPEG", quality=90)
                    for suffix, data in (("jpg", buffer.getvalue()), ("txt", f"picture {number}".encode())):
                        member = tarfile.TarInfo(f"{number}.{suffix}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
        (folder / "set.yaml").write_text(
            "source: {kind: webdataset, shards: {train: ['*.tar']}, columns: {image: image, text: txt, id: key}, "
            "stream: true, shuffle_buffer: 500}"
        )

    folder = made_once(write)
    stream = Stream(load_card(folder / "set.yaml"), "train", folder / "cache")
    ours = _epoch(StreamedPairs(stream, size, tokenizer(), "error"), count, augment=False)
    crop = v2.Compose([v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(size), v2.PILToTensor()])

    def peer() -> None:
        installed("webdataset")
        import webdataset

        files = [str(path) for path in sorted(folder.glob("*.tar"))]
        pipeline = webdataset.WebDataset(files, shardshuffle=8).shuffle(500).decode("pil").to_tuple("jpg", "txt")
        for image, _ in pipeline:
            crop(image)

    def limit() -> None:
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.endswith(".jpg"):
                        Image.open(io.BytesIO(_bytes(tar, member))).convert("RGB")

    return ours, peer, limit


def reading(scale: float) -> tuple[Side, Side]:
    """Build an epoch of 100,000 prepared images of 64 pixels, 1.2 GB; the peer holds them all in memory."""
    import pyarrow as pa

    from benchmark.data.loader import PreparedPairs
    from benchmark.data.prepared import Images, Prepared

    count, size = max(64, round(100_000 * scale)), 64
    rng = np.random.default_rng(0)

    def write(folder: Path) -> None:
        with (folder / "images.bin").open("wb") as file:
            for begin in range(0, count, 1000):
                file.write(rng.bytes(min(1000, count - begin) * 3 * size * size))

    folder = made_once(write)
    columns = {
        "id": [f"image {i}" for i in range(count)],
        "text": [[f"picture {i}"] for i in range(count)],
        "label": [-1] * count,
    }
    ends = np.arange(1, count + 1) * 3 * size * size
    prepared = Prepared(Images(folder / "images.bin", ends, size, False), pa.table(columns), "perf")
    ours = _epoch(PreparedPairs(prepared, tokenizer(), temporary_folder()), count, augment=False)

    def peer() -> None:
        images = np.fromfile(folder / "images.bin", np.uint8).reshape(count, 3, size, size)
        order = rng.permutation(count)
        for start in range(0, count, 64):
            torch.from_numpy(images[order[start : start + 64]])

    return ours, peer


def _epoch(pairs: "PairSet", count: int, augment: bool = True) -> Side:
    from benchmark.config.augmentation import Augmentation
    from benchmark.data.loader import PairLoader

    augmentation = Augmentation() if augment else Augmentation.none()
    loader = PairLoader([pairs], 0, pairs.size, augmentation, 0)

    def run() -> None:
        for start in range(0, count, 64):
            batch = loader.batch(start, min(64, count - start))
            if augment:
                batch.view()

    return run


def bootstrap(scale: float) -> tuple[Side, Side]:
    """Build the 95 % interval of a macro AUROC: 9 classes, 10,000 examples in 5,000 groups, 100 resamples.

    The peer: draws the groups' examples and calls scikit-learn for each resample.
    """
    from sklearn.metrics import roc_auc_score

    from benchmark.evaluation.metrics import MacroAUROC
    from benchmark.evaluation.statistics import interval

    n, resamples, classes = max(200, round(10_000 * scale)), max(10, round(100 * scale)), 9
    rng = np.random.default_rng(0)
    label, groups = np.arange(n) % classes, np.repeat(np.arange(n // 2), 2)[:n]
    scores = rng.random((n, classes)) + 0.3 * np.eye(classes)[label]
    scores /= scores.sum(axis=1, keepdims=True)
    names = [str(c) for c in range(classes)]
    examples = {"id": np.arange(n), "label": label} | {f"score/{name}": scores[:, int(name)] for name in names}
    members = [np.flatnonzero(groups == group) for group in range(n // 2)]

    def ours() -> None:
        interval(MacroAUROC(tuple(names)), examples, groups, resamples, np.random.default_rng(1))

    def peer() -> None:
        for _ in range(resamples):
            rows = np.concatenate([members[group] for group in rng.integers(len(members), size=len(members))])
            roc_auc_score(label[rows], scores[rows], multi_class="ovr")

    return ours, peer


def report(scale: float) -> tuple[Side, Side]:
    """Build the report on 5,400 evaluations of 16 arms, two baselines, 10 datasets and 6 kinds of task over 5 seeds.

    The peer: reads the scores, and the resamples of the primary metrics. No report on them can be faster.
    """
    from benchmark.api import write_report
    from benchmark.perf.made_results import of_scale

    folder = made_once(lambda folder: of_scale(scale, folder / "results"))

    def ours() -> None:
        write_report(Store(folder / "results"), temporary_folder(), None, Console(quiet=True))

    def peer() -> None:
        fresh = Store(folder / "results")
        rows = fresh.rows()
        for row in rows[rows["primary"]].itertuples():
            fresh.resamples(row.cell, row.evaluation, row.part, row.metric)

    return ours, peer


def manifest(scale: float) -> tuple[Side, Side, Side]:
    """Build the opening of a table of a million images, few of them distinct: again, and for the first time.

    The limit: looks at each file in turn, as one must who remembers nothing.
    """
    from benchmark.data.card import load_card
    from benchmark.data.dataset import open_dataset

    count = max(100, round(1_000_000 * scale))
    folder = made_once(lambda folder: _many_files(folder, count, 8))

    def opened(cache: Path) -> None:
        dataset = open_dataset(load_card(folder / "set.yaml"), cache=cache)
        assert len(dataset.rows("train")) == count
        assert dataset.fingerprint

    def limit() -> None:
        for path in _paths(count):
            (folder / path).stat()

    return (lambda: opened(folder / "cache")), (lambda: opened(temporary_folder())), limit


def preparing(scale: float) -> tuple[Side, Side]:
    """Build the preparation of 2,000 JPEGs of 512 pixels, few of them distinct, for a model of 224 pixels.

    The limit: decodes each at the smallest scale that JPEG offers from 448 pixels on, which resizing well needs, in as
    many threads.
    """
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    from benchmark.data.card import load_card
    from benchmark.data.dataset import THREADS, open_dataset
    from benchmark.data.prepared import prepare

    count, size, side = max(8, round(2000 * scale)), max(16, round(224 * scale)), max(64, round(512 * scale))
    folder = made_once(lambda folder: _many_files(folder, count, side))

    def ours() -> None:
        cache = temporary_folder()
        prepare(open_dataset(load_card(folder / "set.yaml"), cache=cache), "train", size, cache)

    def decode(path: str) -> None:
        with Image.open(folder / path) as file:
            file.draft("RGB", (2 * size, 2 * size))
            file.load()

    def limit() -> None:
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(decode, _paths(count)))

    return ours, limit


FILES = 1000
"""Images in a folder of _many_files()."""


def _paths(count: int) -> list[str]:
    return [f"images/{number // FILES}/{number}.jpg" for number in range(count)]


def _many_files(folder: Path, count: int, side: int) -> None:
    """Write a table of images with labels, its card, and the images: one in each folder, and links to it."""
    paths = _paths(count)
    for number, path in enumerate(paths):
        if number % FILES == 0:
            (folder / path).parent.mkdir(parents=True)
            first = folder / path
            picture(number // FILES % 16, side).save(first, quality=90)
        else:
            (folder / path).hardlink_to(first)
    # A folder that has just changed is looked into each time.
    for within in (folder / "images").iterdir():
        os.utime(within, (0, 0))
    lines = [f"{path},{number % 2},train" for number, path in enumerate(paths)]
    (folder / "rows.csv").write_text("\n".join(["image,label,split", *lines]), encoding="utf-8")
    columns = "{image: image, label: label, split: split}"
    (folder / "set.yaml").write_text(
        f"classes: [a, b]\nsource: {{kind: manifest, file: rows.csv, columns: {columns}}}", encoding="utf-8"
    )


WORKS = {
    "step": Work(
        "a step of tiny, 64 pairs",
        {"ours": "pretrain()", "peer": "open_clip's train_one_epoch", "limit": "a bare loop"},
        step(1),
    ),
    "step_4": Work(
        "a step of tiny, 4 x 64 pairs, cached",
        {"ours": "pretrain()", "peer": "open_clip's train_one_epoch, accum_freq 4", "limit": "a bare GradCache"},
        step(4),
    ),
    "step_16": Work(
        "a step of tiny, 16 x 64 pairs, cached",
        {"ours": "pretrain()", "peer": "open_clip's train_one_epoch, accum_freq 16", "limit": "a bare GradCache"},
        step(16),
    ),
    "training_step": Work(
        "a gradient of 16 micro-batches",
        {"ours": "cached, by micro-batches", "limit": "the whole batch in one graph"},
        training_step,
    ),
    "job": Work(
        "512 JPEGs of 512 pixels, 5 epochs, retrieval at the end",
        {
            "cold": "bench run, nothing prepared",
            "warm": "bench run, images prepared",
            "peer": "open_clip_train.main, as many workers as cores",
            "limit": "import torch, decode once at reduced scale, a bare loop",
        },
        job,
        warmed=["warm"],
    ),
    "evaluation": Work(
        "3 sets: zero-shot, retrieval, linear probe",
        {
            "cold": "bench eval, nothing prepared",
            "warm": "bench eval, images prepared and embeddings kept",
            "peer": "clip_benchmark eval, one process, its fastest batch and workers",
            "peer_warm": "the same, features of the probe kept",
            "limit": "import open_clip, decode and encode everything once",
        },
        evaluation,
        warmed=["warm", "peer_warm"],
    ),
    "start_up": Work(
        "until there is an answer",
        {
            "list": "bench list methods",
            "plan": "bench plan of the demo",
            "finished": "bench run of what is finished",
            "peer": "import open_clip",
            "limit": "import torch",
        },
        start_up,
        warmed=["plan", "finished"],
    ),
    "loading": Work(
        "an epoch of 512 JPEGs of 1024 pixels",
        {
            "ours": "prepared images, cropped",
            "once": "preparing",
            "peer": "decode each epoch, torchvision's crop, as many workers as cores",
            "limit": "reading what is prepared",
        },
        loading,
    ),
    "streaming": Work(
        "2,048 JPEGs in tar shards",
        {"ours": "stream", "peer": "webdataset, torchvision", "limit": "decoding alone"},
        streaming,
    ),
    "reading": Work("100,000 prepared images", {"ours": "from the disk", "peer": "all in memory"}, reading),
    "probe": Work("probe, 13 strengths", {"ours": "path by L-BFGS", "peer": "scikit-learn, one by one"}, probe),
    "folds": Work("probe, 13 strengths, 5 folds", {"ours": "all in one batch", "limit": "its products alone"}, folds),
    "retrieval": Work(
        "2,500 images x 12,500 texts",
        {"ours": "all metrics, exact ties", "peer": "CLIP_benchmark, batches of 32", "limit": "the scores alone"},
        retrieval,
    ),
    "bootstrap": Work(
        "bootstrap of a macro AUROC", {"ours": "weights of groups", "peer": "scikit-learn in a loop"}, bootstrap
    ),
    "report": Work(
        "a report on 5,400 evaluations",
        {"ours": "all tables and plots", "limit": "reading the scores alone"},
        report,
        asked=True,
    ),
    "manifest": Work(
        "1,000,000 images",
        {"ours": "opened again, by folder", "cold": "opened for the first time", "limit": "a look at each file"},
        manifest,
        asked=True,
    ),
    "prepare": Work(
        "2,000 JPEGs of 512 pixels",
        {"ours": "prepared at 224 pixels", "limit": "decoding alone, at the same scale"},
        preparing,
        asked=True,
    ),
}


def chosen(names: Sequence[str] | None) -> Sequence[str]:
    """Return the works to measure: those named, all for ``all``, else all but those that are measured when named.

    Raises ``BenchError`` for an unknown name.
    """
    if names is None:
        return [name for name, work in WORKS.items() if not work.asked]
    if names == ["all"]:
        return list(WORKS)
    for name in names:
        if name not in WORKS:
            raise unknown("work of bench perf", name, WORKS)
    return names


def perf(name: str, scale: float) -> Row:
    """Measure a work. Raises ``BenchError`` for a side that fails."""
    return compared(name, WORKS[name], side_command(__name__, name, scale))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    serve(WORKS[sys.argv[1]], sys.argv[3], float(sys.argv[2]), _device())
