"""`bench data` as a user types it."""

import json
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmark.cli import main as cli
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.tools.verify import NEAR, difference_hash, near_duplicates
from tests.data.make import PAIRS, images, pairs, pixels, write_card, write_csv, write_jsonl
from tests.data.published.layouts import WRITERS


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; gives its exit status, what it printed and its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmark.cli.data.console._width", 200)
    (tmp_path / "data").mkdir()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def test_list(bench, tmp_path):
    WRITERS["slake"](tmp_path / "data")
    status, out, _ = bench("data", "list")
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:-1]}
    assert status == 0
    assert states["slake"] == "found"
    assert states["vqa-rad"] == "missing"
    assert states["phantom-cxr"] == "embedded"
    assert set(states.values()) == {"found", "missing", "embedded"}
    assert "slake" not in bench("data", "list", "--missing")[1]
    assert "vqa-rad" not in bench("data", "list", "--found")[1]


def test_how(bench, tmp_path):
    status, out, _ = bench("data", "how", "ham10000")
    assert status == 0
    for part in (
        "access: open",
        "licence: CC BY-NC 4.0",
        "images: all 10,015",
        "1. Download the metadata",
        "note: ",
        "HAM10000_images_part_1/ISIC_0024306.jpg",
        "10.1038/sdata.2018.161",
        "state: missing",
    ):
        assert part in out
    status, _, err = bench("data", "how", "ham1000")
    assert status == 2
    assert "did you mean 'ham10000'" in err
    source = {"kind": "hub", "name": "nobody/nothing", "splits_of": {"train": "train"}, "columns": {"image": "image"}}
    write_card(tmp_path, source)
    assert "state: not in the cache; bench data check set.yaml loads it" in bench("data", "how", "set.yaml")[1]


def flawed(folder):
    """Two splits with a duplicate, a near-duplicate, a long and an empty text, a broken image, too few rows."""
    rows = pairs(folder, 8, ["train", "test"])
    source = Image.fromarray(pixels(0, 64, 48))
    source.save(folder / "images" / "0.png")
    source.save(folder / "images" / "1.png")
    picture = Image.fromarray(pixels(3, 200, 160))
    picture.save(folder / "images" / "2.png")
    picture.resize((90, 72)).save(folder / "images" / "3.png", "JPEG", quality=50)
    (folder / "images" / "4.png").write_bytes(b"broken")
    rows[5]["text"] = "pneumothorax " * 90
    rows[7]["text"] = ""
    write_jsonl(folder / "rows.jsonl", rows)
    write_card(folder, {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}, rows={"train": 4, "test": 5})


def test_verify(bench, tmp_path):
    flawed(tmp_path)
    status, out, _ = bench("data", "verify", "set.yaml", "--output", "report.json")
    assert status == 1
    findings = json.loads((tmp_path / "report.json").read_text())["findings"]
    found = {(each["severity"], each["check"], each["message"]) for each in findings}
    assert found == {
        ("error", "rows", "rows that cannot be used: 1 (empty text)"),
        ("error", "rows", "rows that cannot be used: 1 (image cannot be decoded)"),
        ("error", "rows", "the first of them: rows.jsonl, row 8: empty text (column 'text')"),
        ("error", "counts", "train: 3 images; the card expects 4"),
        ("error", "counts", "test: 3 images; the card expects 5"),
        ("warning", "duplicates", "images of test that look the same as one of train: 1, for example 'r1' and 'r0'"),
        (
            "warning",
            "duplicates",
            "images of test that look nearly the same as one of train: 1, for example 'r3' and 'r2'",
        ),
        ("warning", "texts", "test: different texts of more than 77 tokens: 1 of 3; they will be truncated"),
    }
    for _, _, message in found:
        assert message in out
    assert "5 errors, 3 warnings; images: train 3, test 3" in out


def test_verify_what_is_sound(bench, tmp_path):
    WRITERS["rocov2"](tmp_path / "data")
    card = yaml.safe_load((load_path("rocov2")).read_text()) | {"rows": {"train": 1, "val": 1, "test": 1}}
    (tmp_path / "rocov2.yaml").write_text(yaml.safe_dump(card))
    for i, split in enumerate(("train", "valid", "test")):
        Image.fromarray(pixels(i, 64, 64)).save(
            tmp_path / "data" / "rocov2" / split / f"ROCOv2_2023_{split}_000001.jpg"
        )
    status, out, _ = bench("data", "verify", "rocov2.yaml")
    assert status == 0
    assert "0 errors, 0 warnings" in out
    status, out, _ = bench("data", "verify", "rocov2")
    assert status == 1
    assert "train: 1 images; the card expects 59,958" in out


