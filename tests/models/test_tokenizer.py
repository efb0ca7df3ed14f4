import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer as Backend
from tokenizers import models, processors
from transformers import PreTrainedTokenizerFast

from benchmark.common.errors import BenchError
from benchmark.models import Tokenizer, build_tokenizer
from tests.models.make import WORDS, make_card, save_hugging_face

draw = random.Random(0)
TEXTS = [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) + "." for _ in range(300)]
ODD = ["", "Ünïcode 漢字 🫀", "  two  spaces\tand\nlines ", "<end> <pad>", "word " * 400]


def corpus(cache: Path, texts: list[str] = TEXTS, vocab_size: int = 320, context_length: int = 16) -> Tokenizer:
    spec = {"kind": "corpus", "vocab_size": vocab_size, "context_length": context_length}
    return build_tokenizer(make_card(tokenizer=spec), lambda: texts, cache)


def test_corpus_texts_have_start_end_and_come_back(tmp_path: Path) -> None:
    tokenizer = corpus(tmp_path, context_length=64)
    assert tokenizer.vocab_size == 320
    assert tokenizer.pad_id == 0
    for text, tokens in zip(TEXTS, tokenizer(TEXTS), strict=True):
        assert tokens[0] == 1
        assert tokens[-1] == 2
        assert 0 not in tokens
        assert max(tokens) < tokenizer.vocab_size
        assert (tokens[0], tokens[-1]) == (tokenizer.start_id, tokenizer.end_id)
        assert tokenizer.decode(tokens) == text
        assert tokenizer.decode([*tokens, 0, 0, 5]) == tokenizer.decode(tokens[1:-1]) == text


def test_corpus_cuts_long_texts_and_keeps_the_end(tmp_path: Path) -> None:
    tokenizer = corpus(tmp_path)
    for tokens in tokenizer(ODD):
        assert 2 <= len(tokens) <= 16
        assert tokens[0] == 1
        assert tokens[-1] == 2
        # what is written in a text never becomes a token that means something
        assert all(token > 2 for token in tokens[1:-1])
    assert len(tokenizer(ODD)[-1]) == 16
    assert tokenizer(TEXTS[:3]) == [tokenizer([text])[0] for text in TEXTS[:3]]


def test_corpus_is_trained_once_whatever_the_order(tmp_path: Path) -> None:
    first = corpus(tmp_path)
    (path,) = tmp_path.rglob("tokenizer.json")
    content, written = path.read_bytes(), path.stat().st_mtime_ns
    again = corpus(tmp_path, random.Random(1).sample(TEXTS, len(TEXTS)))
    assert list(tmp_path.rglob("tokenizer.json")) == [path]
    assert path.stat().st_mtime_ns == written
    assert again.fingerprint == first.fingerprint
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"tokenizer.json", "files.json"}

    code = "import json, sys; from benchmark.models.tokenizer import train\n"
    code += "print(train(json.load(sys.stdin), 320).to_str())"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(sorted(TEXTS)), capture_output=True, text=True, check=True
    )
    assert json.loads(elsewhere.stdout) == json.loads(content)


def test_the_texts_of_known_datasets_are_read_once(tmp_path: Path) -> None:
    read: list[str] = []

    def build(*fingerprints: str, texts: list[str] = TEXTS) -> Tokenizer:
        def corpus() -> list[str]:
            read.append("read")
            return texts

        spec = {"kind": "corpus", "vocab_size": 320, "context_length": 16}
        return build_tokenizer(make_card(tokenizer=spec), corpus, tmp_path, fingerprints)

    first = build("a", "b")
    assert build("b", "a").fingerprint == first.fingerprint
    assert len(read) == 1
    assert build("c", texts=TEXTS[:200]).fingerprint != first.fingerprint
    assert len(read) == 2
    # Without the tokenizer itself, and without fingerprints, they are read again.
    for path in [*tmp_path.glob("tokenizers/*/")]:
        shutil.rmtree(path)
    assert build("a", "b").fingerprint == build().fingerprint == first.fingerprint
    assert len(read) == 4


