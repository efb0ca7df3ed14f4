"""The question-answering head of Roy et al. 2024 and its training: enhanced visual features and bilinear attention.

MEVF (Nguyen et al. 2019, arXiv:1909.11867) adds the code of a denoising auto-encoder to the image feature; BAN (Kim et
al. 2018, arXiv:1805.07932) lets each token of the question attend to it. All numbers are those of the code of Roy et
al. 2024, arXiv:2406.07450 [C]: afkanpour/benchmarking-contrastive, src/vqa.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

TOKENS = 12
"""The tokens of a question; longer ones are cut."""
SIDE = 128
"""Pixels a side of the grey image that the auto-encoder sees."""
CODE = 512
"""Dimensions of the auto-encoder's code beside the image feature."""
RECONSTRUCTION = 0.001
"""The weight of the reconstruction's mean squared error."""
EPOCHS, BATCH_SIZE, CLIP = 20, 32, 0.25
"""Epochs of whole batches, their size, and the largest norm of the gradient."""

WHOLE = -1
"""The dimension that makes weight_norm() scale a matrix by one norm, that of all its entries."""

Inputs = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""Compute, for questions by their numbers int64 [b], what MevfBan.forward() takes."""


def rate(epoch: int) -> float:
    """Return Adamax's learning rate in an epoch, counted from 0.

    It rises over four epochs to 0.002 and, from the tenth, falls by a quarter every second one.
    """
    return 1e-3 * (0.5, 1.0, 1.5, 2.0)[min(epoch, 3)] * 0.75 ** max(0, (epoch - 8) // 2)


class MevfBan(nn.Module):
    """The head on image features [b, D] and question tokens [b, TOKENS, D]; D: the width of the joint space (512).

    With the visual feature v = [image, code of the auto-encoder], tokens q_1 .. q_T and ReLU layers V, Q, V', Q':

        attention_t = softmax over t of  h . (V(v) * Q(q_t)) + bias
        joint       = linear(V'(v) * sum over t of attention_t Q'(q_t))
        logits      = classifier(sum over t of (joint + q_t))

    There are two glimpses of attention, but each overwrites the sum, so that only the second counts, as in the code
    [C]; in BAN each adds to it. The first is left out here, except for its part in the norm of h.
    """

    def __init__(self, width: int, answers: int) -> None:
        super().__init__()
        visual, hidden, glimpses = width + CODE, width, 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 16, 3, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 64, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 1, 3, padding=1),
            nn.Sigmoid(),
        )
        self.code = nn.Linear(16 * (SIDE // 4) ** 2, CODE)
        self.attend_visual = nn.Sequential(*_layer(visual, 3 * hidden, 0.2), nn.ReLU(), nn.Dropout(0.5))
        self.attend_question = nn.Sequential(*_layer(hidden, 3 * hidden, 0.2), nn.ReLU())
        self.attention = weight_norm(Weights(glimpses, 3 * hidden), "weight", dim=WHOLE)
        self.visual = nn.Sequential(*_layer(visual, hidden, 0.2), nn.ReLU())
        self.question = nn.Sequential(*_layer(hidden, hidden, 0.2), nn.ReLU())
        self.join = nn.Sequential(*_layer(hidden, hidden, 0.2))
        self.classifier = nn.Sequential(
            weight_norm(nn.Linear(hidden, 2 * hidden), dim=WHOLE),
            nn.ReLU(),
            nn.Dropout(0.5),
            weight_norm(nn.Linear(2 * hidden, answers), dim=WHOLE),
        )

    def forward(self, image: Tensor, tokens: Tensor, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits [b, answers], and the reconstruction of the grey images, both [b, 1, SIDE, SIDE]."""
        encoded = self.encoder(grey)
        visual = torch.cat([image, self.code(encoded.flatten(1))], 1)
        scores = (self.attend_question(tokens) * self.attend_visual(visual)[:, None]) @ self.attention.weight[-1]
        attention = (scores + self.attention.bias[-1]).softmax(1)
        pooled = self.visual(visual) * (attention[:, :, None] * self.question(tokens)).sum(1)
        logits = self.classifier((self.join(pooled)[:, None] + tokens).sum(1))
        return logits, self.decoder(encoded)


class Weights(nn.Module):
    """The vectors h of all glimpses, [glimpses, width], and their biases [glimpses]."""

    def __init__(self, glimpses: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(glimpses, width))
        self.bias = nn.Parameter(torch.randn(glimpses))


def _layer(inputs: int, outputs: int, dropout: float) -> Iterator[nn.Module]:
    yield nn.Dropout(dropout)
    yield weight_norm(nn.Linear(inputs, outputs), dim=WHOLE)


def grey(images: Tensor) -> Tensor:
    """Make the grey images in 0..1, float32 [b, 1, SIDE, SIDE], of images uint8 [b, 3, S, S]."""
    red, green, blue = images.float().unbind(1)
    mixed = ((red * 0.299 + green * 0.587 + blue * 0.114) / 255)[:, None]
    return F.interpolate(mixed, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def train(
    head: MevfBan,
    towers: list[nn.Parameter],
    inputs: Inputs,
    target: Tensor,
    micro_batch: int,
    progress: Callable[[int, int], object] = lambda epoch, epochs: None,
) -> float:
    """Train the head and the towers; return the last loss. Batches are drawn from torch's global generator.

    target: the right answers of all questions, int64 [n]. micro_batch: questions that pass through the towers at once.
    The last batch of an epoch is left out if it is not whole; fewer than BATCH_SIZE questions are one batch.
    progress: called at the start of each epoch.
    """
    weights = [*head.parameters(), *towers]
    optimizer = torch.optim.Adamax(weights)
    whole = len(target) // BATCH_SIZE * BATCH_SIZE or len(target)
    for epoch in range(EPOCHS):
        progress(epoch, EPOCHS)
        head.train()
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch)
        for batch in torch.split(torch.randperm(len(target))[:whole].to(target.device), BATCH_SIZE):
            optimizer.zero_grad()
            total = torch.zeros((), device=target.device)
            for part in torch.split(batch, micro_batch):
                image, tokens, pixels = inputs(part)
                logits, reconstruction = head(image, tokens, pixels)
                right = F.one_hot(target[part], logits.shape[1]).to(logits.dtype)
                answers = F.binary_cross_entropy_with_logits(logits, right, reduction="sum")
                error = F.mse_loss(reconstruction, pixels) * (len(part) / len(batch))
                loss = (answers + RECONSTRUCTION * error) / len(batch)
                torch.autograd.backward(loss)
                total = total + loss.detach()
            nn.utils.clip_grad_norm_(weights, CLIP)
            optimizer.step()
    return float(total)
