"""captioning against open_clip's decoder and loss and a loop written from the formula; and what it writes."""

import math
from types import SimpleNamespace

import pytest
import torch
from open_clip.loss import CoCaLoss
from open_clip.transformer import MultimodalTransformer
from torch import Tensor

from benchmark.common.errors import BenchError
from benchmark.data.batch import Batch
from benchmark.training.accumulation import accumulate, loss_values
from tests.methods.fakes import CONTEXT, VOCABULARY, Pairs, double, small_method

START, END = 1, 2
WEIGHT = 2.0


def method_of(**options: object) -> torch.nn.Module:
    return double(small_method("captioning", queries=5, layers=2, **options)).eval()


def captioning_loss(method: torch.nn.Module, batch: Batch) -> Tensor:
    return method(batch).losses["captioning"]


def logits_of(method: torch.nn.Module, batch: Batch) -> Tensor:
    states = method.model.text_tokens(batch.tokens, batch.mask)
    return method.vocabulary(method.decode(states, method.pooler(method.model.image_tokens(batch.view()))))


def same_length(batch: Batch) -> Batch:
    batch.tokens, batch.mask = batch.tokens[:, :3], batch.mask[:, :3]
    assert batch.mask.all()
    return batch


def test_loss_is_open_clips_on_every_text_and_on_texts_of_one_length() -> None:
    method = method_of()
    texts = [Pairs(7).sequential(i, 1) for i in range(7)]
    caption = CoCaLoss(caption_loss_weight=WEIGHT, clip_loss_weight=0.0)

    def theirs(batch: Batch) -> Tensor:
        return caption(None, None, logits_of(method, batch)[:, :-1], batch.tokens[:, 1:], None)[1]

    expected = torch.stack([theirs(batch) for batch in texts]).mean()
    torch.testing.assert_close(captioning_loss(method, Pairs(7).sequential(0, 7)), expected, rtol=0, atol=1e-12)
    batch = same_length(Pairs(7).sequential(0, 7))
    torch.testing.assert_close(captioning_loss(method, batch), theirs(batch), rtol=0, atol=1e-12)


def test_loss_is_the_formulas() -> None:
    method, batch = method_of(), Pairs(6).sequential(0, 6)
    total = 0.0
    for i, row in enumerate(logits_of(method, batch).tolist()):
        tokens = batch.tokens[i][batch.mask[i]].tolist()
        losses = [math.log(sum(map(math.exp, row[t]))) - row[t][tokens[t + 1]] for t in range(len(tokens) - 1)]
        total += sum(losses) / len(losses)
    assert captioning_loss(method, batch).item() == pytest.approx(WEIGHT * total / 6, abs=1e-12)
    assert captioning_loss(method_of(captioning_weight=0.5), batch).item() == pytest.approx(total / 12, abs=1e-12)


def test_loss_is_the_same_however_the_batch_is_cut() -> None:
    method, pairs = method_of(), Pairs(9)
    whole, _ = accumulate(method, [pairs.sequential(0, 9)], "plain", 0)
    cut, _ = accumulate(method, [pairs.sequential(0, 5), pairs.sequential(5, 3), pairs.sequential(8, 1)], "cached", 0)
    assert loss_values(cut) == pytest.approx(loss_values(whole), abs=1e-12)


def test_decoder_is_open_clips() -> None:
    method = method_of()
    theirs = MultimodalTransformer(32, layers=2, heads=1, context_length=CONTEXT, output_dim=VOCABULARY).double()
    theirs.resblocks.load_state_dict(method.to_text.state_dict())
    theirs.cross_attn.load_state_dict(method.to_image.state_dict())
    theirs.ln_final.load_state_dict(method.norm.state_dict())
    theirs.text_projection.data = method.vocabulary.weight.data.T
    batch = Pairs(4).sequential(0, 4)
    image, text = torch.randn(4, 5, 32).double(), method.model.text_tokens(batch.tokens, batch.mask)
    torch.testing.assert_close(method.vocabulary(method.decode(text, image)), theirs(image, text), rtol=0, atol=1e-12)


