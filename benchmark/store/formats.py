"""Formats: numbers that are part of keys and are raised by hand when the harness computes or stores something else.

Code of methods and tasks is part of a key by itself (``hashing.source_of``). The harness is not: if it were, every edit
would train everything again. Instead each format covers the modules below, and ``tests/store/test_formats.py`` fails
when one of them changes and nobody has decided whether results do. Record the decision with

    python -m benchmark.store.formats
"""

import json
from pathlib import Path

from benchmark.store.hashing import syntax_hash

TRAINING = 3
"""What a trained cell holds: its weights. Part of the keys of cells, of initial weights and of all that is encoded by a
model, trained here or not: raising it trains and evaluates everything again."""

EVALUATION = 5
"""What an evaluation holds: embeddings, scores and intervals. Part of the keys of evaluations and of embeddings, and of
encoders that are evaluated as they are: raising it evaluates everything again."""

DATA = 3
"""What a dataset's records hold: rows, pixels and tokens. Part of a dataset's fingerprint: raising it prepares all data
and trains and evaluates everything again."""

PHANTOM = 2
"""What the embedded datasets draw, say and ask. Raising it does the same to them alone."""

CACHE = 6
"""How the folders in the cache are laid out, their contents being the same: raising it only writes them again."""

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
        "data/check.py",
        "data/dataset.py",
        "data/images.py",
        "data/records.py",
        "data/prepared.py",
        "data/resizing.py",
        "data/streamed.py",
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
    """Say of each format which of its modules have changed since they were recorded, and what to do about it."""
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
                f"changed in benchmark/: {', '.join(changed)}. If results change: raise {name} in "
                "benchmark/store/formats.py. Either way record it then: python -m benchmark.store.formats"
            )
        elif before["format"] != now["format"]:
            lines.append(
                f"{name} is {now['format']} and was recorded at {before['format']}: record it with "
                "python -m benchmark.store.formats"
            )
    return lines


def main() -> None:
    """Record the numbers and hashes as they are now, and print what was undecided."""
    lines = undecided() if RECORD.is_file() else []
    RECORD.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
    print("\n".join([*lines, f"recorded in {RECORD}"]))


if __name__ == "__main__":
    main()
