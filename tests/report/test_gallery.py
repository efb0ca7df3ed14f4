"""The gallery of examples: which are chosen, against loops, and what the page may hold of them."""

import base64
import json
import os
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset
from benchmark.evaluation.measurement import Gallery
from benchmark.report.render import Panel, Sentence
from benchmark.report.sections import read_results
from benchmark.report.web import gallery as module
from benchmark.report.web.gallery import choices, draw_lots, gallery, shown, thumbnail
from benchmark.report.web.page import Chapter, WebPage, embedded
from benchmark.store.store import Store

from .browsing import Opened, needs_chromium

HOSTILE = "<script>alert(1)</script> \x1b[31mred ‮ *bold* =1+1 & " + "x" * 100_000
SETTING = "training.samples=9"
CLASSES = ("normal", "benign", "malignant")
IMAGES = 12


def name_of(i: int) -> str:
    """The path of an image, which is its id."""
    return f"scan/{i:02}.png"


def number_of(name: str) -> int:
    return int(name.removeprefix("scan/")[:2])


def texts_of(i: int) -> list[str]:
    return [HOSTILE] if i == IMAGES - 1 else [f"report {i}", f"addendum {i}"]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """Twelve images with texts, labels and questions; the last has hostile ones."""
    folder = tmp_path / "data"
    (folder / "scan").mkdir(parents=True)
    rows = []
    for i in range(IMAGES):
        blocks = np.random.default_rng(i).integers(0, 256, (5, 10, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((200, 100), Image.Resampling.NEAREST).save(folder / name_of(i))
        asked = {"question": [f"what {i}?", f"where {i}?"], "answer": ["yes", "here"]}
        row = {"image": name_of(i), "split": "test", "group": f"p{i}", "text": texts_of(i), "label": CLASSES[i % 3]}
        rows.append(row | asked | {"answer_type": ["closed", "open"]})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = ["image", "group", "split", "text", "label", "question", "answer", "answer_type"]
    fields = {
        "title": "Scans",
        "classes": list(CLASSES),
        "access": "open",
        "source": {"kind": "manifest", "file": "rows.jsonl", "columns": {name: name for name in names}},
    }
    (folder / "scans.yaml").write_text(yaml.safe_dump(fields))
    return folder / "scans.yaml"


def restrict(card: Path, access: str) -> None:
    card.write_text(yaml.safe_dump(yaml.safe_load(card.read_text()) | {"access": access}))


class Study:
    """A results folder with hand-made evaluations of two arms."""

    def __init__(self, folder: Path, card: Path) -> None:
        self.store, self.card, self.cache = Store(folder / "results"), card, folder / "cache"
        self.store.create()
        self.fingerprint = open_dataset(load_card(card), cache=self.cache).fingerprint
        self.store.keep_datasets({"scans": {"card": str(card), "on_bad_data": "error"}})

    def add(self, arm: str, task: str, parts: dict[str, tuple[Any, dict[str, np.ndarray]]], seed: int = 0) -> None:
        """parts: by name, the note about what can be looked at (None: as earlier versions wrote it) and the columns."""
        label = {
            "suite": "s",
            "model": "tiny",
            "arm": arm,
            "method": arm,
            "variant": "training.samples=9",
            "seed": seed,
        }
        key = f"{arm}{seed}"
        if not self.store.finished(key):
            self.store.partial(key).mkdir(parents=True)
            self.store.finish(key, {"label": label, "content": {}}, {"seconds": 1.0, "samples": 9})
        numbers = {"metric": "m", "value": 0.5, "low": 0.4, "high": 0.6, "n": IMAGES, "groups": IMAGES}
        more = {"effective_groups": 12.0, "scarcest": None, "chance": 0.1, "majority": None, "primary": True}
        about = {"dataset": "scans", "task": task, "cell": key, "evaluation": f"{task}-scans", "start": None}
        about |= {"raw_pixels": None} | label
        rows: list[Any] = [about | numbers | more | {"part": part, "examples": f"{task} {part}"} for part in parts]
        notes = {part: {} if note is None else {"gallery": note} for part, (note, _) in parts.items()}
        columns = {part: each for part, (_, each) in parts.items()}
        content = {"dataset": self.fingerprint}
        self.store.add_evaluation(key, f"{task}-scans", content, rows, columns, {}, notes)

    def parts(self, **options: Any) -> list[Panel | Sentence]:
        store = self.store
        results = read_results(store.rows(), store.costs(), store.notes, store.resamples, None)
        assert results is not None
        return list(gallery(results, store, cache=self.cache, **options))


IDS = np.array([name_of(i) for i in range(IMAGES)])
SCORES = {
    "a": np.random.default_rng(1).normal(size=(IMAGES, 3)),
    "b": np.random.default_rng(2).normal(size=(IMAGES, 3)),
}
WRONG = {arm: np.random.default_rng(number).permutation(IMAGES).astype(float) for number, arm in enumerate("ab")}


def shows(*arguments: Any, **options: Any) -> dict[str, Any]:
    return {"shows": asdict(Gallery(*arguments, **options))}


def classified(arm: str) -> tuple[Any, dict[str, np.ndarray]]:
    columns = {"id": IDS, "group": IDS, "wrong": WRONG[arm], "label": np.arange(IMAGES) % 3, "right": np.zeros(IMAGES)}
    columns |= {f"score/{name}": SCORES[arm][:, c] for c, name in enumerate(CLASSES)}
    return shows("wrong", classes=CLASSES, right="right"), columns


@pytest.fixture
def study(tmp_path: Path, card: Path) -> Study:
    made = Study(tmp_path, card)
    for arm in "ab":
        made.add(arm, "naming", {"": classified(arm)})
    return made


def panels(parts: list[Panel | Sentence]) -> list[Panel]:
    return [part for part in parts if isinstance(part, Panel)]


def sentences(parts: list[Panel | Sentence]) -> str:
    return " ".join(part.text for part in parts if isinstance(part, Sentence))


def page(parts: list[Panel | Sentence], folder: Path) -> str:
    web = WebPage("Report")
    web.add(Chapter("look", "Look", parts))
    return web.write(folder / "index.html", "").read_text()


# Which examples


def worst_first(wrong: list[float], lots: list[int]) -> list[int]:
    """Of those that tie, the one drawn last comes first."""
    return sorted(range(len(wrong)), key=lambda i: (-wrong[i], -lots[i]))


def mean_rank(wrong: np.ndarray, i: int) -> float:
    """Of an example, over arms; 1 is the most wrong, and those that tie share the mean of their ranks."""
    above = [(of_arm > of_arm[i]).sum() for of_arm in wrong]
    tied = [(of_arm == of_arm[i]).sum() for of_arm in wrong]
    return float(np.mean([a + (t + 1) / 2 for a, t in zip(above, tied)]))


@pytest.mark.parametrize("seed", range(4))
def test_choices_are_those_of_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    wrong = random.integers(0, 4, (3, 9)).astype(float)
    wrong[1, 4] = np.nan
    lots = random.permutation(9)
    chosen = list(choices(wrong, lots, [0, 2]))
    plain = np.where(np.isnan(wrong), -1.0, wrong)
    hardest = worst_first([-mean_rank(plain, i) for i in range(9)], lots.tolist())
    assert [i for i, why in chosen if why == "hardest"] == hardest[: module.HARDEST]
    assert [i for i, why in chosen if why == "random"] == np.argsort(lots)[: module.RANDOM].tolist()
    for arm in (0, 2):
        of_arm = worst_first(plain[arm].tolist(), lots.tolist())
        assert [i for i, why in chosen if why == arm] == of_arm[: module.MOST_WRONG]
    assert {why for _, why in chosen} == {"hardest", "random", 0, 2}
    # One of each kind comes before the second of any.
    assert [why for _, why in chosen[:4]] == ["hardest", "random", 0, 2]


def test_lots_follow_the_image_and_the_seed() -> None:
    images = [f"i{k}" for k in range(40)]
    first = [images[i] for i in np.argsort(draw_lots(0, "scans", images))]
    assert sorted(first) == sorted(images)
    assert first != images
    fewer = images[::-2]
    assert [fewer[i] for i in np.argsort(draw_lots(0, "scans", fewer))] == [each for each in first if each in fewer]
    assert first != [images[i] for i in np.argsort(draw_lots(1, "scans", images))]
    twice = draw_lots(0, "scans", ["i0", "i1", "i0"])
    assert abs(twice[0] - twice[2]) == 1


def test_the_same_seed_chooses_the_same(study: Study) -> None:
    first, again, other = (panels(study.parts(seed=seed))[0].data for seed in (0, 0, 1))
    assert first == again
    every = (data["looks"][0]["examples"] for data in (first, other))
    drawn = [[each["id"] for each in examples if "random" in each["why"]] for examples in every]
    assert len(drawn[0]) == len(drawn[1]) == module.RANDOM
    assert drawn[0] != drawn[1]


# What is shown of them


def opened(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded)))


