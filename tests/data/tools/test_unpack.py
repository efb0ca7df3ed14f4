"""Archives as they come from a network, good ones and hostile ones."""

import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from benchmark.common.errors import BenchError
from benchmark.data.tools import unpack as module
from benchmark.data.tools.unpack import unpack

FILES = {"top/ADI/a.tif": b"a" * 90, "top/ADI/b.tif": b"b" * 70, "top/read.me": b"text"}


def zipped(path, files, compression=zipfile.ZIP_STORED, modes=None):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


def tarred(path, files, links=None, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return path


def run(archive, kind, to, holds=""):
    counts = []
    unpack(archive, kind, to, holds, lambda done, total: counts.append((done, total)))
    return counts


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_lies_beside_what_the_archive_holds(tmp_path, kind):
    extra = {"__MACOSX/top/ADI/._a.tif": b"x", "top/.DS_Store": b"x", "top/ADI/._a.tif": b"x"}
    archive = (zipped if kind == "zip" else tarred)(tmp_path / "archive", FILES | extra)
    inside = {name.removeprefix("top/"): content for name, content in FILES.items()}
    assert run(archive, kind, tmp_path / "all")
    assert tree(tmp_path / "all") == FILES
    for number, holds in enumerate(("ADI", "ADI/a.tif", "A*", "read.me")):
        run(archive, kind, tmp_path / f"some{number}", holds)
        assert tree(tmp_path / f"some{number}") == inside
    run(archive, kind, tmp_path / "deep" / "images", "*.tif")
    assert tree(tmp_path / "deep" / "images") == {"a.tif": b"a" * 90, "b.tif": b"b" * 70}
    run(zipped(tmp_path / "flat", {"ADI/a.tif": b"a", "old/ADI/a.tif": b"b"}), "zip", tmp_path / "flat_out", "ADI")
    assert tree(tmp_path / "flat_out") == {"ADI/a.tif": b"a", "old/ADI/a.tif": b"b"}


def test_progress_counts_bytes(tmp_path):
    assert run(zipped(tmp_path / "a.zip", FILES), "zip", tmp_path / "out")[-1] == (164, 164)


def test_gz(tmp_path):
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress(b"array" * 100))
    run(tmp_path / "x.h5.gz", "gz", tmp_path / "x.h5")
    assert (tmp_path / "x.h5").read_bytes() == b"array" * 100


def damaged(path):
    content = bytearray(zipped(path, FILES).read_bytes())
    content[content.index(b"a" * 90)] ^= 1
    path.write_bytes(content)
    return path


def locked(path):
    content = bytearray(zipped(path, FILES).read_bytes())
    content[6] |= 1
    start = content.index(b"PK\x01\x02")
    content[start + 8] |= 1
    path.write_bytes(content)
    return path


def plain(path, content):
    path.write_bytes(content)
    return path


ZEROS = bytes(2_000_000)
LINK = stat.S_IFLNK | 0o777
HOSTILE = {
    "up": (lambda p: zipped(p, {"a/b": b"x", "../../evil": b"x"}), "zip", "'../../evil' leads outside"),
    "up inside": (lambda p: zipped(p, {"a/../../evil": b"x"}), "zip", "leads outside"),
    "absolute": (lambda p: zipped(p, {"/evil": b"x"}), "zip", "'/evil' leads outside"),
    "windows": (lambda p: zipped(p, {"..\\evil": b"x"}), "zip", "leads outside"),
    "drive": (lambda p: zipped(p, {"C:\\evil": b"x"}), "zip", "leads outside"),
    "link": (
        lambda p: zipped(p, {"a": b"/etc", "a/evil": b"x"}, modes={"a": LINK}),
        "zip",
        "'a' is a link or a device",
    ),
    "bomb": (lambda p: zipped(p, {"a": ZEROS}, zipfile.ZIP_DEFLATED), "zip", "hold over 100 times its size"),
    "tar up": (lambda p: tarred(p, {"../evil": b"x"}), "tar", "'../evil' leads outside"),
    "tar absolute": (lambda p: tarred(p, {"/evil": b"x"}), "tar", "leads outside"),
    "tar link": (lambda p: tarred(p, {}, {"a": (tarfile.SYMTYPE, "/etc")}), "tar", "'a' is a link or a device"),
    "tar hard link": (lambda p: tarred(p, {}, {"a": (tarfile.LNKTYPE, "../evil")}), "tar", "is a link or a device"),
    "tar pipe": (lambda p: tarred(p, {}, {"a": (tarfile.FIFOTYPE, "")}), "tar", "is a link or a device"),
    "tar bomb": (lambda p: tarred(p, {"a": ZEROS}), "tar", "holds over 100 times its size"),
    "gz bomb": (lambda p: plain(p, gzip.compress(ZEROS)), "gz", "holds over 100 times its size"),
    "checksum": (damaged, "zip", "is damaged, or is no zip file"),
    "cut": (lambda p: plain(p, zipped(p, FILES).read_bytes()[:-30]), "zip", "is damaged, or is no zip file"),
    "cut tar": (lambda p: plain(p, tarred(p, FILES).read_bytes()[:-30]), "tar", "is damaged, or is no tar file"),
    "cut gz": (lambda p: plain(p, gzip.compress(b"abc" * 99)[:-9]), "gz", "is damaged, or is no gz file"),
    "page": (lambda p: plain(p, b"<html>"), "zip", "is damaged, or is no zip file"),
    "page for tar": (lambda p: plain(p, b"<html>"), "tar", "is damaged, or is no tar file"),
    "page for gz": (lambda p: plain(p, b"<html>"), "gz", "is damaged, or is no gz file"),
    "password": (locked, "zip", "cannot be unpacked here"),
    "empty": (lambda p: zipped(p, {}), "zip", "is empty"),
    "no name": (lambda p: tarred(p, {".": b"x"}), "tar", "leads outside"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(tmp_path, name, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    make, kind, message = HOSTILE[name]
    inner = tmp_path / "data" / "set"
    inner.mkdir(parents=True)
    archive = make(inner / "archive")
    before = archive.read_bytes()
    with pytest.raises(BenchError) as raised:
        run(archive, kind, inner / "out")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path for path in tmp_path.rglob("*") if not path.is_dir()) == [archive]
    assert not (inner / "out").exists()
    assert archive.read_bytes() == before


def test_an_archive_with_another_layout(tmp_path):
    with pytest.raises(BenchError, match="has no 'Photos': its layout has changed; unpack it by hand"):
        run(zipped(tmp_path / "a.zip", FILES), "zip", tmp_path / "out", "Photos")
    assert not (tmp_path / "out").exists()


def test_no_room(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 163})())
    with pytest.raises(BenchError, match=r"unpacks to 0.0 MB, but .* has 0.0 MB free"):
        run(archive, "zip", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_an_interrupted_unpacking_begins_anew(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)

    def interrupt(done, total):
        if done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, "zip", tmp_path / "out", "", interrupt)
    assert list(tmp_path.iterdir()) == [archive]
    # What a killed process has left is deleted.
    (tmp_path / ".out.unpacking").mkdir()
    (tmp_path / ".out.unpacking" / "stale").write_bytes(b"x")
    run(archive, "zip", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
