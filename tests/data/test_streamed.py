"""Pairs that are read from tar shards during the training."""

import gzip
import os
import shutil
import signal
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmark.cli.main import main
from benchmark.common.errors import BenchError
from benchmark.config.augmentation import Augmentation
from benchmark.config.training import Training
from benchmark.data import streamed
from benchmark.data.check import check
from benchmark.data.loader import PairLoader, PreparedPairs
from benchmark.data.prepared import prepare
from benchmark.data.resizing import DEFAULT, Resizing
from benchmark.data.streamed import Stream, StreamedPairs
from benchmark.training.checkpoint import LAST
from benchmark.training.loop import pretrain
from tests.data.make import SHARDS, Words, dataset, jpeg, opened, pairs, shard
from tests.methods.fakes import small_method

PER_SHARD = 10
TRAIN = SHARDS | {"shards": {"train": ["train-*.tar"]}}


class Letters:
    """Tokens that tell texts apart."""

    pad_id = 0

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[1, *(3 + ord(letter) % 200 for letter in text[-6:]), 2] for text in texts]


def shards(folder: Path, count: int = 4, per_shard: int = PER_SHARD) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        samples = range(number * per_shard, (number + 1) * per_shard)
        members = [
            (f"s{i}.{suffix}", jpeg(i) if suffix == "jpg" else f"text {i}".encode())
            for i in samples
            for suffix in ("jpg", "txt")
        ]
        shard(folder / f"train-{number}.tar", members)


def loader(folder: Path, on_bad_data: str = "error", seed: int = 0, size: int = 8, **source: object) -> PairLoader:
    found = opened(folder, TRAIN | {"stream": True} | source, on_bad_data)
    stream = Stream(found.card, "train", found.cache)
    return PairLoader([StreamedPairs(stream, size, Letters(), found.on_bad_data)], 0, size, Augmentation(), seed)


def test_an_epoch_is_every_sample_once_as_it_would_be_prepared(tmp_path: Path) -> None:
    shards(tmp_path / "data")
    streaming = loader(tmp_path / "data")
    whole = opened(tmp_path / "data", TRAIN)
    prepared = prepare(whole, "train", 8, whole.cache)
    assert len(streaming) == len(prepared) == 40
    batch = streaming.batch(40, 40)
    assert sorted(batch.ids) == sorted(prepared.ids)
    row_of = {id_: row for row, id_ in enumerate(prepared.ids)}
    rows = [row_of[id_] for id_ in batch.ids]
    assert torch.equal(batch.image, torch.from_numpy(prepared.images[rows]))
    expected = Letters()([prepared.text[row][0] for row in rows])
    assert [tokens[mask].tolist() for tokens, mask in zip(batch.tokens, batch.mask)] == expected
    assert not (tmp_path / "data" / "cache" / "prepared" / "x").exists()
    assert streaming.sequential(5, 3).ids == ["s5", "s6", "s7"]


def test_images_become_squares_as_they_would_be_prepared(tmp_path: Path) -> None:
    wide = BytesIO()
    Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3)).save(wide, "PNG")
    shard(tmp_path / "train-0.tar", [("s0.png", wide.getvalue()), ("s0.txt", b"wide")])
    found = opened(tmp_path, TRAIN | {"stream": True})
    whole = opened(tmp_path, TRAIN)
    images = []
    for resizing in (DEFAULT, Resizing("squash")):
        pairs = StreamedPairs(Stream(found.card, "train", found.cache), 8, Letters(), "error", resizing)
        images.append(pairs.take(np.array([0]), np.array([0])).images)
        prepared = prepare(whole, "train", 8, whole.cache, resizing=resizing)
        np.testing.assert_array_equal(images[-1], prepared.images)
    assert (images[0] != images[1]).any()
    kept = DEFAULT.keeping_ratio()
    pairs = StreamedPairs(Stream(found.card, "train", found.cache), 8, Letters(), "error", kept)
    samples = pairs.take(np.array([0, 0]), np.array([0, 0]))
    assert samples.sizes is not None
    assert samples.sizes.tolist() == [[8, 16]] * 2
    prepared = prepare(whole, "train", 8, whole.cache, resizing=kept)
    np.testing.assert_array_equal(samples.images[:1], prepared.images[:])


