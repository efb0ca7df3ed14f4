"""Tokenizers: open_clip's, Hugging Face's, and one trained on the corpus."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from benchmark.errors import BenchError
from benchmark.models.card import CorpusTokenizer, ModelCard

SPECIALS = ["<pad>", "<start>", "<end>"]
VERSION = 1


class Tokenizer(Protocol):
    """fingerprint: changes whenever the tokens of any text could."""

    pad_id: int
    context_length: int
    vocab_size: int
    fingerprint: str

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Each text's tokens with start and end, not padded, at most ``context_length``, the end always kept."""


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class CorpusBPE:
    """A byte-level BPE: any text has tokens, none is unknown."""

    pad_id, start_id, end_id = range(3)

    def __init__(self, backend: Backend, context_length: int) -> None:
        self._backend = backend
        self.context_length = context_length
        self.vocab_size = backend.get_vocab_size()
        self.fingerprint = _digest("corpus", backend.to_str(), context_length)

    def __call__(self, texts: list[str]) -> list[list[int]]:
        encoded = self._backend.encode_batch(texts, add_special_tokens=False)
        return [[self.start_id, *e.ids[: self.context_length - 2], self.end_id] for e in encoded]

    def decode(self, tokens: Iterable[int]) -> str:
        return self._backend.decode(list(tokens), skip_special_tokens=True)


def train(texts: list[str], vocab_size: int) -> Backend:
    """The same texts give the same vocabulary, whatever their order."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=SPECIALS, show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )  # fmt: skip
    return backend


def _corpus(spec: CorpusTokenizer, corpus: Callable[[], Iterable[str]] | None, cache: Path) -> CorpusBPE:
    if corpus is None:
        raise BenchError("a tokenizer of kind 'corpus' is trained on texts, and none were given")
    texts = sorted(corpus())
    if not texts:
        raise BenchError("a tokenizer of kind 'corpus' is trained on texts, and the corpus has none")
    path = cache / "tokenizers" / _digest("corpus", VERSION, texts, spec.vocab_size) / "tokenizer.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(train(texts, spec.vocab_size).to_str())
        os.replace(file.name, path)
    return CorpusBPE(Backend.from_file(str(path)), spec.context_length)


def build_tokenizer(card: ModelCard, corpus: Callable[[], Iterable[str]] | None, cache: Path) -> Tokenizer:
    """The card's tokenizer. ``corpus`` gives the training texts of ``card.tokenizer.datasets`` (kind ``corpus``
    only); what is trained is kept under ``cache`` by a fingerprint of the texts and the parameters."""
    spec = card.tokenizer
    if isinstance(spec, CorpusTokenizer):
        return _corpus(spec, corpus, cache)
    raise BenchError(f"tokenizer kind '{spec.kind}' is not there yet")
