"""`bench data get`, with a host on this machine."""

import gzip
import io
import json
import shutil
import sys
import zipfile
from hashlib import md5

import pytest
import yaml
from filelock import FileLock
from rich.console import Console

from benchmark.cli import data as commands
from benchmark.cli import main as cli
from benchmark.common.errors import BenchError
from benchmark.common.progress import Progress
from benchmark.data.card import Get, card_names, load_card
from benchmark.data.tools import get as module
from benchmark.data.tools import unpack
from benchmark.data.tools.download import Patience
from benchmark.data.tools.get import ask, block_of, fetch, missing_files
from tests.data.make import PAIRS, pairs, write_card, write_jsonl
from tests.data.published.layouts import WRITERS
from tests.data.tools.host import host

QUICK = Patience(timeout=0.3, attempts=2, pause=0.001)
WITH_FILES = [name for name in card_names() if load_card(name).get]
TO_BE_OPEN = {
    *("pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist"),
    *("bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist", "ham10000", "pad-ufes-20", "pcam"),
    *("nct-crc-he", "nct-crc-he-8", "lc25000-colon", "lc25000-lung", "bach", "sicapv2", "vqa-rad", "path-vqa"),
    *("slake", "rocov2", "pmc-oa"),
    *("ham10000-text", "pneumoniamnist-28", "retinamnist-28", "breastmnist-28", "bloodmnist-28"),
}


@pytest.fixture
def files():
    with host() as server:
        yield server


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs a command; gives its exit status, what it printed and its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(commands.typer, "get_app_dir", lambda name: str(tmp_path / "config"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def packed(path, kind, top=""):
    """What a host offers for what shall be at ``path``. top: the folder that its archive has around everything."""
    if kind == "gz":
        return gzip.compress(path.read_bytes())
    if kind is None:
        return path.read_bytes() if path.exists() else b"another part"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in tree(path).items():
            archive.writestr(f"{top}{name}", data)
    return content.getvalue()


def own(folder, files, name="own", **extra):
    """A card of a table and an archive of images on the host, whose files are removed from ``folder``."""
    source = folder / "source"
    rows = pairs(source)
    write_jsonl(source / "rows.jsonl", rows)
    table, images = (source / "rows.jsonl").read_bytes(), packed(source / "images", "zip", "images/")
    files.offer("/set/rows.jsonl", table)
    files.offer("/set/images.zip", images)
    shutil.rmtree(source)
    listed = [
        {"file": "rows.jsonl", "to": f"{name}/rows.jsonl", "bytes": len(table), "md5": md5(table).hexdigest()},
        {"file": "images.zip", "to": f"{name}/images", "unpack": "zip", "holds": "*.png", "bytes": len(images)},
    ]
    columns = {**PAIRS, "image": "image"}
    write_card(
        folder,
        {"kind": "manifest", "file": f"{name}/rows.jsonl", "image_root": name, "columns": columns},
        name,
        **{"get": {"at": f"{files.url}/set", "files": listed}, "licence": "CC BY 4.0", "title": "A set", **extra},
    )
    return folder / f"{name}.yaml"


# The cards of the open sets


def test_the_open_sets_can_be_got():
    assert set(WITH_FILES) == TO_BE_OPEN
    for name in WITH_FILES:
        card = load_card(name)
        assert card.access == "open"
        for each in block_of(card).files:
            # Of the files of 28 pixels only the checksums were at hand.
            assert each.bytes or not (each.md5 or each.sha256) or name in ("bach", "pcam") or name.endswith("-28")
            if card.source.kind == "npz":
                assert each.md5


@pytest.mark.parametrize("name", WITH_FILES)
def test_what_a_card_gets_is_the_layout_that_it_reads(files, tmp_path, monkeypatch, name):
    data = tmp_path / "data"
    data.mkdir()
    WRITERS[name](data)
    card = load_card(name)
    served = []
    for number, each in enumerate(block_of(card).files):
        content = packed(data / each.to, each.unpack, "release 1/" if each.holds else "")
        files.offer(f"/files/{number}", content)
        served.append(
            each.model_copy(
                update={"file": str(number), "bytes": len(content), "md5": md5(content).hexdigest(), "sha256": None}
            )
        )
    before = {path: content for path, content in tree(data).items() if "NONORM" not in path}  # which nothing reads
    shutil.rmtree(data)
    monkeypatch.setenv("BENCH_DATA", str(data))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    card = card.model_copy(update={"get": Get(at=f"{files.url}/files", files=served)})
    assert not card.source.is_present()
    fetch(card, ask(card, data, QUICK), data, Progress(Console(quiet=True)), QUICK)
    assert card.source.is_present()
    assert missing_files(card, data) == []
    after = tree(data)
    if name == "path-vqa":  # Its miniature has other parts.
        after = {path: content for path, content in after.items() if path in before}
        before = {path: content for path, content in before.items() if path in after}
    assert after == before


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"files": [{"file": "a", "to": "a"}]}, "'at' is missing, so each 'file' must be a URL"),
        ({"at": "ftp://host", "files": [{"file": "a", "to": "a"}]}, "at: expected https://... or hub:"),
        ({"at": "hub:a/b@main", "files": [{"file": "a", "to": "a"}]}, "hub:OWNER/NAME@COMMIT (40 digits)"),
        ({"at": "https://h", "files": [{"file": "a", "to": "../a"}]}, "expected a path below $BENCH_DATA"),
        ({"at": "https://h", "files": [{"file": "a", "to": "/a"}]}, "expected a path below $BENCH_DATA"),
        (
            {"at": "https://h", "files": [{"file": "a", "to": "a"}, {"file": "b", "to": "a"}]},
            "another file goes to 'a'",
        ),
        (
            {"at": "https://h", "files": [{"file": "a", "to": "a", "unpack": "zip"}, {"file": "b", "to": "a/b"}]},
            "another file goes to 'a'",
        ),
        ({"at": "https://h", "files": [{"file": "a", "to": "a", "md5": "12"}]}, "md5"),
        ({"at": "https://h", "files": [{"file": "a", "to": "a", "holds": "b"}]}, "'holds' needs 'unpack"),
        ({"at": "https://h", "files": []}, "files"),
    ],
)
def test_a_block_that_cannot_be_right(tmp_path, block, message):
    with pytest.raises(BenchError) as raised:
        write_card(tmp_path, {"kind": "manifest", "file": "rows.jsonl", "columns": PAIRS}, get=block)
    assert message in str(raised.value)


