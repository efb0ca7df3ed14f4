"""Write captions for images of a dataset with a trained method, and show them next to the true texts."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.common.errors import BenchError
from benchmark.common.seeding import generator
from benchmark.data.card import load_card
from benchmark.data.dataset import Dataset, open_dataset
from benchmark.data.prepared import prepare
from benchmark.evaluation.encoder import ModelWriter
from benchmark.execution.materials import Trained, load_trained
from benchmark.method import METHODS
from benchmark.store.cache import cache_root
from benchmark.store.store import Store


@dataclass(frozen=True)
class Captioned:
    """An image, uint8 [size, size, 3], with its true texts and one written caption per number of beams."""

    id: str
    image: np.ndarray
    true: list[str]
    written: dict[int, str]


def newest_writer(store: Store, method: str | None) -> str:
    """Return the key of the newest trained cell of ``method``; None: of any method that can caption.

    Raises ``BenchError`` for a method that cannot caption, and if there is no such cell.
    """
    able = [name for name in METHODS.names() if "caption" in METHODS[name].abilities]
    if method is not None and "caption" not in METHODS[method].abilities:
        raise BenchError(f"method '{method}' cannot caption; those that can: {', '.join(able)}")
    wanted = [method] if method else able
    costs = store.costs()
    cells = costs[costs.method.isin(wanted)] if len(costs) else costs
    if not len(cells):
        raise BenchError(
            f"{store.folder}: no trained cell of {' or '.join(wanted)}; train one with "
            f"bench run --methods {wanted[0]} --tasks captioning --results {store.folder}"
        )
    return str(cells.cell.iloc[-1])


def load_writer(store: Store, key: str, references: Sequence[str]) -> Trained:
    """Rebuild a cell that can caption, from the checkpoint that the tables show.

    references: the cards of the cell's datasets that are not shipped, by name or path. Raises ``BenchError`` as
    load_trained() does.
    """
    cards = [load_card(reference) for reference in references]
    datasets = {card.name: open_dataset(card, "skip") for card in cards}
    return load_trained(store, key, store.checkpoint(key), datasets)


def captions(
    writer: ModelWriter, dataset: Dataset, split: str, count: int, beams: Sequence[int], cache: Path | None = None
) -> list[Captioned]:
    """Caption up to ``count`` images of a split that have a text: a fixed random sample."""
    records = prepare(dataset, split, writer.image_size, cache or cache_root(), resizing=writer.resizing)
    with_text = [row for row, texts in enumerate(records.text) if texts]
    if not with_text:
        raise BenchError(f"dataset '{dataset.card.name}', {split}: no image has a text")
    rows = sorted(with_text[i] for i in generator(0, "captions").permutation(len(with_text))[:count])
    images = np.array(records.images[rows])
    written = {k: writer.write(torch.from_numpy(images), k) for k in beams}
    return [
        Captioned(records.ids[row], images[i].transpose(1, 2, 0), records.text[row], {k: written[k][i] for k in beams})
        for i, row in enumerate(rows)
    ]


def name_of(beams: int) -> str:
    """Return the name of a search with so many beams, for tables and figures."""
    return "greedy" if beams == 1 else f"{beams} beams"


def caption_sheet(captioned: Sequence[Captioned], title: str, path: Path) -> Path:
    """Draw the images as a PNG, each with its first true text and its captions; return ``path``."""
    from matplotlib.figure import Figure

    columns = min(4, len(captioned))
    lines = -(-len(captioned) // columns)
    figure = Figure(figsize=(3.4 * columns, 4.6 * lines), layout="constrained")
    figure.suptitle(title, fontsize=9, parse_math=False)
    for axes, shown in zip(figure.subplots(lines, columns, squeeze=False).flat, captioned):
        axes.imshow(shown.image, interpolation="nearest")
        texts = {"true": shown.true[0]} | {name_of(k): text for k, text in shown.written.items()}
        # No math mode: a text may contain dollar signs.
        axes.set_xlabel(_wrapped(texts.items()), fontsize=7.5, loc="left", parse_math=False)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    try:
        figure.savefig(path, dpi=110, format="png", bbox_inches="tight")
    except OSError as error:
        raise BenchError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _wrapped(texts: Iterable[tuple[str, str]]) -> str:
    lines = []
    for name, text in texts:
        short = textwrap.shorten(text, 160, placeholder=" ...")
        lines += textwrap.wrap(f"{name}: {short}", 54, subsequent_indent="  ")
    return "\n".join(lines)
