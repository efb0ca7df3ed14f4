"""A host of files on this machine, which can falter in the ways that hosts do."""

import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.data.serving import serving


@dataclass
class Offer:
    """A file. faults: those of the next requests (not HEAD), one each, then it is sent well:

    ("cut", n): the connection ends after n bytes. ("stall", n): nothing follows for longer than any patience.
    ("drip", n): n bytes at a time, with pauses. (503, seconds): this answer, with Retry-After. ("page",): a web page.

    always: such a fault of every request. ranges: whether a part can be asked for. length: whether the size is said.
    """

    content: bytes
    faults: list = field(default_factory=list)
    always: tuple = ()
    ranges: bool = True
    length: bool = True
    headers: dict = field(default_factory=dict)
    goes_to: str = ""


class Host(ThreadingHTTPServer):
    """offers: the files by path. asked: (method, path, range) of the requests. sent: the bytes of the answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.offers: dict[str, Offer] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.sent = 0

    def offer(self, path, content, **how):
        self.offers[path] = Offer(content, **how)
        return self.url + path

    def gets(self):
        """The ranges that were asked for, without those for the size alone."""
        return [span for method, _, span in self.asked if method == "GET"]

    def record(self, number, files):
        """Offer files as a record of Zenodo does, whose API gives their checksums; return the folder's URL."""
        entries = [
            {"key": name, "size": len(content), "checksum": f"md5:{md5(content).hexdigest()}"}
            for name, content in files.items()
        ]
        self.offer(f"/api/records/{number}", json.dumps({"files": entries}).encode())
        for name, content in files.items():
            self.offer(f"/records/{number}/files/{name}", content)
        return f"{self.url}/records/{number}/files"

    def hub(self, name, commit, files):
        """Offer the files of a dataset as the Hugging Face hub does."""
        self.offer("/", b"hub")
        for path, content in files.items():
            headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
            self.offer(f"/datasets/{name}/resolve/{commit}/{path}", content, headers=headers)
        return f"hub:{name}@{commit}"


@contextmanager
def host():
    server = Host()
    with serving(server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        path, span = urlsplit(self.path).path, self.headers.get("Range", "")
        self.server.asked.append((self.command, path, span))
        offer = self.server.offers.get(path)
        if offer is None:
            self._head(404, {"Content-Length": "0"})
        elif offer.goes_to:
            self._head(302, {"Location": offer.goes_to, "Content-Length": "0"})
        else:
            fault = ()
            if self.command == "GET":
                fault = offer.faults.pop(0) if offer.faults else offer.always
            self._offer(offer, span, fault)

    def _offer(self, offer, span, fault):
        if fault and isinstance(fault[0], int):
            after = {"Retry-After": str(fault[1])} if len(fault) > 1 else {}
            self._head(fault[0], {"Content-Length": "0", **after})
            return
        content, start, status, headers = offer.content, 0, 200, dict(offer.headers)
        if fault and fault[0] == "page":
            content, headers = b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"}
        elif (part := re.fullmatch(r"bytes=(\d+)-", span)) and offer.ranges:
            start, status = int(part[1]), 206
            if start >= len(content):
                self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        content = content[start:]
        if offer.length:
            headers["Content-Length"] = str(len(content))
        self._head(status, headers)
        if self.command == "GET":
            self._send(content, fault)

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content, fault):
        kind, size = fault if fault and fault[0] in ("cut", "stall", "drip") else ("", len(content))
        try:
            for start in range(0, len(content), max(1, size)):
                piece = content[start : start + size]
                self.server.sent += len(piece)
                self.wfile.write(piece)
                self.wfile.flush()
                if kind == "cut":
                    return
                if kind == "stall":
                    time.sleep(1.0)
                    return
                if kind == "drip":
                    time.sleep(0.02)
        except OSError:
            pass  # The client is gone.
