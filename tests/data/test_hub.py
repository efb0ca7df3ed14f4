"""Datasets by name, from a hub on this machine: with it, without it, and with what it has to refuse."""

import io
from contextlib import closing

import datasets
import pytest
from PIL import Image

from benchmark.data.sources.hub_dataset import HubDataset
from tests.data.fake_hub import BAD_TOKEN, GATED, fake_hub
from tests.data.hub_worker import NAME, Worker
from tests.data.make import jpeg, write_card

# The default configuration has a name of its own.
README = """---
configs:
- config_name: pairs
  default: true
  data_files:
  - {split: train, path: pairs/train-*.parquet}
  - {split: validation, path: pairs/validation.parquet}
- config_name: other
  data_files: other.parquet
---
"""
NEVER = "0" * 40
NOWHERE = "http://127.0.0.1:1"


def parquet(tag, count=3):
    """Rows that say where they are from; their classes have other numbers than the card's."""
    label = datasets.ClassLabel(names=["benign", "normal"])
    text = datasets.Value("string")
    features = {"image": datasets.Image(), "text": text, "label": label, "question": text, "answer": text}
    rows = {
        "image": [{"bytes": jpeg(seed(f"{tag}{i}")), "path": None} for i in range(count)],
        "text": [f"{tag} {i}" for i in range(count)],
        "label": [i % 2 for i in range(count)],
        "question": ["Is it normal?"] * count,
        "answer": ["yes" if i % 2 else "no" for i in range(count)],
    }
    file = io.BytesIO()
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(file)
    return file.getvalue()


def seed(text):
    return int.from_bytes(text.encode(), "big") % 1000


def files(tag):
    return {
        "README.md": README.encode(),
        "pairs/train-0.parquet": parquet(f"{tag} train a"),
        "pairs/train-1.parquet": parquet(f"{tag} train b", 2),
        "pairs/validation.parquet": parquet(f"{tag} val"),
        "other.parquet": parquet(f"{tag} other"),
    }


def texts(answer, split="train"):
    return [text for _, (text,), *_ in answer["rows"][split]]


def said(tag, count=3):
    return [f"{tag} {i}" for i in range(count)]


def trained(tag):
    return said(f"{tag} train a") + said(f"{tag} train b", 2)


@pytest.fixture(scope="module")
def hub():
    with fake_hub() as hub:
        repository = hub.repository(NAME)
        repository.tags["v1"] = repository.commit(files("first"))
        repository.commit(files("second"))
        repository.commit({"README.md": b""}, "empty")
        hub.repository("clinic/bare").commit({"train.parquet": parquet("bare")})
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def online(hub, folder):
    with closing(Worker(folder, HF_HOME=str(folder / "home"), HF_ENDPOINT=hub.url)) as worker:
        yield worker


@pytest.fixture(scope="module")
def streaming(hub, folder):
    with closing(Worker(folder, HF_HOME=str(folder / "streamed"), HF_ENDPOINT=hub.url)) as worker:
        yield worker


@pytest.fixture(scope="module")
def cards(hub):
    """The first commit comes before the second, which then is the one cached last."""
    return {
        "commit": {"revision": hub.repository(NAME).tags["v1"]},
        "tag": {"revision": "v1"},
        "splits": {"revision": "v1", "splits_of": {"test": "validation", "train": "train[:2]"}},
        "main": {},
        "other": {"config": "other"},
        "bare": {"name": "clinic/bare"},
    }


@pytest.fixture(scope="module")
def loaded(online, cards):
    return {name: online.ask(**card) for name, card in cards.items()}


def test_a_revision_gives_its_rows(loaded):
    assert texts(loaded["commit"]) == trained("first")
    assert texts(loaded["main"]) == trained("second")
    assert loaded["commit"]["fingerprint"] != loaded["main"]["fingerprint"]
    assert loaded["commit"]["fingerprint"] == loaded["tag"]["fingerprint"]
    picture = Image.open(io.BytesIO(jpeg(seed("first train a1"))))
    # By name: "normal" is 1 there and 0 in the card.
    expected = (picture.tobytes(), ["first train a 1"], 0, ["Is it normal?"], ["yes"])
    assert loaded["commit"]["rows"]["train"][1] == expected


