"""A download from a host that falters."""

import errno
import os
import random
import signal
import socket
import time
from hashlib import md5, sha256
from multiprocessing import get_context
from pathlib import Path

import pytest

from benchmark.common.errors import BenchError
from benchmark.data.tools import download as module
from benchmark.data.tools.download import Expected, Patience, download, size_at
from tests.data.tools.host import host

CONTENT = random.Random(0).randbytes(300_000)
MD5 = Expected(len(CONTENT), ("md5", md5(CONTENT).hexdigest()))
QUICK = Patience(timeout=0.3, attempts=3, pause=0.001)


@pytest.fixture
def files():
    with host() as server:
        yield server


def get(url, path, expected=MD5, update=lambda done, total: None, patience=QUICK):
    download(url, path, expected, update, patience)
    return path.read_bytes()


def test_a_file_arrives_whole(files, tmp_path):
    counts = []
    url = files.offer("/a", CONTENT)
    path = tmp_path / "deep" / "a"
    assert get(url, path, update=lambda done, total: counts.append((done, total))) == CONTENT
    assert counts[-1] == (len(CONTENT), len(CONTENT))
    assert [each.name for each in path.parent.iterdir()] == ["a"]
    assert size_at(url, QUICK) == len(CONTENT)
    assert size_at(files.url + "/none", QUICK) is None


@pytest.mark.parametrize("known", [MD5, Expected()], ids=["known", "unknown"])
@pytest.mark.parametrize("faults", [[("cut", 100_000)], [("cut", 1), ("cut", 200_000), ("cut", 50_000)]])
def test_a_cut_connection_goes_on_where_it_stopped(files, tmp_path, faults, known):
    url = files.offer("/a", CONTENT, faults=list(faults))
    assert get(url, tmp_path / "a", known) == CONTENT
    assert files.sent == len(CONTENT)
    begins, here = [""], 0
    for _, size in faults:
        here += size
        begins.append(f"bytes={here}-")
    assert files.gets() == begins


def test_a_host_without_ranges_begins_again(files, tmp_path):
    url = files.offer("/a", CONTENT, faults=[("cut", 100_000)], ranges=False)
    assert get(url, tmp_path / "a") == CONTENT
    assert files.sent == len(CONTENT) + 100_000


def test_a_host_that_stalls_is_asked_again_and_a_slow_one_is_waited_for(files, tmp_path):
    url = files.offer("/a", CONTENT, faults=[("stall", 90_000), ("drip", 30_000)])
    assert get(url, tmp_path / "a") == CONTENT
    assert files.gets() == ["", "bytes=90000-"]


@pytest.mark.parametrize("length", [True, False])
def test_a_redirect_keeps_the_range(files, tmp_path, length):
    files.offer("/there", CONTENT, faults=[("cut", 70_000)], length=True)
    url = files.offer("/here", b"", goes_to="/there")
    assert get(url, tmp_path / "a") == CONTENT
    assert files.sent == len(CONTENT)


def test_an_overloaded_host_is_asked_again_when_it_says(files, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    url = files.offer("/a", CONTENT, faults=[(503, 7), (429, 99_999), (502,)])
    assert get(url, tmp_path / "a", patience=Patience(0.3, 4, 0.5)) == CONTENT
    assert pauses == [7, module.LONGEST_PAUSE, 2.0]


@pytest.mark.parametrize(
    ("how", "expected", "message", "requests"),
    [
        ({"always": (404,)}, MD5, "HTTP 404 Not Found", 1),
        ({"always": (403,)}, MD5, "HTTP 403 Forbidden", 1),
        ({"always": (503,)}, MD5, "HTTP 503 Service Unavailable (3 attempts)", 3),
        ({"always": ("cut", 0)}, MD5, "the connection was cut at 0 of 300,000 bytes (3 attempts)", 3),
        ({"always": ("page",)}, Expected(), "the host answers with a page, not with a file", 1),
        ({}, Expected(299_999), "the host offers 300,000 bytes, expected 299,999", 1),
        ({"length": False}, Expected(299_999), "has 300,000 bytes, expected 299,999; it was deleted", 1),
        ({}, Expected(300_000, ("md5", "0" * 32)), f"has md5 {md5(CONTENT).hexdigest()}, expected 0000", 1),
        ({}, Expected(None, ("sha256", "0" * 64)), f"has sha256 {sha256(CONTENT).hexdigest()}, expected 0000", 1),
    ],
)
def test_what_ends_a_download(files, tmp_path, how, expected, message, requests):
    url = files.offer("/a", CONTENT, **how)
    with pytest.raises(BenchError) as raised:
        get(url, tmp_path / "a", expected)
    assert message in str(raised.value)
    assert str(raised.value).startswith(url)
    assert "\n" not in str(raised.value)
    assert len(files.gets()) == requests
    assert not (tmp_path / "a").exists()
    # Nothing that is wrong stays: the next call begins anew.
    assert module.size_of(tmp_path / "a.part") == 0


def test_what_a_host_that_gives_up_has_sent_is_kept(files, tmp_path):
    url = files.offer("/a", CONTENT, faults=[("cut", 120_000), (503,), (503,), (503,)])
    with pytest.raises(BenchError, match=r"503 .* goes on from the 0.1 MB in .*a\.part"):
        get(url, tmp_path / "a")
    assert get(url, tmp_path / "a") == CONTENT
    assert files.sent == len(CONTENT)


@pytest.mark.parametrize("expected", [MD5, Expected()])
def test_a_part_that_is_whole_or_too_long(files, tmp_path, expected):
    url = files.offer("/a", CONTENT)
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert get(url, tmp_path / "a", expected) == CONTENT
    assert files.sent == 0
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    assert get(url, tmp_path / "a", expected) == CONTENT
    assert files.sent == len(CONTENT)


def test_an_interrupted_download_goes_on(files, tmp_path):
    url = files.offer("/a", CONTENT, faults=[("drip", 50_000)])

    def interrupt(done, total):
        if done >= 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(url, tmp_path / "a", update=interrupt)
    here = module.size_of(tmp_path / "a.part")
    assert 100_000 <= here < len(CONTENT)
    assert get(url, tmp_path / "a") == CONTENT
    assert files.gets()[-1] == f"bytes={here}-"


def test_a_killed_download_goes_on(files, tmp_path):
    url = files.offer("/a", CONTENT, faults=[("drip", 20_000)])
    process = get_context("fork").Process(target=get, args=(url, tmp_path / "a"))
    process.start()
    while module.size_of(tmp_path / "a.part") < 60_000:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    here = module.size_of(tmp_path / "a.part")
    assert here < len(CONTENT)
    assert get(url, tmp_path / "a") == CONTENT
    assert files.gets() == ["", f"bytes={here}-"]


def test_a_full_disk_is_no_fault_of_the_network(files, tmp_path, monkeypatch):
    url = files.offer("/a", CONTENT)
    opened = Path.open

    class Full:
        name = tmp_path / "a.part"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, chunk):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, *a, **k: Full() if "part" in path.name else opened(path, *a, **k))
    with pytest.raises(BenchError, match=r"a\.part: cannot be written: No space left on device; what is there is kept"):
        get(url, tmp_path / "a")
    assert len(files.gets()) == 1


def test_without_a_network(files, tmp_path, monkeypatch):
    files.server_close()
    with pytest.raises(BenchError, match=r"Connection refused \(3 attempts\)$"):
        get(f"{files.url}/a", tmp_path / "a")

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(BenchError, match=r"/a: Name or service not known; is this machine online\?$"):
        get("https://zenodo.invalid/a", tmp_path / "a")
