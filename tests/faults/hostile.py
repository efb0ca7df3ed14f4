"""Inputs that mean harm, by kind, each the same for the same number; and what must hold whatever they are."""

import io
import json
import os
import pickle
import random
import signal
import string
import struct
import sys
import tarfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save

from benchmark.api import Launching
from benchmark.cli.main import main
from benchmark.cli.options import names_of
from benchmark.cli.plan import parse_speed
from benchmark.cli.run import _launch_options
from benchmark.common.errors import BenchError
from benchmark.config.load import load_run_config
from benchmark.config.overrides import parse_axis, parse_budget, parse_scenario, parse_setting
from benchmark.data.card import load_card
from benchmark.data.check import check
from benchmark.data.dataset import open_dataset
from benchmark.data.tools.infer_card import infer_card
from benchmark.data.tools.unpack import unpack
from benchmark.execution.tuning import _axis
from benchmark.method import METHODS
from benchmark.models.card import load_model_card
from benchmark.models.weights import read_tensors
from benchmark.plan.resolve import check_settings
from benchmark.task import TASKS
from tests.data.make import PAIRS, images, write_card
from tests.squares import CARD, MODEL, SUITE

SECONDS = 5.0
LONGEST = 900
"""The most characters of a message."""
CANARY = "canary"
"""The file that every attempt to run code would create in the working folder."""
SHELL = f"touch {CANARY}"
PYTHON = f"__import__('pathlib').Path('{CANARY}').touch()"
PIECES = [
    *("", " ", "\t", "\n", "\r\n", "\0", "\x07", "\x1b[31m", "\x1b]0;title\x07", "\x7f", "\x85", "\x9b2J", "\ufeff"),
    *("\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\udfff", "\uffff", "\U000e0041", "\u0301" * 40, "ß", "日本"),
    *("..", "../", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/full", "/proc/self/environ", "~/x"),
    *("..\\..\\x", "C:\\x", "\\\\host\\share", "file:///etc/passwd", "http://127.0.0.1:1/x", "s3://x/y", "a/b", ".git"),
    *("-", "--", "-rf", "--help", "=", "==", ",", ",,", ":", ".", "...", "|", ";", "@", "#", "%", "&", "*", "?", "!"),
    *("[", "]", "{", "}", "(", ")", "'", '"', "\\", "`", "<", ">", "$", "[[", "}}", "[/]", "[red]x[/red]", "[bold"),
    *("{}", "{0}", "{0.__class__}", "{x!r:>999999999}", "%s", "%n", "{{7*7}}", "<script>alert(1)</script>", "&amp;"),
    *("=1+1", "+1", "-1+1", "@SUM(A1)", "=HYPERLINK(0)", "#NAME?", "\\N", "null", "~", "true", "no", "NaN", "None"),
    *(
        "0",
        "-0",
        "1",
        "-1",
        "1e999",
        "-1e999",
        "1e-999",
        ".inf",
        ".nan",
        "nan",
        "inf",
        "9" * 30,
        "9" * 5000,
        "0x" + "f" * 4000,
    ),
    *(
        "1_000",
        "１２",
        "0o77",
        "1:60:60",
        "2020-99-99",
        "1e5",
        "1.5.5",
        "1..2",
        "2..1",
        "1..1e999",
        "0..0:log",
        "1k",
        "1E",
        "1h",
    ),
    *(
        "a" * 300,
        "a" * 70_000,
        "[" * 3000,
        "{a: " * 2000,
        "&a [*a]",
        "*a",
        "<<: *a",
        "!x",
        "!!int x",
        "!!binary x",
        "? [1]",
    ),
    *(f"$({SHELL})", f"`{SHELL}`", f"; {SHELL}", f"| {SHELL}", f"!!python/object/apply:os.system ['{SHELL}']"),
    *("!!python/name:os.system", PYTHON, f"{{{PYTHON}}}", f"'; {PYTHON} #", f"@{{{PYTHON}}}", f"=cmd|'/C {SHELL}'!A0"),
    *(
        "training",
        "learning_rate",
        "clip",
        "msd",
        "all",
        "samples",
        "rare",
        "noisy",
        "phantom-cxr",
        "squares.yaml",
        "suite",
    ),
]


def piece(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return "".join(chr(rng.randrange(1, 0x300)) for _ in range(rng.randint(1, 12)))
    if rng.random() < 0.1:
        return "".join(rng.choices(string.printable, k=rng.randint(1, 30)))
    return rng.choice(PIECES)


def text(rng: random.Random) -> str:
    return "".join(piece(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))))


