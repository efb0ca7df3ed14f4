"""`bench eval` of published models: several at once, their authors' prompts, their terms; what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import CLIPImageProcessor, Siglip2Config, Siglip2Model

from benchmark.cli.main import app
from benchmark.common.errors import BenchError
from benchmark.evaluation.external import external_model
from benchmark.models.published import load_published
from tests.evaluation.folders import clip_folder
from tests.models.published import Place, write
from tests.squares import Bench

QUICK = ["--suite", "suite.yaml", "--tasks", "zero_shot,linear_probe"]


@pytest.fixture
def place(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path / "hub", monkeypatch)


def evaluate(bench: Bench, models: str, *options: str) -> int:
    return bench("eval", "--model", models, *QUICK, *options)


def test_several_models_are_evaluated_one_after_another(bench: Bench, place: Place) -> None:
    for name in ("biomedclip", "pubmedclip"):
        write(name, place)
    clip_folder(bench.folder / "clip", "clip")
    assert evaluate(bench, "biomedclip, pubmedclip,hf:clip") == 0, bench.out + bench.err
    rows = bench.rows()
    assert set(rows.method) == {"biomedclip", "pubmedclip", "hf:clip"}
    assert all(set(of_one.task) == {"zero_shot", "linear_probe"} for _, of_one in rows.groupby("method"))
    assert evaluate(bench, "biomedclip,pubmedclip") == 0
    assert bench.out.count("evaluated 0, done before 2") == 2


@pytest.mark.parametrize("wrong", ["medsiglip", "hf:none", "quiltnet"])
def test_one_that_fails_is_said_at_the_end_and_the_others_rows_are_kept(wrong: str, bench: Bench, place: Place) -> None:
    write("pubmedclip", place)
    if wrong == "quiltnet":
        card, _, _ = write("quiltnet", place)
        torch.save({"logit_scale": torch.tensor(1.0)}, place.of(card) / "open_clip_pytorch_model.bin")
    assert evaluate(bench, f"{wrong},pubmedclip") == 1, bench.out + bench.err
    assert set(bench.rows().method) == {"pubmedclip"}
    said = " ".join(bench.out.split())
    assert f"{wrong} failed: model '{wrong}'" in said or f"{wrong} failed: --model {wrong}: no such folder" in said
    assert "next: bench report" not in said
    assert "pubmedclip failed" not in said
    # Alone, it is a user's mistake like any other.
    assert evaluate(bench, wrong) == 2
    assert len(bench.err.strip().splitlines()) == 1


def test_an_unforeseen_error_of_one_model_does_not_stop_the_others(
    bench: Bench, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pubmedclip", "siglip2"):
        write(name, place)

    def broken(spec: str, known: Any = external_model) -> Any:
        if spec == "siglip2":
            raise RuntimeError("unforeseen")
        return known(spec)

    monkeypatch.setattr("benchmark.plan.make.external_model", broken)
    with pytest.raises(RuntimeError, match="unforeseen"):
        app(["eval", "--model", "siglip2,pubmedclip", *QUICK], standalone_mode=False)
    assert "siglip2 failed: RuntimeError: unforeseen" in bench.capsys.readouterr().out
    assert set(bench.rows().method) == {"pubmedclip"}


def test_prompts_of_the_authors(bench: Bench, place: Place) -> None:
    write("biomedclip", place)
    write("quiltnet", place)
    assert evaluate(bench, "biomedclip") == 0, bench.err
    assert evaluate(bench, "biomedclip", "--own-prompts") == 0, bench.err
    rows = bench.rows()
    assert set(rows.method) == {"biomedclip", "biomedclip (own prompts)"}
    # With the same prompts in the dataset's card, the scores are those of the authors' prompts.
    card = yaml.safe_load((bench.folder / "squares.yaml").read_text())
    card["prompts"] = load_published("biomedclip").prompts
    (bench.folder / "squares.yaml").write_text(yaml.safe_dump(card))
    before = rows[(rows.method == "biomedclip (own prompts)") & (rows.task == "zero_shot")]
    assert evaluate(bench, "biomedclip", "--results", "others") == 0, bench.err
    from benchmark.store.store import Store

    after = Store(bench.folder / "others").rows()
    after = after[after.task == "zero_shot"]
    assert list(before.value) == list(after.value)
    assert set(before.evaluation) == set(after.evaluation)
    assert evaluate(bench, "quiltnet", "--own-prompts") == 2
    assert "no prompts of quiltnet are known" in bench.err
    assert evaluate(bench, "small.yaml", "--own-prompts") == 2
    assert "'small.yaml' is no published model" in bench.err


def test_the_list_of_models_says_terms(bench: Bench) -> None:
    assert bench("list", "models") == 0
    said = " ".join(bench.out.split())
    assert "medsiglip MedSigLIP: SigLIP at 448 pixels" in said
    assert "Licence health-ai-developer-foundations (terms of use); gated. For bench eval." in said
    assert "Licence mit. For bench eval." in said
    assert "Licence mit; gated or not: unknown. For bench eval." in said


def test_a_model_to_train_is_none_of_these(bench: Bench) -> None:
    assert bench("plan", "--suite", "suite.yaml", "--model", "biomedclip") == 2
    assert "'biomedclip' is a published model, for bench eval --model biomedclip" in bench.err


SIZE = {"height": 32, "width": 32}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": {"height": 32, "width": 48}, "do_center_crop": False}, "size {'height': 32, 'width': 48}"),
        ({"size": SIZE, "do_resize": False}, "do_resize False"),
    ],
)
def test_a_processor_that_does_not_make_squares_is_refused_before_any_encoding(
    settings: dict[str, Any], said: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_folder(bench.folder / "clip", "clip")
    config = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIZE).to_dict() | settings
    (bench.folder / "clip" / "preprocessor_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("benchmark.evaluation.hugging_face.HuggingFaceEncoder.encode_images", None)
    assert evaluate(bench, "hf:clip") == 2, bench.out
    (line,) = (line for line in bench.err.splitlines() if "error:" in line)
    assert line.startswith("error: model 'clip': its image processor has ")
    assert said in line
    assert not (bench.folder / "results" / "cells").exists() or bench.rows().empty


def test_naflex_is_refused_before_any_encoding(bench: Bench) -> None:
    folder = clip_folder_of_naflex(bench.folder / "naflex")
    assert evaluate(bench, f"hf:{folder.name}") == 2, bench.out
    (line,) = (line for line in bench.err.splitlines() if "error:" in line)
    assert "a Siglip2Model takes images of any shape (NaFlex), and a run prepares squares of one size" in line


def clip_folder_of_naflex(folder: Path) -> Path:
    clip_folder(folder, "siglip")
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = shape | {"vocab_size": 300, "max_position_embeddings": 12}
    config = Siglip2Config(text_config=text, vision_config=shape | {"num_patches": 16, "patch_size": 8})
    Siglip2Model(config).save_pretrained(folder)
    processor = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 8, "max_num_patches": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_an_open_clip_model_of_oblong_images_is_refused(bench: Bench, place: Place) -> None:
    card, _, _ = write("quiltnet", place)
    path = place.of(card) / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["image_size"] = [64, 96]
    path.write_text(json.dumps(config))
    weights = place.of(card) / "open_clip_pytorch_model.bin"
    state = torch.load(weights, weights_only=True)
    state["visual.positional_embedding"] = torch.zeros(1 + 4 * 6, 32)
    torch.save(state, weights)
    for model in ("quiltnet", f"open_clip:local-dir:{place.of(card)}"):
        assert evaluate(bench, model) == 2, bench.out
        assert "takes images of 64 x 96 pixels, and a run prepares squares" in bench.err


def test_a_timm_model_of_oblong_images_is_refused() -> None:
    import timm

    from benchmark.models.from_timm import TimmImageTower

    model = timm.create_model("test_vit", pretrained_cfg_overlay={"input_size": (3, 160, 96)}, num_classes=0)
    with pytest.raises(BenchError, match="model 'test_vit': takes images of 160 x 96 pixels"):
        TimmImageTower(model, None, "test_vit")
