import copy
import warnings
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from benchmark.common.errors import BenchError
from benchmark.models import DualEncoder, build_model, load_model_card, model_names
from benchmark.models.tower import Group, PatchDropout
from tests.models.make import CARDS, CONTEXT, make_card, open_clip_card, texts, timm_card, transformers_card

every_card = pytest.mark.parametrize("name", CARDS)
SIDES = ("image", "text")


def images(model: DualEncoder, b: int = 3) -> torch.Tensor:
    return torch.rand(b, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(1))


def parameters_of(group: Group) -> list[nn.Parameter]:
    return [p for part in group for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]


@every_card
def test_shapes_and_unit_length(name: str) -> None:
    model = build_model(CARDS[name](), 0).eval()
    x, (tokens, mask) = images(model), texts([5, 9, 3], 9)
    with torch.no_grad():
        for embedding in (model.encode_image(x), model.encode_text(tokens, mask)):
            assert embedding.shape == (3, model.embed_dim)
            torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
        assert model.image_features(x).shape == (3, model.image.width)
        assert model.text_features(tokens, mask).shape == (3, model.text.width)
        assert model.has_image_tokens
        assert model.has_text_tokens
        assert model.image_tokens(x).shape[::2] == (3, model.image.width)
        assert model.text_tokens(tokens, mask).shape == (3, 9, model.text.width)
        assert torch.equal(model.image(x).features, model.image_features(x))
        torch.testing.assert_close(model.project_image(model.image_features(x)), model.encode_image(x))


@every_card
def test_right_padding_changes_nothing(name: str) -> None:
    model = build_model(CARDS[name](), 0).eval()
    lengths = [5, CONTEXT, 3, 7]
    tokens, mask = texts(lengths, CONTEXT)
    with torch.no_grad():
        expected = model.encode_text(tokens, mask)
        every_token = model.text_tokens(tokens, mask)
        for row, length in enumerate(lengths):
            for total in {length, min(length + 2, CONTEXT)}:
                own, own_mask = tokens[row : row + 1, :total], mask[row : row + 1, :total]
                torch.testing.assert_close(model.encode_text(own, own_mask)[0], expected[row], atol=1e-6, rtol=0)
                found = model.text_tokens(own, own_mask)[0, :length]
                torch.testing.assert_close(found, every_token[row, :length], atol=5e-6, rtol=0)
        # whatever stands on padding: not by a bit
        noise = torch.where(mask, tokens, torch.full_like(tokens, 17))
        assert torch.equal(model.encode_text(noise, mask), expected)