def test_predicts_from_the_image_and_what_stands_before_and_nothing_else() -> None:
    method, batch = method_of(), Pairs(3).sequential(0, 3)
    logits, loss = logits_of(method, batch), captioning_loss(method, batch)
    other = Pairs(3).sequential(0, 3)
    other.tokens[:, 2] = 7
    changed = logits_of(method, other)
    torch.testing.assert_close(changed[:, :2], logits[:, :2], rtol=0, atol=1e-12)
    assert not torch.allclose(changed[:, 2], logits[:, 2])
    padded = Pairs(3).sequential(0, 3)
    padded.tokens = torch.nn.functional.pad(padded.tokens, (0, CONTEXT - padded.tokens.shape[1]))
    padded.tokens[~torch.nn.functional.pad(padded.mask, (0, CONTEXT - padded.mask.shape[1]))] = 9
    padded.mask = torch.nn.functional.pad(padded.mask, (0, CONTEXT - padded.mask.shape[1]))
    torch.testing.assert_close(captioning_loss(method, padded), loss, rtol=0, atol=1e-12)
    seen = Pairs(3).sequential(0, 3)
    seen.image = 255 - seen.image
    assert abs(captioning_loss(method, seen) - loss) > 1e-6


def test_the_contrastive_half_is_clips() -> None:
    clip, method, batch = small_method("clip").eval(), small_method("captioning").eval(), Pairs(5).sequential(0, 5)
    for name, embedding in clip(batch).embeddings.items():
        torch.testing.assert_close(method(batch).embeddings[name], embedding)
    weighted = small_method("captioning", contrastive_weight=0.25)
    keys = {"index": torch.arange(5)}
    expected = clip.contrast(clip(batch).embeddings, keys)["contrastive"]
    torch.testing.assert_close(weighted.contrast(clip(batch).embeddings, keys)["contrastive"], expected / 4)


def test_first_pass_decodes_nothing_and_evaluation_is_deterministic() -> None:
    method = small_method("captioning", dropout=0.2, patch_dropout=0.5)
    batch = Pairs(4).sequential(0, 4)
    assert method(batch, embeddings_only=True).losses == {}
    assert captioning_loss(method, batch) != captioning_loss(method, batch)
    assert captioning_loss(method.eval(), batch) == captioning_loss(method, batch)


def test_as_deep_as_the_text_tower_and_no_heads_that_do_not_fit() -> None:
    method = small_method("captioning")
    assert len(method.to_text) == len(method.to_image) == len(method.model.text.blocks) == 1
    for option in ("heads", "pooler_heads"):
        with pytest.raises(BenchError, match=rf"captioning.{option} is 5, .* width 32"):
            small_method("captioning", **{option: 5})


class Numbers:
    """A tokenizer whose texts are numbers: "5 8" is [START, 5, 8, END]."""

    start_id, end_id, pad_id, context_length, vocab_size = START, END, 0, CONTEXT, VOCABULARY

    def decode(self, tokens: list[int]) -> str:
        assert tokens[0] == START
        return " ".join(map(str, tokens[1 : tokens.index(END)]))


@pytest.mark.parametrize("beams", [1, 3])
def test_writes_what_it_learned(beams: int) -> None:
    """Texts that begin alike and differ in length, so that they are told apart by the image and must end in time."""
    pairs = Pairs(4)
    texts = [[11, 12], [11, 13, 14], [11, 12, 13, 14], []]
    pairs.tokens = [torch.tensor([START, *text, END]).numpy() for text in texts]
    method = small_method("captioning", queries=4)
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    for step in range(60):
        accumulate(method.train(), [pairs.sequential(0, 4)], "plain", step)
        optimizer.step()
        optimizer.zero_grad()
    images = pairs.sequential(0, 4).view()
    assert method.eval().write(images, Numbers(), beams) == ["11 12", "11 13 14", "11 12 13 14", ""]
    assert method.write(images[2:3], Numbers(), beams) == ["11 12 13 14"]


def test_writes_words_of_the_tokenizer_only_and_ends() -> None:
    method = small_method("captioning", queries=4).eval()
    method.vocabulary.weight.data[40:] *= 100  # the towers read more tokens than the tokenizer has
    few = SimpleNamespace(start_id=START, end_id=END, context_length=6, vocab_size=40, decode=list)
    for row in method.write(Pairs(3).sequential(0, 3).view(), few, 2):  # type: ignore[arg-type]
        assert row[0] == START
        assert END in row
        assert max(row) < 40
        assert len(row) <= 6
