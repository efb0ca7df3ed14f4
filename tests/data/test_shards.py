"""Shards as people have them. Whatever is in one, streaming and reading give the same samples."""

import gzip
import json
import tarfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.problems import BadRow, Problems
from benchmark.data.streamed import Stream, StreamedPairs
from tests.data.make import Words, jpeg, opened, shard

SOURCE = {
    "kind": "webdataset",
    "shards": {"train": ["*.tar"]},
    "columns": {"image": "image", "text": "txt", "group": "key"},
}


def described(row):
    return row.row, row.group, row.text, row.image


def read(found):
    """The samples of a set as it would be prepared, and the number of bad ones by reason."""
    problems = Problems()
    rows = [described(row) for row in found.card.source.rows(found.card.labels, problems)]
    return rows, problems.counts


def streamed(found):
    stream = Stream(found.card, "train", found.cache)
    rows, reasons = [], Counter()
    for number in range(len(stream)):
        try:
            rows.append(described(stream.row(number, lambda _, bad: reasons.update([bad.reason]))))
        except BadRow as bad:
            reasons[bad.reason] += 1
    return rows, reasons


def both(folder, members, columns=None, **source):
    """The samples of a shard with these members, the same in both ways."""
    folder.mkdir(exist_ok=True)
    shard(folder / "a.tar", members)
    source = SOURCE | {"columns": SOURCE["columns"] | (columns or {})} | source
    whole = read(opened(folder, source, "skip"))
    assert streamed(opened(folder, source | {"stream": True}, "skip")) == whole
    return whole


def samples(rows):
    return [(group, text) for _, group, text, _ in rows[0]]


@pytest.mark.parametrize("order", [("jpg", "txt", "json"), ("json", "jpg", "txt"), ("txt", "json", "jpg")])
@pytest.mark.parametrize("own", [{"key": "PMC1"}, {"image": "orig/1.jpg"}, {"txt": "no", "jpg": "b.jpg", "key": None}])
def test_the_files_of_a_sample_go_before_what_its_json_says(tmp_path, order, own):
    members = []
    for i in range(2):
        files = {"jpg": jpeg(i), "txt": f"caption {i}".encode(), "json": json.dumps(own | {"patient": i}).encode()}
        members += [(f"{i:04}.{suffix}", files[suffix]) for suffix in order]
    rows = both(tmp_path, members)
    assert samples(rows) == [("0000", ["caption 0"]), ("0001", ["caption 1"])]
    assert [row[-1] for row in rows[0]] == [jpeg(0), jpeg(1)]
    assert samples(both(tmp_path, members, {"group": "patient"})) == [("0", ["caption 0"]), ("1", ["caption 1"])]


UID = "1.2.840.113619"


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        ([f"{UID}.{i}" for i in range(3)], [f"{UID}.{i}" for i in range(3)]),
        (["scan.v2.0001", "scan.v2.0002", "plain"], ["scan.v2.0001", "scan.v2.0002", "plain"]),
        (["a/IM.1", "a/IM.2", "b/IM.1"], ["a/IM.1", "a/IM.2", "b/IM.1"]),
        (["one.scan", "two.scan"], ["one.scan", "two.scan"]),
        (["a", "a.1", "a.2"], ["a", "a.1", "a.2"]),
    ],
)
def test_dots_in_names(tmp_path, names, keys):
    members = [(f"{name}.{suffix}", f"{suffix} of {name}".encode()) for name in names for suffix in ("JPG", "txt")]
    assert samples(both(tmp_path, members)) == [(key, [f"txt of {key}"]) for key in keys]
    # One after the other by kind, as ``tar`` writes what ``find`` lists.
    assert samples(both(tmp_path, members[::2] + members[1::2])) == [(key, [f"txt of {key}"]) for key in keys]


def test_suffixes_of_several_parts(tmp_path):
    members = [
        *[("a.jpg", b"picture"), ("a.seg.png", b"mask"), ("a.en.txt", b"english"), ("a.txt", b"text")],
        *[("a.npy", b"\xff\xfe"), ("a.seg.json", b"{}"), ("b.left.jpg", b"left"), ("b.right.jpg", b"right")],
        *[("b.en.txt", b"english"), ("b.txt", b"both"), ("c.jpg", b"1"), ("c.png", b"2"), ("c.txt", b"two")],
    ]
    (first,), reasons = both(tmp_path, members)
    assert first == (1, "a", ["text"], b"picture")
    assert reasons == {"no image": 1, "several images": 1}
    ((_, _, text, image),), _ = both(tmp_path, members, {"image": "left.jpg", "text": "en.txt"})
    assert (text, image) == (["english"], b"left")
    assert both(tmp_path, members, {"image": "png"})[0] == [(3, "c", ["two"], b"2")]
    with pytest.raises(
        BenchError, match=r"row 2: sample 'b' has left.jpg, right.jpg: .*columns.image, or take the dot"
    ):
        check(opened(tmp_path, SOURCE))
    # What no card asks for need not be a text.
    assert both(tmp_path, members, {"text": "npy"})[1]["not UTF-8"] == 1