def test_corpus_fingerprint_follows_what_it_depends_on(tmp_path: Path) -> None:
    variants = [
        corpus(tmp_path),
        corpus(tmp_path, [*TEXTS[:-1], "something else entirely"]),
        corpus(tmp_path, vocab_size=310),
        corpus(tmp_path, context_length=12),
    ]
    assert len({variant.fingerprint for variant in variants}) == 4


def test_corpus_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="the corpus has none"):
        corpus(tmp_path, [])
    with pytest.raises(BenchError, match="none were given"):
        build_tokenizer(make_card(), None, tmp_path)


def test_open_clips_own_tokens(tmp_path: Path) -> None:
    ours = build_tokenizer(make_card(tokenizer={"kind": "open_clip", "name": "ViT-B-16"}), None, tmp_path)
    theirs = open_clip.get_tokenizer("ViT-B-16")
    assert (ours.context_length, ours.vocab_size, ours.pad_id) == (77, 49408, 0)
    for tokens, padded in zip(ours(TEXTS + ODD), theirs(TEXTS + ODD), strict=True):
        assert tokens + [0] * (77 - len(tokens)) == padded.tolist()
    assert ours.decode(ours(["No effusion! Heart: normal"])[0]) == "no effusion ! heart : normal"
    short = build_tokenizer(
        make_card(tokenizer={"kind": "open_clip", "name": "ViT-B-16", "context_length": 9}), None, tmp_path
    )
    assert short.context_length == 9
    assert short.fingerprint != ours.fingerprint
    assert short(TEXTS[:5]) == [tokens if len(tokens) <= 9 else [*tokens[:8], 49407] for tokens in ours(TEXTS[:5])]


@pytest.mark.parametrize("ends", [True, False])
def test_hugging_faces_own_tokens(ends: bool, tmp_path: Path) -> None:
    theirs = save_hugging_face(tmp_path, ends)
    spec = {"kind": "huggingface", "name": str(tmp_path), "context_length": 8}
    ours = build_tokenizer(make_card(tokenizer=spec), None, tmp_path)
    assert ours.pad_id == (0 if ends else 2)
    assert ours.vocab_size == len(theirs)
    assert (ours.start_id, ours.end_id) == (1 if ends else None, 2)
    before = ours.fingerprint
    for text, tokens in zip(TEXTS, ours(TEXTS), strict=True):
        whole = theirs(text).input_ids if ends else [*theirs(text).input_ids, 2]
        assert tokens == (whole if len(whole) <= 8 else [*whole[:7], 2])
        assert ours.decode(tokens) == theirs.decode(tokens, skip_special_tokens=True)
    again = build_tokenizer(make_card(tokenizer=spec), None, tmp_path)
    assert again.fingerprint == before == ours.fingerprint
    other = build_tokenizer(make_card(tokenizer={**spec, "context_length": 9}), None, tmp_path)
    assert other.fingerprint != before


@pytest.mark.parametrize("end", ["</s>", "<s>"], ids=["Llama's", "OPT's"])
def test_a_tokenizer_that_only_begins_texts_gets_an_end(end: str, tmp_path: Path) -> None:
    vocab = {word: i for i, word in enumerate(["<s>", "</s>", "<unk>", "lung"])}
    backend = Backend(models.WordLevel(vocab, unk_token="<unk>"))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=end).save_pretrained(tmp_path)
    spec = {"kind": "huggingface", "name": str(tmp_path), "context_length": 8}
    tokenizer = build_tokenizer(make_card(tokenizer=spec), None, tmp_path)
    assert (tokenizer.start_id, tokenizer.end_id) == (0, vocab[end])
    assert tokenizer(["lung"]) == [[0, 3, vocab[end]]]
    assert tokenizer.decode([0, 3, vocab[end]]) == "lung"


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="unknown open_clip architecture 'ViT-B-61'; did you mean"):
        build_tokenizer(make_card(tokenizer={"kind": "open_clip", "name": "ViT-B-61"}), None, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for kind, name in (("huggingface", "org/model"), ("open_clip", "ViT-B-16-SigLIP")):
        with pytest.raises(BenchError, match="not in the cache") as error:
            build_tokenizer(make_card(tokenizer={"kind": kind, "name": name}), None, tmp_path)
        assert "\n" not in str(error.value)
