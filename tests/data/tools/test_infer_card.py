"""`bench data new`: what is inferred of data as people keep them, and what a line says where nothing can be."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.common.errors import BenchError
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.tools.infer_card import infer_card, write_card
from tests.data.make import images, write_csv

ROWS = [{"image": f"{i}.png", "diagnosis": "ab"[i % 2], "patient": f"p{i // 2}"} for i in range(8)]


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder with nothing beside it, as images are looked for there too."""
    alone = tmp_path / "alone"
    alone.mkdir()
    return alone


def inferred(folder: Path, path: Path) -> dict[str, Any]:
    """Infer a card, write it elsewhere, read all of its data; return the source that was inferred."""
    (folder / "cards").mkdir()
    write_card(path, folder / "cards" / "set.yaml")
    card = load_card(folder / "cards" / "set.yaml")
    found = open_dataset(card, cache=folder / "cache")
    check(found)
    assert sum(len(found.rows(split)) for split in found.splits()) == 8
    source: dict[str, Any] = infer_card(path)[0]["source"]
    return source


def spread(folder: Path) -> None:
    """Images of a table in two folders, as large sets are unpacked."""
    images(folder / "part_1", 8)
    (folder / "part_2").mkdir()
    for i in range(4):
        (folder / "part_1" / f"{i}.png").rename(folder / "part_2" / f"{i}.png")


def test_the_folder_above_a_table_and_images_beside_its_folder(tmp_path: Path) -> None:
    images(tmp_path / "pack" / "pictures", 8)
    (tmp_path / "pack" / "tables").mkdir()
    write_csv(tmp_path / "pack" / "tables" / "all.csv", ROWS)
    source = inferred(tmp_path, tmp_path / "pack")
    assert (source["file"], source["image_root"]) == ("tables/all.csv", "pictures")
    assert infer_card(tmp_path / "pack" / "tables" / "all.csv")[0]["source"]["image_root"] == "../pictures"


def test_images_one_level_up(tmp_path: Path) -> None:
    images(tmp_path / "pack", 8)
    (tmp_path / "pack" / "tables").mkdir()
    write_csv(tmp_path / "pack" / "tables" / "all.csv", ROWS)
    assert inferred(tmp_path, tmp_path / "pack" / "tables")["image_root"] == ".."


@pytest.mark.parametrize("above", [False, True])
def test_several_folders_of_images(above: bool, tmp_path: Path) -> None:
    spread(tmp_path / "pack")
    table = tmp_path / "pack" / ("tables" if above else "") / "all.csv"
    table.parent.mkdir(exist_ok=True)
    write_csv(table, [row | {"image": row["image"].removesuffix(".png")} for row in ROWS])
    source = inferred(tmp_path, table)
    assert source["find"] is True
    assert source["columns"]["image"] == "{image}.png"
    assert source.get("image_root") == (".." if above else None)


def test_several_tables(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "rows.csv", ROWS)
    with pytest.raises(BenchError, match=r"contains several tables \(a/rows\.csv, b/rows\.csv\); name one of them$"):
        infer_card(tmp_path)