# Strings: the values of options and names

KNOWN = ("clip", "msd", "retrieval", "linear_probe")
NAMES = [*KNOWN, "training", "evaluation", "model", "pretraining", "budget", "samples", "learning_rate", "batch_size"]


def option(rng: random.Random) -> str:
    """Text in the form of an option, with hostile parts."""
    form = rng.choice(
        ("{v}", "{n}.{n}={v}", "training.learning_rate={v}", "{n}={v}", "{n}.{v}={v}", "{v},{v}", "{n}:{v}")
    )
    while "{" in form and ("{v}" in form or "{n}" in form):
        where = min(at for mark in ("{v}", "{n}") if (at := form.find(mark)) >= 0)
        filled = text(rng) if form[where + 1] == "v" else rng.choice(NAMES)
        # What is filled in has no marks of its own.
        form = form[:where] + filled.replace("{v}", "").replace("{n}", "") + form[where + 3 :]
    return form


def of_suite(**flags: Any) -> None:
    check_settings(load_run_config("suite.yaml", flags, [], KNOWN))


STRINGS: dict[str, Callable[[str], object]] = {
    "--set": lambda value: check_settings(load_run_config("suite.yaml", {}, [value], KNOWN)),
    "--grid": lambda value: parse_axis(value, KNOWN),
    "--search": lambda value: _axis(value, ["clip"]),
    "--budget": parse_budget,
    "--scenario": parse_scenario,
    "--speed": parse_speed,
    "--launch-option": lambda value: Launching.of(None, [], "local", _launch_options([value])),
    "--devices": lambda value: Launching.of(None, names_of(value) or [], None, {}),
    "--suite": lambda value: load_run_config(value, {}, [], KNOWN),
    "--model": load_model_card,
    "--dataset": load_card,
    "--of-a-set": lambda value: load_card(f"phantom-cxr@{value}"),
    "--methods": lambda value: of_suite(methods=names_of(value)),
    "--tasks": lambda value: of_suite(tasks=names_of(value)),
    "--set (parsed)": lambda value: parse_setting(value, KNOWN),
    "method": METHODS.__getitem__,
    "task": TASKS.__getitem__,
    "data new": lambda value: infer_card(Path(value)),
}


def strings(rng: random.Random, folder: Path) -> None:
    STRINGS[rng.choice([*STRINGS])](option(rng))


# YAML: cards, suites and models

