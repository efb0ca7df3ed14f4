"""Tokenizers: of open_clip, of Hugging Face, and one trained on the corpus."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from benchmark.common.errors import BenchError, plural, unknown
from benchmark.common.hub import one_line
from benchmark.models.card import LOCAL, CorpusTokenizer, HuggingFaceTokenizer, ModelCard, OpenClipTokenizer
from benchmark.models.folders import OPEN_CLIP, read_config
from benchmark.models.packages import located
from benchmark.models.weights import hub
from benchmark.store import formats
from benchmark.store.cache import build_folder, remember, remembered
from benchmark.store.hashing import digest

SPECIALS = ["<pad>", "<start>", "<end>"]


class Tokenizer(Protocol):
    """Turns texts into tokens and back.

    fingerprint: changes whenever the tokens of any text might change.
    end_id: the token that every text ends with. pad_id may be the same token.
    """

    pad_id: int
    end_id: int
    context_length: int
    vocab_size: int
    fingerprint: str

    @property
    def start_id(self) -> int | None:
        """The token that every text begins with, or None if texts begin with their first word (as in GPT)."""

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text with start and end, not padded; long texts are truncated before the end token."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens that __call__() made. The start, the end and everything after it are ignored."""


def _words(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[int]:
    """The tokens between start and end, without both."""
    row = list(tokens)
    row = row[1:] if row and row[0] == tokenizer.start_id else row
    return row[: row.index(tokenizer.end_id)] if tokenizer.end_id in row else row


class CorpusBPE:
    """A byte-level BPE, which has tokens for any text."""

    pad_id, start_id, end_id = range(3)

    def __init__(self, backend: Backend, context_length: int) -> None:
        backend.encode_special_tokens = True  # "<end>" in a text is read as text
        self._backend = backend
        self.context_length = context_length
        self.vocab_size = backend.get_vocab_size()
        self.fingerprint = digest(["corpus", backend.to_str(), context_length])

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text, see Tokenizer."""
        encoded = self._backend.encode_batch(texts, add_special_tokens=False)
        return [[self.start_id, *e.ids[: self.context_length - 2], self.end_id] for e in encoded]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, see Tokenizer."""
        text: str = self._backend.decode(_words(self, tokens), skip_special_tokens=True)
        return text.strip()


def read_backend(path: Path) -> Backend:
    """Read a tokenizer of this kind. Raises ``BenchError`` for a file that is absent, damaged, or of another kind."""
    if not path.is_file():
        raise BenchError(f"tokenizer {path}: no such file")
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise BenchError(f"tokenizer {path}: {one_line(error)}") from error
    if [backend.token_to_id(token) for token in SPECIALS] != [0, 1, 2] or backend.get_vocab_size() <= len(SPECIALS):
        raise BenchError(f"tokenizer {path}: expected a vocabulary after {', '.join(SPECIALS)}; export the model again")
    return backend


def train(texts: list[str], vocab_size: int) -> Backend:
    """Train a byte-level BPE. The same texts give the same vocabulary, in any order."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIALS,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return backend


def _corpus(
    spec: CorpusTokenizer, corpus: Callable[[], Iterable[str]] | None, cache: Path, fingerprints: Sequence[str]
) -> CorpusBPE:
    if corpus is None:
        raise BenchError("a tokenizer of kind 'corpus' is trained on texts, but none were given")

    read = corpus

    @lru_cache
    def texts() -> list[str]:
        every = sorted(read())
        if not every:
            raise BenchError("a tokenizer of kind 'corpus' is trained on texts, but the corpus has none")
        return every

    def write(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(train(texts(), spec.vocab_size).to_str(), encoding="utf-8")

    folders = cache / "tokenizers"
    named = folders / f"{digest(['corpus', formats.TRAINING, sorted(fingerprints), spec.vocab_size])}.json"
    key = remembered(named) if fingerprints else None
    if key is None:
        key = digest(["corpus", formats.TRAINING, texts(), spec.vocab_size])
        if fingerprints:
            remember(named, key)
    folder = build_folder(folders / key, write)
    return CorpusBPE(Backend.from_file(str(folder / "tokenizer.json")), spec.context_length)


class OpenClipBPE:
    """CLIP's lower-case byte-pair encoding, from open_clip."""

    pad_id = 0

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.context_length = backend.context_length
        self.vocab_size = backend.vocab_size
        self.start_id, self.end_id = backend.sot_token_id, backend.eot_token_id
        merges = [list(pair) for pair in backend.bpe_ranks]
        self.fingerprint = digest(["open_clip", merges, backend.clean_fn.__name__, self.context_length])

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text, see Tokenizer."""
        rows = [self._backend.encode(text)[: self.context_length - 2] for text in texts]
        return [[self.start_id, *row, self.end_id] for row in rows]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, see Tokenizer."""
        text: str = self._backend.decode(_words(self, tokens))
        return text.strip()


class HuggingFace:
    """A tokenizer of transformers. If it does not end texts with a token itself (GPT, Llama), its end token is added.

    pad_id: its own, or its end token if it has none.
    clean: applied to each text first.
    """

    def __init__(self, backend: Any, context_length: int, clean: Callable[[str], str] = str) -> None:
        self._backend = backend
        self._clean = clean
        self.context_length = context_length
        self.vocab_size = highest_token(backend) + 1
        self.pad_id = backend.eos_token_id if backend.pad_token_id is None else backend.pad_token_id
        empty = backend("").input_ids
        starts, ends = {backend.bos_token_id, backend.cls_token_id}, {backend.eos_token_id, backend.sep_token_id}
        self.start_id = empty[0] if empty and empty[0] in starts else None
        ended = len(empty) > (self.start_id is not None) and empty[-1] in ends
        self.end_id = empty[-1] if ended else backend.eos_token_id
        if self.end_id is None or self.pad_id is None:
            raise BenchError(f"tokenizer '{backend.name_or_path}': has no end token, or no token to pad with")
        self._end = [] if ended else [self.end_id]
        state = json.loads(backend.backend_tokenizer.to_str()) if backend.is_fast else backend.get_vocab()
        state = {key: value for key, value in state.items() if key not in {"truncation", "padding"}}
        self.fingerprint = digest(["huggingface", state, self._end, clean.__name__, context_length])

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text, see Tokenizer."""
        room = self.context_length - len(self._end)
        cleaned = [self._clean(text) for text in texts]
        return [[*ids, *self._end] for ids in self._backend(cleaned, truncation=True, max_length=room).input_ids]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, see Tokenizer."""
        text: str = self._backend.decode(_words(self, tokens), skip_special_tokens=True)
        return text.strip()


def open_clip_tokenizer(spec: OpenClipTokenizer) -> Tokenizer:
    """Build the tokenizer of an open_clip architecture.

    Raises ``BenchError`` for an unknown architecture, and for a tokenizer of a kind that is not supported.
    """
    import open_clip

    named = spec.name.startswith((LOCAL, "hf-hub:"))
    if not named and spec.name not in open_clip.list_models():
        raise unknown("open_clip architecture", spec.name, open_clip.list_models())
    instead, local = "download it where there is a network", spec.name.startswith(LOCAL)
    if local:
        folder, instead = Path(spec.name.removeprefix(LOCAL)), OWN_TOKENIZER
        text = (read_config(folder / OPEN_CLIP).get("model_cfg") or {}).get("text_cfg") or {}
        if text.get("hf_tokenizer_name"):
            _require_files(folder)
    with hub(f"tokenizer of open_clip's '{spec.name}'", instead, local=local):
        backend = open_clip.get_tokenizer(spec.name, context_length=spec.context_length)
    return wrapped(backend, spec.name)


def wrapped(backend: Any, name: str) -> Tokenizer:
    """Wrap a tokenizer of open_clip. Raises ``BenchError`` for one of a kind that is not supported."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if isinstance(backend, SimpleTokenizer):
        return OpenClipBPE(backend)
    if isinstance(backend, HFTokenizer) and not backend.tokenizer_mode and not backend.strip_sep_token:
        check_words(backend.tokenizer, f"tokenizer of open_clip's '{name}'")
        return HuggingFace(backend.tokenizer, backend.context_length, backend.clean_fn)
    raise BenchError(f"tokenizer of open_clip's '{name}', a {type(backend).__name__}, is not supported")


def local_tokenizer(folder: Path, context_length: int, as_open_clip: bool = False) -> Tokenizer:
    """Build the tokenizer of transformers in a folder. as_open_clip: clean texts first, as open_clip does.

    Raises ``BenchError`` as load_tokenizer() does.
    """
    from open_clip.tokenizer import get_clean_fn

    clean = get_clean_fn("whitespace") if as_open_clip else str
    return HuggingFace(load_tokenizer(folder), context_length, clean)


def load_tokenizer(name: str | Path) -> Any:
    """Load a tokenizer of transformers from a folder, or by its name on the hub, and check_words() it."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    local = Path(name).is_dir()
    instead = "download it where there is a network, or name a local folder: tokenizer.name: FOLDER"
    if local:
        instead = OWN_TOKENIZER
        _require_files(Path(name))
    with hub(f"tokenizer '{name}'", instead, local=local):
        try:
            backend = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except ImportError:
            # Its class needs a package (SigLIP's: sentencepiece); the same tokens are in its tokenizer.json.
            backend = PreTrainedTokenizerFast.from_pretrained(name)
    check_words(backend, f"tokenizer '{name}'")
    return backend


def _require_files(folder: Path) -> None:
    if not any(re.match(r"tokenizer|vocab|merges|spiece|.*\.model$", path.name) for path in folder.iterdir()):
        raise BenchError(f"tokenizer '{folder}': no files of a tokenizer (tokenizer.json); {OWN_TOKENIZER}")


def highest_token(backend: Any) -> int:
    """The highest number of a token that a tokenizer of transformers has."""
    return int(max(backend.get_vocab().values()))


OWN_TOKENIZER = "save the model's own tokenizer to the folder: tokenizer.save_pretrained(FOLDER)"
UNUSUAL = "ᚠᛇ"
"""Letters (runes) that hardly any vocabulary has, and that no normalisation removes."""


def check_words(backend: Any, what: str) -> None:
    """Check that a tokenizer of transformers tells texts apart: transformers makes one without files too.

    Raises ``BenchError`` if its vocabulary has no words, if the merges of its words are missing, and if it drops what
    it does not know.
    """
    instead = OWN_TOKENIZER
    special = {*backend.all_special_tokens, *backend.get_added_vocab()}
    words = [word.strip("▁Ġ") for word in backend.get_vocab() if word not in special]
    files = " or ".join(backend.vocab_files_names.values())
    if not any(any(map(str.isalnum, word)) for word in words):
        raise BenchError(
            f"{what}: its vocabulary has no words, {plural(len(backend.get_vocab()), 'token')} in all (expected "
            f"{files}); {instead}"
        )
    if backend.is_fast:
        model = json.loads(backend.backend_tokenizer.to_str())["model"]
        longest = max(len(word.removesuffix("</w>")) for word in words)
        if model.get("type") == "BPE" and not model.get("merges") and longest > 1:
            raise BenchError(f"{what}: the merges of its words are missing (expected {files}); {instead}")
    try:
        known = backend(UNUSUAL, add_special_tokens=False).input_ids
    except Exception as error:  # the library raises no narrower class
        raise BenchError(
            f"{what}: cannot encode letters that it does not know: {one_line(error)}; {instead}"
        ) from error
    if not known and backend.unk_token is None:
        raise BenchError(f"{what}: has no token for what it does not know (unk_token), and drops it; {instead}")


def _hugging_face(spec: HuggingFaceTokenizer) -> Tokenizer:
    return HuggingFace(load_tokenizer(spec.name), spec.context_length)


def build_tokenizer(
    card: ModelCard, corpus: Callable[[], Iterable[str]] | None, cache: Path, fingerprints: Sequence[str] = ()
) -> Tokenizer:
    """Build the tokenizer of a card.

    corpus: returns the training texts of ``card.tokenizer.datasets``; for kind ``corpus`` only. A tokenizer that is
    trained on them is stored under ``cache``, by a hash of the texts and the parameters. fingerprints: of the datasets
    with these texts, which are then read once.
    """
    spec = located(card.tokenizer)
    if isinstance(spec, CorpusTokenizer):
        return _corpus(spec, corpus, cache, fingerprints)
    return open_clip_tokenizer(spec) if isinstance(spec, OpenClipTokenizer) else _hugging_face(spec)
