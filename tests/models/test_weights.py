from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from benchmark.common.errors import BenchError
from benchmark.models import build_model, load_weights, save_weights
from benchmark.models import weights as module
from benchmark.models.weights import hub, read_tensors
from tests.models.make import CARDS, make_card, open_clip_card


@pytest.mark.parametrize("name", CARDS)
def test_what_is_saved_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    first, second = build_model(CARDS[name](), 0), build_model(CARDS[name](), 1)
    path = tmp_path / "a" / "model.safetensors"
    save_weights(first, path)
    load_weights(second, path)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_the_first_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    model = build_model(make_card(), 0)
    path = tmp_path / "model.safetensors"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for change, message in (
        (lambda s: s.pop("image.position"), r"1 tensor is missing \(image\.position\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 tensor is not part of the model \(extra\)"),
        (
            lambda s: s.update({"text.position": torch.zeros(3, 4)}),
            r"1 tensor is of another shape \(text\.position: \[3, 4\] in the file, \[.*\] in the model\)",
        ),
    ):
        state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
        change(state)
        save_file(state, path)
        with pytest.raises(BenchError, match=message):
            load_weights(model, path)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    model = build_model(make_card(), 0)
    with pytest.raises(BenchError, match="no such file"):
        load_weights(model, tmp_path / "none.safetensors")
    for name, content in (("a.safetensors", b"\x10"), ("a.pt", b"not a checkpoint"), ("b.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BenchError, match=name) as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BenchError, match="something other than names and tensors"):
        read_tensors(tmp_path / "list.pt")


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "owned").touch, ())

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BenchError, match="contains more than tensors"):
        read_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(build_model(open_clip_card("small-vit"), 0), path)
    before = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_weights(build_model(open_clip_card("small-vit"), 1), path)
    assert path.read_bytes() == before
    assert load_file(path)


def test_the_hub_is_asked_once_and_its_state_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    module.hub_answers.cache_clear()

    class Session:
        def head(self, *_: object, **__: object) -> None:
            asked.append(1)
            raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for _ in range(2):
        with hub("a", "b"):
            assert constants.HF_HUB_OFFLINE is True
        assert constants.HF_HUB_OFFLINE is False
    assert asked == [1]
    with pytest.raises(BenchError, match=r"^what: ValueError: first second; do this$"), hub("what", "do this"):
        raise ValueError("first\n  second")
    assert constants.HF_HUB_OFFLINE is False
    module.hub_answers.cache_clear()
