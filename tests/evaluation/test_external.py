"""External models: each gives what its own library gives, and is evaluated like a method."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, SiglipImageProcessor

from benchmark.common.errors import BenchError
from benchmark.common.seeding import torch_seed
from benchmark.data import prepared
from benchmark.data.resizing import DEFAULT, Resizing, resized
from benchmark.evaluation.encoder import Encoder, ModelEncoder, TokenEncoder, Trainable
from benchmark.evaluation.external import external_model, is_external
from benchmark.evaluation.images_only import ImageEncoder
from benchmark.models import ModelCard, build_model, build_tokenizer
from benchmark.models.card import OpenClipImage
from benchmark.models.from_open_clip import open_clip_image
from benchmark.models.from_timm import TimmImageTower, timm_resizing
from tests.data.make import picture
from tests.evaluation.folders import TEXTS, clip_folder, tokenizer
from tests.models.make import TEXT, VIT
from tests.squares import MODEL, Bench

NAME = "bench-small"
SQUASH = Resizing("squash")
CONFIG = {"embed_dim": 20, "vision_cfg": VIT, "text_cfg": TEXT | {"context_length": 16, "vocab_size": 49408}}


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("architectures") / f"{NAME}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)


class Bare:
    """What a run hands to the encoder of an external model: its device alone."""

    device = torch.device("cpu")


def encoder(spec: str) -> Encoder:
    materials: Any = Bare()
    return external_model(spec).fixed(0, "suite").build(materials)


def images(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8, and in 0..1."""
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return pixels, pixels.float() / 255