@every_card
def test_the_seed_decides_the_weights_and_nothing_else_does(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_model(CARDS[name](), 7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = build_model(CARDS[name](), 7).state_dict(), build_model(CARDS[name](), 8).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    for side in SIDES:
        assert any(not torch.equal(first[key], other[key]) for key in first if key.startswith(f"{side}."))


@every_card
def test_meta_has_the_same_parameters(name: str) -> None:
    model, meta = build_model(CARDS[name](), 0), build_model(CARDS[name](), 0, device="meta")
    assert all(p.is_meta for p in meta.parameters())
    assert meta.parameter_counts() == model.parameter_counts()
    assert [(n, p.shape) for n, p in meta.named_parameters()] == [(n, p.shape) for n, p in model.named_parameters()]


@every_card
@pytest.mark.parametrize("side", SIDES)
def test_layer_groups_hold_every_parameter_once_in_the_order_of_the_data(name: str, side: str) -> None:
    model = build_model(CARDS[name](), 0)
    groups = model.layer_groups(side)
    modules = (model.image, model.image_projection) if side == "image" else (model.text, model.text_projection)
    parameters = [p for group in groups for p in parameters_of(group)]
    assert len(parameters) == len({id(p) for p in parameters})
    assert {id(p) for p in parameters} == {id(p) for module in modules for p in module.parameters()}
    assert len(groups) >= 3

    # with the first k groups frozen, nothing that they compute is in the graph
    reached: dict[int, bool] = {}

    def watch(module: nn.Module, _: object, output: object) -> None:
        tensors = [output] if isinstance(output, torch.Tensor) else [t for t in output if isinstance(t, torch.Tensor)]
        reached[id(module)] = any(t.requires_grad for t in tensors)

    for module in model.modules():
        module.register_forward_hook(watch)
    for k in range(1, len(groups)):
        for part in groups[k - 1]:
            part.requires_grad_(False)
        reached.clear()
        embedding = model.encode_image(images(model)) if side == "image" else model.encode_text(*texts([5, 4, 3], 5))
        embedding.sum().backward()
        frozen = [m for group in groups[:k] for m in group if isinstance(m, nn.Module)]
        assert not any(reached.get(id(m), False) for m in frozen), k
        assert any(p.grad is not None for group in groups[k:] for p in parameters_of(group))
        model.zero_grad()


def test_roy_2024_counts_14_groups() -> None:
    model = build_model(load_model_card("vit-b-16"), 0, device="meta")
    groups = model.layer_groups("image")
    blocks = model.image.model.transformer.resblocks
    assert len(groups) == 14
    assert [list(group) for group in groups[1:12]] == [[block] for block in blocks[:11]]
    assert list(groups[12]) == [blocks[11], model.image.model.ln_post]
    assert list(groups[13]) == [model.image_projection]
    assert len(model.layer_groups("text")) == 14


@pytest.mark.parametrize(
    ("name", "count"), [("vit-b-16", 149_620_736), ("vit-b-32", 151_277_312), ("resnet50", 102_007_136)]
)
def test_published_sizes_without_weights(name: str, count: int) -> None:
    counts = build_model(load_model_card(name), 0, device="meta").parameter_counts()
    assert counts["total"] == counts["image"] + counts["text"] == count  # open_clip's, without its logit scale
    assert counts["total_trainable"] == count


def test_trainable_parameters_are_told_apart() -> None:
    model = build_model(make_card(), 0)
    counts = model.parameter_counts()
    model.image.requires_grad_(False)
    frozen = model.parameter_counts()
    assert frozen["image_trainable"] == sum(p.numel() for p in model.image_projection.parameters())
    assert frozen["image"] == counts["image"]
    assert frozen["text_trainable"] == frozen["text"] == counts["text"]


@pytest.mark.parametrize("name", [n for n in CARDS if n != "small-rn"])
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    model = build_model(CARDS[name](), 0).double()
    model.eval() if name in {"bert", "roberta", "gpt2"} else model.train()
    x, (tokens, mask) = images(model).double(), texts([5, 9, 3], 9)

    def gradients(enabled: bool) -> list[torch.Tensor | None]:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            model.set_gradient_checkpointing(enabled)
        model.zero_grad()
        (model.encode_image(x) * model.encode_text(tokens, mask)).sum().backward()
        return [p.grad for p in model.parameters()]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        assert (plain is None) == (again is None)
        if plain is not None:
            torch.testing.assert_close(plain, again, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("name", ["tiny", "small-vit", "vit_tiny_patch16_224", "bert", "gpt2"])
def test_gradient_checkpointing_saves_memory(name: str) -> None:
    model = build_model(CARDS[name](), 0)

    def saved(enabled: bool) -> int:
        model.set_gradient_checkpointing(enabled)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.encode_text(*texts([9, 9, 3], 9)) if name in {"bert", "gpt2"} else model.encode_image(images(model))
        return sum(sizes)

    assert saved(True) < 0.7 * saved(False)


WITH_PATCHES = ["tiny", "small-vit", "small-siglip", "vit_tiny_patch16_224"]


@pytest.mark.parametrize("name", WITH_PATCHES)
def test_patch_dropout_leaves_out_tokens_while_training_only(name: str) -> None:
    model = build_model(CARDS[name](), 0)
    x = images(model)
    count = model.image_tokens(x).shape[1]
    assert model.image.has_patch_dropout
    assert model.image.patch_dropout == 0
    with torch.no_grad():
        whole = model.eval().encode_image(x)
        model.train().image.patch_dropout = 0.75
        assert model.image_tokens(x).shape[1] == max(1, int(count * 0.25))
        first, second = model.encode_image(x), model.encode_image(x)
        assert not torch.equal(first, second)
        torch.manual_seed(3)
        first = model.encode_image(x)
        torch.manual_seed(3)
        assert torch.equal(first, model.encode_image(x))
        assert torch.equal(model.eval().encode_image(x), whole)


def test_patch_dropout_keeps_the_class_token_and_draws_for_each_image() -> None:
    x = torch.arange(9.0).repeat(64, 1)[..., None]
    kept = PatchDropout(0.5, prefix=1)(x)[..., 0]
    assert kept.shape == (64, 5)
    assert (kept[:, 0] == 0).all()
    assert (kept[:, 1:].diff(dim=1) > 0).all()
    assert len({tuple(row.tolist()) for row in kept}) > 20
    assert set(kept[:, 1:].flatten().tolist()) == set(range(1, 9))


def test_patch_dropout_is_read_from_the_card_and_refused_where_there_are_no_patches() -> None:
    card = timm_card("vit_tiny_patch16_224", patch_dropout=0.5)
    assert build_model(card, 0).image.patch_dropout == 0.5
    with pytest.raises(BenchError, match="no patch tokens"):
        build_model(timm_card("resnet10t", patch_dropout=0.5), 0)
    with pytest.raises(BenchError, match=r"\[0, 1\)"):
        build_model(make_card(), 0).image.patch_dropout = 1.0


def test_dropout_only_while_training() -> None:
    card = make_card(
        {"kind": "tiny", "width": 32, "layers": 2, "heads": 2, "dropout": 0.3},
        {"kind": "tiny", "width": 32, "layers": 2, "heads": 2, "dropout": 0.3},
        image_size=32,
    )
    model = build_model(card, 0)
    x, text = images(model), texts([5, 4, 3], 5)
    for encode in (lambda: model.encode_image(x), lambda: model.encode_text(*text)):
        model.train()
        assert not torch.equal(encode(), encode())
        model.eval()
        assert torch.equal(encode(), encode())


def test_a_pooled_only_tower_gives_no_tokens() -> None:
    model = build_model(make_card({"kind": "timm", "name": "mobilenetv3_small_050"}), 0).eval()
    assert not model.has_image_tokens
    with pytest.raises(BenchError, match="no tokens"):
        model.image_tokens(images(model, 1))


def test_the_tokenizer_must_fit_the_text_tower() -> None:
    class Fake:
        pad_id, context_length, vocab_size, fingerprint = 0, CONTEXT, 64, ""

        def __call__(self, texts: list[str]) -> list[list[int]]:
            return [[] for _ in texts]

    model = build_model(open_clip_card("small-vit"), 0)
    tokenizer = Fake()
    model.check(tokenizer)
    tokenizer.vocab_size = 65
    with pytest.raises(BenchError, match=r"vocab_size is 65.* 64"):
        model.check(tokenizer)
    tokenizer.vocab_size, tokenizer.context_length = 64, CONTEXT + 1
    with pytest.raises(BenchError, match=r"context_length is 13.* 12"):
        model.check(tokenizer)
    tokenizer.context_length, tokenizer.pad_id = CONTEXT, 1
    model.check(tokenizer)
    with pytest.raises(BenchError, match="pads with 1"):
        build_model(open_clip_card("small-siglip"), 0).check(tokenizer)
    assert build_model(transformers_card("roberta"), 0).text.context_length == CONTEXT


def test_a_copy_is_independent() -> None:
    model = build_model(open_clip_card("small-vit"), 0)
    teacher = copy.deepcopy(model)
    nn.init.zeros_(model.image_projection.weight)
    assert teacher.image_projection.weight.abs().sum() > 0


@pytest.mark.parametrize("name", ["vit-b-16", "vit-b-32", "resnet50"])
def test_without_the_weights_one_line_says_what_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BenchError) as error:
        build_model(load_model_card(name), 0)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 300
    assert "weights 'openai'" in message
    assert str(tmp_path) in message
    assert "pretrained: PATH" in message
    assert constants.HF_HUB_OFFLINE is True


def test_every_shipped_card_is_built_without_weights() -> None:
    for name in model_names():
        counts = build_model(load_model_card(name), 0, device="meta").parameter_counts()
        assert counts["image"] > 0
        assert counts["text"] > 0