@pytest.mark.parametrize(("size", "mode"), [((200, 100), "RGB"), ((40, 30), "L"), ((10, 3000), "RGB")])
def test_thumbnails_are_small_and_never_enlarged(size: tuple[int, int], mode: str) -> None:
    picture = Image.new(mode, size)
    small = Image.open(BytesIO(thumbnail(picture)))
    assert small.format == "JPEG"
    assert small.mode == mode
    assert max(small.size) == min(module.SIDE, max(size))
    assert picture.size == size


def test_images_are_those_of_the_examples(study: Study) -> None:
    data = panels(study.parts())[0].data
    for example in data["looks"][0]["examples"]:
        true = Image.open(study.card.parent / example["id"]).resize((96, 48), Image.Resampling.BOX)
        found = np.asarray(opened(data["images"][example["image"]]).convert("RGB"), float)
        assert found.shape == (48, 96, 3)
        assert np.corrcoef(found.ravel(), np.asarray(true, float).ravel())[0, 1] > 0.8


def test_scores_of_both_arms_stand_with_the_truth(study: Study) -> None:
    data = panels(study.parts())[0].data
    (look,) = data["looks"]
    assert data["lines"] == ["a", "b"]
    assert look["wrong"] == "highest wrong"
    for example in look["examples"]:
        i = number_of(example["id"])
        assert [data["texts"][each] for each in example["truth"]] == [CLASSES[i % 3]]
        for number, arm in enumerate("ab"):
            answer = example["of"][str(number)]
            scores = {data["texts"][c]: score for c, score in answer["scores"]}
            assert scores == pytest.approx(dict(zip(CLASSES, SCORES[arm][i])), rel=1e-3)
            assert list(scores.values()) == sorted(scores.values(), reverse=True)
            assert answer["right"] == 0
    for number, arm in enumerate("ab"):
        worst = [IDS[i] for i in np.argsort(-WRONG[arm])[: module.MOST_WRONG]]
        assert {each["id"] for each in look["examples"] if number in each["why"]} == set(worst)


