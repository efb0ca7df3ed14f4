"""Joins whose keys have other names, or values that agree with all; and several partners of one row."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import BenchError
from benchmark.data.dataset import Dataset
from benchmark.data.tools.verify import verify
from tests.data.make import dataset, images, write_csv, write_jsonl

COLUMNS = {"id": "image", "image": "image", "label": "grade", "group": "exam", "split": "split"}
JOIN = {
    "file": "findings.csv",
    "by": ["exam"],
    "match": {"eye": "side"},
    "matches_all": ["B", ""],
    "columns": ["grade"],
}
WORST = {"several": {"grade": ["high", "low"]}}


def joined(folder: Path, findings: list[tuple[Any, str, str]], suffix: str = ".csv", **join: Any) -> Dataset:
    """Two exams of both eyes, and findings as (exam, side, grade)."""
    eyes = [(exam, eye) for exam in (1, 2) for eye in "LR"]
    images(folder, len(eyes))
    rows = [{"image": f"{i}.png", "exam": exam, "eye": eye, "split": "test"} for i, (exam, eye) in enumerate(eyes)]
    table = [dict(zip(("exam", "side", "grade"), finding)) for finding in findings]
    (write_csv if suffix == ".csv" else write_jsonl)(folder / f"findings{suffix}", table)
    source = {"join": [JOIN | {"file": f"findings{suffix}"} | join], "where": {"grade": ["low", "high"]}}
    return dataset(folder, rows, COLUMNS, "skip", ".csv", card={"classes": ["low", "high"]}, **source)


def labels(found: Dataset) -> dict[str, str]:
    """The grade of each image that has one, as 1L."""
    names = dict(zip(("0.png", "1.png", "2.png", "3.png"), ("1L", "1R", "2L", "2R")))
    table = found.table("test")
    return {
        names[id]: found.card.labels.names[label]
        for id, label in zip(table["id"].to_pylist(), table["label"].to_pylist())
    }


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("findings", "expected", "differ"),
    [
        ([(1, "L", "high"), (1, "R", "low")], {"1L": "high", "1R": "low"}, 0),
        ([(1, "L", "high"), (2, "R", "low")], {"1L": "high", "2R": "low"}, 0),
        ([("1.0", "B", "high"), (2, "", "low")], {"1L": "high", "1R": "high", "2L": "low", "2R": "low"}, 0),
        ([(1, "L", "low"), (1, "L", "high"), (2, "B", "low")], {"1L": "high", "2L": "low", "2R": "low"}, 1),
        ([(1, "L", "low"), (1, "B", "high"), (1, "L", "none")], {"1L": "high", "1R": "high"}, 1),
        ([(1, "L", "low"), (1, "L", "low"), (1, "B", "low")], {"1L": "low", "1R": "low"}, 0),
    ],
)
def test_a_finding_belongs_to_its_side(
    findings: list[tuple[Any, str, str]], expected: dict[str, str], differ: int, suffix: str, tmp_path: Path
) -> None:
    found = joined(tmp_path, findings, suffix, partial=True, **WORST)
    assert labels(found) == expected
    remarks = [finding.message for finding in verify(found, 77, None) if "several partners" in finding.message]
    told = f"rows.csv: rows with several partners in findings{suffix} that differ in grade: {differ}"
    assert remarks == ([told] if differ else [])


def test_the_first_of_the_table_is_taken(tmp_path: Path) -> None:
    findings = [(1, "B", "low"), (1, "L", "high"), (2, "R", "high"), (2, "R", "low")]
    assert labels(joined(tmp_path, findings, several="first")) == {"1L": "low", "1R": "low", "2R": "high"}


@pytest.mark.parametrize(
    ("findings", "join", "message"),
    [
        (
            [(1, "L", "low"), (1, "L", "high")],
            {},
            "row 3: join: exam '1', side 'L' has grade 'high' here, and 'low' in",
        ),
        (
            [(1, "L", "low"), (2, "B", "low")],
            {"match": {"eye": "sde"}},
            "join: unknown column 'sde'; did you mean 'side'?",
        ),
        (
            [(1, "L", "low"), (2, "B", "low")],
            {"match": {"eys": "side"}},
            "join: unknown column 'eys'; did you mean 'eye'?",
        ),
        ([(1, "L", "low")], {"several": {"grad": ["low"]}}, "join: unknown column 'grad'; did you mean 'grade'?"),
        ([(1, "L", "low")], {"match": {}}, "'matches_all' needs 'match'"),
        (
            [(1, "left", "low"), (2, "R", "low")],
            {},
            "a row has exam '1', eye 'L', and findings.csv has exam '1', side 'left'",
        ),
        ([(3, "B", "low")], {}, "a row has exam '1', eye 'L', and findings.csv has exam '3', any side"),
    ],
)
def test_joins_that_cannot_be_meant(
    findings: list[tuple[Any, str, str]], join: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError) as error:
        joined(tmp_path, findings, **join).splits()
    assert message in str(error.value)


def test_unlike_partners_of_one_row_are_a_bad_row(tmp_path: Path) -> None:
    found = joined(tmp_path, [(1, "L", "low"), (1, "B", "high"), (2, "B", "low")])
    assert labels(found) == {"1R": "high", "2L": "low", "2R": "low"}
    assert found.left_out == {"several partners": 1}
