"""The gallery: images of a dataset with what the arms said of them, chosen by the stored scores of the examples."""

import base64
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmark.common.errors import BenchError
from benchmark.common.seeding import stream
from benchmark.common.text import display_name, visible
from benchmark.data.card import load_card
from benchmark.data.dataset import Dataset, open_dataset
from benchmark.evaluation.measurement import Gallery
from benchmark.report.render import Panel, Sentence
from benchmark.report.results import Results, natural, set_options, with_notes
from benchmark.report.web.page import embedded

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from benchmark.store.store import Store

SIDE = 96
"""The most pixels of a thumbnail's longer side."""
QUALITY = 75
"""Of a thumbnail's JPEG."""
HARDEST, MOST_WRONG, RANDOM = 6, 3, 6
"""The most examples of a task that are chosen as the hardest, as the most wrong of each arm, and at random."""
BUDGET = 3_000_000
"""The most bytes of images, texts and scores in the page, shared out evenly over the datasets."""
LONGEST = 400
"""The most characters of a text that are shown."""
MOST_TEXTS = 3
"""The most true texts of an image that are shown."""
MOST_CLASSES = 5
"""The classes with the highest scores that are shown, beside the true ones."""


def gallery(
    results: Results,
    store: "Store",
    images: bool = True,
    seed: int = 0,
    budget: int = BUDGET,
    cache: Path | None = None,
) -> Iterator[Panel | Sentence]:
    """Show examples of each dataset, with the answers of two arms side by side; say what is not shown and why.

    images: whether images and texts of datasets may be shown at all. seed: of the choice. budget: the most bytes that
    all panels together add to the page. cache: of prepared data.

    Datasets of restricted access, and those that are not on this machine or have changed, are left out.
    """
    looks, remarks = _looks(results, store)
    if not images:
        if looks:
            yield Sentence("The gallery is left out (--no-images): this page holds no image and no text of a dataset.")
        return
    yield from remarks
    opened: dict[str, Dataset] = {}
    unusable: list[str] = []
    restricted: list[str] = []
    references = store.datasets()
    for name in natural({look.dataset for look in looks}):
        try:
            card = load_card(references[name]["card"] if name in references else name)
            if card.restricted:
                restricted.append(f"{name} ({card.access})")
            elif not card.source.is_present():
                unusable.append(f"{name} (not found on this machine; see bench data how {name})")
            else:
                mode = references[name]["on_bad_data"] if name in references else "error"
                dataset = open_dataset(card, mode, cache)
                if any(look.evaluated_on(dataset, store) for look in looks if look.dataset == name):
                    opened[name] = dataset
                else:
                    unusable.append(f"{name} (it has changed since it was evaluated; bench run evaluates it again)")
        except (BenchError, OSError) as error:
            unusable.append(f"{name} ({' '.join(str(error).split())})")
    if restricted:
        yield Sentence(
            f"No image and no text is shown of {', '.join(restricted)}: their cards restrict who may have them."
        )
    if unusable:
        yield Sentence(f"No image and no text is shown of {', '.join(unusable)}.")
    albums = []
    for name, dataset in opened.items():
        of_dataset = [
            look
            for each in looks
            if each.dataset == name
            for look in [each.on(dataset, store)]
            if look is not None and len(look.rows)
        ]
        album = Album(dataset, of_dataset, [line for line in results.lines if any(line in x.rows for x in of_dataset)])
        album.fill(store, results.methods or results.lines, seed, budget // len(opened))
        albums += [album] if album.shown else []
    if missing := [name for name in opened if not any(name == album.dataset.card.name for album in albums)]:
        yield Sentence(
            f"No image and no text is shown of {', '.join(missing)}: the results hold no scores of its images."
        )
    if not albums:
        return
    names = ", ".join(album.dataset.card.name for album in albums)
    yield Sentence(
        f"This page holds images and texts of the test splits of {names}: whoever has the page has them. bench report "
        "--no-images leaves them out. Shown is the training of each arm with its lowest seed. Hardest are the examples "
        "with the worst mean rank over all arms; most wrong, those at the end of an arm's own order; random ones are "
        f"drawn with seed {seed}, the same images in each task."
    )
    for number, album in enumerate(albums):
        yield album.panel(f"gallery-{number}", results.reference)


# What can be looked at


@dataclass(frozen=True)
class Look:
    """One part of a task on a dataset. rows: by line, a row of its evaluation with the line's lowest seed."""

    dataset: str
    task: str
    part: str
    gallery: Gallery
    rows: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The task and its part."""
        return ", ".join(filter(None, [self.task, self.part.replace("_", " ")]))

    def evaluated_on(self, dataset: Dataset, store: "Store") -> list[str]:
        """List the lines that were evaluated on the dataset as it is now."""
        return [
            line
            for line, row in self.rows.items()
            if store.evaluation(row.cell, row.evaluation)["dataset"] == dataset.fingerprint
        ]

    def on(self, dataset: Dataset, store: "Store") -> "Look | None":
        """Leave out lines that were evaluated on other records of the dataset."""
        lines = self.evaluated_on(dataset, store)
        return replace(self, rows={line: self.rows[line] for line in lines}) if lines else None


def _looks(results: Results, store: "Store") -> tuple[list[Look], list[Sentence]]:
    """List what the evaluations say can be looked at, and remark on those that say nothing."""
    if "evaluation" not in results.rows:
        return [], []
    key = ["line", "dataset", "task", "part"]
    first = results.rows.sort_values("seed", kind="stable").drop_duplicates(key)
    shown: dict[tuple[str, str, str], dict[str, tuple[Any, Gallery]]] = defaultdict(dict)
    nothing: dict[str, str] = {}
    outdated: list[Any] = []
    for row, notes in with_notes(first, results.notes):
        note = notes.get("gallery")
        if note is None:
            outdated.append(row)
        elif "none" in note:
            nothing[row.task] = note["none"]
        else:
            shown[row.dataset, row.task, row.part][row.line] = (row, Gallery(**note["shows"]))
    looks = []
    for (dataset, task, part), of_lines in shown.items():
        # Lines side by side need the same examples.
        common = Counter((row.examples, repr(shows)) for row, shows in of_lines.values()).most_common(1)[0][0]
        rows = {line: row for line, (row, shows) in of_lines.items() if (row.examples, repr(shows)) == common}
        looks.append(Look(dataset, task, part, of_lines[next(iter(rows))][1], rows))
    remarks = [Sentence(f"{task}: no examples to look at, as {why}.") for task, why in nothing.items()]
    if outdated:
        tasks = natural({row.task for row in outdated})
        remarks.append(
            Sentence(
                f"{len(outdated)} evaluations ({', '.join(tasks)}) do not say what can be looked at, as they are of an "
                "earlier version. The options of their run repeat them, without training again:",
                command=_repeat(outdated, store.folder),
            )
        )
    return sorted(looks, key=lambda look: (look.dataset, look.title)), remarks


def _repeat(rows: Sequence[Any], folder: Path) -> str:
    """Write the command that evaluates the arms of some rows again."""
    arms = list(dict.fromkeys(row.arm for row in rows if not row.baseline))
    words = ["bench", "run", *(["--suite", rows[0].suite] if getattr(rows[0], "suite", "") else [])]
    words += ["--methods", ",".join(arms)] if arms else []
    words += ["--tasks", ",".join(natural({row.task for row in rows}))]
    words += set_options(str(rows[0].variant), "")
    return shlex.join([*words, "--results", str(folder)])


# Which examples


Reason = str | int
"""Why an example was chosen: "hardest", "random", or the number of the arm of whose order it is at the end."""


def choices(wrong: np.ndarray, lots: np.ndarray, arms: Sequence[int]) -> Iterator[tuple[int, Reason]]:
    """Choose examples, the most important first: the hardest, random ones, and the most wrong of some arms, in turn.

    wrong: [A, n], how wrong each arm is about each example; NaN is not wrong at all. lots: [n], a random permutation,
    by which random examples are drawn, and from whose end those that tie come first. arms: those with examples of
    their own.
    """
    # It takes half a second to import.
    from scipy.stats import rankdata

    wrong = np.where(np.isnan(wrong), -np.inf, wrong)
    hardest = np.lexsort((-lots, rankdata(-wrong, axis=1).mean(axis=0)))
    of_arms = {arm: np.lexsort((-lots, -wrong[arm])) for arm in arms}
    drawn = np.argsort(lots)
    for place in range(min(max(HARDEST, MOST_WRONG, RANDOM), len(lots))):
        if place < HARDEST:
            yield int(hardest[place]), "hardest"
        if place < RANDOM:
            yield int(drawn[place]), "random"
        if place < MOST_WRONG:
            yield from ((int(order[place]), arm) for arm, order in of_arms.items())


def draw_lots(seed: int, dataset: str, images: Sequence[str]) -> np.ndarray:
    """Draw a permutation of examples, int [n], in the order of their images' lots, which are the same in all tasks."""
    lot = {image: stream(seed, "gallery", dataset, image) for image in dict.fromkeys(images)}
    order = np.argsort(np.array([lot[image] for image in images], dtype=np.uint64), kind="stable")
    lots = np.empty(len(order), dtype=np.int64)
    lots[order] = np.arange(len(order))
    return lots


# What is shown of them


@dataclass
class Pool:
    """Values that records refer to by number, each stored once. size: of all values, in bytes of the page."""

    values: list[str] = field(default_factory=list)
    number: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def add(self, key: str, value: str) -> int:
        """Return the number of a value; add it where its key is new."""
        if key not in self.number:
            self.number[key] = len(self.values)
            self.values.append(value)
            self.size += cost(value)
        return self.number[key]

    def cut(self, count: int) -> None:
        """Take away the values that were added after the first ``count``."""
        for key in list(self.number)[count:]:
            self.size -= cost(self.values[self.number.pop(key)])
        del self.values[count:]


def cost(value: Any) -> int:
    """Count the bytes that a value takes in the page, with the comma behind it."""
    return len(str(embedded(value)).encode()) + 1


class Album:
    """The examples of one dataset that the page shows. lines: those that a reader can choose, in the report's order."""

    def __init__(self, dataset: Dataset, looks: Sequence[Look], lines: Sequence[str]) -> None:
        self.dataset = dataset
        self.looks = looks
        self.lines = lines
        self.images, self.texts = Pool(), Pool()
        self.shown: list[dict[str, Any]] = []
        self.left_out = 0
        self._thumbnails: dict[str, str] = {}
        self._used = cost(self._data())

    def fill(self, store: "Store", own: Sequence[str], seed: int, budget: int) -> None:
        """Choose examples of each look and add them, as long as all fit in ``budget`` bytes.

        own: the lines with examples of their own. Where images are the answers, each example shows many: such looks
        come last.
        """
        pages = [page for look in self.looks if (page := Page.of(look, self, store, own, seed)) is not None]
        pages.sort(key=lambda page: page.ranks_images)
        for of_kind in (False, True):
            waiting = [page for page in pages if page.ranks_images == of_kind]
            while waiting:
                waiting = [page for page in waiting if self._turn(page, budget)]
        self.shown = [page.data() for page in pages if page.examples]
        self.left_out = sum(page.left_out for page in pages)

    def _turn(self, page: "Page", budget: int) -> bool:
        """Add the next of a page's choices; return whether it may have more."""
        if not page.waiting:
            return False
        at, reason = page.waiting.pop(0)
        if at in page.examples:
            page.examples[at]["why"].append(reason)
            return True
        counts = len(self.images.values), len(self.texts.values)
        reasons = [reason, *(other for index, other in page.waiting if index == at)]
        record = page.record(at)
        size = cost(record | {"why": reasons})
        if self._used + size + self.images.size + self.texts.size > budget:
            self.images.cut(counts[0])
            self.texts.cut(counts[1])
            left = {at} | {index for index, _ in page.waiting}
            page.left_out = len(left - set(page.examples))
            page.waiting = [(index, why) for index, why in page.waiting if index in page.examples]
            return bool(page.waiting)
        self._used += size + (0 if page.examples else cost(page.data()))
        page.examples[at] = record | {"why": [reason]}
        return True

    def panel(self, name: str, reference: str | None) -> Panel:
        """Lay out the panel. reference: the line shown at the left at first."""
        card = self.dataset.card
        left = reference if reference in self.lines else self.lines[0]
        others = [line for line in self.lines if line != left]
        access = ", ".join(filter(None, [card.access and f"access: {card.access}", card.licence]))
        values = {
            "title": card.title or card.name,
            "about": access,
            "lines": self.lines,
            "chosen": [left, *others[:1]],
            "looks": [each["title"] for each in self.shown],
            "left_out": self.left_out,
        }
        return Panel(name, card.name, "gallery", values, self._data())

    def _data(self) -> dict[str, Any]:
        return {"lines": self.lines, "images": self.images.values, "texts": self.texts.values, "looks": self.shown}

    # The dataset's records

    @cached_property
    def _table(self) -> "pa.Table":
        return self.dataset.table("test")

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image: row for row, image in enumerate(self._table.column("id").to_pylist())}

    def __contains__(self, image: str) -> bool:
        return image in self._row_of

    def entry(self, column: str, image: str) -> Any:
        """Read a column of an image's record."""
        return self._table.column(column)[self._row_of[image]].as_py()

    def text(self, text: str) -> int:
        """Return the number of a text, cut to what is shown."""
        plain = shown(text)
        return self.texts.add(plain, plain)

    def image(self, image: str) -> int:
        """Return the number of an image; -1 for one that cannot be decoded."""
        if image not in self._thumbnails:
            try:
                picture = self.dataset.picture("test", self._row_of[image])
                self._thumbnails[image] = base64.b64encode(thumbnail(picture)).decode()
            except BenchError:
                self._thumbnails[image] = ""
        encoded = self._thumbnails[image]
        return self.images.add(image, encoded) if encoded else -1


