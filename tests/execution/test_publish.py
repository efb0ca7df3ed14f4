"""An exported cell has a model card that the hub reads and that hides nothing; uploads happen on demand alone."""

import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from markdown_it import MarkdownIt
from safetensors.torch import save_file
from typer.testing import CliRunner

from benchmark.api import export_cell
from benchmark.cli.main import app
from benchmark.common.errors import BenchError
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.evaluation.external import external_model
from benchmark.execution.export import export
from benchmark.execution.materials import load_trained
from benchmark.execution.publish import push
from benchmark.models import ModelCard as Model
from benchmark.models import build_model
from benchmark.store.store import Store
from tests.models.make import make_card, save_hugging_face, transformers_card

HOSTILE = "<script>alert(1)</script> | **x** \u202e\x1b[31m"
CARD = """\
source:
  kind: manifest
  file: w.jsonl
  image_root: .
  columns: {id: id, image: image, label: label, group: id, split: split}
classes: [a, b]
title: "<b>Ward</b> | images"
licence: no sharing
access: credentialed
citation: "Doe et al. 2020, arXiv 2001.00001"
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A finished cell of a small transformers model, pretrained on a restricted dataset and one that is not here."""
    save_hugging_face(tmp_path / "words", ends=True)
    tokenizer = {"kind": "huggingface", "name": str(tmp_path / "words"), "context_length": 12}
    of = Model.model_validate(transformers_card("bert").model_dump() | {"tokenizer": tokenizer})
    return trained(Store(tmp_path / "results"), of, tmp_path)


def trained(store: Store, of: Model, folder: Path, method: str = "clip") -> Store:
    torch.manual_seed(0)
    state = {f"model.{name}": tensor.contiguous() for name, tensor in build_model(of, 0).state_dict().items()}
    store.partial("abc").mkdir(parents=True)
    save_file(state | {"logit_scale": torch.tensor(math.log(20.0))}, store.partial("abc") / "last.safetensors")
    content: dict[str, Any] = {
        "method": method,
        "options": {},
        "training": {"batch_size": 64, "note": HOSTILE},
        "model": of.model_dump(mode="json", exclude={"title", "init"}),
        "tokenizer_data": [],
        "pretraining": [["ward", "1"], ["elsewhere", "2"]],
    }
    label: Any = {"suite": "s", "model": "small", "method": method, "arm": method, "variant": HOSTILE, "seed": 0}
    cost = {"seconds": 12.0, "samples": 640, "machine": {"processor": "cpu", "torch": "2"}, "version": "0.1"}
    store.finish("abc", {"label": label, "content": content, "classes": []}, cost)
    (folder / "ward.yaml").write_text(CARD)
    store.keep_datasets({"ward": {"card": str(folder / "ward.yaml"), "on_bad_data": "error"}})
    for task, dataset, low, part in (("retrieval", HOSTILE, 0.05, "image_to_text"), ("zero_shot", "busi", 0.4, "")):
        row = label | {"task": task, "dataset": dataset, "part": part, "metric": "accuracy", "value": 0.5, "low": low}
        row |= {"high": 0.61, "chance": 0.25, "n": 1200, "groups": 6, "effective_groups": 6.0, "scarcest": None}
        row |= {"primary": True, "examples": "e", "cell": "abc", "evaluation": task}
        hidden = row | {"metric": "other", "primary": False}
        store.add_evaluation("abc", task, {"evaluation": {}}, [row, hidden], {part: {"id": np.array(["1"])}}, {}, {})
    return store


def test_any_model_is_exported_and_loads_again(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"which open_clip cannot load.*or pass --format huggingface"):
        export(store, "abc", tmp_path / "out")
    exported, restricted = export_cell(store, "clip", tmp_path / "out", "huggingface")
    assert exported.format == "contrastive-benchmark"
    assert restricted == ["ward", "elsewhere"]
    assert exported.files[0] == tmp_path / "out" / "README.md"
    before = load_trained(store, "abc", "last").encoder(torch.device("cpu"))
    after = external_model(f"hf:{tmp_path / 'out'}").build(torch.device("cpu"), "f", None)
    assert isinstance(after, ModelEncoder)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    np.testing.assert_array_equal(before.encode_images(pixels).embeddings, after.encode_images(pixels).embeddings)
    texts = ["a chest radiograph", "no lung"]
    np.testing.assert_array_equal(before.encode_texts(texts).embeddings, after.encode_texts(texts).embeddings)
    assert after.temperature_scale == pytest.approx(20.0)
    assert "/words" not in (tmp_path / "out" / "config.json").read_text()
    with pytest.raises(BenchError, match="exists already"):
        export(store, "abc", tmp_path / "out", "huggingface")
    with pytest.raises(BenchError, match="unknown format 'onnx'"):
        export(store, "abc", tmp_path / "new", "onnx")


def test_methods_that_compare_by_token_keep_doing_so(tmp_path: Path) -> None:
    save_hugging_face(tmp_path / "words", ends=True)
    tokenizer = {"kind": "huggingface", "name": str(tmp_path / "words"), "context_length": 12}
    of = Model.model_validate(transformers_card("bert").model_dump() | {"tokenizer": tokenizer})
    store = trained(Store(tmp_path / "results"), of, tmp_path, "filip")
    export(store, "abc", tmp_path / "out", "huggingface")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["by_tokens"] is True