def test_samples_are_gathered_by_the_image_that_the_card_names(tmp_path):
    """A preview that several samples share is not their image."""
    members = []
    for i, kept in enumerate(("one", "two", "one")):
        files = {"jpg": b"preview", "png": kept.encode(), "txt": f"caption {i}".encode(), "json": b'{"patient": "p"}'}
        members += [(f"{i}.{suffix}", content) for suffix, content in files.items()]
    rows, _ = both(tmp_path, members, {"image": "png", "group": "patient"})
    assert [row[2:] for row in rows] == [(["caption 0", "caption 2"], b"one"), (["caption 1"], b"two")]


@pytest.mark.parametrize(
    ("bad", "columns"), [([0], {}), ([1], {}), ([0, 2], {}), ([0, 1, 2], {}), ([0], {"label": "cls"})]
)
def test_a_bad_sample_among_several_of_an_image(tmp_path, bad, columns):
    """It is left out alone; it was the whole image in streams."""
    tmp_path = tmp_path / "data"
    broken = [b"", b"\xff", b"nan"]
    members = []
    for i in range(3):
        text = broken[i] if i in bad else b"caption %d" % i
        members += [(f"{i}.jpg", jpeg(0)), (f"{i}.txt", text), (f"{i}.cls", b"1")]
    members += [("other.jpg", jpeg(1)), ("other.txt", b"another"), ("other.cls", b"0")]
    source = SOURCE | {"columns": {"image": "image", "text": "txt"} | columns}
    card = {"classes": ["a", "b"]} if columns else {}
    tmp_path.mkdir()
    shard(tmp_path / "a.tar", members)
    whole = opened(tmp_path, source, "skip", **card)
    expected = [[f"caption {i}" for i in range(3) if i not in bad], ["another"]]
    expected = [texts for texts in expected if texts]
    assert whole.records("train")["text"] == expected
    found = opened(tmp_path, source | {"stream": True}, "skip", **card)
    check(found)
    stream = Stream(found.card, "train", found.cache)
    rows, reasons = streamed(found)
    assert sorted(texts for _, _, texts, _ in rows) == sorted(expected)
    assert reasons == whole.left_out
    pairs = StreamedPairs(stream, 8, Words(), "skip")
    every, first = np.arange(len(stream)), np.zeros(len(stream), dtype=np.uint64)
    assert len(pairs.take(every, first).images) == len(expected)
    assert Counter(pairs.left_out.values()) == whole.left_out
    assert len(pairs.hashes(every, first)) == len(expected)
    assert sorted(stream.texts()) == sorted(text for texts in expected for text in texts)
    with pytest.raises(BenchError, match=r"^a.tar, row [123]: .*; pass --on-bad-data skip"):
        StreamedPairs(stream, 8, Words(), "error").take(every, first)


def test_what_macos_adds_is_no_sample(tmp_path):
    double = b"\0\5\x16\7" + bytes(range(200, 255))
    members = []
    for i in range(2):
        for suffix, content in (("jpg", jpeg(i)), ("txt", b"caption %d" % i)):
            members += [(f"./._{i}.{suffix}", double), (f"./{i}.{suffix}", content)]
            members += [(f"__MACOSX/x/{i}.{suffix}", double)]
    rows = both(tmp_path, [(".DS_Store", b"\0\0\0\1Bud1"), *members])
    assert samples(rows) == [("0", ["caption 0"]), ("1", ["caption 1"])]
    # Also as whole shards, and packed.
    (tmp_path / "._a.tar").write_bytes(double)
    assert read(opened(tmp_path, SOURCE)) == rows
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    assert read(opened(tmp_path, SOURCE | {"shards": {"train": ["*.gz"]}})) == rows


def test_files_that_lie_apart(tmp_path):
    pictures = [(f"{i:04}.jpg", jpeg(i)) for i in range(4)]
    texts = [(f"{i:04}.txt", f"caption {i}".encode()) for i in range(4)]
    for members in (pictures + texts, texts[::-1] + pictures, [*pictures[:2], *texts[:3], *pictures[2:], *texts[3:]]):
        rows = both(tmp_path, members)
        assert sorted(samples(rows)) == [(f"{i:04}", [f"caption {i}"]) for i in range(4)]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(BenchError, match=r"^a.tar.gz: the files of sample '\d+' lie apart.*tar --sort=name$"):
        read(opened(tmp_path, SOURCE | {"shards": {"train": ["*.gz"]}}))