@pytest.mark.parametrize("prefix", ["/mnt/store/pack/", "D:\\studies\\pack\\"])
def test_absolute_paths(prefix: str, tmp_path: Path) -> None:
    images(tmp_path / "images", 8)
    slash = prefix[-1]
    write_csv(tmp_path / "all.csv", [row | {"image": f"{prefix}images{slash}{row['image']}"} for row in ROWS])
    source = inferred(tmp_path, tmp_path / "all.csv")
    assert source["strip_prefix"].endswith("pack/images/" if "image_root" in source else "pack/")
    (tmp_path / "moved").mkdir()
    (tmp_path / "images").rename(tmp_path / "moved" / "deeper")
    shutil.rmtree(tmp_path / "cards")
    source = inferred(tmp_path, tmp_path / "all.csv")
    assert (source["find"], source["strip_prefix"]) == (True, "/" if prefix[0] == "/" else "D:/")
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(BenchError, match=r"column 'image' has absolute paths, such as '.*0\.png', and no such images"):
        infer_card(tmp_path / "all.csv")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Bild", "Diagnose", "Patienten-ID"), {"image": "Bild", "label": "Diagnose", "group": "Patienten-ID"}),
        (("Dateiname", "Befund", "PatientNr"), {"image": "Dateiname", "label": "Befund", "group": "PatientNr"}),
        (("image", "dx", "lesion_id"), {"image": "image", "label": "dx", "group": "lesion_id"}),
        (("file", "Category", "caseID"), {"image": "file", "label": "Category", "group": "caseID"}),
        (("file", "class", "eye"), {"image": "file", "label": "class"}),
        (("file", "class", "Patient age"), {"image": "file", "label": "class"}),
    ],
)
def test_headings(names: tuple[str, ...], expected: dict[str, str], tmp_path: Path) -> None:
    images(tmp_path, 8)
    with (tmp_path / "all.csv").open("w", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([names, *(row.values() for row in ROWS)])
    assert inferred(tmp_path, tmp_path / "all.csv")["columns"] == expected


def test_a_befund_may_be_a_report(tmp_path: Path) -> None:
    images(tmp_path, 8)
    write_csv(tmp_path / "all.csv", [{"Bild": row["image"], "Befund": f"Rundherd {i}"} for i, row in enumerate(ROWS)])
    assert inferred(tmp_path, tmp_path / "all.csv")["columns"] == {"image": "Bild", "text": "Befund"}


def test_a_table_that_is_not_utf8(tmp_path: Path) -> None:
    images(tmp_path, 8)
    write_csv(tmp_path / "all.csv", [row | {"diagnosis": "gutartig, größer"} for row in ROWS], encoding="cp1252")
    with pytest.raises(BenchError, match=r"^all\.csv, row 2: not UTF-8 .*; save it so.*iconv -f CP1252") as error:
        infer_card(tmp_path / "all.csv")
    assert "\n" not in str(error.value)


def test_arrays(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    arrays = {f"{split}_images": pixels for split in ("train", "test")}
    arrays |= {f"{split}_labels": np.arange(4)[:, None] % 2 for split in ("train", "test")}
    np.savez(tmp_path / "pathmnist_64.npz", **arrays)
    assert inferred(tmp_path, tmp_path) == {"kind": "npz", "file": "pathmnist_64.npz"}
    card, notes = infer_card(tmp_path / "pathmnist_64.npz")
    assert card["classes"] == ["0", "1"]
    assert notes[0].endswith("of card 'pathmnist', use that card: bench data how pathmnist")
    np.savez(tmp_path / "other.npz", x=pixels)
    with pytest.raises(BenchError, match=r"other\.npz: no images; expected arrays train_images"):
        infer_card(tmp_path / "other.npz")


def test_ham10000_as_it_is_published(tmp_path: Path) -> None:
    """The split is by lesion, as several images show one, and a line points to the shipped card."""
    for part in (1, 2):
        images(tmp_path / "ham" / f"HAM10000_images_part_{part}", 4)
        for i in range(4):
            folder = tmp_path / "ham" / f"HAM10000_images_part_{part}"
            (folder / f"{i}.png").rename(folder / f"ISIC_{part}{i}.jpg")
    names = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
    values = [
        (f"HAM_{i // 2}", f"ISIC_{1 + i // 4}{i % 4}", "nv" if i % 3 else "mel", "histo", 50, "male", "back")
        for i in range(8)
    ]
    write_csv(tmp_path / "ham" / "HAM10000_metadata.csv", [dict(zip(names, row)) for row in values])
    source = inferred(tmp_path, tmp_path / "ham")
    assert source["columns"] == {"image": "{image_id}.jpg", "label": "dx", "group": "lesion_id"}
    assert source["find"] is True
    assert infer_card(tmp_path / "ham")[1][0].endswith("use that card: bench data how ham10000")
