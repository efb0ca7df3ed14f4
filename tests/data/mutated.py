"""Small valid sets of every format, and what breaks them: bytes and cells that are not what they were."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import datasets
import h5py
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.dataset import Dataset, open_dataset
from benchmark.data.images import load_image
from benchmark.data.problems import BadRow
from benchmark.data.streamed import Stream, encoded_image
from tests.data.make import PAIRS, pixels, shard, write_card

COUNT = 5
"""Rows of each set."""
SECONDS = 20
MEMORY = 1 << 30
"""The most bytes by which a mutated file may raise the most memory that the process ever held."""
CLASSES = ["normal", "benign"]


@dataclass
class Case:
    """A set in a folder of its own.

    file: the one that is mutated. cells: its content with another value in a row and column. inside: its content edited
    behind checksums and compression, in the part of this number. intact: the keys of rows that a mutation left alone.
    total: the number of rows that some content has; None if that cannot be told.
    """

    folder: Path
    file: Path
    source: dict[str, Any]
    content: bytes = b""
    cells: Callable[..., bytes] | None = None
    inside: Callable[[Callable[[bytes], bytes], int], bytes] | None = None
    intact: Callable[[bytes], set[str]] | None = None
    total: Callable[[bytes], int | None] = lambda _: None
    card: dict[str, Any] = field(default_factory=dict)


def encoded(seed: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, kind)
    return file.getvalue()


def rows() -> list[dict[str, Any]]:
    splits = ["train", "train", "val", "test", "train"]
    return [
        {"id": f"r{i}", "image": f"images/{i}.png", "text": f"caption {i}", "patient": f"p{i}", "split": splits[i]}
        for i in range(COUNT)
    ]


def with_images(folder: Path, kind: str = "png") -> None:
    (folder / "images").mkdir()
    for i in range(COUNT):
        (folder / "images" / f"{i}.{kind}").write_bytes(encoded(i, {"jpg": "JPEG"}.get(kind, kind.upper())))


CELLS: list[Any] = [
    *(
        "",
        " ",
        "nan",
        "NaN",
        "None",
        "NULL",
        "1e999",
        "9" * 400,
        "-1",
        "1.0",
        "True",
        "[",
        "[]",
        '["a", "b"]',
        "['a' 'b']",
    ),
    *('"', '""', "'", "\0", "\ud800", "\u202e", "../x", "/etc/passwd", "images/1.png", "http://x/y.png", "C:\\x.png"),
    *("r1", "p0", "train", "test", "nowhere", "x" * 3000, "{", "{text}", "=1+1", "a\nb", "a\rb", "a,b", "a;b", "a\tb"),
]
OBJECTS: list[Any] = [
    *(None, True, False, 0, 1.5, -1, 10**400, float("inf"), float("nan"), [], [None], [[]], [1, 2], ["a", "b"], {}),
    *({"a": 1}, {"bytes": None}, {"bytes": "x", "path": "y"}, [{"a": [1]}], ["images/1.png"], [1e400, "x"]),
]


def named_once(keys: set[str], content: bytes) -> set[str]:
    """The keys of rows that no other row contradicts, by their ids or their images."""
    names = {key: (key.encode(), b"images/" + key[1:].encode()) for key in keys}
    return {key for key in keys if all(content.count(name) == 1 for name in names[key])}


def lines_of_csv(content: bytes) -> set[str]:
    """Quotes and a header that are not what they were may change the meaning of every other line."""
    lines = content.split(b"\n")
    if content.count(b'"') != 0 or lines[0] != CSV[0] or b"\r" in content:
        return set()
    return named_once({line.split(b",")[0].decode() for line in lines if line in CSV[1:]}, content)


CSV = ["id,image,text,patient,split", *(",".join(row.values()) for row in rows())]
CSV = [line.encode() for line in CSV]


def total_of_csv(content: bytes) -> int | None:
    lines = content.split(b"\n")
    plain = lines[0] == CSV[0] and b'"' not in content and b"\r" not in content and images_differ(content)
    return sum(bool(line) for line in lines[1:]) if plain else None


def images_differ(content: bytes) -> bool:
    """Rows of one image may become one row."""
    names = re.findall(rb"images/\d+\.png", content)
    return len(names) == len(set(names))


def total_of_lines(content: bytes) -> int | None:
    lines = content.replace(b"\r", b"\n").split(b"\n")
    return sum(bool(line.strip()) for line in lines) if images_differ(content) else None


def total_of_document(content: bytes) -> int | None:
    document = json.loads(content.decode("utf-8-sig"))
    if isinstance(document, list):
        return len(document) if images_differ(content) else None
    of_splits = [document.get(split) for split in ("train", "val", "test")]
    whole = len(document) == 3 and all(isinstance(each, list) for each in of_splits) and images_differ(content)
    return sum(map(len, of_splits)) if whole else None


def cells_of_csv(row: int, column: int, value: Any) -> bytes:
    lines = [line.split(b",") for line in CSV]
    text = str(value).encode("utf-8", "surrogatepass")
    quoted = (
        b'"' + text.replace(b'"', b'""') + b'"' if any(mark in text for mark in (b",", b'"', b"\n", b"\r")) else text
    )
    lines[1 + row][column] = quoted
    return b"\n".join(b",".join(line) for line in lines)


def changed(row: int, column: int, value: Any) -> list[dict[str, Any]]:
    every = rows()
    every[row][list(every[row])[column]] = value
    return every


def as_lines(every: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in every).encode()


LINES = as_lines(rows()).split(b"\n")


def lines_of_json(content: bytes) -> set[str]:
    lines = content.replace(b"\r", b"\n").split(b"\n")
    return named_once({json.loads(line)["id"] for line in lines if line in LINES}, content)


Edits = Callable[[bytes], bytes]


def packed_inside(content: bytes) -> Callable[[Edits, int], bytes]:
    return lambda edit, _: gzip.compress(edit(gzip.decompress(content)), mtime=0)


def zip_inside(content: bytes) -> Callable[[Edits, int], bytes]:
    """An archive with one member edited, or without it."""

    def change(edit: Edits, part: int) -> bytes:
        file = io.BytesIO()
        with ZipFile(io.BytesIO(content)) as old, ZipFile(file, "w", ZIP_DEFLATED) as new:
            names = old.namelist()
            for name in names:
                if name != names[part % len(names)]:
                    new.writestr(name, old.read(name))
                elif part % 5:
                    new.writestr(name, edit(old.read(name)))
        return file.getvalue()

    return change


def png_inside(content: bytes) -> Callable[[Edits, int], bytes]:
    """A PNG with one chunk edited, and a checksum that fits."""

    def change(edit: Edits, part: int) -> bytes:
        chunks, place = [], 8
        while place < len(content):
            (size,) = struct.unpack(">I", content[place : place + 4])
            chunks.append(content[place + 4 : place + 8 + size])
            place += 12 + size
        chunks[part % len(chunks)] = edit(chunks[part % len(chunks)])
        made = (struct.pack(">I", max(0, len(c) - 4)) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
        return content[:8] + b"".join(made)

    return change


def tar_inside(content: bytes) -> Callable[[Edits, int], bytes]:
    """A tar file with one header edited, and a checksum that fits."""

    def change(edit: Edits, part: int) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            headers = [info.offset for info in tar]
        start = headers[part % len(headers)]
        header = bytearray(edit(content[start : start + 512])[:512].ljust(512, b"\0"))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return content[:start] + bytes(header) + content[start + 512 :]

    return change


def manifest(folder: Path, name: str, content: bytes, **more: Any) -> Case:
    with_images(folder)
    source = {"kind": "manifest", "file": name, "columns": PAIRS}
    return Case(folder, folder / name, source, content, **more)


def csv_case(folder: Path) -> Case:
    return manifest(folder, "rows.csv", b"\n".join(CSV), cells=cells_of_csv, intact=lines_of_csv, total=total_of_csv)


def utf16_case(folder: Path) -> Case:
    return manifest(folder, "rows.csv", b"\n".join(CSV).decode().replace(",", ";").encode("utf-16"))


def jsonl_case(folder: Path) -> Case:
    parts = {"cells": lambda *a: as_lines(changed(*a)), "intact": lines_of_json, "total": total_of_lines}
    return manifest(folder, "rows.jsonl", b"\n".join(LINES), **parts)


def packed_case(folder: Path) -> Case:
    content = gzip.compress(b"\n".join(LINES), mtime=0)

    def total(packed: bytes) -> int | None:
        return total_of_lines(gzip.decompress(packed))

    return manifest(folder, "rows.jsonl.gz", content, inside=packed_inside(content), total=total)


def json_case(folder: Path) -> Case:
    return manifest(
        folder,
        "rows.json",
        json.dumps(rows()).encode(),
        cells=lambda *a: json.dumps(changed(*a)).encode(),
        total=total_of_document,
    )


def splits_case(folder: Path) -> Case:
    def document(every: list[dict[str, Any]]) -> bytes:
        parts = {split: [row for row in every if row["split"] == split] for split in ("train", "val", "test")}
        return json.dumps(parts).encode()

    return manifest(
        folder, "rows.json", document(rows()), cells=lambda *a: document(changed(*a)), total=total_of_document
    )


def coco_case(folder: Path) -> Case:
    def document(*change: Any) -> bytes:
        images = [{"id": i, "file_name": f"images/{i}.png"} for i in range(COUNT)]
        said = [{"id": i, "image_id": i, "caption": f"c {i}", "category_id": 1 + i % 2} for i in range(COUNT)]
        if change:
            row, column, value = change
            of = [images[row], said[row], said[row], said[row], images[row]][column]
            of[["id", "image_id", "caption", "category_id", "file_name"][column]] = value
        categories = [{"id": 1, "name": "normal"}, {"id": 2, "name": "benign"}]
        return json.dumps({"images": images, "annotations": said, "categories": categories}).encode()

    case = manifest(folder, "rows.json", document(), cells=document)
    case.source |= {"columns": {"image": "file_name", "text": "caption", "label": "category"}, "split": {"train": 1}}
    case.card = {"classes": CLASSES, "multi_label": True}
    return case


def excel_case(folder: Path) -> Case:
    book = openpyxl.Workbook()
    for row in ([*rows()[0]], *(list(row.values()) for row in rows())):
        book.active.append(row)
    book.save(folder / "rows.xlsx")
    content = (folder / "rows.xlsx").read_bytes()
    return manifest(folder, "rows.xlsx", content, inside=zip_inside(content))


def parquet_case(folder: Path) -> Case:
    label = datasets.List(datasets.ClassLabel(names=CLASSES))
    features = datasets.Features({"image": datasets.Image(), "labels": label, "text": datasets.Value("string")})
    pictures = [{"bytes": encoded(i, "PNG"), "path": None} for i in range(COUNT)]
    columns = {"image": pictures, "labels": [[i % 2] for i in range(COUNT)], "text": [f"c {i}" for i in range(COUNT)]}
    file = io.BytesIO()
    datasets.Dataset.from_dict(columns, features).to_parquet(file)
    source = {
        "kind": "manifest",
        "files": {"train": "rows.parquet"},
        "columns": {"image": "image", "text": "text", "label": "labels"},
    }

    def total(content: bytes) -> int:
        return pq.read_metadata(io.BytesIO(content)).num_rows

    return Case(folder, folder / "rows.parquet", source, file.getvalue(), total=total, card={"classes": CLASSES})


def image_case(folder: Path, kind: str) -> Case:
    with_images(folder, kind)
    every = [row | {"image": row["image"].replace("png", kind)} for row in rows()]
    (folder / "rows.jsonl").write_bytes(as_lines(every))
    source = {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}
    file = folder / "images" / f"2.{kind}"
    inside = png_inside(file.read_bytes()) if kind == "png" else None
    others = {f"r{i}" for i in range(COUNT) if i != 2}
    return Case(folder, file, source, file.read_bytes(), inside=inside, intact=lambda _: others, total=lambda _: COUNT)


def dicom_case(folder: Path) -> Case:
    case = image_case(folder, "png")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    scan = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    scan.SOPClassUID, scan.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    scan.Rows, scan.Columns, scan.SamplesPerPixel, scan.PhotometricInterpretation = 10, 12, 1, "MONOCHROME2"
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 12, 11, 0
    scan.WindowCenter, scan.WindowWidth, scan.RescaleSlope, scan.RescaleIntercept = "600", "900", "1", "-10"
    scan.PixelData = np.random.default_rng(0).integers(0, 4096, (10, 12), np.uint16).tobytes()
    file = io.BytesIO()
    scan.save_as(file, enforce_file_format=True)
    every = rows()
    every[2]["image"] = "images/2.dcm"
    (folder / "rows.jsonl").write_bytes(as_lines(every))
    case.file, case.content, case.inside = folder / "images" / "2.dcm", file.getvalue(), None
    return case


def npz_case(folder: Path) -> Case:
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = np.stack([pixels(i) for i in range(COUNT)])
        arrays[f"{split}_labels"] = np.array([[i % 2] for i in range(COUNT)])
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    source, content = {"kind": "npz", "file": "a.npz"}, file.getvalue()

    def total(mutated: bytes) -> int:
        with np.load(io.BytesIO(mutated)) as arrays:
            return sum(
                len(arrays[f"{split}_images"]) for split in ("train", "val", "test") if f"{split}_images" in arrays
            )

    case = Case(folder, folder / "a.npz", source, content, inside=zip_inside(content), total=total)
    case.card = {"classes": CLASSES}
    return case


def h5_case(folder: Path) -> Case:
    for name, array in (("x", np.stack([pixels(i) for i in range(COUNT)])), ("y", np.arange(COUNT) % 2)):
        with h5py.File(folder / "a.h5", "a") as file:
            file.create_dataset(name, data=array, chunks=True, compression="gzip")
    source = {"kind": "h5", "files": {"train": {"images": "a.h5", "labels": "a.h5"}}}

    def total(content: bytes) -> int:
        with h5py.File(io.BytesIO(content)) as file:
            return len(file["x"])

    content = (folder / "a.h5").read_bytes()
    return Case(folder, folder / "a.h5", source, content, total=total, card={"classes": CLASSES})


def shard_case(folder: Path, name: str, **more: Any) -> Case:
    members = []
    for i in range(COUNT):
        members += [(f"s{i}.png", encoded(i, "PNG")), (f"s{i}.txt", b"caption %d" % i)]
        members += [(f"s{i}.json", json.dumps({"patient": f"p{i}"}).encode())]
    shard(folder / "a.tar", members)
    content = (folder / "a.tar").read_bytes()
    columns = {"image": "image", "text": "txt", "group": "patient", "id": "key"}
    source = {"kind": "webdataset", "shards": {"train": [name]}, "columns": columns, **more}

    def intact(mutated: bytes) -> set[str]:
        size = len(content) // 512 // COUNT  # the samples have the same number of blocks each, and zeros follow them
        starts = {i: content.index(f"s{i}.png".encode()) for i in range(COUNT)}
        ends = {i: starts.get(i + 1, starts[i] + starts[1] - starts[0]) for i in range(COUNT)}
        return {f"s{i}" for i in range(COUNT) if size and content[starts[i] : ends[i]] in mutated}

    if name.endswith(".gz"):
        packed = gzip.compress(content, mtime=0)
        return Case(folder, folder / name, source, packed, inside=packed_inside(packed))
    return Case(folder, folder / name, source, content, inside=tar_inside(content), intact=intact)


KINDS: dict[str, Callable[[Path], Case]] = {
    "csv": csv_case,
    "utf-16": utf16_case,
    "jsonl": jsonl_case,
    "jsonl.gz": packed_case,
    "json": json_case,
    "splits": splits_case,
    "coco": coco_case,
    "xlsx": excel_case,
    "parquet": parquet_case,
    "png": lambda folder: image_case(folder, "png"),
    "jpg": lambda folder: image_case(folder, "jpg"),
    "tiff": lambda folder: image_case(folder, "tiff"),
    "dicom": dicom_case,
    "npz": npz_case,
    "h5": h5_case,
    "tar": lambda folder: shard_case(folder, "a.tar"),
    "streamed tar": lambda folder: shard_case(folder, "a.tar", stream=True),
    "tar.gz": lambda folder: shard_case(folder, "a.tar.gz"),
}
EDITS = ("flip", "byte", "cut", "insert", "repeat", "remove", "zero", "swap", "number")
Edit = tuple[str, int, int]


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """The content after edits: each a kind, a place, and what to write or how much."""
    data = bytearray(content)
    for kind, at, value in edits:
        place = at % (len(data) or 1)
        length = 1 + value % 64
        block = data[place : place + length]
        if kind == "flip" and data:
            data[place] ^= 1 << value % 8
        elif kind == "byte" and data:
            data[place] = value % 256
        elif kind == "cut":
            del data[place:]
        elif kind == "insert":
            data[place:place] = bytes((value >> 8 * i) % 256 for i in range(1 + value % 4))
        elif kind == "repeat":
            data[place:place] = block
        elif kind == "remove":
            del data[place : place + length]
        elif kind == "zero":
            data[place : place + length] = bytes(len(block))
        elif kind == "swap":
            other = value % (len(data) or 1)
            data[place : place + 4], data[other : other + 4] = data[other : other + 4], data[place : place + 4]
        elif kind == "number":  # sizes, counts and offsets
            form, wide = (("<I", 4), (">I", 4), ("<H", 2), (">H", 2), ("<Q", 8))[value % 5]
            number = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, value)[value // 5 % 7]
            data[place : place + wide] = struct.pack(form, number % (1 << 8 * wide))
    return bytes(data)


class Slow(BaseException):
    """A file that took too long; not an ``Exception``, which readers may catch."""


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects what the block writes to stderr and warns of; raises if it takes too long or too much memory."""
    said: list[str] = []

    def stop(*_: object) -> None:
        raise Slow(f"more than {SECONDS} s")

    before = getrusage(RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)
            os.dup2(file.fileno(), 2)
            try:
                yield said
            finally:
                sys.stderr.flush()
                os.dup2(stderr, 2)
                file.seek(0)
                said += [*(str(each.message) for each in warned), *file.read().decode(errors="replace").splitlines()]
    finally:
        os.close(stderr)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    grown = (getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY, f"{grown:,} bytes"


Row = dict[str, Any]


def read(found: Dataset) -> tuple[dict[str, Row], int]:
    """The rows of a set by id, with the pixels of their images, and the number of those left out."""
    if found.streams:
        return streamed(found)
    check(found)
    read_rows = {}
    for split in found.splits():
        table = found.table(split).select(["id", "group", "text", "label"])
        of_split = table.take(pa.array(found.rows(split))).to_pylist()
        images = found.records(split).select_columns(["image"])
        for row, image in zip(of_split, images):
            read_rows[row["id"]] = row | {"split": split, "image": np.asarray(image["image"])}
    return read_rows, sum(found.left_out.values())


def streamed(found: Dataset) -> tuple[dict[str, Row], int]:
    check(found)
    stream = Stream(found.card, "train", found.cache)
    read_rows, left_out = {}, []
    for number in range(len(stream)):
        try:
            row = stream.row(number, lambda place, bad: left_out.append(place))
            image = np.asarray(load_image(encoded_image(row)).convert("RGB"))
            read_rows[row.id] = {"id": row.id, "group": row.group, "text": row.text, "split": "train", "image": image}
        except BadRow:
            left_out.append(stream.place(number))
    return read_rows, len(left_out)


class Kind:
    """A kind of set, made once, with the rows that it has when it is whole."""

    def __init__(self, name: str, folder: Path) -> None:
        self.case = KINDS[name](folder)
        self.case.file.write_bytes(self.case.content)
        self.set = write_card(folder, self.case.source, **self.case.card)
        self.rows, left_out = read(self.opened("error"))
        assert left_out == 0
        assert len(self.rows) == (2 * COUNT if name == "npz" else COUNT)

    def opened(self, on_bad_data: Any) -> Dataset:
        """Open the set with an empty cache, as the state of a file does not show every mutation."""
        shutil.rmtree(self.case.folder / "cache", ignore_errors=True)
        return open_dataset(self.set, on_bad_data, self.case.folder / "cache")

    def try_out(self, content: bytes, on_bad_data: str) -> str:
        """Read the set with this content. Returns what became of it: "rows", "skipped" or "error"."""
        self.case.file.write_bytes(content)
        with watched() as said:
            try:
                read_rows, left_out = read(self.opened(on_bad_data))
            except BenchError as error:
                read_rows, message = {}, str(error)
            else:
                message = ""
        assert said == [], said
        if message:
            assert message.count("\n") < 2, message
            assert len(message) <= 400, message
            return "error"
        intact = self.case.intact(content) if self.case.intact else set()
        if (total := self.case.total(content)) is not None:
            assert len(read_rows) + left_out == total
        for key in intact & read_rows.keys():
            self.compare(self.rows[key], read_rows[key])
        return "skipped" if left_out else "rows"

    def compare(self, whole: Row, row: Row) -> None:
        assert set(whole["text"]) <= set(row["text"])
        assert np.array_equal(whole["image"], row["image"])
        for name in ("split", "group"):
            assert whole[name] == row[name]


@cache
def made(name: str) -> Kind:
    """The kind of this name, in a folder that is deleted at the end."""
    folder = tempfile.TemporaryDirectory(prefix="mutated-")
    kind = Kind(name, Path(folder.name))
    kind.kept = folder  # type: ignore[attr-defined]
    return kind
