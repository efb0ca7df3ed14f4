"""Look at a dataset: counts by split, and a picture of some samples."""

import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator
from benchmark.data.dataset import Dataset
from benchmark.data.records import Label


def describe(dataset: Dataset) -> dict[str, Any]:
    """Describe a dataset, with counts by split.

    These are images, groups, texts with their lengths in words, questions, and the images of each class (for
    multi-label sets those where it holds; ``unknown`` where no class is known).
    """
    left_out, not_drawn = dataset.left_out, dataset.not_drawn
    return {
        "name": dataset.card.name,
        "title": dataset.card.title,
        "modality": dataset.card.modality,
        "provides": ", ".join(sorted(dataset.provides)),
        "splits": {split: _counts(dataset, split) for split in dataset.splits()},
        **({"not drawn": not_drawn} if not_drawn else {}),
        **({"left out": left_out} if left_out else {}),
    }


def _counts(dataset: Dataset, split: str) -> dict[str, Any]:
    table = dataset.table(split).take(dataset.rows(split))
    columns = table.select(["group", "label", "text", "question", "answer_type"]).to_pydict()
    counts: dict[str, Any] = {"images": len(table), "groups": len(set(columns["group"]))}
    texts = [text for texts in columns["text"] for text in texts]
    if texts:
        words = [len(text.split()) for text in texts]
        low, middle, high = (int(np.percentile(words, q)) for q in (0, 50, 100))
        counts["texts"] = {"all": len(texts), "different": len(set(texts))}
        counts["words a text"] = {"shortest": low, "median": middle, "longest": high}
    if "question" in dataset.provides:
        kinds = Counter(kind for kinds in columns["answer_type"] for kind in kinds)
        counts["questions"] = {"all": kinds.total(), **dict(sorted(kinds.items()))}
    if "label" in dataset.provides:
        counts["classes"] = _class_counts(dataset, columns["label"])
    return counts


def _class_counts(dataset: Dataset, labels: list[Label]) -> dict[str, int]:
    classes: Counter[str] = Counter()
    for label in labels:
        if isinstance(label, int):
            classes[_class_names(dataset, label)] += 1
        else:
            classes.update(name for name, flag in zip(dataset.card.class_index, label) if flag == 1)
            classes["unknown"] += all(flag == -1 for flag in label)
    names = [*dataset.card.class_index, *(["unknown"] if classes["unknown"] else [])]
    return {name: classes[name] for name in names}


def contact_sheet(dataset: Dataset, split: str, path: Path, n: int = 24) -> Path:
    """Draw up to ``n`` samples of a split as a PNG, each with its class, its first text and its first question.

    The samples are chosen at random, but always the same ones. Returns ``path``.
    """
    from matplotlib.figure import Figure

    records = dataset.records(split)
    rows = np.sort(generator(0, "contact sheet").permutation(len(records))[:n])
    columns = min(6, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.4 * columns, 3.3 * lines), layout="constrained")
    for axes, row in zip(figure.subplots(lines, columns, squeeze=False).flat, rows):
        record = records[int(row)]
        axes.imshow(np.asarray(record["image"]), interpolation="nearest")
        # Without formulas: a text may contain dollar signs.
        axes.set_xlabel(_caption(dataset, record), fontsize=7.5, loc="left", parse_math=False)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    try:
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise BenchError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _caption(dataset: Dataset, record: dict[str, Any]) -> str:
    parts = [_class_names(dataset, record["label"])] if "label" in dataset.provides else []
    parts.extend(record["text"][:1])
    if record["question"]:
        parts.append(f"{record['question'][0]} {record['answer'][0]}")
    return "\n".join(
        line for part in parts for line in textwrap.wrap(textwrap.shorten(part, 150, placeholder=" ..."), 34)
    )


def _class_names(dataset: Dataset, label: Label) -> str:
    names = list(dataset.card.class_index)
    if isinstance(label, int):
        return names[label] if label >= 0 else "unknown"
    return ", ".join(name for name, flag in zip(names, label) if flag == 1) or "none"
