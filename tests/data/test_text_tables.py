"""Text tables as other programs write them: separators, encodings, line ends, headers."""

import codecs
import csv
import gzip
import io

import openpyxl
import pytest

from benchmark.common.errors import BenchError
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from tests.data.make import PAIRS, images, pairs, write_card, write_jsonl


def written(rows, mark=",", end="\n", header=True, **options):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark, lineterminator=end, **options)
    writer.writerows([*([list(rows[0])] if header else []), *(row.values() for row in rows)])
    return text.getvalue()


def opened(folder, content, name="rows.csv", columns=PAIRS, on_bad_data="error", **source):
    content = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    card = write_card(folder, {"kind": "manifest", "file": name, "columns": columns, **source})
    return open_dataset(card, on_bad_data, folder / "cache")


@pytest.fixture
def rows(tmp_path):
    """Rows with every separator inside of texts."""
    made = pairs(tmp_path, 4, ["train"])
    for row, text in zip(made, ("left, upper; lobe", "a|b, c", "tab\there; x", 'a "quoted" word')):
        row["text"] = text
    return made


def texts(found):
    check(found)
    return [text for (text,) in found.table("train")["text"].to_pylist()]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz"])
def test_separators(tmp_path, rows, mark, name):
    expected = [row["text"] for row in rows]
    assert texts(opened(tmp_path, written(rows, mark), name)) == expected
    assert texts(opened(tmp_path, written(rows, mark, quoting=csv.QUOTE_ALL), name)) == expected
    header = {"header": list(rows[0])}
    assert texts(opened(tmp_path, written(rows, mark, header=False), name, **header)) == expected


def test_a_header_with_two_separators(tmp_path, rows):
    rows = [{"id": row["id"], "image; path": row["image"], "text": row["text"]} for row in rows]
    columns = {"id": "id", "image": "image; path", "text": "text"}
    assert (
        len(
            texts(
                opened(
                    tmp_path, written(rows).replace('"image; path"', "image; path"), columns=columns, split={"train": 1}
                )
            )
        )
        == 4
    )
    assert len(texts(opened(tmp_path, "sep=;\r\n" + written(rows, ";"), columns=columns, split={"train": 1}))) == 4
    # Of a file with one column nothing separates the columns.
    one = "image\n" + "".join(f"{row['image; path']}\n" for row in rows)
    found = opened(tmp_path, one, columns={"image": "image"}, split={"train": 1})
    check(found)
    assert len(found.rows("train")) == 4


def test_texts_without_quotes(tmp_path, rows):
    rows[3]["text"] = 'a "quoted" word, and 5" more; x'
    rows[2]["text"] = "no tab"
    plain = "\n".join("\t".join(row.values()) for row in [dict(zip(rows[0], rows[0])), *rows])
    assert texts(opened(tmp_path, plain, "rows.txt")) == [row["text"] for row in rows]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-8"),
    ],
)
def test_encodings_and_line_ends(tmp_path, rows, end, mark, encoding):
    rows[0]["text"] = "Überlauf – Größe ≥ 5 mm \U0001fac1"
    expected = [row["text"] for row in rows]
    content = mark + written(rows, ";", end, quoting=csv.QUOTE_ALL).encode(encoding)
    assert texts(opened(tmp_path, content)) == expected
    assert texts(opened(tmp_path, content, "rows.csv.gz")) == expected
    write_jsonl(tmp_path / "rows", rows)
    lines = (tmp_path / "rows").read_text().splitlines()
    content = mark + end.join(lines).encode(encoding)
    assert texts(opened(tmp_path, content, "rows.jsonl")) == expected
    assert texts(opened(tmp_path, mark + f"[{','.join(lines)}]".encode(encoding), "rows.json")) == expected
    with pytest.raises(BenchError, match=r"^rows.jsonl, row 3: malformed JSON"):
        check(opened(tmp_path, mark + end.join([*lines[:2], "{", *lines[2:]]).encode(encoding), "rows.jsonl"))


def test_columns_without_a_name_and_of_one_name(tmp_path, rows):
    plain = written(rows).splitlines()
    nameless = "\n".join(f"{'' if number == 0 else number},{line},," for number, line in enumerate(plain))
    assert texts(opened(tmp_path, nameless)) == [row["text"] for row in rows]
    with pytest.raises(BenchError, match=r"^rows.csv, row 1: column 'text' occurs twice; rename one of them$"):
        check(
            opened(
                tmp_path, "\n".join(f"{line},{' text' if number == 0 else 'b'}" for number, line in enumerate(plain))
            )
        )
    twice = '{"id": "x", "image": "images/0.png", "text": "a", "text": "b"}'
    with pytest.raises(BenchError, match=r"^rows.jsonl, row 1: key 'text' occurs twice in one object$"):
        check(opened(tmp_path, twice, "rows.jsonl"))
    book = openpyxl.Workbook()
    for row in ([*rows[0], None, "text"], *([*row.values(), 1, "other"] for row in rows)):
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    with pytest.raises(BenchError, match=r"^rows.xlsx, row 1: column 'text' occurs twice; rename one of them$"):
        check(opened(tmp_path, (tmp_path / "rows.xlsx").read_bytes(), "rows.xlsx"))


def test_what_macos_adds(tmp_path, rows):
    double = b"\0\5\x16\7" + bytes(100)
    (tmp_path / "._rows.csv").write_bytes(double)
    found = opened(tmp_path, written(rows), name="rows.csv")
    card = write_card(tmp_path, {"kind": "manifest", "file": "*.csv", "columns": PAIRS})
    assert texts(open_dataset(card, cache=tmp_path / "cache")) == texts(found)
    root = tmp_path / "root" / "train"
    for name in ("cat", "dog"):
        images(root / name, 2)
        (root / name / "._0.png").write_bytes(double)
        (tmp_path / "root" / "__MACOSX" / "train" / name).mkdir(parents=True)
        (tmp_path / "root" / "__MACOSX" / "train" / name / "0.png").write_bytes(double)
    for source in ({"root": "root"}, {"root": "root/train", "split": {"train": 1}}):
        card = write_card(tmp_path, {"kind": "image_folder", **source}, classes=["cat", "dog"])
        folder = open_dataset(card, cache=tmp_path / "cache")
        check(folder)
        assert len(folder.rows("train")) == 4
    # Also where a card searches for images.
    source = {"kind": "manifest", "file": "rows.csv", "columns": PAIRS | {"image": "{id}.png"}, "find": True}
    (tmp_path / "images" / "._r0.png").write_bytes(double)
    for number, row in enumerate(rows):
        (tmp_path / "images" / f"{number}.png").rename(tmp_path / "images" / f"{row['id']}.png")
    assert len(texts(open_dataset(write_card(tmp_path, source), cache=tmp_path / "cache"))) == 4
