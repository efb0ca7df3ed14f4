"""Optimisers, factors of the learning rate and stages with settings of their own, against formulas, torch and timm."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.optim import param_groups_layer_decay
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.config.training import Recipe
from benchmark.method import METHODS, Method
from benchmark.models import build_model
from benchmark.training.checkpoint import LAST
from benchmark.training.schedule import learning_rate, optimizer_of, rate_factors, set_learning_rate
from tests.methods.fakes import Pairs, small_method
from tests.models.make import TIMM, timm_card
from tests.training.fakes import staged, train

# Schedule


def test_the_rate_falls_to_its_minimum_as_in_torch() -> None:
    recipe = Recipe(learning_rate=2.0, minimum_rate=0.5, warmup=0.0)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.5)
    for step in range(8):
        assert learning_rate(recipe, step, 8) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()


def test_warmup_in_steps() -> None:
    recipe = Recipe(learning_rate=1.0, minimum_rate=0.1, warmup={"steps": 3})
    fall = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert [learning_rate(recipe, step, 7) for step in range(7)] == pytest.approx([1 / 3, 2 / 3, 1.0, *fall])
    with pytest.raises(BenchError, match=r"training.warmup is 3 steps, but the training or its stage has 2"):
        learning_rate(recipe, 0, 2)


# Optimisers

State = dict[str, Tensor]


def adamw(weight: Tensor, grad: Tensor, rate: float, decay: float, state: State, step: int) -> None:
    state["m"] = 0.8 * state.get("m", torch.zeros_like(weight)) + 0.2 * grad
    state["v"] = 0.95 * state.get("v", torch.zeros_like(weight)) + 0.05 * grad**2
    m, v = state["m"] / (1 - 0.8**step), state["v"] / (1 - 0.95**step)
    weight *= 1 - rate * decay
    weight -= rate * m / (v.sqrt() + 1e-3)


def sgd(weight: Tensor, grad: Tensor, rate: float, decay: float, state: State, step: int) -> None:
    state["m"] = 0.7 * state.get("m", torch.zeros_like(weight)) + grad + decay * weight
    weight -= rate * state["m"]


def lion(weight: Tensor, grad: Tensor, rate: float, decay: float, state: State, step: int) -> None:
    """Algorithm 2 of arXiv 2302.06675."""
    m = state.get("m", torch.zeros_like(weight))
    weight -= rate * ((0.8 * m + 0.2 * grad).sign() + decay * weight)
    state["m"] = 0.95 * m + 0.05 * grad


@pytest.mark.parametrize("update", [adamw, sgd, lion])
def test_optimisers_follow_their_formulas(update: Callable[..., None]) -> None:
    """Each parameter at the rate of its tower; no decay of vectors and scalars."""
    method = small_method("clip").double()
    method.model.text.position.requires_grad_(False)
    settings: dict[str, Any] = {"momentum": 0.7, "betas": (0.8, 0.95), "epsilon": 1e-3, "weight_decay": 0.3}
    recipe = Recipe(optimizer=update.__name__, rates={"image": 0.1, "text": 2.0, "heads": 0.5}, **settings)
    optimizer = optimizer_of(method, recipe)
    expected = {name: p.detach().clone() for name, p in method.named_parameters()}
    states: dict[str, State] = {name: {} for name in expected}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 5):
        set_learning_rate(optimizer, 0.1 / step)
        for name, p in method.named_parameters():
            if not p.requires_grad:
                continue
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            factor = 0.1 if name.startswith("model.image.") else 2.0 if name.startswith("model.text.") else 0.5
            decay = 0.3 if p.ndim >= 2 else 0.0
            update(expected[name], p.grad.clone(), 0.1 / step * factor, decay, states[name], step)
        optimizer.step()
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-9, atol=1e-9, msg=name)
    assert not states["model.text.position"]


@pytest.mark.parametrize("name", [*TIMM])
def test_layers_decay_as_in_timm(name: str) -> None:
    model = build_model(timm_card(name), 0)
    method = METHODS["clip"](model, METHODS["clip"].Config())
    factors = rate_factors(method, Recipe(layer_decay=0.5, rates={"image": 0.1}))
    # timm counts from the classifier, which stands where our projection does.
    whole = timm.create_model(name, num_classes=3, **TIMM[name])
    names = {id(p): n for n, p in whole.named_parameters()}
    # It takes the norm after the last block of a ConvNeXt with the classifier; to us it is a layer of the tower.
    below = 0.5 if name.startswith("convnext") else 1.0
    compared = 0
    for group in param_groups_layer_decay(whole, layer_decay=0.5):
        for parameter in group["params"]:
            ours = f"model.image.model.{names[id(parameter)]}"
            if ours in factors:
                assert factors[ours] == pytest.approx(0.1 * below * group["lr_scale"]) or "head.norm" in ours, ours
                compared += 1
    assert compared == sum(name.startswith("model.image.") for name in factors) > 20


def test_layers_of_both_towers_decay_from_their_projections() -> None:
    method = small_method("captioning")
    factors = rate_factors(method, Recipe(layer_decay=0.5, rates={"heads": 3.0}))
    parameters = dict(method.named_parameters())
    for side in ("image", "text"):
        groups = method.model.layer_groups(side)
        for depth, group in enumerate(reversed(groups)):
            for part in group:
                members = [part] if isinstance(part, torch.nn.Parameter) else part.parameters()
                for member in members:
                    (name,) = (n for n, p in parameters.items() if p is member)
                    assert factors[name] == (0.5**depth if depth else 3.0), name
    outside = [name for name in factors if not name.startswith(("model.image.", "model.text."))]
    assert {"model.image_projection.weight", "logit_scale"} < {*outside}
    assert {factors[name] for name in outside} == {3.0}


# In a training


def moved(method: Method, before: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((p.detach() - before[name]).norm()) for name, p in method.named_parameters()}


def test_a_stage_has_its_own_recipe(tmp_path: Path) -> None:
    method, before = staged(), {}
    stage = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "learning_rate": 0.5, "warmup": 0}
    stage |= {"gradient_clip": 0.01, "minimum_rate": 0.1}
    train(
        method,
        tmp_path,
        Pairs(20),
        samples=64,
        stages={"text": stage},
        progress=lambda at: before.update(
            {n: p.detach().clone() for n, p in method.named_parameters()} if at.step == 6 else {}
        ),
    )
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first = [learning_rate(Recipe(), step, 6) for step in range(6)]
    assert [line["learning_rate"] for line in log] == pytest.approx([*first, 0.5, 0.3])
    # Two steps along gradients of length 0.01, if they all but agree.
    distances = moved(method, before)
    total = math.sqrt(sum(distance**2 for distance in distances.values()))
    assert 0.005 * 0.5 < total <= (0.5 + 0.3) * 0.01 * 1.001
    assert not any(distance for name, distance in distances.items() if name.startswith("model.image."))


@pytest.mark.parametrize("optimizer", ["sgd", "lion"])
def test_a_training_resumes_with_its_optimiser(optimizer: str, tmp_path: Path) -> None:
    def die(at: Any) -> None:
        if at.step == 4:
            raise SystemExit

    settings: dict[str, Any] = {"optimizer": optimizer, "layer_decay": 0.8, "rates": {"image": 0.1}}
    settings |= {"learning_rate": 0.01, "checkpoint_every": 0}
    start = small_method("clip").state_dict()
    train(small_method("clip"), tmp_path / "whole", Pairs(16), **settings)
    with pytest.raises(SystemExit):
        train(small_method("clip"), tmp_path / "parts", Pairs(16), progress=die, **settings)
    train(small_method("clip"), tmp_path / "parts", Pairs(16), **settings)
    whole, parts = (load_file(tmp_path / run / LAST) for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(whole["logit_scale"], start["logit_scale"])


# The average of the weights


def test_the_average_follows_a_loop(tmp_path: Path) -> None:
    """Trained parameters and running statistics by decay, frozen ones and counts as they are, tied ones as one."""
    method = small_method("clip")
    method.model.image.stem = torch.nn.Sequential(method.model.image.stem, torch.nn.BatchNorm2d(8))
    method.model.text.requires_grad_(False)
    method.tied = torch.nn.Linear(16, 32, bias=False)
    method.tied.weight = method.model.image_projection.weight
    expected = {name: x.detach().double() for name, x in method.state_dict().items() if x.is_floating_point()}

    def follow(at: Any) -> None:
        for name, tensor in method.state_dict().items():
            if name in expected:
                expected[name] = 0.6 * expected[name] + 0.4 * tensor.detach().double()

    train(method, tmp_path, Pairs(16), average=0.6, learning_rate=0.01, progress=follow)
    last, average = load_file(tmp_path / LAST), load_file(tmp_path / "last-average.safetensors")
    assert average.keys() == last.keys()
    for name, tensor in average.items():
        if name in expected:
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert torch.equal(tensor, last[name])
    assert torch.equal(average["tied.weight"], average["model.image_projection.weight"])
    assert not torch.equal(average["model.image.stem.1.running_mean"], last["model.image.stem.1.running_mean"])
    text = [name for name in last if name.startswith("model.text.")]
    assert text
    assert all(torch.equal(average[name], last[name]) for name in text)


def test_teachers_and_queues_are_not_averaged(tmp_path: Path) -> None:
    train(small_method("msd", queue_size=24), tmp_path, Pairs(16), average=0.9)
    last, average = load_file(tmp_path / LAST), load_file(tmp_path / "last-average.safetensors")
    kept = {name for name in last if torch.equal(last[name], average[name])}
    assert {name for name in last if name.startswith(("teacher.", "queue"))} <= kept
    assert not any(name.startswith("model.") and last[name].ndim >= 2 for name in kept)


def test_the_average_beside_the_best_checkpoint_is_that_of_its_step(tmp_path: Path) -> None:
    seen: dict[int, dict[str, Tensor]] = {}
    method = small_method("clip")
    total = {name: x.detach().clone() for name, x in method.named_parameters()}

    def follow(at: Any) -> None:
        for name, x in method.named_parameters():
            total[name] = 0.5 * total[name] + 0.5 * x.detach()
        seen[at.step] = dict(total)

    validation = Pairs(8, seed=1)
    train(
        method,
        tmp_path,
        Pairs(16),
        validation,
        samples=160,
        learning_rate=0.02,
        validations=10,
        average=0.5,
        progress=follow,
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    best = min((line for line in lines if "validation_loss" in line), key=lambda line: line["validation_loss"])["step"]
    assert best < 20
    average = load_file(tmp_path / "best-average.safetensors")
    for name, expected in seen[best].items():
        torch.testing.assert_close(average[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop_at", [4, 6, 7])
def test_an_average_and_what_is_kept_resume(tmp_path: Path, stop_at: int) -> None:
    """Also across stages, which train different parts; what a stage does not train any more is averaged on."""

    def stop(at: Any) -> None:
        if at.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    settings: dict[str, Any] = {"samples": 64, "average": 0.7, "keep": [0.25, 0.5, 0.75]}
    whole = train(staged(), tmp_path / "whole", Pairs(20), Pairs(8, seed=1), **settings)
    with pytest.raises(KeyboardInterrupt):
        train(staged(), tmp_path / "parts", Pairs(20), Pairs(8, seed=1), progress=stop, **settings)
    parts = train(staged(), tmp_path / "parts", Pairs(20), Pairs(8, seed=1), **settings)
    files = {path.name for path in (tmp_path / "whole").glob("*.safetensors")}
    names = ["last", "best", "at-0.25", "at-0.5", "at-0.75"]
    assert files == {f"{name}{end}.safetensors" for name in names for end in ("", "-average")}
    for file in files:
        a, b = (load_file(tmp_path / run / file) for run in ("whole", "parts"))
        assert all(torch.equal(a[name], b[name]) for name in a), file
    assert {name: reached["samples"] for name, reached in whole["kept"].items()} == {
        "at-0.25": 16,
        "at-0.5": 32,
        "at-0.75": 48,
    }
    assert parts["kept"].keys() == whole["kept"].keys()
    seconds = [reached["seconds"] for reached in parts["kept"].values()]
    assert 0 < seconds[0] < seconds[1] < seconds[2] < parts["seconds"]


def test_weights_are_kept_in_the_course_of_a_training(tmp_path: Path) -> None:
    method, seen = small_method("clip"), {}
    copy = lambda at: seen.update({at.step: {n: x.clone() for n, x in method.state_dict().items()}})  # noqa: E731
    train(method, tmp_path / "kept", Pairs(16), keep=[0.01, 0.5], progress=copy)
    train(small_method("clip"), tmp_path / "plain", Pairs(16))
    for name, step in (("at-0.01", 1), ("at-0.5", 3), ("last", 6)):
        kept = load_file(tmp_path / "kept" / f"{name}.safetensors")
        assert all(torch.equal(kept[n], x) for n, x in seen[step].items()), name
    a, b = (load_file(tmp_path / run / LAST) for run in ("kept", "plain"))
    assert all(torch.equal(a[name], b[name]) for name in a)