def test_the_true_class_is_shown_beside_the_highest() -> None:
    scores = np.array([0.1, 0.9, 0.3, 0.3, 0.8, 0.7, 0.6, -np.inf])
    by_hand = sorted(range(8), key=lambda c: (-scores[c], c))
    assert module.shown_classes(scores, [7]) == [*by_hand[: module.MOST_CLASSES], 7]
    assert module.shown_classes(scores, [1]) == by_hand[: module.MOST_CLASSES]


def ranked_texts() -> dict[str, tuple[Any, dict[str, np.ndarray]]]:
    """Texts of images and images of texts, ranked by hand: image i gets texts i, i + 1, ... of the images."""
    text_ids = np.array([f"{each}#0" for each in IDS])
    firsts = {f"first/{k + 1}": (np.arange(IMAGES) + k) % IMAGES for k in range(2)}
    right = {f"first_right/{k + 1}": np.full(IMAGES, k == 0) for k in range(2)}
    columns = {"group": IDS, "rank": np.arange(IMAGES) + 1.0, **firsts, **right}
    gallery_of = {"numbers": {"rank": "rank"}}
    return {
        "texts": (shows("rank", ranked="images", **gallery_of), {"id": IDS, **columns}),
        "images": (shows("rank", example="text", ranked="texts", **gallery_of), {"id": text_ids, **columns}),
    }


