"""Files are looked at one after the other, and in threads where the disk makes one wait."""

import threading
import time

import pytest

from benchmark.data import slow_disk
from benchmark.data.slow_disk import by_chunks

CHUNKS = [[number] * 3 for number in range(100)]


def test_a_fast_disk_needs_no_threads() -> None:
    threads = []

    def work(chunk: list[int]) -> int:
        threads.append(threading.current_thread())
        return sum(chunk)

    assert list(by_chunks(work, CHUNKS)) == [3 * number for number in range(100)]
    assert set(threads) == {threading.main_thread()}


@pytest.mark.parametrize("slow_from", [0, 40])
def test_a_slow_disk_is_asked_by_threads_in_order(slow_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_disk, "SLOW", 1e-3)
    threads: dict[int, threading.Thread] = {}

    def work(chunk: list[int]) -> int:
        threads[chunk[0]] = threading.current_thread()
        time.sleep(0.01 if chunk[0] >= slow_from else 0)
        return sum(chunk)

    assert list(by_chunks(work, CHUNKS)) == [3 * number for number in range(100)]
    main = {number for number, thread in threads.items() if thread is threading.main_thread()}
    assert main == set(range(slow_from + 1))
    assert len(set(threads.values())) > 4


def test_chunks_are_not_read_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_disk, "SLOW", 0.0)
    read = []

    def chunks():
        for chunk in CHUNKS:
            read.append(chunk)
            yield chunk

    for number, _ in enumerate(by_chunks(sum, chunks())):
        assert len(read) <= number + 1 + slow_disk.THREADS