def normalised(x: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def checkpoint(folder: Path, seed: int = 0) -> tuple[Path, Any]:
    torch.manual_seed(seed)
    model = open_clip.create_model(NAME).eval()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    path = folder / f"open-{seed}.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path, model


def test_open_clip(tmp_path: Path) -> None:
    path, model = checkpoint(tmp_path)
    found = encoder(f"open_clip:{NAME}/{path}")
    pixels, x = images(32)
    x = normalised(x, model.visual.image_mean, model.visual.image_std)
    with torch.no_grad():
        expected = model.encode_image(x, normalize=True), model.encode_text(open_clip.get_tokenizer(NAME)(TEXTS), True)
    np.testing.assert_allclose(found.encode_images(pixels).embeddings, expected[0], atol=1e-6)
    np.testing.assert_allclose(found.encode_texts(TEXTS).embeddings, expected[1], atol=1e-6)
    assert found.encode_images(pixels).features.shape == (3, 24)
    assert found.temperature_scale == pytest.approx(np.exp(3.0), rel=1e-6)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_face(kind: str, tmp_path: Path) -> None:
    model = clip_folder(tmp_path, kind)
    found = encoder(f"hf:{tmp_path}")
    pixels, x = images(32)
    padding = "max_length" if kind == "siglip" else "longest"
    tokens = tokenizer()(TEXTS, return_tensors="pt", padding=padding, truncation=True, max_length=12)
    if kind == "clip":
        tokens = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    else:
        tokens = {"input_ids": tokens["input_ids"]}
    with torch.no_grad():
        out = model(pixel_values=normalised(x, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), **tokens)
    np.testing.assert_allclose(found.encode_images(pixels).embeddings, F.normalize(out.image_embeds), atol=1e-6)
    np.testing.assert_allclose(found.encode_texts(TEXTS).embeddings, F.normalize(out.text_embeds), atol=1e-6)
    np.testing.assert_allclose(found.encode_texts(TEXTS[:1]).embeddings, F.normalize(out.text_embeds[:1]), atol=1e-6)
    assert found.temperature_scale == pytest.approx(float(model.logit_scale.exp().detach()))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_copy_of_hugging_face_is_trained_alone(kind: str, tmp_path: Path) -> None:
    clip_folder(tmp_path, kind)
    found: Any = encoder(f"hf:{tmp_path}")
    assert isinstance(found, Trainable)
    pixels, _ = images(32)
    before = found.encode_images(pixels), found.encode_texts(TEXTS)
    copy = found.copy()
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.1)
    for expected, (features, embeddings) in zip(before, (copy.image_outputs(pixels), copy.text_outputs(TEXTS))):
        np.testing.assert_array_equal(features.detach(), expected.features)
        np.testing.assert_array_equal(embeddings.detach(), expected.embeddings)
        (features.square().sum() + embeddings.sum()).backward()
    optimizer.step()
    for old, new in zip(before, (found.encode_images(pixels), found.encode_texts(TEXTS))):
        np.testing.assert_array_equal(new.features, old.features)
    for old, new in zip(before, (copy.encode_images(pixels), copy.encode_texts(TEXTS))):
        assert (new.features != old.features).any()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_hugging_face_projects_images_and_words(kind: str, tmp_path: Path) -> None:
    clip_folder(tmp_path, kind)
    model: Any = encoder(f"hf:{tmp_path}")
    pixels, _ = images(32)
    projected = model.projected_images(pixels)
    torch.testing.assert_close(F.normalize(projected, dim=-1), model.image_outputs(pixels)[1])
    length = model.context_length
    words = model.projected_words(TEXTS, length)
    assert words.shape == (len(TEXTS), length, projected.shape[1])
    lengths = (words != 0).any(dim=-1).sum(dim=1)
    assert lengths.unique().numel() > 1
    assert all((row[count:] == 0).all() for row, count in zip(words, lengths))
    if kind == "clip":
        # CLIP projects one token of each text, here the first of the highest number.
        limits = {"padding": "longest", "truncation": True, "max_length": length}
        tokens = model.tokenizer(TEXTS, return_tensors="pt", **limits).input_ids
        last = words[torch.arange(len(TEXTS)), tokens.argmax(dim=-1)]
        torch.testing.assert_close(F.normalize(last, dim=-1), model.text_outputs(TEXTS)[1])
    torch.testing.assert_close(model.projected_words(TEXTS, 3), words[:, :3])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_hugging_face_gives_tokens_before_the_projection(kind: str, tmp_path: Path) -> None:
    clip_folder(tmp_path, kind)
    model: Any = encoder(f"hf:{tmp_path}")
    assert isinstance(model, TokenEncoder)
    pixels, _ = images(32)
    tower = model.model.vision_model
    hidden = tower(pixel_values=(pixels / 255 - model.mean) / model.std, output_hidden_states=True).hidden_states[-1]
    tokens = model.image_tokens(pixels)
    assert tokens.shape == (len(pixels), 16, 16)
    # 4 x 4 patches after the last norm; CLIP's class token is its feature, SigLIP pools them by attention.
    torch.testing.assert_close(tokens, tower.post_layernorm(hidden)[:, -16:])
    pooled = tower.post_layernorm(hidden[:, 0]) if kind == "clip" else tower.head(tokens)
    torch.testing.assert_close(pooled, model.image_outputs(pixels)[0])
    words, mask = model.text_tokens(TEXTS)
    rows = model.tokenizer(TEXTS, truncation=True, max_length=model.context_length).input_ids
    assert mask.sum(1).tolist() == [len(row) for row in rows]
    assert mask.sum(1).unique().numel() > 1
    if kind == "clip":
        # CLIP's feature is one token of each text, here the first of the highest number.
        highest = torch.stack([tokens[row.index(max(row))] for tokens, row in zip(words, rows)])
        torch.testing.assert_close(highest, model.text_outputs(TEXTS)[0])


def test_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7).eval()
    path = tmp_path / "vit.safetensors"
    save_file(model.state_dict(), path)
    given = external_model(f"timm:test_vit/{path}")
    assert given.images_only
    assert given.name == f"timm:test_vit/{path}"
    found = encoder(f"timm:test_vit/{path}")
    pixels, x = images(found.image_size)
    config = timm.data.resolve_model_data_config(model)
    with torch.no_grad():
        features = model.forward_features(normalised(x, config["mean"], config["std"]))
        expected = model.forward_head(features, pre_logits=True)
    encoded = found.encode_images(pixels)
    assert found.resizing == timm_resizing(model) != DEFAULT
    np.testing.assert_allclose(encoded.features, expected, atol=1e-5)
    np.testing.assert_allclose(encoded.embeddings, F.normalize(expected), atol=1e-6)


