"""A training step beside open_clip's own loop and a bare one: the same towers, pairs, optimiser and batches."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Training
from benchmark.data.loader import PairLoader, PreparedPairs
from benchmark.data.prepared import Images, Prepared
from benchmark.method import METHODS, Method
from benchmark.models import DualEncoder, build_model, load_model_card
from benchmark.perf.data import sentence, temporary_folder, tokenizer
from benchmark.perf.measure import Side, Stopwatch, Taken, installed
from benchmark.training.cost import Cost
from benchmark.training.loop import StepProgress, pretrain

CPU = torch.device("cpu")
PAIRS, RATE, DECAY, BETAS, EPSILON = 64, 5e-4, 0.1, (0.9, 0.98), 1e-6
FIRST = 2
"""Steps of the harness's loop before those that count: libraries initialise, and memory is measured."""


def step(micro_batches: int) -> Callable[[float], tuple[Side, Side, Side]]:
    """Return what builds a step of ``tiny`` with so many micro-batches of 64 pairs, without augmentation.

    ours: the steps of pretrain(), with its reading, schedule and log. peer: open_clip's train_one_epoch with
    accum_freq, on batches in memory. limit: a loop that does nothing else; with several micro-batches, GradCache.
    """

    def build(scale: float) -> tuple[Side, Side, Side]:
        pairs, steps = max(4, round(PAIRS * scale)), max(1, round(16 * scale / micro_batches))
        model = build_model(load_model_card("tiny"), 0, weights=False)
        towers = Towers(model)
        loader = noise(pairs * micro_batches, model.image_size)
        return (
            _ours(model, loader, pairs, micro_batches, steps),
            _peer(towers, _batches(loader, pairs, micro_batches), steps),
            _limit(towers, _batches(loader, pairs, micro_batches), steps),
        )

    return build


class Towers(nn.Module):
    """A dual encoder as open_clip has it: images and tokens in, features and the scale of the logits out."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Return what open_clip's models return with ``output_dict``."""
        return {
            "image_features": self.model.encode_image(image),
            "text_features": self.model.encode_text(text, text != 0),
            "logit_scale": self.logit_scale.exp(),
        }


def noise(count: int, size: int, words: "Words | None" = None) -> PairLoader:
    """Write pairs of noise. words: makes the tokens of their captions; None: a tokenizer trained on these."""
    import pyarrow as pa

    folder, rng = temporary_folder(), np.random.default_rng(0)
    (folder / "images.bin").write_bytes(rng.bytes(count * 3 * size * size))
    columns = {
        "id": [f"image {number}" for number in range(count)],
        "text": [[sentence(number)] for number in range(count)],
        "label": [-1] * count,
    }
    ends = np.arange(1, count + 1) * 3 * size * size
    prepared = Prepared(Images(folder / "images.bin", ends, size, False), pa.table(columns), "perf")
    return PairLoader([PreparedPairs(prepared, words or tokenizer(), folder)], 0, size, Augmentation.none(), 0)


class Words:
    """A tokenizer whose texts all have ``length`` random tokens below ``vocab_size``."""

    pad_id = 0

    def __init__(self, length: int, vocab_size: int) -> None:
        self.length, self.vocab_size = length, vocab_size
        self.fingerprint = f"{length} of {vocab_size}"

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Return tokens, none of them padding."""
        rng = np.random.default_rng(0)
        tokens: list[list[int]] = rng.integers(3, self.vocab_size, (len(texts), self.length)).tolist()
        return tokens


def _batches(loader: PairLoader, pairs: int, number: int) -> list[tuple[Tensor, Tensor]]:
    """Read an effective batch as floats in 0..1 and tokens, in micro-batches."""
    batches = [loader.batch(place * pairs, pairs) for place in range(number)]
    return [(batch.view(), batch.tokens) for batch in batches]


def _ours(model: DualEncoder, loader: PairLoader, pairs: int, micro_batches: int, steps: int) -> Side:
    method = METHODS["clip"](model, METHODS["clip"].Config())
    training = recipe(steps, pairs * micro_batches, pairs)
    return lambda: timed_training(method, loader, training)[0]


def recipe(steps: int, batch_size: int, micro_batch: int, **settings: Any) -> Training:
    """Return a training of ``FIRST`` steps that do not count, then ``steps`` that do."""
    bare = {
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "betas": BETAS,
        "epsilon": EPSILON,
        "gradient_clip": 0,
        "augmentation": Augmentation.none(),
        "validations": 0,
        "checkpoint_every": 3600,
    }
    size = {"steps": FIRST + steps, "batch_size": batch_size, "micro_batch": micro_batch}
    return Training.model_validate(bare | size | settings)


def timed_training(
    method: Method, pairs: PairLoader, training: Training, device: torch.device = CPU
) -> tuple[Taken, Cost]:
    """Train with pretrain(); return what a step took, from step ``FIRST`` on, and the cost of the training."""
    watch, taken, began = Stopwatch(device), Taken(cpu=math.nan, wall=math.nan), 0

    def progress(now: StepProgress) -> None:
        nonlocal began, taken
        if now.step == now.steps:
            taken = watch.stop(1 / (now.step - began))
        elif now.step >= FIRST and not began:
            began = now.step
            watch.start()

    with TemporaryDirectory() as folder:
        cost = pretrain(method, pairs, None, training, seed=0, device=device, folder=Path(folder), progress=progress)
    assert cost is not None
    return taken, cost


def _optimizer(towers: Towers) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in towers.parameters() if (p.ndim >= 2) == decays], "weight_decay": DECAY * decays}
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPSILON)


class _Loader:
    """Batches in memory, as open_clip's loop reads them."""

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]], steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.num_batches = steps * len(batches)
        self.num_samples = self.num_batches * len(batches[0][0])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.steps):
            yield from self.batches


