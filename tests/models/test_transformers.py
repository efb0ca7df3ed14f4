from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoConfig, AutoModel

from benchmark.common.errors import BenchError
from benchmark.models import ModelCard, build_model
from tests.models.make import CONTEXT, TRANSFORMERS, make_card, texts, transformers_card


def saved(kind: str, folder: Path, **config: Any) -> Any:
    torch.manual_seed(1)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **TRANSFORMERS[kind], **config)).eval()
    model.save_pretrained(folder)
    return model


def from_folder(folder: Path, **text: Any) -> ModelCard:
    return make_card(text={"kind": "transformers", "name": str(folder), **text})


@pytest.mark.parametrize("pooling", ["cls", "mean", "eos"])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_local_folder_gives_transformers_own_hidden_states(kind: str, pooling: str, tmp_path: Path) -> None:
    theirs = saved(kind, tmp_path)
    ours = build_model(from_folder(tmp_path, pooling=pooling), 0).eval()
    lengths = [4, 9, CONTEXT]
    tokens, mask = texts(lengths, CONTEXT)
    with torch.no_grad():
        features = ours.text_features(tokens, mask)
        for row, length in enumerate(lengths):
            hidden = theirs(input_ids=tokens[row : row + 1, :length]).last_hidden_state[0]
            expected = {"cls": hidden[0], "mean": hidden.mean(0), "eos": hidden[-1]}[pooling]
            torch.testing.assert_close(features[row], expected, atol=1e-6, rtol=0)


def test_which_models_are_causal() -> None:
    causal = {kind: build_model(transformers_card(kind), 0, device="meta").text.causal for kind in TRANSFORMERS}
    assert causal == {"bert": False, "roberta": False, "gpt2": True, "llama": True}
    for kind, expected in causal.items():
        model = build_model(transformers_card(kind), 0).eval()
        tokens, mask = texts([9], 9)
        changed = tokens.clone()
        changed[0, 8] = 5
        with torch.no_grad():
            first, second = model.text_tokens(tokens, mask)[0, 3], model.text_tokens(changed, mask)[0, 3]
        assert torch.equal(first, second) == expected


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_forward_pass_on_the_meta_device_has_the_shapes(kind: str) -> None:
    """Plans count operations so. The mask has no values there, which transformers would look at."""
    card = transformers_card(kind)
    tokens, mask = torch.ones(3, 5, dtype=torch.long), torch.ones(3, 5, dtype=torch.bool)
    real, meta = (build_model(card, 0, device).text for device in ("cpu", "meta"))
    for found, expected in zip(meta(tokens.to("meta"), mask.to("meta")), real(tokens, mask)):
        assert found.is_meta
        assert found.shape == expected.shape


def test_an_encoder_decoder_reads_with_its_encoder() -> None:
    config = {
        "model_type": "t5",
        "vocab_size": 64,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
    }
    model = build_model(make_card(text={"kind": "transformers", "config": config, "pooling": "mean"}), 0)
    names = [name for name, _ in model.text.named_parameters()]
    assert names
    assert not any("decoder" in name for name in names)
    assert model.encode_text(*texts([4, 5], 7)).shape == (2, 20)
    assert len(model.text.layer_groups()) == 3


def test_random_weights_and_overrides(tmp_path: Path) -> None:
    theirs = saved("bert", tmp_path)
    shallow = build_model(from_folder(tmp_path, config={"num_hidden_layers": 1}), 0)
    assert len(shallow.text.model.encoder.layer) == 1
    own = shallow.text.model.embeddings.word_embeddings.weight
    assert torch.equal(own, theirs.embeddings.word_embeddings.weight)
    random = build_model(from_folder(tmp_path, pretrained=False), 0)
    assert not torch.equal(random.text.model.embeddings.word_embeddings.weight, own)
    assert build_model(from_folder(tmp_path), 0, device="meta").text.width == 16


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    with pytest.raises(BenchError, match=r"tensors are missing \(encoder\.layer\.3\..* differ in the number of layers"):
        build_model(from_folder(tmp_path, config={"num_hidden_layers": 5}), 0)
    with pytest.raises(BenchError) as error:
        build_model(from_folder(tmp_path, config={"hidden_size": 32}), 0)
    assert "\n" not in str(error.value)


def test_weights_are_float32_whatever_they_were_saved_in(tmp_path: Path) -> None:
    saved("gpt2", tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in build_model(from_folder(tmp_path), 0).parameters()} == {torch.float32}


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}'
    )
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w').close()\n")
    with pytest.raises(BenchError):
        build_model(from_folder(tmp_path), 0)
    assert not (tmp_path / "owned").exists()


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BenchError, match="transformers model 'org/model': not in the cache") as error:
        build_model(make_card(text={"kind": "transformers", "name": "org/model"}), 0)
    assert "\n" not in str(error.value)
    assert "text.name: FOLDER" in str(error.value)
    with pytest.raises(BenchError, match="unknown model_type of transformers 'bret'; did you mean 'bert'"):
        build_model(make_card(text={"kind": "transformers", "config": {"model_type": "bret"}}), 0)
    with pytest.raises(BenchError, match="set a name, or a config with its model_type"):
        build_model(make_card(text={"kind": "transformers"}), 0)