# The command


def test_get(bench, tmp_path, files):
    card = own(tmp_path, files)
    status, _, err = bench("check", card)
    assert status == 2
    assert err.rstrip().endswith(f"; get it with: bench data get {card}")
    status, out, err = bench("get", card)
    assert status == 2
    assert "CC BY 4.0" in out
    assert err == "error: the licences of own are not accepted yet: read them, then pass --accept-licence\n"
    assert files.gets() == []
    status, out, _ = bench("get", card, "--accept-licence", "--progress", "none")
    assert status == 0
    assert f"own: is in {tmp_path / 'data'}; next: bench data verify {card}" in out
    assert len(files.gets()) == 2
    assert bench("check", card)[0] == 0
    assert {path.name for path in (tmp_path / "data" / "own").iterdir()} == {"rows.jsonl", "images"}
    # Neither the files nor the licence are asked for again, nor is what is there touched.
    (tmp_path / "data" / "own" / "rows.jsonl").unlink()
    assert bench("get", card)[0] == 0
    assert len(files.gets()) == 3
    assert f"own: already in {tmp_path / 'data'}" in bench("get", card)[1]
    # Another licence is.
    card.write_text(card.read_text().replace("CC BY 4.0", "CC BY-NC 4.0"))
    (tmp_path / "data" / "own" / "rows.jsonl").unlink()
    assert "not accepted yet" in bench("get", card)[2]


@pytest.mark.parametrize(("answer", "status"), [(True, 0), (False, 1)])
def test_a_user_is_asked_once(bench, tmp_path, files, monkeypatch, answer, status):
    cards = [own(tmp_path, files), own(tmp_path, files, "other")]
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(commands.console, "_force_terminal", True)
    monkeypatch.setattr(commands.typer, "confirm", lambda text: asked.append(text) or answer)
    assert bench("get", *cards)[0] == status
    assert asked == ["Do you accept the licences of own, other?"]
    assert (tmp_path / "data").exists() == answer
    assert bench("get", *cards)[0] == status
    assert len(asked) == (1 if answer else 2)