def load_path(name):
    from benchmark.config.yaml_files import find_config

    return find_config("dataset", name)


def test_verify_tells_of_images_that_the_published_splits_share(bench, tmp_path):
    WRITERS["vqa-rad"](tmp_path / "data")
    status, out, _ = bench("data", "verify", "vqa-rad")
    assert status == 1
    assert "2 errors, 3 warnings" in out
    assert "warning images: train: all 2 images are the same picture" in out
    assert "train: 2 images; the card expects 313" in out
    assert "test: 1 images; the card expects 203" in out
    assert "warning groups: groups in both train and test: 1, for example 'synpic54610.jpg' (as published" in out


def brute(hashes, splits):
    """For each image the nearest of an earlier split, by comparing all of them."""
    bits = np.array([[(int(v) >> b) & 1 for v in row for b in range(16)] for row in hashes])
    found = {}
    for j in range(len(bits)):
        for i in range(len(bits)):
            distance = int((bits[i] != bits[j]).sum())
            if splits[i] < splits[j] and distance <= NEAR and distance < found.get(j, NEAR + 1):
                found[j] = distance
    return found


def test_near_duplicates_against_all_pairs():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 16, (20, 16), dtype=np.uint16)
    hashes = np.repeat(base, 4, axis=0)
    for row in hashes:
        for bit in rng.choice(256, rng.integers(0, 16), replace=False):
            row[bit // 16] ^= np.uint16(1 << (bit % 16))
    splits = rng.integers(0, 3, len(hashes))
    found = {j: distance for _, j, distance in near_duplicates(hashes, splits)}
    assert found == brute(hashes, splits)
    assert len(found) > 5


def test_many_images_that_look_the_same():
    hashes = np.zeros((6000, 16), dtype=np.uint16)
    splits = np.repeat([0, 1], 3000)
    assert len(near_duplicates(hashes, splits)) == 3000


def test_the_hash_survives_scaling_and_compression(tmp_path):
    picture = Image.fromarray(pixels(3, 200, 160))
    picture.resize((90, 72)).save(tmp_path / "a.jpg", quality=50)

    def differ(a, b):
        return int(np.unpackbits((a ^ b).view(np.uint8)).sum())

    small = difference_hash(Image.open(tmp_path / "a.jpg"))
    assert differ(difference_hash(picture), small) <= NEAR
    assert differ(difference_hash(picture), difference_hash(Image.fromarray(pixels(4, 200, 160)))) > 3 * NEAR


def test_prepare(bench, tmp_path):
    rows = pairs(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_card(tmp_path, {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS})
    status, out, _ = bench("data", "prepare", "set.yaml", "--size", 32)
    assert status == 0
    assert "prepared at 32 pixels" in out
    (tmp_path / "images" / "0.png").write_bytes(b"broken")
    status, _, err = bench("data", "prepare", "set.yaml", "--size", 32)
    assert status == 2
    assert "cannot be decoded" in err
    status, out, _ = bench("data", "prepare", "set.yaml", "--size", 32, "--on-bad-data", "skip")
    assert status == 0
    assert "left out: 1 row (image cannot be decoded)" in out
    assert bench("data", "check", "set.yaml")[0] == 2
    status, out, _ = bench("data", "check", "set.yaml", "--on-bad-data", "skip")
    assert status == 0
    assert "left out: 1 row (image cannot be decoded)" in out


def test_a_check_keeps_what_it_decoded(bench, tmp_path, monkeypatch):
    write_jsonl(tmp_path / "rows.jsonl", pairs(tmp_path))
    write_card(tmp_path, {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS})
    status, out, _ = bench("data", "check", "set.yaml")
    assert status == 0
    assert "decoded, not kept (--prepare SIZE does)" in out
    status, out, _ = bench("data", "check", "set.yaml", "--prepare", 16)
    assert status == 0
    assert "; prepared at 16 pixels in" in out
    monkeypatch.setattr("benchmark.data.dataset._image_source", None)
    assert bench("data", "prepare", "set.yaml", "--size", 16)[0] == 0


def made(bench, *arguments):
    status, out, err = bench("data", "new", *arguments)
    assert status == 0, err
    return out


def test_a_card_of_a_table(bench, tmp_path):
    folder = tmp_path / "busi"
    rows = pairs(folder, 6)
    rows = [
        {
            "Caption": row["text"],
            "img": f"{i}.png",
            "Patient ID": row["patient"],
            "diagnosis": ["benign", "malign"][i % 2],
            "Split": {"val": "validation"}.get(row["split"], row["split"]),
        }
        for i, row in enumerate(rows)
    ]
    write_csv(folder / "rows.csv", rows)
    out = made(bench, folder)
    card = yaml.safe_load((tmp_path / "busi.yaml").read_text())
    assert card["source"] == {
        "kind": "manifest",
        "file": "busi/rows.csv",
        "image_root": "busi/images",
        "columns": {"image": "img", "text": "Caption", "label": "diagnosis", "group": "Patient ID", "split": "Split"},
    }
    assert card["classes"] == ["benign", "malign"]
    assert "prompts" in out
    found = open_dataset(load_card("busi.yaml"), cache=tmp_path / "cache")
    check(found)
    assert found.splits() == ["train", "val", "test"]
    assert bench("data", "new", folder)[0] == 2


def test_a_card_of_flags_and_of_no_split(bench, tmp_path):
    images(tmp_path / "images", 4)
    rows = [
        {"id": i, "path": f"images/{i}.png", "Edema": i % 2, "Mass": ["1", "", "-1", "0"][i], "age": 60 + i}
        for i in range(4)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    out = made(bench, "rows.jsonl", "--output", "flags.yaml")
    card = yaml.safe_load((tmp_path / "flags.yaml").read_text())
    assert card["classes"] == ["Edema", "Mass"]
    assert card["multi_label"]
    assert card["source"]["columns"] == {"image": "path", "id": "id", "label": ["Edema", "Mass"]}
    assert card["source"]["split"]["seed"] == 0
    assert "split: drawn by image" in out
    check(open_dataset(load_card("flags.yaml"), cache=tmp_path / "cache"))


def test_a_card_of_folders(bench, tmp_path):
    for split in ("training", "test"):
        for name in ("cat", "dog"):
            images(tmp_path / "pets" / split / name, 1 + (name == "dog"))
    made(bench, "pets")
    found = open_dataset(load_card("pets.yaml"), cache=tmp_path / "cache")
    check(found)
    assert found.splits() == ["train", "test"]
    assert found.card.classes == ["cat", "dog"]
    for name in ("cat", "dog"):
        images(tmp_path / "flat" / name, 10)
    made(bench, "flat", "--output", tmp_path / "cards.yaml")
    found = open_dataset(load_card("cards.yaml"), cache=tmp_path / "cache")
    check(found)
    assert found.splits() == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, "'x' does not exist"),
        (lambda p: p.write_text("hello"), "expected a folder, or a file in .csv"),
        (lambda p: (p / "empty").mkdir(parents=True), "found no table and 0 folders with images"),
        (lambda p: (p.mkdir(), (p / "a-000.TAR").write_text("")), "'a-000.TAR' is of kind webdataset: write its"),
        (lambda p: (p.mkdir(), (p / "dataset_dict.json").write_text("{}")), "json' is of kind hub: write its card"),
        (lambda p: (p.mkdir(), (p / "a.npz").write_text("")), "a.npz: cannot be read as .npz"),
    ],
)
def test_nothing_to_infer_from(bench, tmp_path, write, message):
    write(tmp_path / "x")
    status, _, err = bench("data", "new", "x")
    assert status == 2
    assert message in " ".join(err.split())


