"""Kept outputs of frozen layers change nothing: the same gradients and the same weights, in less work."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.common.seeding import torch_seed
from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Training
from benchmark.method import METHODS, Method
from benchmark.models import ModelCard, build_model
from benchmark.training import frozen
from benchmark.training.accumulation import accumulate, micro_batches
from benchmark.training.cost import counting
from benchmark.training.frozen import FrozenFeatures
from benchmark.training.loop import pretrain
from tests.methods.fakes import CLASSES, Pairs, Words, double, small_card

pytestmark = pytest.mark.usefixtures("counted_each_time")

IMAGES: dict[str, dict[str, Any]] = {
    "tiny": {"kind": "tiny", "width": 32, "layers": 3, "heads": 2, "dropout": 0.1},
    "vit": {"kind": "timm", "name": "vit_tiny_patch16_224", "config": {"depth": 4, "embed_dim": 48, "num_heads": 2}},
    "resnet": {"kind": "timm", "name": "test_resnet"},
    "efficientnet": {"kind": "timm", "name": "test_efficientnet"},
}
TEXTS: dict[str, dict[str, Any]] = {
    "tiny": {"kind": "tiny", "width": 32, "layers": 3, "heads": 2, "dropout": 0.1},
    "bert": {
        "kind": "transformers",
        "pooling": "mean",
        "config": {
            "model_type": "bert",
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 16,
        },
    },
}
CASES: list[tuple[str, str, str, dict[str, Any], set[str]]] = [
    *(("partial_freeze", image, "tiny", {"fraction": 0.5}, {"image"}) for image in IMAGES),
    ("partial_freeze", "tiny", "tiny", {"fraction": 1.0}, {"image"}),
    *(("partial_freeze", "tiny", text, {"tower": "text"}, {"text"}) for text in TEXTS),
    ("locked_image", "resnet", "tiny", {}, {"image"}),
    ("locked_image", "tiny", "tiny", {"projection": True}, {"image"}),
    *(("locked_text", "tiny", text, {}, {"text"}) for text in TEXTS),
    ("clip", "tiny", "tiny", {}, set()),
]


def build(name: str, image: str = "tiny", text: str = "tiny", **options: object) -> Method:
    blocks = {"image": IMAGES[image], "text": TEXTS[text]}
    card = ModelCard.model_validate(small_card().model_dump() | blocks)
    with torch_seed(0):
        return double(METHODS[name](build_model(card, 0), METHODS[name].Config(**options)))


def gradients(method: Method, pairs: Pairs, mode: str, kept: FrozenFeatures | None) -> dict[str, Tensor]:
    method.zero_grad()
    batches = micro_batches(pairs.batch, 4, 8, 4)
    with kept.used() if kept else nullcontext():
        accumulate(method, batches, mode, 3)  # type: ignore[arg-type]
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "image", "text", "options", "sides"), CASES)
def test_gradients_are_the_same(
    name: str, image: str, text: str, options: dict[str, Any], sides: set[str], tmp_path: Path
) -> None:
    method, pairs = build(name, image, text, **options), Pairs(16)
    method.train()
    buffers = [buffer.clone() for buffer in method.buffers()]
    kept = FrozenFeatures(method, pairs, 5, nullcontext, tmp_path)  # type: ignore[arg-type]
    assert {tower.side for tower in kept.towers} == sides
    assert all(torch.equal(*both) for both in zip(buffers, method.buffers())), "running statistics moved"
    assert not list(tmp_path.iterdir())
    for mode in ("plain", "cached"):
        expected = gradients(method, pairs, mode, None)
        actual = gradients(method, pairs, mode, kept)
        assert actual.keys() == expected.keys()
        for parameter, gradient in expected.items():
            torch.testing.assert_close(actual[parameter], gradient, rtol=1e-9, atol=1e-12, msg=parameter)


def trained(method: Method, folder: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> tuple[dict[str, Tensor], Any]:
    used: list[FrozenFeatures] = []

    class Kept(FrozenFeatures):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            used.append(self)

    monkeypatch.setattr("benchmark.training.loop.FrozenFeatures", Kept)
    training = Training(
        samples=48,
        batch_size=8,
        micro_batch=4,
        learning_rate=1e-2,
        validations=1,
        augmentation=Augmentation.none(),
        cache_frozen=keep,
    )
    pairs, device = Pairs(16), torch.device("cpu")
    cost = pretrain(method, pairs, Pairs(8, seed=1), training, seed=0, device=device, folder=folder)  # type: ignore[arg-type]
    assert all(tower.kept.dtype == torch.float64 for each in used for tower in each.towers)
    assert any(each.towers for each in used) == keep
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}, cost


@pytest.mark.parametrize(
    ("name", "options"),
    [("partial_freeze", {}), ("locked_text", {}), ("cleft", {"stage2": "class", "stage2_share": 0.9})],
)
def test_a_training_ends_with_the_same_weights_and_counts_the_same_operations(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def method() -> Method:
        made = build(name, **options)
        made.setup(Words(), CLASSES)
        return made

    expected, theirs = trained(method(), tmp_path / "plain", monkeypatch, keep=False)
    actual, ours = trained(method(), tmp_path / "kept", monkeypatch, keep=True)
    for tensor, value in expected.items():
        torch.testing.assert_close(actual[tensor], value, rtol=1e-7, atol=1e-10, msg=tensor)
    assert ours["flops"] == theirs["flops"]


def test_a_step_does_the_work_of_the_trained_part_alone(tmp_path: Path) -> None:
    method, pairs = build("locked_image").train(), Pairs(16)
    kept = FrozenFeatures(method, pairs, 8, nullcontext, tmp_path)  # type: ignore[arg-type]
    counts = []
    for each in (None, kept):
        with counting() as counter:
            gradients(method, pairs, "plain", each)
        counts.append(counter.total)
    with counting() as counter, torch.no_grad():
        for batch in micro_batches(pairs.batch, 4, 8, 4):
            method.model.image(batch.view())
    assert counts[0] - counts[1] == counter.total


@pytest.mark.parametrize("what", ["augmentation", "texts", "patch dropout", "dropout", "disk", "skip connection"])
def test_nothing_is_kept_where_it_would_not_be_the_same(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build("locked_image", "vit")
    pairs = Pairs(16, augmentation=Augmentation() if what == "augmentation" else None)
    if what == "texts":
        pairs.longest = None  # type: ignore[assignment]
    if what == "patch dropout":
        method.model.image.patch_dropout = 0.5
    if what == "dropout":
        method.model.image.model.pos_drop = nn.Dropout(0.1)
    if what == "disk":
        monkeypatch.setattr(frozen, "LARGEST_SHARE", 0.0)
    if what == "skip connection":
        # Its output also depends on an earlier layer, past the kept one.
        tower = type(method.model.image)
        own = tower.forward

        def forward(self: Any, x: Tensor) -> Any:
            out = own(self, x)
            return out._replace(features=out.features + self.model.patch_embed(x.double()).mean(1))

        monkeypatch.setattr(tower, "forward", forward)
    method.train()
    assert FrozenFeatures(method, pairs, 8, nullcontext, tmp_path).towers == []  # type: ignore[arg-type]


def test_other_views_and_texts_are_computed(tmp_path: Path) -> None:
    method, pairs = build("locked_image"), Pairs(16)
    kept = FrozenFeatures(method.train(), pairs, 8, nullcontext, tmp_path)  # type: ignore[arg-type]
    batch = pairs.batch(0, 4)
    expected = method.model.encode_image(1 - batch.view())
    seen = []
    method.register_forward_hook(lambda *_: seen.append(method.model.encode_image(1 - batch.view())))
    with kept.used():
        method(batch)
        torch.testing.assert_close(method.model.encode_image(1 - batch.view()), expected)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize(("name", "other"), [("partial_freeze", {"weights": 0.5}), ("locked_text", {"seed": 1})])
def test_a_later_training_computes_nothing_again_and_ends_with_the_same_weights(
    name: str, other: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    keep = frozen._Tower.keep

    def counted(self: Any, batch: Any, precision: Any) -> None:
        computed.append(self.side)
        keep(self, batch, precision)

    monkeypatch.setattr(frozen._Tower, "keep", counted)
    training = Training(
        samples=24,
        batch_size=8,
        micro_batch=4,
        learning_rate=1e-2,
        validations=0,
        augmentation=Augmentation.none(),
        cache_frozen=True,
    )

    def trained_in(folder: str, cache: Path | None, seed: int = 0, weights: float = 0.0) -> dict[str, Tensor]:
        method, pairs = build(name), Pairs(16, seed=seed)
        with torch.no_grad():
            method.model.image.stem.weight += weights
            method.model.text.embedding.weight += weights
        device = torch.device("cpu")
        pretrain(method, pairs, None, training, seed=0, device=device, folder=tmp_path / folder, cache=cache)  # type: ignore[arg-type]
        return {key: tensor.clone() for key, tensor in method.state_dict().items()}

    cache = tmp_path / "cache"
    expected = trained_in("without", None)
    once = len(computed)
    assert once == 4
    for folder in ("cold", "warm"):
        actual = trained_in(folder, cache)
        assert len(computed) == 2 * once
        assert all(torch.equal(actual[key], tensor) for key, tensor in expected.items())
    # Other weights or pairs, and what is damaged, are computed anew.
    trained_in("other", cache, **other)
    assert len(computed) == 3 * once
    for path in (cache / "frozen").iterdir():
        with (path / "outputs.bin").open("r+b") as file:
            file.write(b"damage")
    actual = trained_in("damaged", cache)
    assert len(computed) == 4 * once
    assert all(torch.equal(actual[key], tensor) for key, tensor in expected.items())


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "outputs.bin").write_bytes(bytes(1000))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    assert not frozen.room_for(4001, tmp_path)
    assert frozen.room_for(1000, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert frozen.room_for(2500, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["newest"]
