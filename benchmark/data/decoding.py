"""Decode compressed DICOM pixels in processes of their own: damaged ones can end their decoder, or keep it forever."""

import atexit
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np

from benchmark.common.errors import BenchError

READY = b"\n"
"""What a worker says first."""
SECONDS = 60
"""How long a decoder may take for an image; the largest take seconds."""


class DecoderCrash(Exception):
    """The process that decoded ended before it had an answer, or was ended after SECONDS."""


def decode_apart(syntax: str, encapsulated: bytes, options: dict[str, Any]) -> np.ndarray:
    """Decode the first frame of encapsulated pixels, in the transfer syntax of this UID.

    options: those of pydicom's ``Decoder.as_array()``. Raises ``DecoderCrash``, and ``RuntimeError`` with what the
    decoders said.
    """
    with _workers.free:
        worker = _workers.take()
        try:
            answer = worker.ask((syntax, encapsulated, options))
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            worker.end()
            raise DecoderCrash from error
        except BaseException:  # interrupted: its answer must not be taken for that of another question
            worker.end()
            raise
        _workers.idle.put(worker)
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


class _Worker:
    """A process that runs this file: it reads questions and writes answers, pickled, until its input ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
            start_new_session=True,  # Ctrl-C is for those who wait for the answer
        )
        assert self._process.stdout
        if self._process.stdout.read(1) != READY:
            self.end()
            raise BenchError(f"a process that decodes DICOM does not start: try {sys.executable} -P {__file__}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: tuple[str, bytes, dict[str, Any]]) -> np.ndarray | str:
        assert self._process.stdin
        assert self._process.stdout
        limit = threading.Timer(SECONDS, self._process.kill)
        limit.start()
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            answer: np.ndarray | str = pickle.load(self._process.stdout)
        finally:
            limit.cancel()
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what it was still to be asked is lost
                if stream:
                    stream.close()


class _Workers:
    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.idle: LifoQueue[_Worker] = LifoQueue()
        self.free = threading.BoundedSemaphore(os.cpu_count() or 1)

    def take(self) -> _Worker:
        """An idle worker that is alive, or a new one."""
        while True:
            try:
                worker = self.idle.get_nowait()
            except Empty:
                return _Worker()
            if worker.alive:
                return worker
            worker.end()

    def end(self) -> None:
        while not self.idle.empty():
            self.idle.get().end()


_workers = _Workers()
atexit.register(_workers.end)
os.register_at_fork(after_in_child=_workers.start)


def _serve() -> None:
    from pydicom import pixels, uid

    answers = os.fdopen(os.dup(1), "wb")
    answers.write(READY)
    answers.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decoders print
    while True:
        try:
            syntax, encapsulated, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = pixels.get_decoder(uid.UID(syntax)).as_array(encapsulated, index=0, **options)[0]
        except Exception as error:
            answer = str(error)
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