SHAPES = [(90, 41), (41, 90), (160, 160), (223, 190)]


def as_given(found: Encoder) -> torch.Tensor:
    """Pictures of any shape as the harness hands them to an encoder."""
    pixels = [resized(picture(*shape), found.image_size, found.resizing) for shape in SHAPES]
    return torch.from_numpy(np.stack(pixels))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clip_sees_any_picture_as_its_own_preprocessing_makes_it(mode: str, tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    path.rename(tmp_path / "open_clip_model.safetensors")
    said = {"mean": [0.4] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "resize_mode": mode, "fill_color": 90}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": said}))
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    theirs.eval()
    with torch.no_grad():
        images = torch.stack([preprocess(picture(*shape)) for shape in SHAPES])
        expected = theirs.encode_image(images, normalize=True)
    found = encoder(f"open_clip:local-dir:{tmp_path}")
    np.testing.assert_allclose(found.encode_images(as_given(found)).embeddings, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "tag", "mode", "interpolation"),
    [
        ("ViT-B-32", "openai", "shortest", "bicubic"),
        ("ViT-L-14-CLIPA", "datacomp1b", "squash", "bilinear"),
        ("MobileCLIP-S1", "datacompdr", "shortest", "bilinear"),
    ],
)
def test_a_tag_of_open_clip_says_how_images_are_resized(name: str, tag: str, mode: Any, interpolation: str) -> None:
    with torch.device("meta"):
        tower, _ = open_clip_image(OpenClipImage(kind="open_clip", name=name, pretrained=tag), None, weights=False)
    assert tower.resizing == Resizing(mode, interpolation)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_face_sees_any_picture_as_its_own_processor_makes_it(kind: str, tmp_path: Path) -> None:
    model = clip_folder(tmp_path, kind)
    processor: Any
    if kind == "clip":
        size, crop = {"shortest_edge": 37}, {"height": 32, "width": 32}
        processor = CLIPImageProcessor(size=size, crop_size=crop, resample=2, do_normalize=False)
    else:
        processor = SiglipImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 128)
    processor.save_pretrained(tmp_path)
    found: Any = encoder(f"hf:{tmp_path}")
    assert found.notes == []
    x = processor([picture(*shape) for shape in SHAPES], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=x)
    expected = F.normalize(getattr(expected, "pooler_output", expected))
    np.testing.assert_allclose(found.encode_images(as_given(found)).embeddings, expected, atol=5e-3)


@pytest.mark.parametrize("changes", [{"interpolation": "bilinear"}, {"crop_mode": "squash"}, {"crop_mode": "border"}])
def test_timm_sees_any_picture_as_its_own_transform_makes_it(changes: dict[str, Any]) -> None:
    with torch_seed(0):
        model = timm.create_model("test_vit", pretrained_cfg_overlay=changes, num_classes=0).eval()
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        expected = F.normalize(model(torch.stack([transform(picture(*shape)) for shape in SHAPES])))
    found = ImageEncoder(TimmImageTower(model, None, "test_vit"), timm_resizing(model), torch.device("cpu"), "f")
    np.testing.assert_allclose(found.encode_images(as_given(found)).embeddings, expected, atol=2e-3)


