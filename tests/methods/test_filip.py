"""Late interaction against a loop over tokens."""

import math

import benchmark.methods.filip
import pytest
import torch
import torch.nn.functional as F

from tests.methods.fakes import Pairs, small_method


def test_loss_agrees_with_a_loop_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    method = small_method("filip").double()
    generator = torch.Generator().manual_seed(0)
    n, lengths = 5, [3, 6, 1, 4, 2]
    image = F.normalize(torch.randn(n, 4, 7, dtype=torch.float64, generator=generator), dim=-1)
    text = F.normalize(torch.randn(n, 6, 7, dtype=torch.float64, generator=generator), dim=-1)
    mask = torch.tensor([[k < length for k in range(6)] for length in lengths])
    scale = float(method.temperature_scale)
    s = [[0.0] * n for _ in range(n)]
    t = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            cosine = [[float(image[i, a] @ text[j, b]) for b in range(lengths[j])] for a in range(4)]
            s[i][j] = scale * sum(max(row) for row in cosine) / 4
            t[j][i] = scale * sum(max(row[b] for row in cosine) for b in range(lengths[j])) / lengths[j]
    expected = 0.0
    for scores in (s, t):
        for i in range(n):
            expected -= (scores[i][i] - math.log(sum(map(math.exp, scores[i])))) / (2 * n)
    for size in (2**24, 1, 4 * 30 * 2):
        monkeypatch.setattr(benchmark.methods.filip, "SCORES", size)
        loss = method.contrast({"image": image, "text": text, "mask": mask}, {"index": torch.arange(n)})["contrastive"]
        assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_padding_changes_nothing() -> None:
    method, pairs = small_method("filip").double().eval(), Pairs(6)
    batch = pairs.sequential(0, 6)
    output = method(batch).embeddings
    padded = {
        "image": output["image"],
        "text": F.pad(output["text"], (0, 0, 0, 3), value=9.0),
        "mask": F.pad(output["mask"], (0, 3)),
    }
    keys = {"index": torch.arange(6)}
    assert torch.equal(method.contrast(output, keys)["contrastive"], method.contrast(padded, keys)["contrastive"])
