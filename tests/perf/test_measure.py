"""How `bench perf` takes turns, and what it computes from the figures."""

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from benchmark.common.errors import BenchError
from benchmark.perf import measure
from benchmark.perf.measure import (
    Process,
    Stopwatch,
    Work,
    answered,
    break_even,
    compared,
    interleaved,
    markdown,
    row_of,
    seconds,
)

SIDES = {"ours": "mine", "once": "preparing", "peer": "theirs", "limit": "the least"}


class Side:
    def __init__(self, side: str, log: list[str], absent: bool = False) -> None:
        self.side, self.log, self.absent = side, log, absent

    def ask(self) -> dict[str, Any]:
        self.log.append(self.side)
        return {"absent": "not installed"} if self.absent else {"cpu": float(len(self.log)), "wall": 1.0, "memory": 1}


def test_sides_take_turns_after_a_warm_up() -> None:
    log: list[str] = []
    figures = list(interleaved([Side("a", log), Side("b", log), Side("c", log, absent=True)], 2))
    assert "".join(log) == "abcabab"
    assert [(each["side"], each.get("cpu")) for each in figures] == [
        ("c", None),
        ("a", 4),
        ("b", 5),
        ("a", 6),
        ("b", 7),
    ]


def test_only_what_fills_a_cache_is_warmed() -> None:
    log: list[str] = []
    assert len(list(interleaved([Side("a", log), Side("b", log)], 2, ["b"]))) == 4
    assert "".join(log) == "babab"


def test_long_works_are_run_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PATIENCE", -1)
    log: list[str] = []
    assert len(list(interleaved([Side("a", log), Side("b", log)], 5))) == 2 * measure.LEAST_RUNS


def figures(side: str, *cpu: float, wall: float = 1.0) -> list[dict[str, Any]]:
    return [{"side": side, "cpu": each, "wall": wall, "memory": int(each)} for each in cpu]


def row(runs: list[dict[str, Any]], sides: Mapping[str, str] = SIDES) -> Any:
    return row_of("work", Work("a work", sides, lambda _: []), runs, (0.0, 1.0))


def test_ratios_are_of_medians() -> None:
    of = row([*figures("ours", 1, 9, 2, wall=2), *figures("peer", 6, 5, 7), *figures("limit", 1, 0.5, 9)])
    assert of["sides"]["ours"] == {"cpu": 2, "wall": 2, "memory": 9}
    assert of["ratios"] == {"ours": {"peer": {"cpu": 3, "wall": 0.5}, "limit": {"cpu": 2, "wall": 2}}}
    assert len(of["runs"]) == 9
    assert "break_even" not in of


def test_a_side_has_a_peer_of_its_own() -> None:
    sides = {"cold": "", "warm": "", "peer": "", "peer_warm": ""}
    runs = [each for side, cpu in zip(sides, (2.0, 1.0, 6.0, 5.0)) for each in figures(side, cpu)]
    assert {side: each["peer"]["cpu"] for side, each in row(runs, sides)["ratios"].items()} == {"cold": 3, "warm": 5}


def test_without_the_peer_there_is_no_ratio() -> None:
    of = row([{"side": "peer", "absent": "not installed"}, *figures("ours", 1), *figures("limit", 1)])
    assert of["absent"] == {"peer": "not installed"}
    assert of["ratios"]["ours"].keys() == {"limit"}


@pytest.mark.parametrize(
    ("once", "ours", "peer", "first"), [(5, 1, 4, 2), (6, 1, 4, 2), (7, 1, 4, 3), (0, 1, 2, 1), (1, 2, 2, None)]
)
def test_what_is_paid_once_pays_from_a_repetition_on(once: float, ours: float, peer: float, first: int | None) -> None:
    assert break_even(once, ours, peer) == first
    if first:
        assert once + first * ours <= first * peer
        assert first == 1 or once + (first - 1) * ours > (first - 1) * peer


def test_the_page_says_what_the_figures_are() -> None:
    machine = {"processor": "P", "cores": 2, "gpu": "", "python": "3", "torch": "2"}
    good = row([*figures("ours", 1), *figures("once", 5), *figures("peer", 4), *figures("limit", 0.5)])
    content = {"machine": machine, "date": "2026-01-02", "commit": "abc", "command": "bench perf", "scale": 1.0}
    page = markdown(content | {"works": [good, {"work": "other", "failed": "why"}]})
    assert "`bench perf` on 2026-01-02 at commit abc, at scale 1: P, 2 cores" in page
    assert "| ours: mine | 1.00 | 1.00 | 0 MB | 4.00 / 1.00 | 2.00 / 1.00 | 1 | |" in page
    assert "preparing pays from repetition 2 on" in page
    assert "failed: why" in page


def test_seconds_have_three_digits() -> None:
    assert [seconds(each) for each in (123.4, 12.34, 1.234, 0.1234, 0.001234, 0)] == [
        "123",
        "12.3",
        "1.23",
        "0.123",
        "0.00123",
        "0",
    ]


ANSWERS = """
import sys
print("{}", flush=True)
for number, _ in enumerate(sys.stdin):
    if sys.argv[1] == "peer" and number == 2: sys.exit("it broke")
    print('{"cpu": 1, "wall": 1, "memory": %d}' % number, flush=True)
"""


def test_processes_answer_or_say_why_not() -> None:
    with Process([sys.executable, "-c", ANSWERS, "peer"], "peer") as process:
        process.ready()
        assert [process.ask()["memory"], process.ask()["memory"]] == [0, 1]
        with pytest.raises(BenchError, match="peer: it broke"):
            process.ask()


def test_a_work_is_measured_by_its_sides() -> None:
    work = Work("a work", {"ours": "", "limit": ""}, lambda _: [])
    of = compared("work", work, [sys.executable, "-c", ANSWERS], 3)
    assert [run["side"] for run in of["runs"]] == ["ours", "limit"] * 3
    assert of["sides"]["ours"]["memory"] == 3


def test_a_side_is_timed_or_times_itself() -> None:
    sides = iter([lambda: None, lambda: {"cpu": 7.0, "wall": 8.0}, lambda: torch.zeros(1)])

    def absent() -> None:
        raise BenchError("not installed: pip install x")

    first, timed, own, tensor = answered(lambda: next(sides)(), "123", torch.device("cpu"))
    assert first == {}
    assert timed.keys() == tensor.keys() == {"cpu", "wall", "memory"}
    assert own["cpu"] == 7
    assert timed["cpu"] < 1
    assert list(answered(absent, "1", torch.device("cpu")))[1] == {"absent": "not installed: pip install x"}


def test_a_share_of_the_time() -> None:
    watch = Stopwatch().start()
    watch._cpu -= 10
    assert watch.stop(0.1)["cpu"] == pytest.approx(1, abs=0.1)