def test_fingerprints_depend_on_how_images_are_resized(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    tower = TimmImageTower(model, None, "test_vit")
    assert len({ImageEncoder(tower, r, torch.device("cpu"), "f").fingerprint for r in (DEFAULT, SQUASH)}) == 2
    card = ModelCard.model_validate({"name": "small", **MODEL})
    dual = build_model(card, 0)
    words: Any = build_tokenizer(card, lambda: iter(TEXTS), tmp_path)
    found = set()
    for dual.resizing in (DEFAULT, SQUASH):
        found.add(ModelEncoder(dual, words, "cpu", "f", 1.0).fingerprint)
    assert len(found) == 2


def test_training_and_evaluation_see_images_as_the_weights_of_a_card_ask(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = checkpoint(tmp_path)
    path.rename(tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"resize_mode": "squash"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    card = MODEL | {"image": {"kind": "open_clip", "name": f"local-dir:{tmp_path}"}}
    (bench.folder / "squash.yaml").write_text(yaml.safe_dump(card))
    seen = []
    prepare = prepared.prepare

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.append(options.get("resizing", arguments[-1]))
        return prepare(*arguments, **options)

    monkeypatch.setattr("benchmark.data.prepared.prepare", spy)
    monkeypatch.setattr("benchmark.execution.materials.prepare", spy)
    quick = ["--suite", "suite.yaml", "--model", "squash.yaml", "--methods", "clip", "--tasks", "linear_probe"]
    assert bench("run", *quick, "--set", "training.samples=64") == 0, bench.out + bench.err
    assert len(seen) > 4
    assert set(seen) == {SQUASH}


def test_what_a_processor_does_and_the_harness_does_not_is_said(bench: Bench) -> None:
    clip_folder(bench.folder / "clip", "clip")
    quick = ["--suite", "suite.yaml", "--tasks", "linear_probe"]
    assert bench("eval", "--model", "hf:clip", *quick) == 0, bench.out + bench.err
    assert "hf:clip: the image processor makes 224 pixels a side; the model expects 32" in " ".join(bench.out.split())


def test_keys_depend_on_the_weights_and_not_on_their_place(tmp_path: Path) -> None:
    first, _ = checkpoint(tmp_path)
    second, _ = checkpoint(tmp_path, seed=1)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(first.read_bytes())
    keys = [external_model(f"open_clip:{NAME}/{path}").fixed(0, "s").key for path in (first, second, moved)]
    assert keys[0] == keys[2] != keys[1]
    assert external_model(f"open_clip:{NAME}/{first}").fixed(1, "s").key != keys[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clp:x", "unknown kind of model (before the colon of --model) 'open_clp'; did you mean 'open_clip'?"),
        ("open_clip:", "expected a name after the colon"),
        ("open_clip:ViT-B-33", "unknown open_clip architecture 'ViT-B-33'"),
        ("open_clip:ViT-B-32/opennai", "unknown pretrained tag of ViT-B-32 'opennai'; did you mean 'openai'?"),
        (f"open_clip:{NAME}/none.pt", "no such file"),
        ("open_clip:local-dir:none", "no such folder"),
        ("hf:none", "no such folder"),
        ("timm:resnet10", "unknown timm image model 'resnet10'"),
        ("timm:resnet10t/none.pt", "no such file"),
    ],
)
def test_what_is_not_there(spec: str, message: str) -> None:
    with pytest.raises(BenchError) as raised:
        _ = is_external(spec) and external_model(spec)
    assert message in str(raised.value)


def test_models_in_folders_of_one_name_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the same name would replace each other in the report."""
    for run in ("a", "b"):
        folder = tmp_path / "here" / run / "model"
        folder.mkdir(parents=True)
        clip_folder(folder, "clip")
        checkpoint(folder)
        (folder / "open_clip_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here" / "b")

    def names(*specs: str) -> list[str]:
        return [external_model(spec).name for spec in specs]

    other = tmp_path / "here" / "a" / "model"
    assert names("hf:model", f"hf:{other}", "hf:../a/model") == ["hf:model", f"hf:{other}", f"hf:{other}"]
    assert names("open_clip:local-dir:model", f"open_clip:local-dir:{other}") == [
        "open_clip:model",
        f"open_clip:{other}",
    ]
    file = "open-0.safetensors"
    assert names(f"open_clip:{NAME}/model/{file}", f"open_clip:{NAME}/{other}/{file}") == [
        f"open_clip:{NAME}/model/{file}",
        f"open_clip:{NAME}/{other}/{file}",
    ]
    assert names(f"timm:test_vit/{other}/{file}") == [f"timm:test_vit/{other}/{file}"]


def test_names_of_cards_are_no_external_models() -> None:
    assert not is_external("vit-b-32")
    assert not is_external("folder/model.yaml")


def test_without_network_it_ends_in_a_line(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    quick = ["--suite", "suite.yaml", "--tasks", "linear_probe"]
    assert bench("eval", "--model", "timm:resnet10t", *quick) == 2, bench.out
    assert "timm weights of 'resnet10t': not in the cache" in bench.err
    assert len(bench.err.strip().splitlines()) == 1


@pytest.fixture
def quick(bench: Bench) -> list[str]:
    """What an evaluation with baselines is asked for, and a checkpoint of each library."""
    suite = yaml.safe_load((bench.folder / "suite.yaml").read_text()) | {"baselines": True}
    (bench.folder / "with.yaml").write_text(yaml.safe_dump(suite))
    checkpoint(bench.folder, seed=7)
    clip_folder(bench.folder / "clip", "clip")
    torch.manual_seed(7)
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), bench.folder / "vit.safetensors")
    return ["--suite", "with.yaml", "--tasks", "linear_probe,retrieval"]


@pytest.mark.parametrize(
    ("spec", "evaluated"),
    [
        (f"open_clip:{NAME}/open-7.safetensors", {"untrained": 2, "raw pixels": 1}),
        (f"open_clip:{NAME}/random", {"raw pixels": 1}),
        ("timm:test_vit/random", {"raw pixels": 1}),
        ("hf:clip", {"untrained": 2, "raw pixels": 1}),
        ("timm:test_vit/vit.safetensors", {"untrained": 1, "raw pixels": 1}),
        ("small.yaml", {"raw pixels": 1}),
    ],
)
def test_its_table_has_baselines(bench: Bench, quick: list[str], spec: str, evaluated: dict[str, int]) -> None:
    assert bench("eval", "--model", spec, *quick) == 0, bench.out + bench.err
    rows = bench.rows()
    below = rows[rows.role == "baseline"]
    assert below.groupby("method").task.nunique().to_dict() == evaluated
    assert len(set(below.model)) == 1
    assert "" not in set(below.model)
    own = rows[rows.role == "model"].set_index(["task", "part", "metric"]).value
    for _, of_one in below.groupby("method"):
        other = of_one.set_index(["task", "part", "metric"]).value
        assert (own.reindex(other.index) != other).any()
    assert bench("report", "--details") == 0
    assert all(name in bench.out for name in ("chance", "majority", *evaluated))


def test_random_models_are_marked_each_against_its_own_architecture(bench: Bench, quick: list[str]) -> None:
    path, _ = checkpoint(bench.folder, seed=0)
    evaluated = [f"open_clip:{NAME}/{path.name}", "hf:clip", "timm:test_vit/vit.safetensors", "small.yaml"]
    for spec in evaluated:
        assert bench("eval", "--model", spec, *quick) == 0, bench.out + bench.err
    rows = bench.rows()
    models = rows[rows.role == "model"]
    assert set(models.method) == {*evaluated[:3], "small (random)"}
    for _, row in models.drop_duplicates("method").iterrows():
        for column, baseline in (("start", "untrained"), ("raw_pixels", "raw pixels")):
            (below,) = rows[rows.cell == row[column]][["method", "model"]].drop_duplicates().itertuples(index=False)
            itself = row.method == "small (random)" and column == "start"
            of_model = row.method.removesuffix(" (random)")
            assert tuple(below) == (("small (random)", row.model) if itself else (baseline, of_model))

    assert bench("report") == 0
    page = (bench.folder / "results" / "report" / "report.md").read_text().replace("\\", "")
    probe, retrieval = (
        table_of(page, f"{title}, in percent") for title in ("linear_probe: accuracy", "retrieval: recall@10")
    )
    assert {f"untrained · {name}" for name in evaluated[:3]} < set(probe)
    # Weights of the untrained architecture itself, and those that a card leaves random, do not beat it.
    for table in (probe, retrieval):
        assert all("†" in table[name][0] for name in (evaluated[0], "small (random)"))
    # Squares of one colour each: raw pixels cannot be beaten. They have no texts to retrieve.
    assert all("‡" in probe[name][0] for name in (*evaluated[:3], "small (random)"))
    assert "‡" not in str(retrieval)
    before = table_of(page, "linear_probe: difference to the model before training, in points")
    assert set(before) == set(evaluated[:3])
    assert before[evaluated[0]][0].startswith("+0.0")
    against_pixels = table_of(page, "linear_probe: difference to raw pixels, in points")
    assert set(against_pixels) == {*evaluated[:3], "small (random)"}


def table_of(page: str, title: str) -> dict[str, list[str]]:
    """The cells of each row of a page's table, by the row's label."""
    table = page.split(f"## {title}")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {label: cells for label, *cells in rows}


def test_untrained_weights_are_those_of_the_seed_and_not_the_checkpoint(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, seed=7)
    clip_folder(tmp_path / "clip", "siglip")
    materials: Any = Bare()
    for spec in (f"open_clip:{NAME}/{path}", f"hf:{tmp_path / 'clip'}"):
        own = external_model(spec)
        first, again, second = (own.baselines(seed, "s")[0].build(materials) for seed in (0, 0, 1))
        x, _ = images(32)
        embeddings = [found.encode_images(x).embeddings for found in (first, again, second, encoder(spec))]
        np.testing.assert_array_equal(embeddings[0], embeddings[1])
        assert all((embeddings[0] != other).any() for other in embeddings[2:])
        assert len({first.fingerprint, second.fingerprint, encoder(spec).fingerprint}) == 3
        assert len({given.key for seed in (0, 1) for given in (own.fixed(seed, "s"), *own.baselines(seed, "s"))}) == 6


def test_raw_pixels_are_of_the_images_that_it_sees(tmp_path: Path) -> None:
    clip_folder(tmp_path, "siglip")
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    materials: Any = Bare()
    raw = external_model(f"hf:{tmp_path}").baselines(0, "s")[1].build(materials)
    assert (raw.image_size, raw.resizing) == (32, Resizing("squash", odd="down"))


def test_rows_stand_in_the_same_report(bench: Bench) -> None:
    path, _ = checkpoint(bench.folder)
    spec = ["--model", f"open_clip:{NAME}/{path.name}", "--suite", "suite.yaml"]
    quick = ["--suite", "suite.yaml", "--methods", "clip", "--tasks", "linear_probe"]
    assert bench("run", *quick, "--set", "training.samples=96") == 0
    assert bench("eval", *spec) == 0, bench.out + bench.err
    assert "trained 0, evaluated 5, done before 0, failed 0" in bench.out
    rows = bench.rows()
    assert set(rows.method) == {"clip", f"open_clip:{NAME}/{path.name}"}
    assert set(rows[rows.role == "model"].task) == {"zero_shot", "retrieval", "linear_probe", "few_shot", "vqa"}
    assert bench("eval", *spec) == 0
    assert "evaluated 0, done before 5" in bench.out
    assert bench("report", "--details") == 0
    assert "open_clip:" in bench.out
    assert any(verdict in bench.out for verdict in ("higher", "lower", "no difference", "too few"))

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), bench.folder / "vit.safetensors")
    assert bench("eval", "--model", "timm:test_vit/vit.safetensors", "--suite", "suite.yaml") == 0, bench.out
    assert "trained 0, evaluated 2, done before 0, failed 0" in bench.out
    found = bench.rows()
    assert set(found[found.method.str.startswith("timm")].task) == {"linear_probe", "few_shot"}

    assert bench("eval", "--model", "small.yaml", "--suite", "suite.yaml", "--tasks", "linear_probe") == 0, bench.out
    found = bench.rows()
    assert set(found[found.method == "small (random)"].role) == {"model"}
