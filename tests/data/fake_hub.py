"""A hub on this machine: of the Hugging Face Hub's API what loading a dataset asks for."""

import hashlib
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.data.serving import serving


@dataclass
class Repository:
    """commits: path -> content of each, by hash. tags, branches: the hash by name. closed: status and headers of the
    answer to all, or, with ``readable``, to all but README.md.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    closed: tuple[int, dict[str, str]] | None = None
    readable: bool = False

    def commit(self, files, branch="main"):
        """The hash of a new commit, to which the branch moves."""
        content = repr(sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items()))
        name = hashlib.sha1(content.encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def find(self, revision):
        return (self.branches | self.tags | {name: name for name in self.commits}).get(revision)


class Refused(Exception):
    def __init__(self, status, headers):
        self.status, self.headers = status, headers


GATED = (401, {"X-Error-Code": "GatedRepo"})
BAD_TOKEN = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})


class FakeHub(ThreadingHTTPServer):
    """url: what HF_ENDPOINT is to be. asked: the requests, as "GET /path"."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []

    def repository(self, name):
        return self.repositories.setdefault(name, Repository())


@contextmanager
def fake_hub():
    hub = FakeHub()
    with serving(hub):
        yield hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def _answer(self):
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        try:
            status, headers, content = self._content(parts.path, parse_qs(body.decode()))
        except Refused as refused:
            status, headers, content = refused.status, refused.headers, b""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _content(self, path, form):
        if path == "/":
            return 200, {}, b""
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        if not (found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/([a-z-]+)(?:/([^/]+)(?:/(.*))?)?)?", path)):
            raise Refused(404, {"X-Error-Code": "NotFound"})
        name, what, revision, below = found.groups()
        repository = self._repository(name)
        if what == "refs":
            refs = {
                kind: [{"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": at} for ref, at in found.items()]
                for kind, found in (("branches", repository.branches), ("tags", repository.tags))
            }
            return self._json(refs | {"converts": []})
        commit = self._commit(repository, revision or "main")
        files = repository.commits[commit]
        if what in (None, "revision"):
            return self._json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})
        entries = _entries(files)
        if what == "paths-info":
            return self._json([entry for entry in entries if entry["path"] in form["paths"]])
        start = unquote(below or "").strip("/")
        inside = [entry for entry in entries if not start or entry["path"].startswith(start + "/")]
        if not inside:
            raise Refused(404, {"X-Error-Code": "EntryNotFound"})
        if "recursive=true" not in self.path.lower():
            depth = len(start.split("/")) if start else 0
            inside = [entry for entry in inside if entry["path"].count("/") == depth]
        return self._json(inside)

    def _file(self, name, revision, path):
        repository = self._repository(name, path)
        commit = self._commit(repository, revision)
        content = repository.commits[commit].get(unquote(path))
        if content is None:
            raise Refused(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"ETag": f'"{_hash(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return 206, headers, content[start : end + 1]
        return 200, headers, content

    def _repository(self, name, path=""):
        repository = self.server.repositories.get(name)
        if repository is None:
            raise Refused(404, {"X-Error-Code": "RepoNotFound"})
        if repository.closed and not (repository.readable and path == "README.md"):
            raise Refused(*repository.closed)
        return repository

    def _commit(self, repository, revision):
        commit = repository.find(unquote(revision))
        if commit is None:
            raise Refused(404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _json(self, content):
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _entries(files):
    folders = {"/".join(path.split("/")[:i]) for path in files for i in range(1, path.count("/") + 1)}
    found = [{"type": "directory", "oid": _hash(folder.encode()), "size": 0, "path": folder} for folder in folders]
    found += [{"type": "file", "oid": _hash(data), "size": len(data), "path": path} for path, data in files.items()]
    return sorted(found, key=lambda entry: entry["path"])


def _hash(content):
    return hashlib.sha1(content).hexdigest()
