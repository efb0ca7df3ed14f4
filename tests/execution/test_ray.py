"""Cells as Ray tasks: on a cluster of which a node dies, and with results that pass through a storage."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.core import url_to_fs

from benchmark.common.errors import BenchError
from benchmark.execution.launch.launcher import Job, Unit
from benchmark.execution.launch.ray import Ray, pack, unpack
from benchmark.store.claim import owners
from tests.execution.fleet import check_equal, steps, wait_until
from tests.squares import Bench

RUN = ("run", "--suite", "suite.yaml", "--tasks", "linear_probe", "--methods", "clip", "--budget", "samples=1600")


def launcher(folder: Path, **options: Any) -> Ray:
    job = Job(id="launch", config={}, device="cpu", results=folder, folder=folder)
    return Ray(job, Ray.Config(**options))


@pytest.mark.parametrize(
    ("options", "device", "expected"),
    [
        ({}, "cuda", {"num_gpus": 1, "num_cpus": 1.0, "memory": None}),
        ({}, "cpu", {"num_gpus": 0, "memory": 16 * 10**9}),
        ({"gpus": 0.5, "cpus": 4.0, "memory": 32.0}, "cuda", {"num_gpus": 0.5, "num_cpus": 4.0, "memory": 32 * 10**9}),
        ({"gpus": 1.0, "retries": 2}, "cpu", {"num_gpus": 1.0, "memory": None, "max_retries": 2}),
    ],
)
def test_resources(tmp_path: Path, options: dict[str, Any], device: str, expected: dict[str, Any]) -> None:
    unit = Unit(cell="c", name="clip seed 0", device=device, memory=8 * 10**9)
    parameters = launcher(tmp_path, **options).resources(unit)
    assert {name: parameters[name] for name in expected} == expected


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_a_storage_passes_cells_on(tmp_path: Path, protocol: str) -> None:
    worker, results, storage = tmp_path / "worker", tmp_path / "results", f"{protocol}://{tmp_path}/storage/deep/"
    unpack(storage, "abc", results)
    assert not results.exists()
    write(worker / "cells", abc__log="1 2", abc__evaluations__new__rows="new")
    write(worker / "cells", **{".abc.claim-1": "this worker", "abc__evaluations__.new.claim-2": "this worker"})
    write(worker, launches__id__failed__x="why")
    write(results / "cells", abc__log="1 2", abc__evaluations__old__rows="old", other__log="3")
    write(results / "cells", **{".abc.partial-12__log": "1"})
    write(results, launches__id__launch="record")
    pack(worker, [worker / "cells", worker / "launches"], "abc", storage)
    system, root = url_to_fs(storage)
    assert [Path(name).name for name in system.ls(root, detail=False)] == ["abc.tar"]
    unpack(storage, "abc", results)
    files = {str(path.relative_to(results)): path.read_text() for path in results.rglob("*") if path.is_file()}
    assert files == {
        "cells/abc/log": "1 2",
        "cells/abc/evaluations/new/rows": "new",
        "cells/abc/evaluations/old/rows": "old",
        "cells/other/log": "3",
        "launches/id/failed/x": "why",
        "launches/id/launch": "record",
    }
    system.pipe(f"{root.rstrip('/')}/abc.tar", b"no archive")
    with pytest.raises(BenchError, match=r"storage/deep/abc.tar: is damaged .*; remove it"):
        unpack(storage, "abc", results)


@pytest.mark.parametrize("storage", ["nowhere://bucket/results", "s4:/results://x"])
def test_a_storage_that_is_none(tmp_path: Path, storage: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'contrastive-benchmark[ray]'")
    with pytest.raises(BenchError, match=f"--launch-option storage={storage}: "):
        launcher(tmp_path, storage=storage).check()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, Any]]:
    """A cluster with two nodes that have a CPU each, by the process of their raylets."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'contrastive-benchmark[ray]'")
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        both = [made.add_node(num_cpus=1, memory=8 * 10**9) for _ in range(2)]
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield {node.all_processes["raylet"][0].process.pid: (made, node) for node in both}
    finally:
        ray.shutdown()
        made.shutdown()
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
def test_another_node_finishes_the_cell_of_one_that_dies(bench: Bench, nodes: dict[int, Any]) -> None:
    results, owner_of = bench.folder / "results", []

    def kill() -> None:
        wait_until(lambda: steps(results) > 10)
        (owner,) = owners(results / "cells").values()
        parent = int(Path(f"/proc/{owner.process}/stat").read_text().rpartition(")")[2].split()[1])
        made, node = nodes[parent]
        os.kill(owner.process, signal.SIGKILL)
        made.remove_node(node, allow_graceful=False)
        owner_of.append(owner.process)

    assert bench(*RUN, "--results", "plain") == 0
    killer = threading.Thread(target=kill)
    killer.start()
    assert bench(*RUN, "--launch", "ray") == 0
    killer.join()
    assert len(owner_of) == 1
    assert "trained 1, evaluated 1" in bench.out
    check_equal(results, bench.folder / "plain")
    workers = {line.split()[3] for line in (results / "run.log").read_text().splitlines() if "ray " in line}
    assert len(workers) == 2


@pytest.mark.slow
def test_results_pass_through_a_storage(bench: Bench, nodes: dict[int, Any]) -> None:
    assert bench(*RUN, "--results", "plain") == 0
    launch = (*RUN, "--launch", "ray", "--launch-option", f"storage=file://{bench.folder}/storage")
    assert bench(*launch, "--tasks", "retrieval") == 0
    assert bench(*launch) == 0
    assert "trained 0, evaluated 1" in bench.out
    assert set(bench.rows()["task"]) == {"retrieval", "linear_probe"}
    assert bench("status") == 0
    assert "1 done" in bench.out