def test_several_and_one_by_hand(bench, tmp_path, files):
    card = own(tmp_path, files)
    status, out, _ = bench("get", "vindr-cxr", card, "roco", "phantom-cxr", "--accept-licence")
    assert status == 1
    assert (tmp_path / "data" / "own" / "images").is_dir()
    assert "1. Become a credentialed PhysioNet user" in out
    assert out.splitlines()[-2:] == [
        "vindr-cxr: needs credentials; follow its steps, then bench data check vindr-cxr",
        "roco: no command downloads it; follow its steps, then bench data check roco",
    ]
    assert "phantom-cxr: is drawn in code, so there is nothing to get" in out


def test_the_folder(bench, tmp_path, files, monkeypatch):
    card = own(tmp_path, files)
    monkeypatch.delenv("BENCH_DATA")
    status, _, err = bench("get", card)
    assert (status, err) == (2, "error: no folder for the data: set BENCH_DATA, or pass --to FOLDER\n")
    status, out, _ = bench("get", card, "--to", "here", "--accept-licence")
    assert status == 0
    assert f"set BENCH_DATA={tmp_path / 'here'}" in out
    assert (tmp_path / "here" / "own" / "rows.jsonl").is_file()
    assert "nothing to get" in bench("get")[2]
    assert "did you mean 'ham10000'" in bench("get", "ham1000")[2]


def test_a_suite(bench, monkeypatch):
    monkeypatch.setattr(commands, "_accept", lambda cards, accepted: (_ for _ in ()).throw(KeyboardInterrupt))
    _, out, _ = bench("get", "--suite", "medmnist")
    assert out.count("MNIST") >= 12
    assert "(rocov2)" in out


def test_how_and_list(bench):
    assert "bench data get ham10000 does these steps:\n1. Download the metadata" in bench("how", "ham10000")[1]
    assert "bench data get" not in bench("how", "vindr-cxr")[1]
    assert bench("list")[1].rstrip().endswith("bench data get NAME downloads it")


# What goes wrong


def test_no_room_is_seen_before_anything_is_downloaded(bench, tmp_path, files, monkeypatch):
    card = own(tmp_path, files)
    sizes = {each.to.name: each.bytes for each in block_of(load_card(card)).files}
    needed = sizes["rows.jsonl"] + 2 * sizes["images"]
    usage = type("Usage", (), {"free": needed - 1})
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda path: usage)
    status, _, err = bench("get", card, "--accept-licence")
    assert status == 2
    assert f"{tmp_path / 'data'}: 0.0 MB are needed to download and unpack, 0.0 MB are free: make room" in err
    assert files.gets() == []
    # What is there of an interrupted download is not needed again.
    (tmp_path / "data" / "own").mkdir(parents=True)
    (tmp_path / "data" / "own" / "rows.jsonl.part").write_bytes(b"x")
    assert "is damaged" not in bench("get", card, "--accept-licence")[2]
    assert len(files.gets()) > 0


def test_a_finished_file_stays_when_another_fails(bench, tmp_path, files):
    card = own(tmp_path, files)
    good = files.offers["/set/images.zip"]
    files.offer("/set/images.zip", good.content, always=(404,))
    status, _, err = bench("get", card, "--accept-licence")
    assert status == 2
    assert err == f"error: {files.url}/set/images.zip: HTTP 404 Not Found\n"
    files.offers["/set/images.zip"] = good
    files.asked.clear()
    assert bench("get", card)[0] == 0
    assert [path for method, path, _ in files.asked if method == "GET"] == ["/set/images.zip"]


