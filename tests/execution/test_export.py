"""An exported cell in open_clip gives the same embeddings, and the same numbers in CLIP_benchmark."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from benchmark.tasks.retrieval import Retrieval
from benchmark.tasks.zero_shot import ZeroShot
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from safetensors.torch import save_file

from benchmark.common.errors import BenchError
from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.data.resizing import resized
from benchmark.evaluation.encoder import ModelEncoder
from benchmark.evaluation.evaluation import Evaluation
from benchmark.execution.export import OpenClipModel, export, find_cell
from benchmark.method import METHODS
from benchmark.models import ModelCard, build_model, build_tokenizer
from benchmark.store.store import Store
from tests.data.make import picture
from tests.models.make import RESNET, TEXT, VIT

LONG = TEXT | {"context_length": 32, "vocab_size": 49408}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "export-vit": {"embed_dim": 20, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": LONG},
    "export-rn": {"embed_dim": 20, "vision_cfg": RESNET, "text_cfg": LONG},
    "export-timm": {
        "embed_dim": 20,
        "custom_text": True,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "mlp"},
        "text_cfg": {**LONG, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
}


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def card(seen: str, read: str = "", **changes: Any) -> ModelCard:
    read = read or seen
    content = {
        "name": "small",
        "embed_dim": 20,
        "image": {"kind": "open_clip", "name": seen},
        "text": {"kind": "open_clip", "name": read},
        "tokenizer": {"kind": "open_clip", "name": read},
    }
    return ModelCard.model_validate(content | changes)


def trained(store: Store, of: ModelCard, key: str = "abc123", scale: float = 20.0, method: str = "clip") -> Any:
    """A finished cell of a model with random weights, as a training leaves it; returns the model."""
    torch.manual_seed(0)
    model = build_model(of, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = store.partial(key)
    folder.mkdir(parents=True)
    state = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state | {"logit_scale": torch.tensor(math.log(scale))}, folder / "last.safetensors")
    content = {
        "method": "clip",
        "options": {},
        "training": {},
        "model": of.model_dump(mode="json", exclude={"title", "init"}),
        "tokenizer_data": [],
    }
    label = {"suite": "s", "model": "small", "method": method, "variant": "", "seed": 0}
    store.finish(key, {"label": label, "content": content, "classes": []}, {"seconds": 1.0})
    return model


def pretrained_on_squashed(folder: Path) -> str:
    """A model of open_clip whose images were resized in another way than CLIP's."""
    folder.mkdir()
    model = open_clip.create_model("export-vit")
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    said = {"interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": ARCHITECTURES["export-vit"], "preprocess_cfg": said}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("export-vit", ""),
        ("export-rn", ""),
        ("export-timm", ""),
        ("export-rn", "export-timm"),
        ("squash", "export-vit"),
    ],
)
def test_open_clip_gives_the_same_embeddings(image: str, text: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    if image == "squash":
        image = pretrained_on_squashed(tmp_path / "squash")
    of = card(image, text)
    ours = trained(store, of)
    exported = export(store, find_cell(store, "clip"), tmp_path / "out")
    assert (exported.checkpoint, exported.format) == ("last", "open_clip")
    assert [file.name for file in exported.files] == ["open_clip_config.json", "open_clip_model.safetensors"]

    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    theirs.eval()
    size = ours.image_size
    texts = ["a red square", "no finding in this one, nor in any other"]
    encoder = ModelEncoder(ours, build_tokenizer(of, None, tmp_path), "cpu", "f", 1.0)
    with torch.no_grad():
        tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(texts)
        text_there = theirs.encode_text(tokens, normalize=True)
    # Of 1,000 pixels one is rounded otherwise where a picture is resized.
    for seen, tolerance in ((picture(size, size), 1e-6), (picture(size + 60, size + 13), 1e-3)):
        with torch.no_grad():
            image_there = theirs.encode_image(preprocess(seen)[None], normalize=True)
        x = torch.from_numpy(resized(seen, size, ours.resizing))[None]
        np.testing.assert_allclose(encoder.encode_images(x).embeddings, image_there, atol=tolerance)
    np.testing.assert_allclose(encoder.encode_texts(texts).embeddings, text_there, atol=1e-6)
    assert float(theirs.logit_scale.detach().exp()) == pytest.approx(20.0)


def test_clip_benchmark_gives_the_same_numbers(tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(squares)
    store = Store(tmp_path / "results")
    of = card("export-vit")
    ours = trained(store, of)
    export(store, "abc123", tmp_path / "out")
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    theirs.eval()

    dataset = open_dataset(load_card("squares.yaml"), cache=tmp_path)
    data = Evaluation(ModelEncoder(ours, build_tokenizer(of, None, tmp_path), "cpu", "f", 1.0), dataset, None, tmp_path)
    (zero_shot,) = ZeroShot(ZeroShot.Config()).evaluate(data, 0)
    retrieval = {found.part: found for found in Retrieval(Retrieval.Config()).evaluate(data, 0)}

    records = dataset.records("test")
    images = torch.stack([preprocess(row["image"]) for row in records])
    label = torch.tensor(records["label"][:])
    classifier = zeroshot_classification.zero_shot_classifier(
        theirs, tokenizer, data.classes, ["a {c} square"], "cpu", amp=False
    )
    logits, _ = zeroshot_classification.run_classification(theirs, classifier, [(images, label)], "cpu", amp=False)
    # Its own accuracy() wants an older numpy.
    accuracy = (logits.argmax(dim=1) == label).double().mean().item()
    assert zero_shot.metrics["accuracy"](zero_shot.examples) == pytest.approx(accuracy)
    recall = zeroshot_retrieval.evaluate(
        theirs, [(images, records["text"][:])], tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    for k in (1, 5, 10):
        for part, name in (("image_to_text", "text"), ("text_to_image", "image")):
            value = retrieval[part].metrics[f"recall@{k}"](retrieval[part].examples)
            assert value == pytest.approx(recall[f"{name}_retrieval_recall@{k}"])
    assert 0 < recall["text_retrieval_recall@10"] < 1


def test_the_encoder_that_was_evaluated_is_exported(tmp_path: Path) -> None:
    """With a teacher that is evaluated, the teacher, at its temperature."""
    store, of = Store(tmp_path / "results"), card("export-vit")
    options = {"queue_size": 4, "evaluate": "teacher"}
    method = METHODS["msd"](build_model(of, 0), METHODS["msd"].Config(**options))
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.05)
    folder = store.partial("abc")
    folder.mkdir(parents=True)
    save_file({name: x.clone().contiguous() for name, x in method.state_dict().items()}, folder / "last.safetensors")
    content: dict[str, Any] = {"method": "msd", "options": options, "training": {}, "tokenizer_data": []}
    content["model"] = of.model_dump(mode="json", exclude={"title", "init"})
    store.finish("abc", {"label": {"method": "msd"}, "content": content, "classes": []}, {"seconds": 1.0})
    export(store, "abc", tmp_path / "out")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    images = torch.rand(2, 3, of.image_size or 32, of.image_size or 32)
    mean, std = (torch.tensor(x)[:, None, None] for x in (theirs.visual.image_mean, theirs.visual.image_std))
    with torch.no_grad():
        expected = method.teacher.eval().encode_image(images)
        torch.testing.assert_close(theirs.encode_image((images - mean) / std, normalize=True), expected)
    assert float(theirs.logit_scale.detach().exp()) == pytest.approx(method.temperature_scale)


def test_what_open_clip_cannot_load_is_refused(tmp_path: Path) -> None:
    tiny = {"kind": "tiny", "width": 32, "layers": 1, "heads": 2}
    corpus = {"kind": "corpus", "vocab_size": 300, "context_length": 32}
    for changes, message in (
        ({"image": tiny, "image_size": 32}, "its image tower is of kind tiny.*such as vit-b-16"),
        ({"text": tiny}, "its text tower is of kind tiny"),
        ({"tokenizer": corpus}, "its tokenizer is of kind corpus"),
        ({"tokenizer": {"kind": "open_clip", "name": "export-rn"}}, "its tokenizer is not that of its text tower"),
        (
            {
                "text": {"kind": "open_clip", "name": "export-rn"},
                "tokenizer": {"kind": "open_clip", "name": "export-rn"},
            },
            "one tower uses QuickGELU",
        ),
    ):
        with pytest.raises(BenchError, match=message):
            OpenClipModel(card("export-vit", **changes))
    model = OpenClipModel(card("export-vit"))
    with pytest.raises(BenchError, match="the cell's towers differ from open_clip's"):
        model.load({"adapter": torch.zeros(1)})


def test_cells_are_found_by_key_and_method(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    with pytest.raises(BenchError, match=r"^no trained cell in .*results; run bench run first"):
        find_cell(store, "clip")
    trained(store, card("export-vit"), "abc123")
    trained(store, card("export-vit"), "abd456", method="msd")
    trained(store, card("export-vit"), "eee", method="msd")
    assert find_cell(store, "clip") == "abc123"
    assert find_cell(store, "abd") == "abd456"
    with pytest.raises(
        BenchError, match=r"'msd' matches several trained cells; name one of them: abd456 \(msd, small, 0\)"
    ):
        find_cell(store, "msd")
    store.cell("eee").rename(store.partial("eee"))
    cell = json.loads((store.partial("eee") / "cell.json").read_text())
    cell["label"]["pretraining"] = "few"
    store.finish("eee", cell, {"seconds": 1.0})
    with pytest.raises(BenchError, match=r"abd456 \(msd, small, 0\), eee \(msd, small, few, 0\)"):
        find_cell(store, "msd")
    with pytest.raises(BenchError, match="unknown trained cell, arm or method 'clp'; did you mean 'clip'"):
        find_cell(store, "clp")
    export(store, "eee", tmp_path / "out")
    with pytest.raises(BenchError, match="exists already"):
        export(store, "eee", tmp_path / "out")
