"""Frozen is frozen: parameters, buffers, running statistics and optimiser state of frozen groups do not move by a bit,
on a transformer, a ResNet, a ConvNeXt and a Swin; and frozen groups keep no activations.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Training
from benchmark.method import METHODS, Method
from benchmark.models import ModelCard, build_model
from benchmark.training.accumulation import accumulate
from benchmark.training.loop import pretrain
from benchmark.training.schedule import optimizer_of
from tests.methods.fakes import Pairs, small_card, small_method

pytestmark = pytest.mark.usefixtures("not_counted")

TOWERS: dict[str, dict[str, Any]] = {
    "tiny": {"kind": "tiny", "width": 32, "layers": 3, "heads": 2, "dropout": 0.1},
    "vit": {"kind": "timm", "name": "vit_tiny_patch16_224", "config": {"depth": 4, "embed_dim": 48, "num_heads": 2}},
    "resnet": {"kind": "timm", "name": "resnet10t"},
    "convnext": {"kind": "timm", "name": "convnext_atto", "drop_path": 0.1},
    "swin": {
        "kind": "timm",
        "name": "swin_tiny_patch4_window7_224",
        "config": {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2},
    },
}


def method_on(image: str, name: str, **options: object) -> Method:
    card = ModelCard.model_validate(small_card(dropout=0.1).model_dump() | {"image": TOWERS[image]})
    return METHODS[name](build_model(card, 0), METHODS[name].Config(**options))


def state(groups: list[Any]) -> dict[int, Tensor]:
    """Parameters and buffers of groups, by identity."""
    tensors = [
        tensor
        for group in groups
        for part in group
        for tensor in ([part] if isinstance(part, nn.Parameter) else [*part.parameters(), *part.buffers()])
    ]
    return {id(tensor): tensor for tensor in tensors}


CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((image, "partial_freeze", {"tower": "image"}) for image in TOWERS),
    *((image, "locked_image", {}) for image in TOWERS),
    ("tiny", "locked_image", {"projection": True}),
    ("tiny", "partial_freeze", {"tower": "text"}),
    ("tiny", "locked_text", {}),
]


@pytest.mark.parametrize(("image", "name", "options"), CASES)
def test_frozen_is_frozen(image: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    method = method_on(image, name, **options)
    frozen = state(method.frozen)
    before = {key: tensor.clone() for key, tensor in frozen.items()}
    others = {n: p.clone() for n, p in method.named_parameters() if id(p) not in frozen}
    training = Training(
        samples=32, batch_size=8, micro_batch=4, learning_rate=1e-2, validations=1, augmentation=Augmentation.none()
    )
    pretrain(method, Pairs(16), Pairs(8, seed=1), training, seed=0, device=torch.device("cpu"), folder=tmp_path)  # type: ignore[arg-type]
    assert before
    assert all(torch.equal(before[key], tensor) for key, tensor in frozen.items())
    assert all(tensor.grad is None for tensor in frozen.values())
    optimised = {id(p) for group in optimizer_of(method, training).param_groups for p in group["params"]}
    assert not optimised & frozen.keys()
    moved = [not torch.equal(value, dict(method.named_parameters())[n]) for n, value in others.items()]
    assert sum(moved) > 0.9 * len(moved)


def test_the_frozen_share_is_counted_in_groups_from_the_input() -> None:
    for fraction, count in ((0.0, 0), (0.5, 4), (1.0, 8)):
        method = method_on("tiny", "partial_freeze", fraction=fraction)
        groups = method.model.layer_groups("image")
        assert len(groups) == 8
        trained = [any(p.requires_grad for p in state([group]).values()) for group in groups]
        assert trained == [False] * count + [True] * (len(groups) - count)


@pytest.mark.parametrize(
    ("card", "frozen", "groups", "first"),
    [
        ("vit-b-16", 7, 14, "transformer.resblocks.6."),
        ("deit-s-clinicalbert", 7, 14, "blocks.6."),
        ("deit-b-clinicalbert", 7, 14, "blocks.6."),
        ("swin-t-clinicalbert", 7, 14, "layers.2.blocks.2."),
        ("convnext-t-clinicalbert", 10, 21, "stages.2.blocks.3."),
    ],
)
def test_half_of_the_groups_are_frozen_from_the_input_on(card: str, frozen: int, groups: int, first: str) -> None:
    """Of these towers, parameters have the order of the forward pass. first: the part that is trained first."""
    from benchmark.models import load_model_card

    model = build_model(load_model_card(card), 0, "meta")
    METHODS["partial_freeze"](model, METHODS["partial_freeze"].Config())
    trained = [any(p.requires_grad for p in state([part]).values()) for part in model.layer_groups("image")]
    assert trained == [False] * frozen + [True] * (groups - frozen)
    tower = {name: p.requires_grad for name, p in model.image.model.named_parameters()}
    # open_clip's last norm has the weights of its embedding beside it.
    order = sorted(tower, key=lambda name: name.startswith(("ln_post", "transformer.")))
    start = next(i for i, name in enumerate(order) if name.startswith(first))
    assert [tower[name] for name in order] == [False] * start + [True] * (len(order) - start)


def test_text_groups_freeze() -> None:
    method = small_method("partial_freeze", tower="text", fraction=1.0)
    counts = method.model.parameter_counts()
    assert counts["text_trainable"] == 0
    assert counts["image_trainable"] == counts["image"]


def saved_bytes(method: Method) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters apart."""
    own = {p.data_ptr() for p in method.parameters()}
    kept: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        output = method(Pairs(16).sequential(0, 16))
    del output
    return sum(kept.values())


def test_frozen_groups_keep_no_activations() -> None:
    clip, text_only = (
        saved_bytes(method_on("tiny", "clip").train()),
        saved_bytes(method_on("tiny", "locked_image").train()),
    )
    half = saved_bytes(method_on("tiny", "partial_freeze").train())
    image = clip - text_only
    assert image > 0
    assert text_only + 0.05 * image < half < text_only + 0.6 * image


def test_accumulated_over_frozen_groups_too() -> None:
    method = method_on("tiny", "locked_image").train()
    accumulate(method, [Pairs(8).sequential(0, 4), Pairs(8).sequential(4, 4)], "cached", 0)
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())
