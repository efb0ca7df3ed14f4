"""Miniatures of the published sets: the same folders, names, columns and quirks, with a few generated images.

Each writer gets $BENCH_DATA and returns what the card must make of it: split -> id -> what the row must have. The split
"all" stands for whatever a drawn split makes of them together.
"""

import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.data.make import pixels

Expected = dict[str, dict[str, dict[str, Any]]]
WRITERS: dict[str, Callable[[Path], Expected]] = {}


def layout(*names: str) -> Callable:
    """The writer of one card, or of each of several."""

    def register(writer: Callable) -> Callable:
        for name in names:
            WRITERS[name] = (lambda folder, name=name: writer(folder, name)) if len(names) > 1 else writer
        return writer

    return register


def image(path: Path, seed: int = 0, **size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, **size)).save(path)


def dicom(path: Path, seed: int = 0, photometric: str = "MONOCHROME2", **attributes: Any) -> np.ndarray:
    """Twelve bits of sixteen, as scanners store them; returns what was stored."""
    values = pixels(seed, 16, 12, channels=0).astype(np.uint16) * 16
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.Rows, data.Columns = values.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.PixelData = values.tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return values


def table(path: Path, header: str, *rows: list[Any]) -> None:
    """A CSV file; ``header``: names apart by ``|``. Packed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header.split("|"))
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def document(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@layout("pmc-oa")
def pmc_oa(data: Path) -> Expected:
    root = data / "pmc-oa"
    pictures = {"train": "PMC212319_Fig3_4.jpg", "valid": "PMC55_Fig1_0.jpg", "test": "PMC77_Fig2_1.jpg"}
    for split, name in pictures.items():
        image(root / "caption_T060_filtered_top4_sep_v0_subfigures" / name)
        (root / f"{split}.jsonl").write_text(json.dumps({"image": name, "caption": f"A {split} figure."}) + "\n")
    return {
        "train": {pictures["train"]: {"text": ["A train figure."], "group": "PMC212319"}},
        "val": {pictures["valid"]: {"text": ["A valid figure."], "group": "PMC55"}},
        "test": {pictures["test"]: {"text": ["A test figure."], "group": "PMC77"}},
    }


@layout("quilt-1m", "quilt-1m-retrieval")
def quilt(data: Path, card: str) -> Expected:
    root = data / "quilt-1m"
    for name in ("a.jpg", "b.jpg", "c.png"):
        image(root / "quilt_1m" / name, len(name))
    table(
        root / "quilt_1M_lookup.csv",
        "|caption|image_path|subset|split|pathology|roi_text",  # the first column, of row numbers, has no name
        [0, "A nest of cells, see arrow.", "a.jpg", "quilt", "train", "['Breast', 'Soft tissue']", "['x']"],
        [1, "Second sentence on it.", "a.jpg", "quilt", "train", "['Breast']", ""],
        [2, "Keratin pearl.", "b.jpg", "openpath", "val", "", ""],
        [3, "Goblet cells.", "c.png", "laion", "train", "", ""],
    )
    if card == "quilt-1m-retrieval":
        return {"test": {"b.jpg": {"text": ["Keratin pearl."]}}}
    return {
        "train": {
            "a.jpg": {"text": ["A nest of cells, see arrow.", "Second sentence on it."]},
            "c.png": {"text": ["Goblet cells."]},
        },
        "val": {"b.jpg": {"text": ["Keratin pearl."]}},
    }


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation, pleural effusion or pneumothorax.
 Bilateral nodular opacities that most likely represent nipple shadows.

 IMPRESSION:

 No acute cardiopulmonary process.
"""
SECTIONS = (
    "There is no focal consolidation, pleural effusion or pneumothorax. Bilateral nodular opacities that most likely "
    "represent nipple shadows. No acute cardiopulmonary process."
)