def test_the_model_card_says_what_the_cell_says(store: Store, tmp_path: Path) -> None:
    export_cell(store, "clip", tmp_path / "out", "huggingface")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "other"
    assert card.data.library_name == "contrastive-benchmark"
    assert card.data.datasets == ["ward", "elsewhere"]
    assert "clip" in card.data.tags
    assert card.data.metrics == ["accuracy"]
    scores = {(each.task_type, each.metric_type): each for each in card.data.eval_results}
    assert set(scores) == {("retrieval", "accuracy"), ("zero_shot", "accuracy")}
    assert scores["zero_shot", "accuracy"].metric_value == 0.5
    assert scores["zero_shot", "accuracy"].metric_name == "accuracy, 95 % interval 0.4000 to 0.6100"
    assert scores["retrieval", "accuracy"].metric_name.startswith("image_to_text accuracy")
    text = card.text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    sections = ["How to load", "Method", "Data", "Settings", "Scores", "Limits", "How to cite"]
    assert headings[1:] == sections
    rows = [line for line in text.splitlines() if line.startswith("| zero\\_shot")]
    assert rows == ["| zero\\_shot | busi | accuracy | 50.0 | 40.0–61.0 | 25.0 | 1,200 |"]
    assert "hold for these weights" in text
    assert "symmetric InfoNCE" in text
    assert "Trained on ward, whose access is restricted (credentialed, licence: no sharing)" in text
    assert "The terms of the pretraining data elsewhere are not known here" in text
    assert "zero\\_shot on busi: too few patients (6)" in text
    limit = next(line for line in text.splitlines() if "The interval reaches chance" in line)
    assert "retrieval" in limit
    assert "zero" not in limit
    assert "@misc{arXiv:2103.00020" in text
    assert "batch_size: 64" in text


def test_hostile_names_show_as_text_in_the_model_card(store: Store, tmp_path: Path) -> None:
    export_cell(store, "clip", tmp_path / "out", "huggingface")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not {"\x1b", "\u202e"} & set(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)
    inside = [child for token in tokens for child in token.children or []]
    assert not [token for token in [*tokens, *inside] if token.type.startswith("html")]
    assert not [child for child in inside if child.type == "strong_open"]


def test_the_licence_is_the_one_that_is_asked_for(store: Store, tmp_path: Path) -> None:
    export_cell(store, "clip", tmp_path / "out", "huggingface", "apache-2.0")
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.license, data.license_name) == ("apache-2.0", None)


def test_the_command_says_what_it_wrote_and_warns(store: Store, tmp_path: Path) -> None:
    arguments = ["export", "clip", "--output", str(tmp_path / "out"), "--format", "huggingface"]
    done = CliRunner().invoke(app, [*arguments, "--results", str(store.folder)])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "out" / "README.md") in done.output
    assert "trained on data whose terms may hold for the weights: ward, elsewhere" in done.output
    assert "bench push" in done.output


class Hub:
    """A hub that records the calls of HfApi, with the arguments that the real one takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = create_autospec(HfApi, instance=True)
        self.api.create_repo.return_value = "https://huggingface.co/me/model"
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self.api)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
        monkeypatch.setattr("benchmark.execution.publish.hub_answers", lambda: True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name in ("README.md", "config.json", "model.safetensors", "patients.png"):
        (path / name).write_text("x")
    return path


def test_a_push_creates_the_repository_and_uploads_what_was_exported(hub: Hub, folder: Path) -> None:
    done = CliRunner().invoke(app, ["push", str(folder), "--repo", "me/model", "--private"])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == "https://huggingface.co/me/model"
    (create,), (upload,) = hub.api.create_repo.call_args_list, hub.api.upload_folder.call_args_list
    assert create.args == ("me/model",)
    assert create.kwargs == {"private": True, "repo_type": "model", "exist_ok": True}
    assert (upload.kwargs["repo_id"], upload.kwargs["folder_path"]) == ("me/model", folder)
    from huggingface_hub.utils import filter_repo_objects

    names = [path.name for path in folder.iterdir()]
    allowed = filter_repo_objects([*names, "tokenizer/a.json"], allow_patterns=upload.kwargs["allow_patterns"])
    assert set(allowed) == {"README.md", "config.json", "model.safetensors", "tokenizer/a.json"}
    push(folder, "me/model")
    assert hub.api.create_repo.call_args.kwargs["private"] is False


def test_nothing_is_uploaded_without_network_token_or_card(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model", "a/b/c", "a b/c", ""):
        with pytest.raises(BenchError, match=r"--repo .*: expected USER/NAME"):
            push(folder, name)
    with monkeypatch.context() as patch:
        patch.setattr("benchmark.execution.publish.hub_answers", lambda: False)
        with pytest.raises(BenchError, match="cannot be reached; nothing was uploaded"):
            push(folder, "me/model")
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(BenchError, match="cannot be reached; nothing was uploaded"):
            push(folder, "me/model")
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "get_token", lambda: None)
        with pytest.raises(BenchError, match="no token for the hub: run `hf auth login` or set HF_TOKEN"):
            push(folder, "me/model")
    (folder / "README.md").unlink()
    with pytest.raises(BenchError, match=r"no model card \(README.md\); write the folder with bench export"):
        push(folder, "me/model")
    assert not hub.api.method_calls


def test_what_the_hub_answers_is_said_in_one_line(hub: Hub, folder: Path) -> None:
    hub.api.upload_folder.side_effect = RuntimeError("403\nForbidden")
    with pytest.raises(BenchError, match=r"^me/model: the hub refused: RuntimeError: 403 Forbidden$"):
        push(folder, "me/model")


def test_a_card_of_a_tiny_model_needs_no_evaluation(tmp_path: Path) -> None:
    from benchmark.report.model_card import model_card

    store = trained(Store(tmp_path / "results"), make_card(), tmp_path)
    for path in (store.cell("abc") / "evaluations").glob("*/rows.json"):
        path.write_text("[]")
    card = ModelCard(model_card(store, "abc", "last", "contrastive-benchmark"))
    assert "Not evaluated." in card.text
    assert card.data.eval_results is None
    assert "The tokenizer was trained on the pretraining texts" in card.text