def test_first_answers_are_the_texts_and_images_that_were_ranked(study: Study) -> None:
    for arm in "ab":
        study.add(arm, "finding", ranked_texts())
    data = panels(study.parts())[0].data
    looks = {look["title"]: look for look in data["looks"]}
    for example in looks["finding, texts"]["examples"]:
        i = number_of(example["id"])
        assert [data["texts"][each] for each in example["truth"]] == [shown(text) for text in texts_of(i)]
        answer = example["of"]["0"]
        expected = [(shown(texts_of(i)[0]), 1), (shown(texts_of((i + 1) % IMAGES)[0]), 0)]
        assert [(data["texts"][text], right) for text, right in answer["first"]] == expected
        assert answer["numbers"] == [i + 1]
    images = {example["id"]: example["image"] for look in data["looks"] for example in look["examples"]}
    for example in looks["finding, images"]["examples"]:
        i = number_of(example["id"])
        assert data["texts"][example["prompt"]] == shown(texts_of(i)[0])
        (first, right), (second, wrong) = example["of"]["1"]["first"]
        assert (first, right, wrong) == (example["image"], 1, 0)
        assert second == images.get(name_of((i + 1) % IMAGES), second)
    assert len(data["images"]) == len(set(data["images"])) <= IMAGES


def test_questions_and_captions_stand_with_the_true_ones(study: Study) -> None:
    asked = np.array([f"{each}/{number}" for each in IDS for number in range(2)])
    columns = {"id": asked, "group": asked, "true": asked, "score": np.arange(2.0 * IMAGES)}
    note = shows("score", "low", "question", answer="said", truth="true")
    study.add("a", "asking", {"": (note, columns | {"said": np.full(2 * IMAGES, "maybe")})})
    columns = {"id": IDS, "group": IDS, "score": np.arange(1.0 * IMAGES), "said": np.full(IMAGES, HOSTILE)}
    study.add("b", "writing", {"": (shows("score", "low", answer="said"), columns)})
    data = panels(study.parts())[0].data
    looks = {look["title"]: look for look in data["looks"]}
    for example in looks["asking"]["examples"]:
        number = example["id"][-1]
        assert data["texts"][example["prompt"]] == f"{('what', 'where')[int(number)]} {number_of(example['id'])}?"
        assert [data["texts"][each] for each in example["truth"]] == [example["id"]]
        assert [data["texts"][answer["answer"]] for answer in example["of"].values()] == ["maybe"]
    assert looks["asking"]["examples"][0]["id"] == "scan/00.png/0"
    example = looks["writing"]["examples"][0]
    assert example["of"].keys() == {"1"}
    assert data["texts"][example["of"]["1"]["answer"]] == shown(HOSTILE)


def test_hostile_texts_are_short_and_escaped(study: Study, tmp_path: Path) -> None:
    short = shown(HOSTILE)
    assert len(short) == module.LONGEST
    assert "\x1b" not in short
    assert "‮" not in short
    assert shown("a" * module.LONGEST) == "a" * module.LONGEST
    for arm in "ab":
        study.add(arm, "finding", ranked_texts())
    text = page(study.parts(), tmp_path)
    assert r"\u003cscript\u003ealert(1)" in text
    assert "<script>alert" not in text


# What may be shown at all


def all_of(parts: list[Panel | Sentence], folder: Path) -> str:
    text = page(parts, folder)
    for secret in ("report 1", "scan/0", "data:image", "/9j/", "what 1?"):
        assert secret not in text.partition('<script type="application/json"')[2].partition("</script>")[0]
    return sentences(parts)