def test_an_archive_that_was_downloaded_is_not_downloaded_again(bench, tmp_path, files, monkeypatch):
    card = own(tmp_path, files)
    monkeypatch.setattr(module, "unpack", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    status, out, _ = bench("get", card, "--accept-licence")
    assert status == 130
    assert "interrupted; the same command goes on from here" in out
    monkeypatch.undo()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    loaded = load_card(card)
    fetch(loaded, ask(loaded, tmp_path / "data", QUICK), tmp_path / "data", Progress(Console(quiet=True)), QUICK)
    assert [path for _, path, _ in files.asked] == ["/set/rows.jsonl", "/set/images.zip"]
    assert not (tmp_path / "data" / "own" / "images.zip").exists()


def test_what_a_user_has_is_never_overwritten(bench, tmp_path, files):
    card = own(tmp_path, files)
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_bytes(b"mine")
    assert "rows.jsonl: has 4 bytes, expected" in bench("get", card, "--accept-licence")[2]
    (folder / "rows.jsonl").unlink()
    (folder / "images").mkdir()
    assert "images: is there, but without '*.png': move it away" in bench("get", card, "--accept-licence")[2]
    (folder / "images").rmdir()
    (folder / "images.zip").write_bytes(b"mine")
    assert "images.zip: has 4 bytes, expected" in bench("get", card, "--accept-licence")[2]
    assert (folder / "images.zip").read_bytes() == b"mine"


def test_only_one_process_downloads_a_set(bench, tmp_path, files):
    card = own(tmp_path, files)
    (tmp_path / "cache" / "locks").mkdir(parents=True)
    loaded = load_card(card)
    with module._alone(loaded, tmp_path / "data"):
        (lock,) = (tmp_path / "cache" / "locks").iterdir()
        assert "another process downloads it to" in bench("get", card, "--accept-licence")[2]
    with FileLock(lock, timeout=0):
        pass


# Zenodo and the hub say what a card does not


@pytest.mark.parametrize("wrong", [False, True])
def test_zenodo_gives_size_and_checksum(tmp_path, files, wrong):
    at = files.record(77, {"rows.csv": b"a,b\n1,2\n"})
    if wrong:
        files.offers["/records/77/files/rows.csv"].content = b"a,b\n1,3\n"
    write_card(
        tmp_path,
        {"kind": "manifest", "files": {"test": "rows.csv"}, "columns": {"image": "a", "text": "b"}},
        get={"at": at, "files": [{"file": "rows.csv?download=1", "to": "rows.csv"}]},
    )
    card = load_card(tmp_path / "set.yaml")
    (wanted,) = ask(card, tmp_path, QUICK)
    assert wanted.expected.size == 8
    if wrong:
        with pytest.raises(BenchError, match=r"has md5 .*, expected .*; it was deleted"):
            fetch(card, [wanted], tmp_path, Progress(Console(quiet=True)), QUICK)
    else:
        fetch(card, [wanted], tmp_path, Progress(Console(quiet=True)), QUICK)
    assert (tmp_path / "rows.csv").exists() != wrong


def test_the_hub(bench, tmp_path, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", files.url)
    template = files.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module, "hub_answers", lambda: True)
    card = own(tmp_path, files, licence="")
    content = {path.removeprefix("/set/"): offer.content for path, offer in files.offers.items()}
    commit = "a" * 40
    block = {"at": files.hub("some/set", commit, content), "files": []}
    for each in block_of(load_card(card)).files:
        block["files"].append(
            json.loads(each.model_dump_json(include={"file", "to", "unpack", "holds"}, exclude_none=True))
        )
    card.write_text(yaml.safe_dump(yaml.safe_load(card.read_text()) | {"get": block}))
    images = files.offers[f"/datasets/some/set/resolve/{commit}/images.zip"]
    images.faults = [("cut", 300)]
    status, _, err = bench("get", card, "--accept-licence")
    assert (status, err) == (0, "")
    assert "bytes=300-" in files.gets()
    assert bench("check", card)[0] == 0
    # The hub's checksum is compared.
    shutil.rmtree(tmp_path / "data")
    images.content = images.content[:-1] + b"!"
    assert "images.zip: what arrived has sha256" in bench("get", card)[2]
    # The hub lacks a file, or is not there.
    shutil.rmtree(tmp_path / "data")
    del files.offers[f"/datasets/some/set/resolve/{commit}/rows.jsonl"]
    status, _, err = bench("get", card)
    assert status == 2
    assert "rows.jsonl: " in err
    assert err.count("\n") == 1
    monkeypatch.setattr(module, "hub_answers", lambda: False)
    assert f"{files.url} cannot be reached; is this machine online?" in bench("get", card)[2]