def shown(text: str) -> str:
    r"""Write a text in one line of at most ``LONGEST`` characters, control characters as escapes.

    >>> shown("a  \x1b[31mred\nline")
    'a \\x1b[31mred line'
    """
    # Whitespace counts only where it is among the first characters: a text may be of any length.
    plain = " ".join(visible(text[: 2 * LONGEST]).split())
    return plain if len(plain) <= LONGEST and len(text) <= 2 * LONGEST else plain[: LONGEST - 1] + "…"


def thumbnail(picture: Image.Image) -> bytes:
    """Encode an image as JPEG, at most ``SIDE`` pixels a side; a small one is not enlarged."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


class Page:
    """The examples of a look on their way into an album.

    waiting: the choices that are still to be added. examples: the records that were added, by the example's number.
    """

    def __init__(
        self,
        look: Look,
        album: Album,
        ids: np.ndarray,
        chosen: list[tuple[int, Reason]],
        rows: dict[str, "pd.DataFrame"],
    ) -> None:
        """ids: of all examples. rows: by line, the columns of the chosen examples, by the example's number."""
        self.look, self.album, self.ids, self.rows = look, album, ids, rows
        self.waiting = chosen
        self.examples: dict[int, dict[str, Any]] = {}
        self.left_out = 0
        self.candidates: dict[str, np.ndarray] = {}
        self.ranks_images = False

    @classmethod
    def of(cls, look: Look, album: Album, store: "Store", own: Sequence[str], seed: int) -> "Page | None":
        """Choose examples of a look and read their columns.

        None where the store has no scores of examples, or where these are not of images of the test split.
        """
        shows = look.gallery
        orders = {}
        for line, row in look.rows.items():
            frame = store.examples(row.cell, row.evaluation, look.part, ["id", shows.wrong])
            if frame is not None:
                orders[line] = frame
        if not orders:
            return None
        ids = next(iter(orders.values()))["id"].to_numpy()
        images = [image_of(shows, each) for each in ids]
        if not all(image in album for image in images):
            return None
        at = {line: _places(frame["id"].to_numpy(), ids) for line, frame in orders.items()}
        sign = -1.0 if shows.wrong_if == "low" else 1.0
        wrong = np.stack([sign * frame[shows.wrong].to_numpy(float)[at[line]] for line, frame in orders.items()])
        number = {line: index for index, line in enumerate(album.lines)}
        lines = list(orders)
        arms = [index for index, line in enumerate(lines) if line in own]
        lots = draw_lots(seed, album.dataset.card.name, images)
        chosen = [
            (index, number[lines[reason]] if isinstance(reason, int) else reason)
            for index, reason in choices(wrong, lots, arms)
        ]
        wanted = list(dict.fromkeys(index for index, _ in chosen))
        rows = {}
        for line in lines:
            row = look.rows[line]
            frame = store.examples(row.cell, row.evaluation, look.part)
            assert frame is not None
            frame = frame.rename(columns=_shown_column)
            rows[line] = frame.iloc[at[line][wanted]].set_axis(wanted)
        page = cls(look, album, ids, chosen, rows)
        if shows.ranked is not None:
            for line in lines:
                row = look.rows[line]
                other = store.examples(row.cell, row.evaluation, shows.ranked, ["id"])
                page.candidates[line] = other["id"].to_numpy() if other is not None else np.array([])
            parts = {each.part: each.gallery for each in album.looks if each.task == look.task}
            page.ranks_images = shows.ranked in parts and parts[shows.ranked].example == "image"
        return page

    def data(self) -> dict[str, Any]:
        """Lay out the look as data of the page's script."""
        shows, look = self.look.gallery, self.look
        return {
            "title": look.title,
            "wrong": f"{'highest' if shows.wrong_if == 'high' else 'lowest'} {shows.wrong}",
            "example": shows.example,
            "numbers": list(shows.numbers),
            "ranked": "image" if self.ranks_images else "text" if shows.ranked is not None else None,
            "examples": list(self.examples.values()),
        }

    def record(self, at: int) -> dict[str, Any]:
        """Lay out an example: its image, what was asked, what is true, and the answers of the lines."""
        shows, name = self.look.gallery, str(self.ids[at])
        image = image_of(shows, name)
        first = next(iter(self.rows.values())).loc[at]
        record: dict[str, Any] = {"id": shown(name), "image": self.album.image(image)}
        if shows.example != "image":
            asked = self.album.entry("question" if shows.example == "question" else "text", image)
            record["prompt"] = self.album.text(asked[int(name[len(image) + 1 :])])
        if shows.classes:
            record["truth"] = [self.album.text(shows.classes[number]) for number in true_classes(shows.classes, first)]
        elif shows.truth:
            record["truth"] = [self.album.text(str(first[shows.truth]))]
        elif shows.example == "image" and (texts := self.album.entry("text", image)):
            record["truth"] = [self.album.text(text) for text in texts[:MOST_TEXTS]]
        number = {line: index for index, line in enumerate(self.album.lines)}
        record["of"] = {str(number[line]): self._answer(line, frame.loc[at]) for line, frame in self.rows.items()}
        return record

    def _answer(self, line: str, row: "pd.Series[Any]") -> dict[str, Any]:
        """Lay out what a line answered. row: the columns of the example."""
        shows = self.look.gallery
        answer: dict[str, Any] = {}
        if shows.classes:
            scores = np.array([row[f"score/{name}"] for name in shows.classes], dtype=float)
            kept = shown_classes(scores, true_classes(shows.classes, row))
            answer["scores"] = [[self.album.text(shows.classes[c]), _rounded(scores[c])] for c in kept]
        if shows.answer:
            answer["answer"] = self.album.text(str(row[shows.answer]))
        if shows.right:
            answer["right"] = _rounded(row[shows.right])
        if shows.numbers:
            answer["numbers"] = [_rounded(row[column]) for column in shows.numbers.values()]
        if shows.ranked is not None and len(candidates := self.candidates[line]):
            places = [place for place in range(1, 1 + len(candidates)) if f"first/{place}" in row.index]
            answer["first"] = [
                [self._candidate(str(candidates[row[f"first/{place}"]])), int(row[f"first_right/{place}"])]
                for place in places
            ]
        return answer

    def _candidate(self, name: str) -> int:
        """Return the number of the image or of the text that was ranked."""
        if self.ranks_images:
            return self.album.image(name)
        image, _, number = name.rpartition("#")
        return self.album.text(self.album.entry("text", image)[int(number)])