def test_any_part_of_it_is_the_same_from_a_fresh_start(tmp_path: Path) -> None:
    shards(tmp_path / "data")
    whole = loader(tmp_path / "data").batch(0, 100)
    for start, count in ((0, 7), (33, 20), (95, 5)):
        part = loader(tmp_path / "data").batch(start, count)
        assert part.ids == whole.ids[start : start + count]
        assert torch.equal(part.seed, whole.seed[start : start + count])
        assert torch.equal(part.image, whole.image[start : start + count])
    assert loader(tmp_path / "data", seed=1).batch(0, 100).ids != whole.ids


def test_shards_are_shuffled_and_samples_stay_near_their_place(tmp_path: Path) -> None:
    shards(tmp_path / "data", count=30)
    stream = Stream(opened(tmp_path / "data", TRAIN | {"stream": True, "shuffle_buffer": 15}).card, "train", tmp_path)
    rng = np.random.default_rng(0)
    orders = [stream.order(rng) for _ in range(40)]
    starts = Counter()
    for order in orders:
        assert sorted(order) == list(range(300))
        # In the order of the shards of this epoch, a place differs from its sample's own by less than the buffer.
        first_seen = list(dict.fromkeys(order // PER_SHARD))
        for window in range(0, 300, 10):
            assert len(set(order[window : window + 10] // PER_SHARD)) <= (10 + 2 * 15) // PER_SHARD + 1
        assert first_seen != sorted(first_seen)
        starts[int(order[0])] += 1
    assert len(starts) > 20
    one = Stream(opened(tmp_path / "data", TRAIN | {"stream": True, "shuffle_buffer": 1}).card, "train", tmp_path)
    order = one.order(rng)
    assert (np.diff(order) == 1).sum() == 300 - 30


def test_shards_are_listed_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(tmp_path / "data")
    listed: list[str] = []
    scan = streamed.scan_shard
    monkeypatch.setattr(streamed, "scan_shard", lambda path: listed.append(path.name) or scan(path))
    assert len(loader(tmp_path / "data")) == 40
    assert len(listed) == 4
    assert len(loader(tmp_path / "data")) == 40
    assert len(listed) == 4
    fingerprint = opened(tmp_path / "data", TRAIN | {"stream": True}).fingerprint
    shard(tmp_path / "data" / "train-2.tar", [("new.jpg", jpeg(0)), ("new.txt", b"new")])
    assert len(loader(tmp_path / "data")) == 31
    assert listed[4:] == ["train-2.tar"]
    assert opened(tmp_path / "data", TRAIN | {"stream": True}).fingerprint != fingerprint


BAD = [
    ("s0.jpg", b"broken"),
    ("s0.txt", b"text"),
    ("s1.jpg", jpeg(1)),
    ("s1.txt", b"\xff"),
    ("s2.jpg", jpeg(2)),
    ("s3.txt", b"no image"),
    ("s4.jpg", jpeg(4)),
    ("s4.txt", b"good"),
]


def test_bad_samples(tmp_path: Path) -> None:
    shards(tmp_path / "data", count=1, per_shard=4)
    shard(tmp_path / "data" / "train-1.tar", BAD)
    with pytest.raises(BenchError, match=r"^train-1.tar, row \d: .*--on-bad-data skip"):
        loader(tmp_path / "data").batch(0, 9)
    left = loader(tmp_path / "data", "skip")
    batch = left.batch(0, 9)
    assert sorted(batch.ids) == ["s0", "s1", "s2", "s3", "s4"]
    assert len(batch.tokens) == len(batch.mask) == len(batch.row) == len(batch.seed) == len(batch.image) == 5
    assert Counter(left.sets[0].left_out.values()) == {
        "image cannot be decoded": 1,
        "not UTF-8": 1,
        "empty text": 1,
        "no image": 1,
    }
    with pytest.raises(BenchError, match="none of the 4 samples of a micro-batch can be used"):
        left.sequential(4, 4)


def test_what_is_wrong_in_all_samples_is_found_before_training(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shards(folder, count=2)
    stream = {"stream": True}
    check(opened(folder, TRAIN | stream))
    with pytest.raises(BenchError, match=r"train-0.tar: columns.text: unknown column 'caption'.*txt"):
        check(opened(folder, TRAIN | stream | {"columns": {"image": "image", "text": "caption"}}))
    shard(folder / "train-1.tar", [("a.jpg", b"broken"), ("a.txt", b"x")])
    with pytest.raises(BenchError, match=r"^train-1.tar, row 1: cannot be decoded: no known image format"):
        check(opened(folder, TRAIN | stream))
    (folder / "train-1.tar").write_bytes((folder / "train-0.tar").read_bytes()[:3000])
    with pytest.raises(BenchError, match=r"train-1.tar: cannot be read as a tar file"):
        check(opened(folder, TRAIN | stream))
    (folder / "train-1.tar").write_bytes(gzip.compress((folder / "train-0.tar").read_bytes()))
    with pytest.raises(BenchError, match=r"train-1.tar: is compressed, and 'stream' reads samples at any place"):
        check(opened(folder, TRAIN | stream))
    shard(folder / "train-1.tar", [("../a.jpg", jpeg(0)), ("../a.txt", b"x")])
    with pytest.raises(BenchError, match=r"^train-1.tar, row 1: .*'../a.jpg' leads out"):
        check(opened(folder, TRAIN | stream))


@pytest.mark.parametrize("needs_all", [{"split": {"train": 1.0}}, {"where": {"txt": "x"}}, {"find": True}])
def test_what_needs_all_rows_does_not_stream(tmp_path: Path, needs_all: dict[str, object]) -> None:
    with pytest.raises(BenchError, match=f"'{next(iter(needs_all))}' needs all samples before training starts"):
        opened(tmp_path, TRAIN | {"stream": True} | needs_all)


def test_a_stream_has_no_records(tmp_path: Path) -> None:
    shards(tmp_path / "data", count=1)
    found = opened(tmp_path / "data", TRAIN | {"stream": True})
    assert found.splits() == ["train"]
    assert found.left_out == {}
    with pytest.raises(BenchError, match=r"is streamed, .* only; 'stream: false' in its card prepares it as a whole"):
        found.records("train")
    assert sorted(Stream(found.card, "train", found.cache).texts()) == sorted(f"text {i}" for i in range(10))


def test_mixed_with_a_prepared_set(tmp_path: Path) -> None:
    shards(tmp_path / "data")
    streaming = loader(tmp_path / "data").sets[0]
    other = dataset(tmp_path, pairs(tmp_path, 20, ["train"]))
    prepared = PreparedPairs(prepare(other, "train", 8, other.cache), Words(), other.cache)
    mixed = PairLoader([streaming, prepared], 0, 8, Augmentation(), 0)
    batch = mixed.batch(0, 60)
    assert Counter(id_[0] for id_ in batch.ids) == {"s": 40, "r": 20}
    # The stream keeps its own order in the mixture.
    alone = PairLoader([streaming], 0, 8, Augmentation(), 0).batch(0, 40).ids
    assert [id_ for id_ in batch.ids if id_[0] == "s"] == alone
    assert mixed.batch(17, 9).ids == batch.ids[17:26]


def test_a_killed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    shards(tmp_path / "data", count=4)
    training = Training(samples=120, batch_size=12, micro_batch=5, checkpoint_every=1e9, validations=0)

    def once(folder: Path, stop: int | None = None) -> None:
        def progress(position: object) -> None:
            if position.step == stop:  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGTERM)

        pairs = loader(tmp_path / "data", size=32, shuffle_buffer=12)
        pretrain(
            small_method("clip"),
            pairs,
            None,
            training,
            seed=0,
            device=torch.device("cpu"),
            folder=folder,
            progress=progress,
        )

    once(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "parts", stop=4)
    once(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / run / LAST) for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    shutil.rmtree(tmp_path / "parts")


def test_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shards(tmp_path / "data")
    opened(tmp_path / "data", TRAIN | {"stream": True})
    card = str(tmp_path / "data" / "set.yaml")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    said = []
    for command in (["check", card], ["prepare", card], ["show", card]):
        monkeypatch.setattr(sys, "argv", ["bench", "data", *command])
        with pytest.raises(SystemExit):
            main()
        said.append("".join(capsys.readouterr()))
    assert "no errors in the first sample of each shard" in said[0]
    assert "streams, so there is nothing to prepare" in said[1]
    assert "is streamed, which is for pretraining only" in said[2]