@pytest.mark.parametrize("access", ["registration", "credentialed"])
def test_restricted_data_stay_out(study: Study, tmp_path: Path, access: str) -> None:
    assert panels(study.parts())
    restrict(study.card, access)
    parts = study.parts()
    assert not panels(parts)
    assert f"scans ({access})" in all_of(parts, tmp_path)


def test_no_images_leaves_everything_out(study: Study, tmp_path: Path) -> None:
    parts = study.parts(images=False)
    assert not panels(parts)
    assert "--no-images" in all_of(parts, tmp_path)


def test_data_that_are_gone_or_changed_give_a_sentence(study: Study) -> None:
    rows = (study.card.parent / "rows.jsonl").read_text()
    (study.card.parent / "rows.jsonl").write_text(rows.replace("report 5", "another"))
    parts = study.parts()
    assert not panels(parts)
    assert "scans (it has changed since it was evaluated" in sentences(parts)
    (study.card.parent / "rows.jsonl").unlink()
    assert "scans (not found on this machine" in sentences(study.parts())
    study.card.unlink()
    assert "no such file" in sentences(study.parts())


def test_an_image_that_cannot_be_decoded_is_left_blank(study: Study) -> None:
    study.parts()
    path = study.card.parent / "scan/00.png"
    state = path.stat()
    path.write_bytes(b"x" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    (example,) = (each for each in panels(study.parts())[0].data["looks"][0]["examples"] if each["id"] == "scan/00.png")
    assert example["image"] == -1


def test_tasks_without_examples_say_why_and_old_ones_how_to_repeat_them(study: Study) -> None:
    study.add("a", "sampling", {"": ({"none": "it draws"}, {"id": IDS, "group": IDS})})
    study.add("b", "old", {"": (None, {"id": IDS, "group": IDS})})
    parts = study.parts()
    assert "sampling: no examples to look at, as it draws." in sentences(parts)
    (command,) = (part.command for part in parts if isinstance(part, Sentence) and part.command)
    assert command.startswith("bench run --suite s --methods b --tasks old --set training.samples=9 --results ")


def test_the_first_seed_is_shown(study: Study) -> None:
    note, columns = classified("a")
    study.add("a", "naming", {"": (note, columns | {"score/normal": np.full(IMAGES, 99.0)})}, seed=1)
    (look,) = panels(study.parts())[0].data["looks"]
    scores = [score for each in look["examples"] for of in each["of"].values() for _, score in of["scores"]]
    assert max(scores) < 99


def size(parts: list[Panel | Sentence]) -> int:
    return sum(len(str(embedded(panel.data)).encode()) for panel in panels(parts))


def test_panels_keep_to_the_budget(study: Study) -> None:
    everything = study.parts()
    (panel,) = panels(study.parts(budget=size(everything) // 2))
    assert 0 < size([panel]) <= size(everything) // 2
    assert panel.values["left_out"] > 0
    kept = {each["id"] for each in panel.data["looks"][0]["examples"]}
    every = {each["id"] for each in panels(everything)[0].data["looks"][0]["examples"]}
    assert kept < every
    assert panel.values["left_out"] == len(every - kept)
    assert not panels(study.parts(budget=10))


@needs_chromium
def test_two_arms_stand_side_by_side_in_a_browser(study: Study, tmp_path: Path, browser: Any) -> None:
    parts = study.parts()
    data = panels(parts)[0].data
    page(parts, tmp_path)
    opened = Opened(browser, tmp_path / "index.html")
    opened.open_all()
    window = opened.window
    cards = window.locator(".gallery > *")
    assert cards.count() == len(data["looks"][0]["examples"])
    assert cards.first.locator(".gallery-line").all_inner_texts() == ["a", "b"]
    assert cards.first.locator("img").count() == 1
    right = window.locator("[data-choice=right]")
    right.focus()
    right.select_option("0")
    assert set(window.locator(".gallery-line").all_inner_texts()) == {"a"}
    right.select_option("1")
    window.locator("[data-choice=which]").select_option("hardest")
    hardest = [each for each in data["looks"][0]["examples"] if "hardest" in each["why"]]
    assert cards.count() == len(hardest) < len(data["looks"][0]["examples"])
    assert opened.said == []