def test_columns_that_are_no_findings_are_left_to_the_user(bench, tmp_path):
    images(tmp_path / "images", 4)
    flags = ["male", "Age>60", "SmokerNow", "is_valid", "Edema", "Enlarged PA"]
    rows = [
        {
            "path": f"images/{i}.png",
            **{name: (i + n) % 2 for n, name in enumerate(flags)},
            "age": 60 + i,
            "note\n- x": "seen",
        }
        for i in range(4)
    ]
    write_csv(tmp_path / "rows.csv", rows)
    out = made(bench, "rows.csv")
    text = (tmp_path / "rows.yaml").read_text()
    card = yaml.safe_load(text)
    assert card["classes"] == card["source"]["columns"]["label"] == ["Edema", "Enlarged PA"]
    assert "&" not in text
    assert "*" not in text
    for line in (
        "inferred: label is Edema, Enlarged PA",
        "to do: columns, if any of these matter: male, Age>60, SmokerNow, is_valid, age",
    ):
        assert line in out
        assert f"# {line}" in text
    check(open_dataset(load_card("rows.yaml"), cache=tmp_path / "cache"))


def test_one_finding_beside_the_sex_is_no_set_of_classes(bench, tmp_path):
    images(tmp_path / "images", 2)
    rows = [{"path": f"images/{i}.png", "male": 1 - i, "Edema": i} for i in range(2)]
    write_csv(tmp_path / "rows.csv", rows)
    assert "male, Edema (not used)" in made(bench, "rows.csv")
    card = yaml.safe_load((tmp_path / "rows.yaml").read_text())
    assert "classes" not in card
    assert card["source"]["columns"] == {"image": "path"}