def _peer(towers: Towers, batches: Sequence[tuple[Tensor, Tensor]], steps: int) -> Side:
    optimizer = _optimizer(towers)

    def run() -> Taken:
        installed("open_clip_torch")
        from open_clip import ClipLoss
        from open_clip_train.scheduler import cosine_lr
        from open_clip_train.train import train_one_epoch

        logging.disable(logging.INFO)
        args = SimpleNamespace(
            device="cpu",
            precision="fp32",
            distill=False,
            accum_freq=len(batches),
            skip_scheduler=False,
            horovod=False,
            grad_clip_norm=None,
            rank=0,
            local_rank=0,
            world_size=1,
            log_every_n_steps=100,
            batch_size=len(batches[0][0]),
            save_logs=False,
            wandb=False,
            tensorboard=False,
        )
        data: Any = {"train": SimpleNamespace(dataloader=_Loader(batches, steps), set_epoch=lambda _: None)}
        scheduler = cosine_lr(optimizer, RATE, 1, steps)
        watch = Stopwatch().start()
        train_one_epoch(towers, data, ClipLoss(), 0, optimizer, None, scheduler, None, args)
        return watch.stop(1 / steps)

    return run


def bare_steps(
    towers: Towers, optimizer: torch.optim.Optimizer, batches: Sequence[tuple[Tensor, Tensor]], steps: int
) -> None:
    """Take steps on an effective batch; with several micro-batches, GradCache (arXiv 2101.06983)."""
    for _ in range(steps):
        if len(batches) == 1:
            ((image, text),) = batches
            _loss(**towers(image, text)).backward()  # type: ignore[no-untyped-call]
        else:
            with torch.no_grad():
                outputs = [towers(image, text) for image, text in batches]
            whole = {
                name: torch.cat([output[name] for output in outputs]).requires_grad_()
                for name in ("image_features", "text_features")
            }
            _loss(**whole, logit_scale=towers.logit_scale.exp()).backward()  # type: ignore[no-untyped-call]
            gradients = {name: torch.split(_gradient(value), len(batches[0][0])) for name, value in whole.items()}
            for number, (image, text) in enumerate(batches):
                output = towers(image, text)
                torch.autograd.backward([output[name] for name in whole], [gradients[name][number] for name in whole])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            towers.logit_scale.clamp_(0, math.log(100))


def _gradient(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


def _loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    logits, targets = logit_scale * image_features @ text_features.T, torch.arange(len(image_features))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def _limit(towers: Towers, batches: Sequence[tuple[Tensor, Tensor]], steps: int) -> Side:
    optimizer = _optimizer(towers)
    towers.train()

    def run() -> Taken:
        watch = Stopwatch().start()
        bare_steps(towers, optimizer, batches, steps)
        return watch.stop(1 / steps)

    return run


def bare_training(pairs: int, epochs: int, batch_size: int) -> Side:
    """Return a bare training of ``tiny`` on so many pairs in memory: the limit of a whole job."""
    model = build_model(load_model_card("tiny"), 0, weights=False)
    loader = noise(batch_size, model.image_size)
    towers, batches = Towers(model), _batches(loader, batch_size, 1)
    optimizer = _optimizer(towers)
    return lambda: bare_steps(towers, optimizer, batches, epochs * (pairs // batch_size))
