"""Check a dataset completely before a model is trained on it."""

from collections.abc import Sequence
from itertools import combinations

from benchmark.common.errors import BenchError
from benchmark.data.dataset import Dataset, Progress
from benchmark.data.prepared import prepare
from benchmark.data.resizing import DEFAULT, Resizing
from benchmark.data.streamed import Stream


def check(
    dataset: Dataset,
    size: int | None = None,
    progress: Progress | None = None,
    splits: Sequence[str] | None = None,
    resizing: Resizing = DEFAULT,
) -> None:
    """Read all rows and decode every image that was not decoded before.

    size: also prepare the images at this size, as prepare() does. splits: only decode the images of these.
    Of a stream, list the samples and decode the first image of each shard.

    Raises ``BenchError`` for the first bad row (with the number of the others), and when no row is left.
    """
    check_rows(dataset)
    for split in dataset.splits():
        if splits and split not in splits:
            continue
        if dataset.streams:
            Stream(dataset.card, split, dataset.cache, progress).check(dataset.on_bad_data)
        elif size is None:
            dataset.check_images(split, progress)
        else:
            prepare(dataset, split, size, dataset.cache, progress, resizing)


def check_rows(dataset: Dataset) -> None:
    """Read all rows without decoding images.

    Raises ``BenchError`` for the first bad row (with the number of the others), and when no row is left.
    """
    if not dataset.splits():
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dataset.left_out.items())
        raise BenchError(f"dataset '{dataset.card.name}' has no rows" + (f"; left out: {reasons}" if reasons else ""))


def sharing(dataset: Dataset) -> list[str]:
    """Say what was made of rows that share an image or a group with others, a line for each split."""
    gathered = dataset.gathered
    if dataset.streams:
        of_split = {split: Stream(dataset.card, split, dataset.cache).gathered for split in dataset.splits()}
        gathered = {split: pair for split, pair in of_split.items() if pair[0]}
    lines = [
        f"{split}: {rows:,} rows that share their image with others were gathered into {images:,} images"
        for split, (rows, images) in gathered.items()
    ]
    for split, (rows, groups) in dataset.shared["dropped"].items():
        reason = f"their {groups:,} groups are in a later split too"
        lines.append(f"{split}: {rows:,} rows were dropped, since {reason} (shared_groups: drop)")
    return lines


def groups_in_two_splits(dataset: Dataset, groups: dict[str, set[str]]) -> list[str]:
    """Say how many groups are in each pair of splits. groups: of each split."""
    published = dataset.card.source.shared_group_rule() == "keep"
    lines = []
    for one, other in combinations(groups, 2):
        if shared := groups[one] & groups[other]:
            message = f"groups in both {one} and {other}: {len(shared):,}, for example '{min(shared)}'"
            lines.append(f"{message} (as published; see the card's notes)" if published else message)
    return lines