def test_configurations_and_splits(online, loaded):
    assert texts(loaded["other"]) == said("second other")
    assert texts(loaded["splits"], "test") == said("first val")
    assert texts(loaded["splits"]) == said("first train a", 2)
    assert texts(loaded["bare"]) == said("bare")
    assert len({answer["fingerprint"] for answer in loaded.values()}) == len(loaded) - 1
    message = f"dataset '{NAME}': unknown config 'othr'; did you mean 'other'? Known: other, pairs"
    assert online.error(config="othr") == message
    for streaming in (False, True):
        found = online.error(splits_of={"train": "trian"}, revision="main", streaming=streaming)
        assert found == f"dataset '{NAME}': unknown split 'trian'; did you mean 'train'? Known: train, validation"


@pytest.fixture(params=["offline", "unreachable"])
def alone(request, folder, loaded):
    """What was loaded, but no hub: the worker, and the reason that it should give."""
    reasons = {"offline": "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set", "unreachable": f"no answer from {NOWHERE}"}
    offline = {"HF_HUB_OFFLINE": "1"} if request.param == "offline" else {}
    with closing(Worker(folder, HF_HOME=str(folder / "home"), HF_ENDPOINT=NOWHERE, **offline)) as worker:
        yield worker, reasons[request.param]


def test_what_was_loaded_is_there_without_the_hub(alone, cards, loaded):
    worker, reason = alone
    for card in cards.values():
        assert worker.ask(look=True, **card) == {"found": True, "imported": False}
    for card in (
        {"name": "clinic/none"},
        {"name": "clinic/chestpairs"},
        {"revision": NEVER},
        {"revision": "v2"},
        {"config": "nothing"},
        {"revision": "v1", "config": "other"},
    ):
        assert worker.ask(look=True, **card) == {"found": False, "imported": False}
    for name, card in cards.items():
        assert worker.ask(**card) == loaded[name] | {"found": True}
    for card, name, wanted in (
        ({"name": "clinic/none"}, "clinic/none", "revision 'main'"),
        ({"revision": NEVER}, NAME, f"revision '{NEVER}'"),
        ({"config": "other", "revision": "v1"}, NAME, "config 'other' at revision 'v1'"),
    ):
        assert worker.error(**card) == (
            f"dataset '{name}', split 'train': neither in the local cache nor reachable ({reason}): "
            f"load {wanted} once with network: bench data check CARD"
        )


def test_streaming(hub, streaming, loaded):
    before = list(hub.asked)
    validation = {"revision": "v1", "streaming": True, "splits_of": {"test": "validation"}}
    for revision in ("v1", hub.repository(NAME).tags["v1"]):
        never = validation | {"revision": revision}
        assert streaming.ask(look=True, **never) == {"found": False, "imported": False}
        assert hub.asked == before
    assert texts(streaming.ask(**validation), "test") == said("first val")
    assert not any("train-1.parquet" in line for line in hub.asked[len(before) :])
    assert streaming.ask(look=True, **validation)["found"]
    assert streaming.ask(revision="v1", streaming=True)["rows"] == loaded["tag"]["rows"]
    assert streaming.ask("clinic/bare", streaming=True)["rows"] == loaded["bare"]["rows"]
    kept = {path.suffix for path in streaming.folder.glob("streamed/**/*")}
    assert ".md" in kept
    assert not kept & {".parquet", ".arrow"}


@pytest.mark.parametrize("streamed", [True, False])
def test_a_branch_that_moves(hub, streaming, streamed):
    name = f"clinic/moving-{streamed}"
    answers = []
    for tag in ("one", "two"):
        hub.repository(name).commit({"train.parquet": parquet(tag)})
        answers.append(streaming.ask(name, streaming=streamed, records=name))
        assert texts(answers[-1]) == said(tag)
    one, two = (answer["fingerprint"] for answer in answers)
    assert one != two
    hub.repository(name).branches["main"] = next(iter(hub.repository(name).commits))
    assert streaming.ask(name, streaming=streamed, records=name) == answers[0] | {"found": True}