@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_images_named_without_suffix(bench, tmp_path, suffix):
    images(tmp_path / "images", 4)
    for file in (tmp_path / "images").iterdir():
        file.rename(file.with_name(f"{file.stem}{suffix}"))
    write_csv(tmp_path / "rows.csv", [{"Image Id": i, "dx": "ab"[i % 2]} for i in range(4)])
    made(bench, "rows.csv")
    card = yaml.safe_load((tmp_path / "rows.yaml").read_text())
    assert card["source"]["columns"] == {"image": f"{{Image Id}}{suffix}", "label": "dx"}
    assert card["source"]["image_root"] == "images"
    check(open_dataset(load_card("rows.yaml"), cache=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("name", "mark"), [("rows.csv", ";"), ("rows.csv", "\t"), ("rows.csv", "|"), ("rows.tsv", ",")]
)
def test_another_mark_between_columns(bench, tmp_path, name, mark):
    images(tmp_path / "images", 2)
    lines = [f'"path"{mark}"text"', *(f'"images/{i}.png"{mark}"a, b; c"' for i in range(2))]
    (tmp_path / name).write_text("\n".join(lines))
    made(bench, name)
    card = load_card("rows.yaml")
    assert card.source.columns.templates == {"image": "path", "text": "text"}
    check(open_dataset(card, cache=tmp_path / "cache"))


NAMED = [{"id": i, "file_name": f"{i}.png"} for i in range(4)]
CATEGORIES = [{"id": 1, "name": "nodule"}, {"id": 2, "name": "mass"}]
BOXES = [{"id": i, "image_id": i % 3, "category_id": 1 + i % 2, "bbox": [0, 0, 1, 1]} for i in range(6)]
REPORTS = [{"id": f"s{i}", "image_path": [f"{i}.png"], "report": f"report {i}"} for i in range(4)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"images": NAMED, "annotations": BOXES, "categories": CATEGORIES},
            {"image": "file_name", "id": "id", "label": "category"},
        ),
        (
            {"images": NAMED, "annotations": [{"image_id": i, "caption": f"c {i}"} for i in range(4)]},
            {"image": "file_name", "id": "id", "text": "caption"},
        ),
        (
            {"train": REPORTS[:2], "test": REPORTS[2:]},
            {"image": "image_path", "id": "id", "text": "report", "split": "split"},
        ),
    ],
)
def test_a_card_for_a_document(bench, tmp_path, document, expected):
    images(tmp_path / "images", 4)
    (tmp_path / "rows.json").write_text(json.dumps(document))
    made(bench, "rows.json")
    card = load_card("rows.yaml")
    label = {"label": card.source.columns.label} if "label" in expected else {}
    assert card.source.columns.templates | label == expected
    assert card.multi_label == ("label" in expected)
    check(open_dataset(card, cache=tmp_path / "cache"))


def test_a_table_with_absolute_paths(bench, tmp_path):
    images(tmp_path / "images", 1)
    write_csv(tmp_path / "rows.csv", [{"path": tmp_path / "images" / "0.png"}])
    assert "inferred: images are in ., their paths without '" in made(bench, "rows.csv")
    check(open_dataset(load_card("rows.yaml"), cache=tmp_path / "cache"))
    (tmp_path / "images" / "0.png").unlink()
    status, _, err = bench("data", "new", "rows.csv", "--output", "other.yaml")
    assert status == 2
    assert "column 'path' has absolute paths, such as '" in err
    assert f"and no such images are below {tmp_path}; move the images there" in err


def test_a_table_without_images(bench, tmp_path):
    write_csv(tmp_path / "rows.csv", [{"a": 1, "b": "/etc/passwd"}])
    status, _, err = bench("data", "new", "rows.csv")
    assert status == 2
    assert "no column contains paths of existing images" in err
    assert "the first row has a '1', b '/etc/passwd'" in err
