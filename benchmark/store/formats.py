"""Format numbers: parts of keys, raised by hand when a change to the harness changes results or stored files.

The code of methods and tasks enters keys automatically (``hashing.source_of``). The harness's code does not: otherwise
every edit would retrain everything. Instead each format covers the modules below, and ``tests/store/test_formats.py``
fails if one of them has changed and nobody has decided whether results change with it. Record the decision with

    python -m benchmark.store.formats
"""

import json
from pathlib import Path

from benchmark.store.hashing import syntax_hash

TRAINING = 4
"""Version of trained weights. Part of the keys of cells, of initial weights and of everything that a model encodes,
trained here or not: raising it retrains and re-evaluates everything."""

EVALUATION = 8
"""Version of evaluations: embeddings, scores and intervals. Part of the keys of evaluations, of embeddings and of
encoders that are evaluated without training: raising it re-evaluates everything."""

DATA = 5
"""Version of a dataset's records: rows, pixels and tokens. Part of a dataset's fingerprint: raising it prepares all
data again, and retrains and re-evaluates everything."""

PHANTOM = 2
"""Version of the embedded datasets' images, texts and questions. Raising it has the effect of DATA on them alone."""

CACHE = 7
"""Version of the cache's file layout. Raising it only rebuilds the cache; results stay."""

COVERS = {
    "TRAINING": (
        "losses.py",
        "method.py",
        "common/seeding.py",
        "data/batch.py",
        "data/loader.py",
        "data/transforms.py",
        "models/*.py",
        "training/*.py",
        "execution/materials.py",
    ),
    "EVALUATION": ("task.py", "evaluation/*.py", "execution/measure.py"),
    "DATA": (
        "data/canonical.py",
        "data/check.py",
        "data/dataset.py",
        "data/decoding.py",
        "data/dicom.py",
        "data/images.py",
        "data/record_tables.py",
        "data/records.py",
        "data/prepared.py",
        "data/resizing.py",
        "data/shared.py",
        "data/streamed.py",
        "data/writing.py",
        "data/sources/*.py",
    ),
    "PHANTOM": ("data/phantom/*.py",),
}
"""The modules that each format covers, as patterns of paths below benchmark/."""

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_suffix(".json")

Record = dict[str, dict[str, int | dict[str, str]]]


def current() -> Record:
    """Return each format's number and the hash of every module that it covers."""
    record: Record = {}
    for name, patterns in COVERS.items():
        modules = {}
        for file in (file for pattern in patterns for file in sorted(ROOT.glob(pattern))):
            path = file.relative_to(ROOT)
            modules[path.as_posix()] = syntax_hash(file, ".".join(("benchmark", *path.with_suffix("").parts)))
        record[name] = {"format": globals()[name], "modules": modules}
    return record


def undecided() -> list[str]:
    """Return one line per format with modules that changed since they were recorded, and what to do about it."""
    recorded: Record = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = []
    for name, now in current().items():
        before = recorded.get(name, {"format": 0, "modules": {}})
        old, new = before["modules"], now["modules"]
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        changed = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
        if changed:
            lines.append(
                f"changed in benchmark/: {', '.join(changed)}. If results change, raise {name} in "
                "benchmark/store/formats.py. In either case then record it: python -m benchmark.store.formats"
            )
        elif before["format"] != now["format"]:
            lines.append(
                f"{name} is {now['format']} and was recorded at {before['format']}: record it with "
                "python -m benchmark.store.formats"
            )
    return lines


def main() -> None:
    """Record the current numbers and hashes, and print what was undecided."""
    lines = undecided() if RECORD.is_file() else []
    RECORD.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    print("\n".join([*lines, f"recorded in {RECORD}"]))


if __name__ == "__main__":
    main()
