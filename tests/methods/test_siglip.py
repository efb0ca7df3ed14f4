"""The sigmoid loss against a loop and against open_clip."""

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import SigLipLoss

from tests.methods.fakes import small_method


def test_loss_agrees_with_a_loop_and_with_open_clip() -> None:
    method = small_method("siglip").double()
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(6, 8, dtype=torch.float64, generator=generator), dim=-1) for _ in range(2))
    scale, bias = method.logit_scale.exp(), method.logit_bias
    assert scale.item() == pytest.approx(10)
    assert bias.item() == -10
    expected = 0.0
    for i in range(6):
        for j in range(6):
            z = (1 if i == j else -1) * (10 * float(image[i] @ text[j]) - 10)
            expected += math.log(1 + math.exp(-z)) / 6
    loss = method.contrast({"image": image, "text": text}, {"index": torch.arange(6)})["sigmoid"]
    assert loss.item() == pytest.approx(expected)
    reference = SigLipLoss()(image, text, scale, bias)
    torch.testing.assert_close(loss, reference)
    ours = torch.autograd.grad(loss, [method.logit_scale, method.logit_bias], retain_graph=True)
    theirs = torch.autograd.grad(reference, [method.logit_scale, method.logit_bias])
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)