DOCUMENTS = {"card": CARD, "suite": SUITE, "model": MODEL}
READERS: dict[str, Callable[[Path], object]] = {
    "card": load_card,
    "suite": lambda path: check_settings(load_run_config(str(path), {}, [], KNOWN)),
    "model": load_model_card,
}


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(9)
    if kind < 4 or depth > 3:
        return text(rng)
    if kind == 4:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return {text(rng)[:200]: value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(
        (None, True, False, 0, -1, 1 << 40, 1 << 70, 1e308, float("nan"), float("-inf"), 0.5, b"\xff", [[]], {})
    )


def changed(rng: random.Random, document: Any) -> Any:
    """A copy with one value, key or item replaced by another, at any depth."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = rng.choice([*document])
        if rng.random() < 0.15:
            return {(text(rng)[:500] if each == key else each): inner for each, inner in document.items()}
        return document | {key: changed(rng, document[key])}
    if isinstance(document, list) and document and rng.random() < 0.7:
        at = rng.randrange(len(document))
        return [*document[:at], changed(rng, document[at]), *document[at + 1 :]]
    return value(rng)


def documents(rng: random.Random, folder: Path) -> None:
    kind = rng.choice([*DOCUMENTS])
    document = DOCUMENTS[kind]
    for _ in range(rng.choice((1, 1, 2))):
        document = changed(rng, document)
    written = yaml.safe_dump(document, allow_unicode=rng.random() < 0.5)
    if rng.random() < 0.4:
        lines = written.splitlines(keepends=True) or [""]
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            lines[at] = rng.choice(
                (lines[at].rstrip("\n") + " " + piece(rng) + "\n", piece(rng) + lines[at], piece(rng))
            )
        written = "".join(lines)
    data = written.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    path = folder / "given.yaml"
    path.write_bytes(data if rng.random() < 0.95 else data[: rng.randrange(len(data) + 1)] + rng.randbytes(5))
    READERS[kind](path)


# Manifests

COLUMNS = ("id", "image", "text", "label", "patient", "split")


def cell(rng: random.Random) -> Any:
    return value(rng, 2) if rng.random() < 0.2 else text(rng)[:5000]


def manifests(rng: random.Random, folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": f"r{i}",
            "image": f"images/{i}.png",
            "text": f"t {i}",
            "label": "ab"[i % 2],
            "patient": f"p{i}",
            "split": "train",
        }
        for i in range(4)
    ]
    for _ in range(rng.randint(1, 3)):
        rows[rng.randrange(4)][rng.choice(COLUMNS)] = cell(rng)
    if rng.random() < 0.1:
        rows[0] = {text(rng)[:100]: each for each in rows[0].values()}
    kind = rng.choice(("csv", "jsonl", "json", "tsv", "txt"))
    if kind in ("jsonl", "json"):
        lines = [json.dumps(row, default=repr) for row in rows]
        written = "\n".join(lines) if kind == "jsonl" else f"[{', '.join(lines)}]"
    else:
        mark = rng.choice((",", ";", "\t", "|")) if kind == "csv" else "\t"
        quote = rng.choice(('"', '"', ""))
        lines = [
            mark.join(f"{quote}{each}{quote}" for each in row) for row in (rows[0], *(row.values() for row in rows))
        ]
        written = rng.choice(("\n", "\r\n")).join(lines)
    data = bytearray(written.encode("utf-8", "surrogatepass"))
    if rng.random() < 0.2 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    (folder / f"given.{kind}").write_bytes(data)
    source = {"kind": "manifest", "file": f"given.{kind}", "columns": PAIRS | {"label": "label"}}
    card = write_card(folder, source, name="given", classes=["a", "b"])
    check(open_dataset(card, rng.choice(("skip", "error")), folder / "cache"))


# Archives, unpacked or read as shards

MEMBERS = (
    "../{n}",
    "/tmp/{n}",
    "a/../../{n}",
    "..\\{n}",
    "{n}",
    "a/{n}",
    "./{n}",
    "~/{n}",
    "a//{n}",
    "C:/{n}",
    "{n}/",
    "a/b/c/{n}",
)


def member(rng: random.Random) -> str:
    return rng.choice(MEMBERS).replace("{n}", rng.choice((CANARY, "x", text(rng)[:300], "x" * 300)))


def plain(name: str) -> str:
    """The name as zipfile can write it."""
    return name.replace("\0", "").encode("utf-8", "replace").decode() or "x"


def tar_of(rng: random.Random, compression: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode=f"w:{compression}", format=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    ) as tar:  # type: ignore[call-overload]
        for number in range(rng.randint(1, 4)):
            kinds = (
                tarfile.REGTYPE,
                tarfile.REGTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.FIFOTYPE,
                tarfile.DIRTYPE,
            )
            info = tarfile.TarInfo(f"s{number}.txt" if rng.random() < 0.3 else member(rng).replace("\0", ""))
            info.type, info.linkname = rng.choice(kinds), rng.choice(("/etc/passwd", "../../x", "x", CANARY))
            content = rng.randbytes(rng.randint(0, 300))
            info.size, info.mode = len(content) if info.isreg() else 0, rng.choice((0o644, 0o4777, 0))
            with suppress(ValueError, UnicodeError):
                tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zip_of(rng: random.Random) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), ZipFile(file, "w", ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for _ in range(rng.randint(1, 4)):
            info = ZipInfo(plain(member(rng)))
            info.external_attr = rng.choice((0o100644, 0o120777, 0o060644, 0o040755)) << 16
            with suppress(UnicodeError, ValueError):
                archive.writestr(info, rng.choice((b"x", b"/etc/passwd", bytes(200_000))))
    return file.getvalue()


def damaged(rng: random.Random, data: bytes) -> bytes:
    given = bytearray(data)
    for _ in range(rng.choice((0, 0, 1, 3)) if given else 0):
        at = rng.randrange(len(given))
        way = rng.randrange(4)
        if way == 0:
            given[at] = rng.randrange(256)
        elif way == 1:
            del given[at:]
            break
        elif way == 2:
            given[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
        else:
            given[at:at] = rng.randbytes(5)
    return bytes(given)


def archives(rng: random.Random, folder: Path) -> None:
    kind = rng.choice(("zip", "tar", "tar", "shard", "npz"))
    compression = rng.choice(("", "gz", "bz2", "xz"))
    if kind == "npz":
        arrays = {"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.array([0, 1, 0])}
        arrays[rng.choice(("train_images", "train_labels", "test_images", plain(text(rng)[:50])))] = rng.choice(
            (
                np.array([Attack(rng)], dtype=object),
                np.zeros((0, 0, 0), np.uint8),
                np.full(3, 1 << 40),
                np.array(["x"]),
                np.array(3),
            )
        )
        file = io.BytesIO()
        np.savez(file, **arrays)
        (folder / "given.npz").write_bytes(damaged(rng, file.getvalue()))
        if rng.random() < 0.3:
            infer_card(folder / "given.npz")
        card = write_card(folder, {"kind": "npz", "file": "given.npz"}, name="given", classes=["a", "b"])
        check(open_dataset(card, rng.choice(("skip", "error")), folder / "cache"))
        return
    data = damaged(rng, zip_of(rng) if kind == "zip" else tar_of(rng, compression))
    path = folder / f"given.{'zip' if kind == 'zip' else 'tar'}"
    path.write_bytes(data)
    if kind == "shard":
        source = {"kind": "webdataset", "shards": {"train": [path.name]}, "columns": {"image": "txt", "text": "txt"}}
        if rng.random() < 0.5:
            source["stream"] = True
        check(open_dataset(write_card(folder, source, name="given"), rng.choice(("skip", "error")), folder / "cache"))
        return
    unpack(path, kind, folder / "results" / "unpacked", rng.choice(("", "a", "*.txt")), lambda *_: None)


# Checkpoints


class Attack:
    """Runs code when it is unpickled."""

    def __init__(self, rng: random.Random) -> None:
        self.call = rng.choice(
            (
                (os.system, (SHELL,)),
                (exec, (PYTHON,)),
                (eval, (PYTHON,)),
                (Path.touch, (Path(CANARY),)),
                (open, (CANARY, "w")),
            )
        )

    def __reduce__(self) -> Any:
        return self.call


def safetensors_of(rng: random.Random) -> bytes:
    tensors: dict[str, Any] = {text(rng)[:60] or "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    inner = next(iter(tensors.values()))
    inner[rng.choice(("dtype", "shape", "data_offsets"))] = rng.choice(
        ("F32", "X9", [1 << 62], [-1], [0, 1 << 40], [8, 0], "x", None, {}, [2, 2], [[1]], [0.5])
    )
    header = json.dumps(tensors).encode("utf-8", "replace")
    length = rng.choice((len(header), len(header), 0, 1 << 63, (1 << 64) - 1, len(header) + 3))
    return struct.pack("<Q", length) + header + bytes(rng.choice((0, 8, 80)))


def checkpoints(rng: random.Random, folder: Path) -> None:
    state: Any = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    way, suffix = rng.randrange(6), rng.choice((".pt", ".pth", ".bin"))
    file = io.BytesIO()
    if way == 0:
        suffix, data = ".safetensors", safetensors_of(rng) if rng.random() < 0.5 else save(state)
    elif way == 1:
        data = pickle.dumps(
            rng.choice((Attack(rng), {"a": Attack(rng)}, [Attack(rng)], state)), protocol=rng.randint(0, 5)
        )
    else:
        inside = (Attack(rng), {"x": Attack(rng)}, text(rng), [1], {1, 2}, np.zeros(3), 1 << 70, None, float("nan"), {})
        if way < 5:
            state = rng.choice(
                (
                    state | {text(rng): rng.choice(inside)},
                    {"state_dict": state | {"a": rng.choice(inside)}},
                    rng.choice(inside),
                )
            )
        torch.save(state, file, _use_new_zipfile_serialization=rng.random() < 0.6)
        data = file.getvalue()
    path = folder / f"given{suffix}"
    path.write_bytes(damaged(rng, data))
    read_tensors(path)


# Commands, from their arguments to what they print

PLANNED = ("--methods", "--tasks", "--set", "--grid", "--model", "--scenario")
RUN = ("--plugin", "--datasets", "--launch-option", "--devices", "--track")
COMMANDS = (
    *(("data", name) for name in ("how", "check", "verify", "prepare", "get")),
    ("data", "new", "--output", "given.yaml"),
    *(("plan", "--suite", "suite.yaml", name) for name in PLANNED),
    *(("run", "--suite", "suite.yaml", name) for name in RUN),
    *((name, "--results") for name in ("report", "status", "cancel", "clean")),
    *(("list",), ("claims", "--suite"), ("caption", "--dataset"), ("perf", "--works"), ("tune", "--search")),
)
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode that no terminal may get, but for line feeds, tabs and joiners."""


def commands(rng: random.Random, folder: Path) -> None:
    printed = io.StringIO()
    arguments = [*rng.choice(COMMANDS), option(rng) if rng.random() < 0.5 else text(rng)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.setattr(sys, "argv", ["bench", *arguments])
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code
    said = printed.getvalue()
    if hidden := [sign for sign in said if unicodedata.category(sign) in HIDDEN and sign not in "\n\t\u200c\u200d"]:
        raise ValueError(f"{arguments!r}: {hidden[0]!r} is printed")
    if status not in (0, 1, 2) or "BENCH_TRACEBACK" in said or "Traceback" in said:
        raise ValueError(f"{arguments!r}: status {status}: {said[-300:]}")
    if status:
        raise BenchError("refused")


KINDS: dict[str, Callable[[random.Random, Path], None]] = {
    "strings": strings,
    "commands": commands,
    "documents": documents,
    "manifests": manifests,
    "archives": archives,
    "checkpoints": checkpoints,
}
CHANGES = ("cache", "results", "given")
"""What may change in the working folder: the cache, the results, and the input itself."""


class Slow(BaseException):
    """An input that took too long; not an ``Exception``, which readers may catch."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Slow(f"more than {seconds} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def tree(folder: Path) -> dict[Path, tuple[int, int]]:
    """What lies in a folder and beside it, without what may change: sizes and times of change of files."""
    kept: dict[Path, tuple[int, int]] = {}
    for parent, folders, files in os.walk(folder.parent):
        changing = [name for name in (*folders, *files) if Path(parent) == folder and name.startswith(CHANGES)]
        folders[:] = [name for name in folders if name not in changing]
        kept |= dict.fromkeys((Path(parent, name) for name in folders), (0, 0))
        for file in (Path(parent, name) for name in files if name not in changing):
            kept[file] = (file.lstat().st_size, file.lstat().st_mtime_ns)
    return kept


def prepare(folder: Path) -> None:
    """Write what the inputs refer to, and import what reading them takes."""
    METHODS.names()
    images(folder / "images", 4)
    for name, document in (("suite", SUITE), ("squares", CARD), ("small", MODEL)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    (folder / "squares.jsonl").write_text("")
    for name in ("cache", "results"):
        (folder / name).mkdir(exist_ok=True)


def attempt(kind: str, number: int, folder: Path) -> str:
    """Give the program an input, in the working folder; return what it did: "accepted" or "refused".

    Raises whatever is neither: another exception than ``BenchError``, a message that is long or no line, too much time
    twice, as the machine may be busy.
    """
    try:
        return _attempt(kind, number, folder)
    except Slow:
        return _attempt(kind, number, folder)


def _attempt(kind: str, number: int, folder: Path) -> str:
    message = ""
    try:
        with limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind](random.Random(f"{kind} {number}"), folder)
    except BenchError as error:
        message = str(error)
        if len(message) > LONGEST or message.count("\n") > 1:
            raise ValueError(f"a message of {len(message)} characters: {message[:300]}") from error
    return "refused" if message else "accepted"
