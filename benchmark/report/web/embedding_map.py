"""A map of image and text embeddings in two dimensions, and the gap between them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from benchmark.common.errors import BenchError
from benchmark.common.text import display_name
from benchmark.report.plots import PALETTE
from benchmark.report.render import Cell, Chart, Table
from benchmark.report.results import Results, natural
from benchmark.report.web.charts import LIMIT, choice, constant, names, specification, table
from benchmark.store.cache import cache_root, remember, remembered
from benchmark.store.hashing import digest
from benchmark.store.rows import Embedded
from benchmark.store.store import row_digest

if TYPE_CHECKING:
    import altair as alt

POINTS, IN_ALL = 240, 40_000
"""The most points of a map, and of all maps together."""
CLASSES = 11
"""The classes with a colour of their own; the others share one."""
TSNE_MAPS, TSNE_POINTS = 16, 100
"""t-SNE, a third of a second a map, is drawn if there are at most so many maps; each has at least so many points (its
perplexity is 30)."""
SEED = 0
PROJECTIONS = ("PCA", "t-SNE")


def embedding_maps(results: Results) -> Iterator[Chart | Table]:
    """Draw a map of some test images and their texts for each dataset and line, and tabulate their modality gap."""
    import altair as alt

    measured = embedded_of(results)
    if not measured:
        return
    datasets = natural({dataset for _, dataset in measured})
    shown = [line for line in results.lines if line in {line for line, _ in measured}]
    gaps = {at: modality_gap(each) for at, each in measured.items()}
    half = min(POINTS, IN_ALL // len(measured)) // 2
    few = {at: subset(each, half) for at, each in measured.items()}
    large = [
        at for at, each in few.items() if len(each.images) + len(each.texts) >= TSNE_POINTS and at[0] in results.methods
    ]
    neighbours = set(large if len(large) <= TSNE_MAPS else [])
    columns: dict[str, list[float]] = {
        name: [] for name in ("dataset", "line", "class", "text", "projection", "x", "y")
    }
    classes: list[str] = []
    for dataset in datasets:
        maps = {line: few[line, dataset] for line in shown if (line, dataset) in few}
        coloured = colouring([group for each in maps.values() for group in each.image_classes])
        first = len(classes)
        classes += map(display_name, coloured)
        for line, each in maps.items():
            groups = [*each.image_classes, *each.text_classes]
            for number, method in enumerate(PROJECTIONS[: 2 if (line, dataset) in neighbours else 1]):
                points = project(each, method)
                columns["dataset"] += [datasets.index(dataset)] * len(points)
                columns["line"] += [shown.index(line)] * len(points)
                columns["class"] += [first + coloured.index(class_of(group, coloured)) for group in groups]
                columns["text"] += [0] * len(each.images) + [1] * len(each.texts)
                columns["projection"] += [number] * len(points)
                columns["x"] += points[:, 0].tolist()
                columns["y"] += points[:, 1].tolist()
    of_dataset, of_line = choice("dataset", "dataset", datasets), choice("line", "arm", shown)
    of_projection = choice("projection", "projection", PROJECTIONS[: 2 if neighbours else 1])
    here = "datum.dataset === dataset && datum.line === line"
    place = alt.Scale(domain=[-520, 520], nice=False)
    drawn = (
        alt.Chart(table(columns))
        .transform_filter(f"{here} && datum.projection === projection")
        .transform_lookup("class", from_=names("class", "class_name", classes))
        .transform_calculate(kind="datum.text ? 'text' : 'image'")
        .mark_point(filled=True, size=40, opacity=0.75)
        .encode(
            x=alt.X("x:Q", axis=None, scale=place),
            y=alt.Y("y:Q", axis=None, scale=place),
            color=alt.Color(
                "class_name:N",
                scale=alt.Scale(range=PALETTE),
                sort=alt.EncodingSortField("class", op="min"),
                legend=_legend("width < 480 ? 2 : 6"),
            ),
            shape=alt.Shape(
                "kind:N",
                scale=alt.Scale(domain=["image", "text"], range=["circle", "triangle-up"]),
                legend=_legend("2"),
            ),
            tooltip=[alt.Tooltip("class_name:N", title="class"), alt.Tooltip("kind:N", title="of")],
        )
    )
    measurements: dict[str, list[float]] = {
        "dataset": [datasets.index(dataset) for _, dataset in gaps],
        "line": [shown.index(line) for line, _ in gaps],
        "gap": list(gaps.values()),
    }
    said = (
        alt.Chart(table(measurements))
        .transform_filter(here)
        .transform_calculate(said="'modality gap ' + format(datum.gap, '.2f')")
        .mark_text(align="left", baseline="top", fontSize=12)
        .encode(x=constant(alt.XValue, 2), y=constant(alt.YValue, 0), text=alt.Text("said:N"))
    )
    spec = specification([drawn, said], [of_dataset, of_line, of_projection], 400)
    yield Chart("embedding-map", "Map of image and text embeddings", spec, _caption(half, bool(neighbours)))
    yield _table(gaps, measured, datasets, shown)


def _legend(columns: str) -> "alt.Legend":
    import altair as alt

    return alt.Legend(
        orient="bottom", title=None, labelLimit=alt.ExprRef(LIMIT), columns=alt.ExprRef(columns), symbolOpacity=1
    )


def _caption(half: int, neighbours: bool) -> str:
    also = (
        f", or t-SNE (van der Maaten and Hinton 2008; perplexity 30, 500 iterations, started from PCA, seed {SEED}), "
        "in which distances between groups say nothing"
        if neighbours
        else ""
    )
    return (
        f"At most {half} test images and as many of their captions, or prompts of the classes where no caption was "
        "encoded; the same images for all arms, of the first seed of each. Each arm has its own projection: the two "
        f"principal components (PCA) of images and texts together{also}. Colour: the class of an image or of its "
        "caption; several: a multi-label image with several findings."
    )


def _table(
    gaps: dict[tuple[str, str], float], measured: dict[tuple[str, str], Embedded], datasets: list[str], shown: list[str]
) -> Table:
    kinds = {
        name: " or ".join(sorted({each.texts_are for (_, d), each in measured.items() if d == name}))
        for name in datasets
    }
    return Table(
        "Modality gap",
        [(dataset, f"images to {kinds[dataset]}") for dataset in datasets],
        [
            (line, [Cell(f"{gap:.2f}") if (gap := gaps.get((line, d))) is not None else Cell() for d in datasets])
            for line in shown
        ],
        [],
        "Distance between the mean embedding of images and that of texts, both of unit length: 0 (same place) to 2 "
        "(opposite); Liang et al. 2022, arXiv 2203.02053. A gap is no fault by itself. At most 200 test images and "
        "their texts, of the first seed of each arm.",
        page_only=True,
    )


def embedded_of(results: Results) -> dict[tuple[str, str], Embedded]:
    """Read the embeddings of the first seed of each line and dataset that has them, with captions if it can be."""
    read: dict[tuple[str, str], Embedded] = {}
    if "evaluation" not in results.rows:
        return read
    columns = ["line", "dataset", "seed", "cell", "evaluation"]
    evaluations: dict[tuple[str, str], dict[int, list[tuple[str, str]]]] = {}
    for line, dataset, seed, cell, key in results.rows[columns].drop_duplicates().itertuples(index=False, name=None):
        evaluations.setdefault((str(line), str(dataset)), {}).setdefault(seed, []).append((str(cell), str(key)))
    for at in sorted(evaluations):
        for _, of_seed in sorted(evaluations[at].items()):
            for evaluation in of_seed:
                each = results.embedded(*evaluation)
                if each is not None and (each.texts_are == "captions" or at not in read):
                    read[at] = each
                if each is not None and each.texts_are == "captions":
                    break
            if at in read:
                break
    return read


def modality_gap(embedded: Embedded) -> float:
    """Return the distance between the mean image and the mean text embedding, each of unit length: 0 to 2.

    Liang et al. 2022, arXiv 2203.02053, section 4.2.
    """
    return float(np.linalg.norm(_unit(embedded.images).mean(axis=0) - _unit(embedded.texts).mean(axis=0)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def subset(embedded: Embedded, count: int) -> Embedded:
    """Keep ``count`` images and texts, evenly from their list: captions stay those of the images."""
    rows = [
        np.unique(np.linspace(0, n - 1, min(n, count)).astype(int)) for n in map(len, (embedded.images, embedded.texts))
    ]
    return Embedded(
        embedded.images[rows[0]],
        embedded.texts[rows[1]],
        [embedded.image_classes[row] for row in rows[0]],
        [embedded.text_classes[row] for row in rows[1]],
        embedded.texts_are,
    )


def colouring(classes: Sequence[list[str]]) -> list[str]:
    """List the classes that have a colour, the most frequent first; the others share the last."""
    counts = Counter(_single(group) for group in classes)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return ordered if len(ordered) <= CLASSES else [*ordered[:CLASSES], "other"]


def class_of(group: list[str], coloured: Sequence[str]) -> str:
    """Return which of the coloured classes an image or text is shown with: the last for those without a colour."""
    return name if (name := _single(group)) in coloured else coloured[-1]


def _single(group: list[str]) -> str:
    return group[0] if len(group) == 1 else "several" if group else "none known"


def project(embedded: Embedded, method: str) -> np.ndarray:
    """Project images and then texts to two dimensions, [n + m, 2], within -500 to 500 with one scale for both axes."""
    vectors = np.concatenate([_unit(embedded.images), _unit(embedded.texts)])
    # scikit-learn takes two seconds to import, the components a few milliseconds.
    left, spread, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    points = left[:, :2] * spread[:2]
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    points *= np.sign(points[np.abs(points).argmax(axis=0), [0, 1]])
    if method == "t-SNE":
        points = neighbourhoods(vectors, points / np.std(points[:, 0]) * 1e-4)
    points = points - (points.max(axis=0) + points.min(axis=0)) / 2
    return np.asarray(np.round(500 * points / max(np.abs(points).max(), 1e-12))).astype(int)


def neighbourhoods(vectors: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Project vectors, [n, D], by t-SNE, [n, 2]; the cache keeps it, as it takes half a second and two to import.

    start: the points that it begins with.
    """
    settings = {"perplexity": 30, "max_iter": 500, "random_state": SEED}
    key = digest([row_digest(vectors), row_digest(start), settings, version("scikit-learn")])
    path = cache_root() / "maps" / f"{key}.json"
    points = remembered(path)
    if points is None:
        from sklearn.manifold import TSNE

        points = TSNE(init=start, **settings).fit_transform(vectors).tolist()
        with suppress(BenchError):
            remember(path, points)
    return np.array(points, dtype=np.float32)