def test_a_name_that_occurs_again(tmp_path):
    """Whole samples of one name are several, as in shards that were put together; other repetitions cannot be told."""
    pair = [("a.jpg", b"1"), ("a.txt", b"one")]
    other = [("b.jpg", b"2"), ("b.txt", b"two")]
    again = [("a.jpg", b"3"), ("a.txt", b"three")]
    assert samples(both(tmp_path, pair + other + again)) == [("a", ["one"]), ("b", ["two"]), ("a", ["three"])]
    rows = both(tmp_path, pair + other + again[:1])
    assert samples(rows) == [("b", ["two"])]
    assert rows[1] == {"a file twice": 1}
    with pytest.raises(BenchError, match=r"^a.tar, row 1: the shard has 'a.jpg' twice$"):
        check(opened(tmp_path, SOURCE))


@pytest.mark.parametrize("damage", ["header", "behind", "cut"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_shard_that_ends_before_its_end(tmp_path, damage, packed):
    """tarfile stops at a damaged header, and at the zeros between two files that were put together."""
    shard(tmp_path / "a.tar", [(f"{i}.{suffix}", b"x" * 600) for i in range(9) for suffix in ("jpg", "txt")])
    content = bytearray((tmp_path / "a.tar").read_bytes())
    if damage == "header":
        content[1536 * 7 + 5] ^= 1
    content = {"header": content, "behind": content * 2, "cut": content[: 1536 * 7]}[damage]
    (tmp_path / "a.tar").write_bytes(gzip.compress(content) if packed else content)
    source = SOURCE if packed else SOURCE | {"stream": True}
    for way in (read, *(() if packed else (streamed,))):
        with pytest.raises(BenchError, match=r"^a.tar: cannot be read as a tar file: (it is trunc|a damaged|.*end)"):
            way(opened(tmp_path, source))


def test_bad_samples_at_the_start_of_a_shard(tmp_path):
    shard(
        tmp_path / "a.tar", [("a.jpg", (tarfile.SYMTYPE, "x")), ("b.jpg", b"broken"), ("b.txt", b"b"), ("c.txt", b"")]
    )
    stream = SOURCE | {"stream": True}
    with pytest.raises(BenchError, match=r"^a.tar, row 1: member 'a.jpg' is not a plain file$"):
        check(opened(tmp_path, stream, "skip"))
    shard(tmp_path / "a.tar", [("a.jpg", (tarfile.SYMTYPE, "x")), ("b.jpg", b"x"), ("c.jpg", jpeg(0)), ("c.txt", b"c")])
    check(opened(tmp_path, stream, "skip"))
    with pytest.raises(BenchError, match=r"^a.tar, row 1: member"):
        check(opened(tmp_path, stream))


KEYS = st.sampled_from(["a", "b", "b.1", "b.2", "c/a", "1.2.0", "1.2.1", "._a", "../a", "/a", "e\udce9"])
SUFFIXES = st.sampled_from([".jpg", ".txt", ".json", ".png", ".seg.png", ".en.txt", ".cls", "", ".JPG"])
CONTENTS = st.sampled_from([b"text", b"\xff", b"", b'{"key": "x", "image": "y", "txt": "z"}', b"[1]", "link"])


@settings(max_examples=100)
@given(st.lists(st.tuples(KEYS, SUFFIXES, CONTENTS), max_size=12), st.booleans())
@example([("a", "", "link")], False)
@example([("a", ".jpg", b"text"), ("a", ".txt", b'{"key": "x"}')], False)
def test_streaming_and_reading_give_the_same_samples(tmp_path_factory, drawn, in_order):
    folder = tmp_path_factory.mktemp("shard")
    members = [("good.jpg", b"good"), ("good.txt", b"good")]
    for number, (key, suffix, content) in enumerate(sorted(drawn, key=repr) if in_order else drawn):
        picture = suffix.lower() in (".jpg", ".png") and content != "link"
        of_link = (tarfile.SYMTYPE, "good.jpg")
        members.append(
            (key + suffix, f"picture {number}".encode() if picture else of_link if content == "link" else content)
        )
    rows, reasons = both(folder, members)
    assert rows[0] == (1, "good", ["good"], b"good")
    assert set(reasons) <= {
        *("no image", "several images", "empty text", "not UTF-8", "malformed JSON", "a file twice", "not a file"),
        *("no suffix", "image outside the folder", "wrong type"),
    }