def image_of(shows: Gallery, name: str) -> str:
    """Return the id of the image that an example is about."""
    separator = {"image": "", "text": "#", "question": "/"}[shows.example]
    return str(name).rpartition(separator)[0] if separator else str(name)


def _shown_column(column: str) -> str:
    """Write the class in the name of a column, such as score/CLASS, as the notes of the results have it."""
    kind, slash, name = column.partition("/")
    return f"{kind}{slash}{display_name(name)}"


def true_classes(classes: Sequence[str], row: "pd.Series[Any]") -> list[int]:
    """List the numbers of the classes that hold for an example."""
    if "label" in row.index:
        return [int(row["label"])]
    return [number for number, name in enumerate(classes) if row[f"label/{name}"] == 1]


def shown_classes(scores: np.ndarray, true: Sequence[int]) -> list[int]:
    """Choose the classes to show, by falling score: those with the highest, and the true ones."""
    order = np.argsort(-scores, kind="stable").tolist()
    kept = {*order[:MOST_CLASSES], *true[:MOST_CLASSES]}
    return [number for number in order if number in kept]


def _places(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each of ``wanted`` is among ``ids``, which are the same in another order."""
    if np.array_equal(ids, wanted):
        return np.arange(len(ids))
    order = np.argsort(ids)
    return np.asarray(order[np.searchsorted(ids, wanted, sorter=order)])


def _rounded(value: Any) -> float:
    """Round a number to four digits, to save space."""
    return float(f"{float(value):.4g}")