@layout("mimic-cxr", "mimic-cxr-frontal", "mimic-cxr-lateral", "mimic-cxr-single")
def mimic(data: Path, card: str) -> Expected:
    root = data / "mimic-cxr"
    images = [  # dicom_id, study_id, subject_id, split, view
        ("02aa804e-a", "50414267", "10000032", "train", "PA"),
        ("174413ec-b", "50414267", "10000032", "train", "LATERAL"),
        ("2a2277a9-c", "53189527", "11000764", "validate", "AP"),
        ("68b5c4b1-d", "53911762", "19999987", "test", "LL"),
        ("fffabebf-e", "56699142", "19999987", "test", ""),
        ("ea030e7a-f", "57375967", "19999987", "test", "PA"),
    ]
    for name, study, subject, _, _ in images:
        image(root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{name}.jpg", int(name[:8], 16))
    rows = [[name, study, subject, split] for name, study, subject, split, _ in images]
    table(root / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id|study_id|subject_id|split", *rows)
    table(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        "dicom_id|subject_id|study_id|PerformedProcedureStepDescription|ViewPosition|Rows|Columns",
        *[[name, subject, study, "CHEST (PA AND LAT)", view, 3056, 2544] for name, study, subject, _, view in images],
    )
    texts = {
        "50414267": ("10000032", REPORT),
        "53189527": ("11000764", " FINAL REPORT\n FINDINGS AND IMPRESSION:  Mild edema.\n\n Stable: heart size.\n"),
        "53911762": ("19999987", " IMPRESSION: \n\n 1.  Pneumonia.\n 2.  Effusion at 3:15 p.m.\n"),
        "56699142": ("19999987", " WET READ: ___ ___ ___\n  Nothing new.\n FINAL REPORT\n The lungs are clear.\n"),
        "57375967": ("19999987", " FINDINGS: Clear.\n\n IMPRESSION: \n\n NOTIFICATION: Dr. ___ was called.\n"),
    }
    for study, (subject, text) in texts.items():
        path = root / "reports" / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    expected = {
        "train": {
            "02aa804e-a": {"text": [SECTIONS], "group": "10000032"},
            "174413ec-b": {"text": [SECTIONS], "group": "10000032"},
        },
        "val": {"2a2277a9-c": {"text": ["Mild edema. Stable: heart size."]}},
        # 56699142 has neither section.
        "test": {
            "68b5c4b1-d": {"text": ["1. Pneumonia. 2. Effusion at 3:15 p.m."]},
            "ea030e7a-f": {"text": ["Clear."]},
        },
    }
    if card == "mimic-cxr-single":
        del expected["train"]["174413ec-b"]  # a study of two images
    views = {"mimic-cxr-frontal": ("PA", "AP"), "mimic-cxr-lateral": ("LATERAL", "LL")}.get(card)
    if views is None:
        return expected
    wanted = {name for name, _, _, _, view in images if view in views}
    kept = {split: {id: row for id, row in rows.items() if id in wanted} for split, rows in expected.items()}
    return {split: rows for split, rows in kept.items() if rows}


@layout("roco")
def roco(data: Path) -> Expected:
    expected: Expected = {}
    for split, name in {"train": "ROCO_00002", "validation": "ROCO_00020", "test": "ROCO_00016"}.items():
        folder = data / "roco" / split / "radiology"
        image(folder / "images" / f"{name}.jpg")
        # No header, a space after the tab, quotes that open and never close.
        (folder / "captions.txt").write_text(f'{name}\t Computed tomography, 5" mass in {split}.\n')
        key = "val" if split == "validation" else split
        path = f"{split}/radiology/images/{name}.jpg"
        expected[key] = {path: {"text": [f'Computed tomography, 5" mass in {split}.']}}
    return expected


@layout("rocov2")
def rocov2(data: Path) -> Expected:
    expected: Expected = {}
    for split in ("train", "valid", "test"):
        name = f"ROCOv2_2023_{split}_000001"
        image(data / "rocov2" / split / f"{name}.jpg")
        table(data / "rocov2" / f"{split}_captions.csv", "ID|Caption", [name, f"CT, {split}"])
        expected["val" if split == "valid" else split] = {f"{split}/{name}.jpg": {"text": [f"CT, {split}"]}}
    return expected


@layout("pad-ufes-20")
def pad_ufes(data: Path) -> Expected:
    root = data / "pad-ufes-20"
    codes = {
        "BCC": "basal cell carcinoma",
        "MEL": "melanoma",
        "SCC": "squamous cell carcinoma",
        "ACK": "actinic keratosis",
        "NEV": "nevus",
        "SEK": "seborrheic keratosis",
    }
    rows, expected = [], {}
    for i, (code, name) in enumerate(codes.items()):
        file = f"PAT_{i}_{10 + i}_{820 + i}.png"
        part = f"imgs_part_{1 + i % 3}"
        image(root / part / part / file, i)
        rows.append([f"PAT_{i}", 10 + i, "False", code, file, "True"])
        expected[file] = {"label": name, "group": f"PAT_{i}"}
    table(root / "metadata.csv", "patient_id|lesion_id|smoke|diagnostic|img_id|biopsed", *rows)
    return {"all": expected}


@layout("ham10000", "ham10000-text")
def ham(data: Path, card: str) -> Expected:
    root = data / "ham10000"
    codes = {
        "bkl": "benign keratosis-like lesion",
        "nv": "melanocytic nevus",
        "df": "dermatofibroma",
        "mel": "melanoma",
        "vasc": "vascular lesion",
        "bcc": "basal cell carcinoma",
        "akiec": "actinic keratosis or intraepithelial carcinoma",
    }
    rows, expected = [], {}
    for i, (code, name) in enumerate(codes.items()):
        for view in range(2):  # two images of a lesion
            id = f"ISIC_00{24306 + 2 * i + view}"
            image(root / f"HAM10000_images_part_{1 + view}" / f"{id}.jpg", i)
            rows.append([f"HAM_000{i}", id, code, "histo", "80.0", "male", "scalp"])
            texts = [f"a dermoscopic image of {name}, scalp"]
            expected[id] = {"group": f"HAM_000{i}"} | ({"text": texts} if card == "ham10000-text" else {"label": name})
    table(root / "HAM10000_metadata.csv", "lesion_id|image_id|dx|dx_type|age|sex|localization", *rows)
    return {"all": expected}


@layout("pcam")
def pcam(data: Path) -> Expected:
    root = data / "pcam"
    root.mkdir(parents=True)
    expected: Expected = {}
    for part, split in {"train": "train", "valid": "val", "test": "test"}.items():
        stem = f"camelyonpatch_level_2_split_{part}"
        with h5py.File(root / f"{stem}_x.h5", "w") as file:
            file["x"] = np.stack([pixels(i, 96, 96) for i in range(3)])
        with h5py.File(root / f"{stem}_y.h5", "w") as file:
            file["y"] = np.array([0, 1, 1], np.uint8).reshape(3, 1, 1, 1)
        table(
            root / f"{stem}_meta.csv",
            "|coord_y|coord_x|tumor_patch|center_tumor_patch|wsi",
            *[[i, 1.0, 2.0, "True", str(i > 0), f"camelyon16_{part}_tumor_{i // 2:03d}"] for i in range(3)],
        )
        expected[split] = {
            f"{split}/{i}": {
                "label": "metastasis" if i else "no metastasis",
                "group": f"camelyon16_{part}_tumor_{i // 2:03d}",
            }
            for i in range(3)
        }
    return expected


TISSUES = {
    "ADI": "adipose",
    "BACK": "background",
    "DEB": "debris",
    "LYM": "lymphocytes",
    "MUC": "mucus",
    "MUS": "smooth muscle",
    "NORM": "normal colon mucosa",
    "STR": "cancer-associated stroma",
    "TUM": "colorectal adenocarcinoma epithelium",
}


@layout("nct-crc-he", "nct-crc-he-8")
def nct(data: Path, card: str) -> Expected:
    expected: Expected = {"train": {}, "test": {}}
    for split, part, middle in (("train", "NCT-CRC-HE-100K", ""), ("test", "CRC-VAL-HE-7K", "TCGA-")):
        for code, name in TISSUES.items():
            path = f"{part}/{code}/{code}-{middle}AAAFLCLY.tif"
            image(data / "nct-crc-he" / path)
            if code != "BACK" or card == "nct-crc-he":
                expected[split][path] = {"label": name}
    # What lies beside them is not read: the same images without colour normalisation.
    image(data / "nct-crc-he" / "NCT-CRC-HE-100K-NONORM" / "ADI" / "ADI-AAAFLCLY.tif")
    return expected


@layout("lc25000-lung", "lc25000-colon")
def lc25000(data: Path, card: str) -> Expected:
    root = data / "lc25000" / "lung_colon_image_set"
    folders = {
        "lung_image_sets/lung_n/lungn": "benign lung tissue",
        "lung_image_sets/lung_aca/lungaca": "lung adenocarcinoma",
        "lung_image_sets/lung_scc/lungscc": "lung squamous cell carcinoma",
        "colon_image_sets/colon_n/colonn": "benign colonic tissue",
        "colon_image_sets/colon_aca/colonca": "colon adenocarcinoma",
    }
    expected = {}
    for stem, name in folders.items():
        for i in (1, 2, 3):
            image(root / f"{stem}{i}.jpeg", i)
            organ, _, rest = f"{stem}{i}.jpeg".partition("/")
            if organ.split("_")[0] == card.split("-")[1]:
                expected[rest] = {"label": name}
    return {"all": expected}


@layout("bach")
def bach(data: Path) -> Expected:
    root = data / "bach" / "ICIAR2018_BACH_Challenge" / "Photos"
    folders = {
        "Benign/b": "benign breast lesion",
        "InSitu/is": "in situ breast carcinoma",
        "Invasive/iv": "invasive breast carcinoma",
        "Normal/n": "normal breast tissue",
    }
    expected = {}
    for stem, name in folders.items():
        for i in (1, 2):
            image(root / f"{stem}00{i}.tif", i)
            expected[f"{stem}00{i}.tif"] = {"label": name}
        (root / stem.split("/")[0] / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "microscopy_ground_truth.csv").write_text("b001.tif,Benign\n")
    return {"all": expected}


@layout("sicapv2")
def sicap(data: Path) -> Expected:
    root = data / "sicapv2"
    expected: Expected = {}
    grades = {"NC": "non-cancerous glands", "G3": "Gleason grade 3", "G4": "Gleason grade 4", "G5": "Gleason grade 5"}
    for split, slide in {"train": "16B0001851", "test": "18B0006623B"}.items():
        book = openpyxl.Workbook()
        book.active.append(["image_name", "NC", "G3", "G4", "G5", "G4C"])
        expected[split] = {}
        for i, (code, name) in enumerate(grades.items()):
            file = f"{slide}_Block_Region_1_{i}_0_xini_6803_yini_59786.jpg"
            image(root / "images" / file, i)
            # Cribriform is marked beside grade 4.
            book.active.append([file, *[int(code == other) for other in grades], int(code == "G4")])
            expected[split][file] = {"label": name, "group": slide}
        path = root / "partition" / "Test" / f"{split.title()}.xlsx"
        path.parent.mkdir(parents=True, exist_ok=True)
        book.save(path)
    return expected


@layout("vindr-mammo")
def vindr_mammo(data: Path) -> Expected:
    root = data / "vindr-mammo"
    findings = [  # study, image, categories, split
        ("s1", "i1", "['Mass']", "training"),
        ("s1", "i1", "['Mass']", "training"),  # two masses in one image
        ("s1", "i2", "['No Finding']", "training"),  # which is not the class 0, Mass
        ("s2", "i3", "['Suspicious Calcification', 'Focal Asymmetry']", "training"),
        ("s2", "i4", "['Mass']", "training"),  # two findings in rows of their own
        ("s2", "i4", "['Skin Thickening']", "training"),
        ("s3", "i5", "['Nipple Retraction']", "test"),
        ("s3", "i6", "['No Finding']", "test"),
    ]
    for i, (study, name, _, _) in enumerate(findings):
        dicom(root / "images" / study / f"{name}.dicom", i)
    table(
        root / "finding_annotations.csv",
        "image_id|study_id|series_id|laterality|view_position|height|width|breast_birads|breast_density|"
        "finding_categories|finding_birads|xmin|ymin|xmax|ymax|split",
        *[
            [name, study, "x", "L", "CC", 3518, 2800, "BI-RADS 4", "DENSITY C", found, "", "", "", "", "", split]
            for study, name, found, split in findings
        ],
    )
    return {
        "train": {"s1/i1.dicom": {"label": "Mass", "group": "s1"}},
        "test": {"s3/i5.dicom": {"label": "Nipple Retraction", "group": "s3"}},
    }


MEDMNIST = {
    "pathmnist": (3, 9),
    "chestmnist": (0, 14),
    "dermamnist": (3, 7),
    "octmnist": (0, 4),
    "pneumoniamnist": (0, 2),
    "retinamnist": (3, 5),
    "breastmnist": (0, 2),
    "bloodmnist": (3, 8),
    "tissuemnist": (0, 8),
    "organamnist": (0, 11),
    "organcmnist": (0, 11),
    "organsmnist": (0, 11),
}


SMALL = [f"{name}-28" for name in ("bloodmnist", "breastmnist", "pneumoniamnist", "retinamnist")]


@layout(*MEDMNIST, *SMALL)
def medmnist(data: Path, card: str) -> Expected:
    name, _, side = card.partition("-")
    channels, classes = MEDMNIST[name]
    pixels_a_side = int(side or 224)
    arrays, expected = {}, {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.stack([pixels(i, pixels_a_side, pixels_a_side, channels) for i in range(2)])
        if card == "chestmnist":
            labels = np.zeros((2, classes), np.uint8)
            labels[1, [0, classes - 1]] = 1
        else:
            labels = np.array([[0], [classes - 1]], np.uint8)
        arrays[f"{split}_labels"] = labels
        expected[split] = {
            f"{split}/{i}": {"number": labels[i].tolist() if card == "chestmnist" else int(labels[i, 0])}
            for i in range(2)
        }
    (data / "medmnist").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(data / "medmnist" / (f"{name}.npz" if side else f"{name}_224.npz"), **arrays)
    return expected


@layout("deepeyenet")
def deepeyenet(data: Path) -> Expected:
    expected: Expected = {}
    for part, split in {"train": "train", "valid": "val", "test": "test"}.items():
        names = [f"eyenet0420/{split}_set/drusen-{i}.jpg" for i in range(2)]
        for i, name in enumerate(names):
            image(data / "deepeyenet" / name, i)
        described = [
            {"keywords": "drusen", "clinical-description": "84-year-old woman."},
            {"keywords": "papilledema", "clinical-description": ""},
        ]
        document(data / "deepeyenet" / f"DeepEyeNet_{part}.json", [{n: d} for n, d in zip(names, described)])
        expected[split] = {names[0]: {"text": ["drusen 84-year-old woman."]}, names[1]: {"text": ["papilledema"]}}
    return expected


@layout("vqa-rad")
def vqa_rad(data: Path) -> Expected:
    root = data / "vqa-rad"
    for name in ("synpic54610.jpg", "synpic29265.jpg"):
        image(root / "VQA_RAD Image Folder" / name)
    entries = [
        ("synpic54610.jpg", "freeform", "Are regions of the brain infarcted?", "Yes", "CLOSED", "PRES"),
        ("synpic54610.jpg", "test_freeform", "Which lobe?", "Frontal", "OPEN", "POS"),  # its image is in train, too
        ("synpic29265.jpg", "para", "Are the lungs normal?", "No", "CLOSED ", "ABN"),
        ("synpic54610.jpg", "test_para", "How many lesions?", 3, "OPEN", "COUNT"),  # an answer that is a number
    ]
    document(
        root / "VQA_RAD Dataset Public.json",
        [
            {
                "qid": str(i),
                "phrase_type": phrase,
                "qid_linked_id": "03f451ca",
                "image_name": name,
                "image_organ": "HEAD",
                "evaluation": "not evaluated",
                "question": question,
                "answer": answer,
                "answer_type": kind,
                "question_type": type_,
            }
            for i, (name, phrase, question, answer, kind, type_) in enumerate(entries)
        ],
    )
    return {
        "train": {
            "train/synpic54610.jpg": {"question": ["Are regions of the brain infarcted?"], "answer_type": ["closed"]},
            "train/synpic29265.jpg": {"answer": ["No"], "answer_type": ["closed"]},
        },
        "test": {"test/synpic54610.jpg": {"answer": ["Frontal", "3"], "question_type": ["POS", "COUNT"]}},
    }


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "JPEG")
    return file.getvalue()


@layout("path-vqa")
def path_vqa(data: Path) -> Expected:
    folder = data / "path-vqa" / "data"
    folder.mkdir(parents=True)
    expected: Expected = {}
    type_ = pa.struct([("bytes", pa.binary()), ("path", pa.null())])
    for i, split in enumerate(("train", "validation", "test")):
        pictures = [encoded(i), encoded(i), encoded(10)]  # a row a question; one image in all splits
        questions = ["where are liver stem cells?", "is there necrosis?", "what is present?"]
        answers = ["in the canals of hering", "yes", "gastrointestinal"]
        columns = {
            "image": pa.array([{"bytes": picture, "path": None} for picture in pictures], type_),
            "question": questions,
            "answer": answers,
        }
        for part in range(2):
            rows = pa.table(columns).slice(2 * part, 2 - part)
            pq.write_table(rows, folder / f"{split}-0000{part}-of-00002-4ebc.parquet")
        key = "val" if split == "validation" else split
        names = [f"{key}/{hashlib.sha256(encoded(seed)).hexdigest()[:20]}" for seed in (i, 10)]
        expected[key] = {
            names[0]: {"question": questions[:2], "answer": answers[:2], "answer_type": ["open", "closed"]},
            names[1]: {"question": questions[2:]},
        }
    return expected


@layout("slake")
def slake(data: Path) -> Expected:
    root = data / "slake"
    expected: Expected = {}
    for i, (part, split) in enumerate({"train": "train", "validate": "val", "test": "test"}.items()):
        image(root / "imgs" / f"xmlab{i}" / "source.jpg", i)
        common = {
            "img_id": i,
            "img_name": f"xmlab{i}/source.jpg",
            "location": "Abdomen",
            "modality": "MRI",
            "base_type": "vqa",
            "triple": ["vhead", "_", "_"],
        }
        document(
            root / f"{part}.json",
            [
                common
                | {
                    "question": "What modality?",
                    "answer": "MRI",
                    "q_lang": "en",
                    "answer_type": "OPEN",
                    "content_type": "Modality",
                    "qid": 1,
                },
                common
                | {
                    "question": "图像里是什么？",
                    "answer": "腹部",
                    "q_lang": "zh",
                    "answer_type": "OPEN",
                    "content_type": "Position",
                    "qid": 2,
                },
                common
                | {
                    "question": "Is it healthy?",
                    "answer": "No",
                    "q_lang": "en",
                    "answer_type": "CLOSED",
                    "content_type": "Abnormality",
                    "qid": 3,
                },
            ],
        )
        expected[split] = {
            f"xmlab{i}/source.jpg": {
                "question": ["What modality?", "Is it healthy?"],
                "answer_type": ["open", "closed"],
            }
        }
    return expected


CHEXPERT = (
    "No Finding|Enlarged Cardiomediastinum|Cardiomegaly|Lung Opacity|Lung Lesion|Edema|Consolidation|Pneumonia|"
    "Atelectasis|Pneumothorax|Pleural Effusion|Pleural Other|Fracture|Support Devices"
)


def chexpert_row(path: str, **findings: str) -> list[str]:
    flags = [findings.get(name.replace(" ", "_"), "") for name in CHEXPERT.split("|")]
    return [path, "Female", "68", "Frontal", "AP", *flags]


@layout("chexpert-5x200")
def chexpert_5x200(data: Path) -> Expected:
    found = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural_Effusion"]
    rows, expected = [], {}
    for i, name in enumerate(found):
        path = f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.jpg"
        image(data / path, i)
        # Uncertain (-1), absent (0) and not mentioned (blank) must not make a second class.
        others = {found[(i + 1) % 5]: "-1.0", found[(i + 2) % 5]: "0.0"}
        rows.append([str(i), *chexpert_row(path, **others, **{name: "1.0"}), "Report, impression"])
        expected[path] = {"label": name.replace("_", " "), "group": f"patient{i:05d}"}
    header = "|Path|Sex|Age|Frontal/Lateral|AP/PA|" + CHEXPERT + "|Report Impression"
    table(data / "CheXpert-v1.0" / "chexpert_5x200.csv", header, *rows)
    return {"test": expected}


@layout("chexpert")
def chexpert(data: Path) -> Expected:
    header = "Path|Sex|Age|Frontal/Lateral|AP/PA|" + CHEXPERT
    train = "CheXpert-v1.0/train/patient00002/study2/view1_frontal.jpg"
    valid = "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
    for path in (train, valid):
        image(data / path)
    root = data / "CheXpert-v1.0"
    table(root / "train.csv", header, chexpert_row(train, Edema="-1.0", Fracture="1.0", Pneumonia="0.0"))
    table(root / "valid.csv", header, chexpert_row(valid, **{n.replace(" ", "_"): "0.0" for n in CHEXPERT.split("|")}))
    unsure = [-1] * 14
    unsure[7], unsure[12] = 0, 1
    return {
        "train": {train: {"number": unsure, "group": "patient00002"}},
        "test": {valid: {"number": [0] * 14, "group": "patient64541"}},
    }


@layout("rsna-pneumonia")
def rsna(data: Path) -> Expected:
    root = data / "rsna-pneumonia"
    rows, expected = [], {}
    for i in range(8):
        name = f"{i:04d}cfab-14fd-4e49"
        dicom(root / "stage_2_train_images" / f"{name}.dcm", i)
        boxes = [["", "", "", "", 0]] if i % 2 else [["264.0", "152.0", "213.0", "379.0", 1], ["1.0", "2", "3", "4", 1]]
        rows += [[name, *box] for box in boxes]
        expected[f"{name}.dcm"] = {"label": "no pneumonia" if i % 2 else "pneumonia", "group": name}
    table(root / "stage_2_train_labels.csv", "patientId|x|y|width|height|Target", *rows)
    return {"all": expected}


@layout("rsna-pneumonia-gloria")
def rsna_gloria(data: Path) -> Expected:
    root = data / "rsna-pneumonia"
    expected: Expected = {}
    for i, (split, name) in enumerate({"train": "train", "val": "val", "test": "test"}.items()):
        patient = f"{i:04d}cfab-14fd-4e49"
        dicom(root / "stage_2_train_images" / f"{patient}.dcm", i)
        row = [i, patient, "" if i % 2 else "[[264.0, 152.0, 477.0, 531.0]]", 1 - i % 2, f"/data4/{patient}.dcm"]
        table(root / f"{name}.csv", "|patientId|bbox|Target|Path", row)
        expected[split] = {f"{patient}.dcm": {"label": "no pneumonia" if i % 2 else "pneumonia", "group": patient}}
    return expected


@layout("siim-pneumothorax-gloria")
def siim_gloria(data: Path) -> Expected:
    """The split is by masks: an image with two of them is in two splits here."""
    root = data / "siim-pneumothorax"
    names = [f"1.2.276.0.7230010.3.1.4.8323329.{i}" for i in range(4)]
    paths = [f"study{i}/series{i}/{name}.dcm" for i, name in enumerate(names)]
    for i, path in enumerate(paths):
        dicom(root / "dicom-images-train" / path, i)
    masks = {"train": [(0, 1), (0, 1), (1, 0)], "valid": [(2, 0)], "test": [(0, 1), (3, 0)]}
    for split, rows in masks.items():
        marks = [(names[i], " 1 2 3 4" if y else " -1", float(y), f"/data4/{paths[i]}") for i, y in rows]
        lines = [[number, *mark] for number, mark in enumerate(marks)]
        table(root / f"{split}.csv", "|ImageId| EncodedPixels|Label|Path", *lines)
    expected: Expected = {}
    for split, rows in {"train": masks["train"], "val": masks["valid"], "test": masks["test"]}.items():
        labels = {f"{split}/{paths[i]}": "pneumothorax" if y else "no pneumothorax" for i, y in rows}
        expected[split] = {name: {"label": label} for name, label in labels.items()}
    return expected


@layout("siim-pneumothorax")
def siim(data: Path) -> Expected:
    root = data / "siim-pneumothorax"
    rows, expected = [], {}
    for i in range(8):
        name = f"1.2.276.0.7230010.3.1.4.8323329.{i}"
        path = f"study{i}/series{i}/{name}.dcm"
        dicom(root / "dicom-images-train" / path, i)
        rows += [[name, " -1"]] if i % 2 else [[name, " 387620 23 996 33"], [name, " 1 2 3 4"]]
        expected[path] = {"label": "no pneumothorax" if i % 2 else "pneumothorax"}
    table(root / "train-rle.csv", "ImageId| EncodedPixels", *rows)
    return {"all": expected}


VINDR = [
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
]


@layout("vindr-cxr")
def vindr_cxr(data: Path) -> Expected:
    root = data / "vindr-cxr"
    opinions = [  # of three radiologists each
        ("a", [{"Cardiomegaly"}, {"Cardiomegaly", "ILD"}, {"No finding"}], {"Cardiomegaly"}),
        ("b", [{"No finding"}, {"No finding"}, {"No finding"}], {"No finding"}),
        ("c", [{"Edema"}, {"ILD"}, {"No finding"}], set()),
    ]
    rows = []
    for name, readings, _ in opinions:
        dicom(root / "train" / f"{name}.dicom")
        rows += [[name, f"R{i}", *[int(f in found) for f in VINDR]] for i, found in enumerate(readings, 8)]
    table(root / "annotations" / "image_labels_train.csv", "image_id|rad_ID|" + "|".join(VINDR), *rows)
    dicom(root / "test" / "d.dicom", photometric="MONOCHROME1")
    header = "image_id|" + "|".join(VINDR).replace("Other diseases", "Other disease")
    table(root / "annotations" / "image_labels_test.csv", header, ["d", *[int(f == "Pneumonia") for f in VINDR]])
    names = [name for name in VINDR if name != "Other diseases"]
    return {
        "train": {f"train/{n}.dicom": {"number": [int(f in found) for f in names]} for n, _, found in opinions},
        "test": {"test/d.dicom": {"number": [int(f == "Pneumonia") for f in names]}},
    }


@layout("odir", "odir-text")
def odir(data: Path, card: str) -> Expected:
    root = data / "odir"
    names = {
        "N": "normal",
        "D": "diabetic retinopathy",
        "G": "glaucoma",
        "C": "cataract",
        "A": "age-related macular degeneration",
        "H": "hypertensive retinopathy",
        "M": "pathological myopia",
        "O": "other abnormality",
    }
    rows, labels, texts = [], {}, {}
    for i, code in enumerate(names):
        for side in ("right", "left"):
            file = f"{i}_{side}.jpg"
            image(root / "preprocessed_images" / file, i)
            # The patient has a finding in the left eye only; N..O are the patient's, labels the eye's.
            eye = code if side == "left" else "N"
            rows.append(
                [
                    i,
                    69,
                    "Female",
                    f"{i}_left.jpg",
                    f"{i}_right.jpg",
                    names[code],
                    "normal fundus",
                    *[int(code == other) for other in names],
                    f"../input/{file}",
                    f"['{eye}']",
                    "[1, 0, 0, 0, 0, 0, 0, 0]",
                    file,
                ]
            )
            labels[file] = {"label": names[eye], "group": str(i)}
        texts[f"{i}_right.jpg"] = {"text": ["normal fundus"], "group": str(i)}
    table(
        root / "full_df.csv",
        "ID|Patient Age|Patient Sex|Left-Fundus|Right-Fundus|Left-Diagnostic Keywords|Right-Diagnostic Keywords|"
        "N|D|G|C|A|H|M|O|filepath|labels|target|filename",
        *rows,
    )
    return {"all": labels if card == "odir" else texts}


@layout("embed-birads", "embed-density")
def embed(data: Path, card: str) -> Expected:
    root = data / "embed"
    # The findings of each exam as (side, asses, tissueden), and what they make of the images of L and of R.
    # X: not in the scale. 5: male; nothing: unknown.
    exams: list[tuple[list[tuple[str, str, str]], str, str]] = [
        ([("L", "A", "1.0")], "BI-RADS 0 density A", ""),
        ([("", "N", "2.0")], "BI-RADS 1 density B", "BI-RADS 1 density B"),
        ([("B", "B", "3.0")], "BI-RADS 2 density C", "BI-RADS 2 density C"),
        ([("L", "P", "4.0"), ("L", "P", "4.0")], "BI-RADS 3 density D", ""),
        ([("R", "N", "1.0"), ("L", "S", "1.0")], "BI-RADS 4 density A", "BI-RADS 1 density A"),
        ([("L", "B", "2.0"), ("L", "M", "2.0"), ("B", "P", "3.0")], "BI-RADS 5 density B", "BI-RADS 3 density C"),
        ([("", "N", "5.0"), ("R", "K", "5.0")], "BI-RADS 1", "BI-RADS 6"),
        ([("B", "X", "")], "", ""),
    ]
    images, clinical, expected = [], [], {}
    for i, (findings, *labels) in enumerate(exams):
        for side, kind, spot in product("LR", ("2D", "cview"), ("0.0", "", "1.0")):
            name = f"1.2.8{i}{side}{kind}{spot}.dcm"
            folder = f"cohort_1/{6000 + i}/{7000 + i}"
            path = f"/mnt/NAS2/mammo/anon_dicom/{folder}/{name}"
            dicom(root / "images" / folder / name, i)
            images.append([6000 + i, 7000 + i, path, kind, "CC", side, spot])
            words = re.split(r" (?=density)", labels["LR".index(side)])
            label = next(
                (word for word in words if word.startswith(("BI" if card == "embed-birads" else "density"))), ""
            )
            if kind == "2D" and spot != "1.0" and label:
                expected[path] = {"label": label, "group": str(6000 + i)}
        clinical += [[6000 + i, 7000 + i, assessment, density, side] for side, assessment, density in findings]
    table(
        root / "tables" / "EMBED_OpenData_metadata.csv",
        "empi_anon|acc_anon|anon_dicom_path|FinalImageType|ViewPosition|ImageLateralityFinal|spot_mag",
        *images,
    )
    table(root / "tables" / "EMBED_OpenData_clinical.csv", "empi_anon|acc_anon|asses|tissueden|side", *clinical)
    return {"all": expected}