def test_a_commit_is_looked_up_once(tmp_path, monkeypatch):
    """So that rows are never of another commit than their fingerprint."""
    commits = iter(["1" * 40, "2" * 40])
    monkeypatch.setattr(HubDataset, "_ask", lambda _: "")
    monkeypatch.setattr(HubDataset, "_last_commit", lambda _: next(commits))
    source = {"kind": "hub", "name": NAME, "splits_of": {"train": "train"}, "columns": {"image": "image"}}
    card = write_card(tmp_path, source)
    assert card.source.fingerprint() == card.source.fingerprint()


def test_what_was_streamed_is_in_our_own_cache(hub, streaming):
    card = {"name": "clinic/kept", "streaming": True}
    hub.repository("clinic/kept").commit({"train.parquet": parquet("kept")})
    kept = streaming.ask(records="kept", **card)
    home = str(streaming.folder / "streamed")
    with closing(Worker(streaming.folder, HF_HOME=home, HF_HUB_OFFLINE="1")) as offline:
        assert offline.ask(records="kept", **card) == kept | {"found": True}
        assert "neither in the local cache nor reachable" in offline.error(records="other", **card)


def test_what_the_hub_refuses(hub, online):
    login = "log in with 'hf auth login' or set HF_TOKEN"
    refused = {
        "none": f"unknown to {hub.url}, or private: check the name, or {login}",
        "gated": f"is gated: accept its terms on {hub.url}/datasets/clinic/gated, and {login}",
        "readable": f"is gated: accept its terms on {hub.url}/datasets/clinic/readable, and {login}",
        "token": f"the hub refuses access (401): {login}",
    }
    hub.repository("clinic/gated").closed = hub.repository("clinic/readable").closed = GATED
    hub.repository("clinic/token").closed = BAD_TOKEN
    hub.repository("clinic/readable").commit(files("readable"))
    hub.repository("clinic/readable").readable = True
    for name, message in refused.items():
        assert online.error(f"clinic/{name}") == f"dataset 'clinic/{name}', split 'train': {message}"
    hub.repository("clinic/two").commit({"train.parquet": b""})
    hub.repository("clinic/two").tags["v1"] = NEVER
    for revision, near in (("v2", "; did you mean 'v1'?"), ("9" * 40, ".")):
        message = f"unknown revision '{revision}'{near} Known: main, v1"
        found = online.error("clinic/two", revision=revision, splits_of={"train": "a", "test": "b"})
        assert found == f"dataset 'clinic/two', splits 'a', 'b': {message}"


def test_no_other_rows_than_those_asked_for(hub, online, loaded):
    """Where a commit cannot be loaded, ``datasets`` reads a folder of that name, or another commit that is cached."""
    found = online.error(revision="empty")
    assert found.startswith(f"dataset '{NAME}', split 'train': cannot be loaded: EmptyDatasetError: ")
    here = online.folder / "clinic" / "here"
    here.mkdir(parents=True)
    (here / "train.parquet").write_bytes(parquet("folder"))
    commit = hub.repository("clinic/here").commit({"train.parquet": parquet("hub")})
    found = online.error("clinic/here")
    assert found == f"dataset 'clinic/here': expected commit {commit}; found the folder {here}"


def test_no_code_is_run(hub, online, loaded):
    code = f"open({str(online.folder / 'run')!r}, 'w')".encode()
    repository = hub.repository(NAME)
    repository.commit(files("script") | {"ChestPairs.py": code}, "script")
    for streaming in (False, True):
        assert online.error(revision="script", streaming=streaming) == (
            f"dataset '{NAME}': its rows come from a script, ChestPairs.py, and code in a dataset is never run; "
            "if the hub has converted it to Parquet, set 'revision: refs/convert/parquet'"
        )
    assert not (online.folder / "run").exists()
    assert not any(line.startswith("GET") and line.endswith("ChestPairs.py") for line in hub.asked)
    repository.commit({"default/train/0000.parquet": parquet("converted")}, "refs/convert/parquet")
    assert texts(online.ask(revision="refs/convert/parquet")) == said("converted")


def test_files_that_are_broken(hub, online):
    broken = parquet("broken")[:-100] + b"0" * 100
    hub.repository("clinic/broken").commit({"train-0.parquet": parquet("good"), "train-1.parquet": broken})
    assert online.error("clinic/broken").startswith("dataset 'clinic/broken', split 'train': cannot be loaded: ")
    assert online.error("clinic/broken", streaming=True).startswith("clinic/broken, train, row 4: cannot be read: ")
