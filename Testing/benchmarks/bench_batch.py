"""Many scans: what the batch adds to each, with a stand-in for the computing, and as workers die.

The stand-in writes a small whole result. Its own time is part of the figure, so that is an upper
bound; the start of the processes is not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from DRAMLesionLib.batch.cluster import Cluster
from DRAMLesionLib.batch.local import Processes, one_by_one
from DRAMLesionLib.batch.run import Runner, run_batch
from DRAMLesionLib.batch.settings import Settings, Shard, find_scans
from Testing.benchmarks.measuring import within
from Testing.library.batch import stub

SCANS = 200
SHARDS = 4
CASE_S = 35.0
SHARE = 0.03
"""Of the time of a whole CT, what the batch may add."""


def run(scans: int = SCANS, kill_every_s: float = 20.0) -> list[dict[str, Any]]:
    """Return the rows of the benchmark table."""
    rows = [
        _row("one after the other", scans, lambda batch: batch(one_by_one)),
        _row("2 processes", scans, lambda batch: batch(Processes(2))),
        _row(f"{SHARDS} shards", scans, _in_shards),
    ]
    import dask
    from distributed import LocalCluster

    with (
        # on a busy machine a worker needs longer than 15 s to come back
        dask.config.set({"distributed.deploy.lost-worker-timeout": "300s"}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
    ):
        runner = Cluster(cluster.scheduler_address)
        rows.append(_row("Dask, 2 workers", scans, lambda batch: batch(runner)))
        ended = threading.Event()
        killer = threading.Thread(target=_kill, args=(cluster, kill_every_s, ended))
        killer.start()
        name = f"Dask, a worker killed every {kill_every_s:g} s"
        try:
            rows.append(_row(name, scans, lambda batch: batch(runner)))
        finally:
            ended.set()
            killer.join()
    return rows


def _row(name: str, scans: int, work: Callable[[Callable[..., float]], float]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").mkdir()
        for number in range(scans):
            (place / "in" / f"scan-{number:04d}.nii.gz").write_text(str(number))

        def batch(runner: Runner, shard: Shard | None = None) -> float:
            return _seconds(place, runner, shard)

        seconds = work(batch)
        settings = Settings(place / "out")
        done = sum((place / "out" / s.name / "report.json").is_file() for s in _found(place))
        assert done == scans, f"{scans - done} scans were lost"
        twice = sum(stub.times_done(s.name, settings) - 1 for s in _found(place))
    row = {"name": f"batch: {name}", **within([seconds / scans], SHARE * CASE_S)}
    return {**row, "begun_again": twice}


def _in_shards(batch: Callable[..., float]) -> float:
    return sum(batch(one_by_one, Shard(n, SHARDS)) for n in range(1, SHARDS + 1))


def _seconds(place: Path, runner: Runner, shard: Shard | None) -> float:
    """Return how long a batch takes from the first scan's begin."""
    begun: list[float] = []

    def tell(_: str) -> None:
        begun.append(time.perf_counter())

    run_batch(_found(place), Settings(place / "out"), runner, tell, shard, do=stub.do)
    return time.perf_counter() - begun[0]


def _found(place: Path) -> list[Any]:
    return find_scans(place / "in", None, lambda _: None)


def _kill(cluster: Any, every_s: float, ended: threading.Event) -> None:
    """End a worker's process again and again."""
    number = 0
    while not ended.wait(every_s):
        nannies = list(cluster.workers.values())
        process = nannies[number % len(nannies)].pid if nannies else None
        number += 1
        if process is not None:  # it may just be being replaced
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
