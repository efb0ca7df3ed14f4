"""CoCa: CLIP plus a decoder that writes the text token by token from the image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import AttentionalPooler, LayerNorm, ResidualAttentionBlock
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from benchmark import Batch, BenchError, DualEncoder, Embeddings, Keys, Output, Tokenizer, beam_search, register_method

from .clip import Clip


@register_method("captioning")
class Captioning(Clip):
    """Add a captioning loss to CLIP's loss.

    With q learned queries, image tokens I, text tokens w and their causal states T (the unimodal half):

        P    = attention of q to I                                            attentional pooler
        H    = layers of (causal self-attention, cross-attention to P) on T   multimodal half
        loss = contrastive_weight clip + captioning_weight mean_i mean_t -log softmax(W H_i,t)[w_i,t+1]

    mean_t runs over the tokens of text i after its start token, including the end token and excluding padding; mean_i
    runs over the samples. open_clip takes one mean over all tokens of a batch, so its loss depends on which texts share
    a micro-batch. The mean over samples is the same however the effective batch is split [I].

    The contrastive embeddings are those of the towers, so tasks see the same kind of encoder as with every other
    method. CoCa instead pools the image with a second, one-query pooler and takes the text at a final class token [I].

    Source: Yu et al. 2022, arXiv 2205.01917, section 3.2; layers and weights as in open_clip (``coca_model``,
    ``CoCaLoss``).
    """

    summary = "CLIP plus a causal text decoder that attends to the image and predicts the next token (CoCa)"
    source = "Yu et al. 2022, arXiv 2205.01917; open_clip"
    trains = "as clip, plus the pooler and the decoder"
    extra = "a forward and a backward pass of the decoder"
    inferred = (
        "the captioning loss averages over tokens, then over texts; the contrastive embeddings come from the towers"
    )
    needs = frozenset({"image_tokens", "text_tokens", "causal_text", "start_token"})
    abilities = frozenset({"caption"})

    @dataclass
    class Config(Clip.Config):
        """Hyperparameters.

        temperature, max_scale: as in clip.
        contrastive_weight, captioning_weight: >= 0 (CoCa, section 4.1, and open_clip: 1 and 2).
        queries: number of pooler queries, > 0 (CoCa, section 3.2, and open_clip: 256).
        pooler_heads: attention heads of the pooler, > 0 (open_clip: 8).
        layers: decoder layers, > 0; null: as many as the text tower has (CoCa, table 1, and open_clip: 12 and 12).
        heads: attention heads of the decoder, > 0; null: one for every 64 dimensions of the text width (open_clip).
        """

        contrastive_weight: NonNegativeFloat = 1.0
        captioning_weight: NonNegativeFloat = 2.0
        queries: PositiveInt = 256
        pooler_heads: PositiveInt = 8
        layers: PositiveInt | None = None
        heads: PositiveInt | None = None

    config: Config

    def __init__(self, model: DualEncoder, config: Config) -> None:
        super().__init__(model, config)
        width = model.text.width
        layers = config.layers or len(model.text.layer_groups()) - 1
        heads = config.heads or max(1, width // 64)
        for name, count in (("heads", heads), ("pooler_heads", config.pooler_heads)):
            if width % count:
                raise BenchError(f"captioning.{name} is {count}, which does not divide the text tower's width {width}")
        self.pooler = AttentionalPooler(width, model.image.width, config.pooler_heads, config.queries)
        self.to_text = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))
        self.to_image = nn.ModuleList(
            ResidualAttentionBlock(width, heads, is_cross_attention=True) for _ in range(layers)
        )
        self.norm = LayerNorm(width)
        self.vocabulary = nn.Linear(width, model.text.vocab_size, bias=False)

    def forward(self, batch: Batch, *, embeddings_only: bool = False) -> Output:
        """Encode image and text; unless only embeddings are asked for, add the captioning loss."""
        image = self.model.image(batch.view())
        text = self.model.text(batch.tokens, batch.mask)
        output = Output(
            {"image": self.model.project_image(image.features), "text": self.model.project_text(text.features)}
        )
        if not embeddings_only:
            logits = self.vocabulary(self.decode(text.tokens[:, :-1], self.pooler(image.tokens)))
            loss = next_token_loss(logits, batch.tokens[:, 1:], batch.mask[:, 1:], self.smoothing)
            output.losses["captioning"] = self.config.captioning_weight * loss
        return output

    def decode(self, text: Tensor, image: Tensor) -> Tensor:
        """Return the decoder's states [b, L, Wt]; position t predicts the token after token t.

        text: causal states [b, L, Wt]. image: pooled image tokens [b, queries, Wt].
        """
        length = text.shape[1]
        future = text.new_full((length, length), -torch.inf).triu(1)
        for to_text, to_image in zip(self.to_text, self.to_image):
            text = to_image(to_text(text, attn_mask=future), k_x=image, v_x=image)
        normed: Tensor = self.norm(text)
        return normed

    def contrast(self, embeddings: Embeddings, keys: Keys) -> dict[str, Tensor]:
        """Weight clip's loss by ``contrastive_weight``."""
        losses = super().contrast(embeddings, keys)
        return {name: self.config.contrastive_weight * loss for name, loss in losses.items()}

    @torch.no_grad()
    def write(self, images: Tensor, tokenizer: Tokenizer, beams: int = 1) -> list[str]:
        """Decode a text for each image, greedily or by beam search."""
        assert tokenizer.start_id is not None, "the plan rejects a tokenizer without a start token"
        pooled = self.pooler(self.model.image_tokens(images))

        def step(tokens: Tensor, image: Tensor) -> Tensor:
            states = self.model.text_tokens(tokens, torch.ones_like(tokens, dtype=torch.bool))
            last = self.decode(states, pooled[image])[:, -1]
            logits: Tensor = self.vocabulary(last)[:, : tokenizer.vocab_size]
            return logits.float().log_softmax(dim=-1)

        written = beam_search(
            step, len(images), beams, tokenizer.start_id, tokenizer.end_id, tokenizer.context_length, images.device
        )
        return [tokenizer.decode(row) for row in written.tolist()]


def next_token_loss(logits: Tensor, tokens: Tensor, mask: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy averaged over the tokens of each text, then over the b texts: a scalar.

    logits: [b, L, V]; tokens: int64 [b, L]; mask: bool [b, L], True where a token counts. smoothing: label
    smoothing over the V tokens, 0..1.
    """
    loss = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none", label_smoothing=smoothing)
    return ((loss * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
