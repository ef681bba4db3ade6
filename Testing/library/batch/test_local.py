"""Scans in this process, in several, in shards: the same results, and none lost."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from DRAMLesionLib import writing
from DRAMLesionLib.batch import local, run
from DRAMLesionLib.batch.local import Processes, one_by_one
from DRAMLesionLib.batch.settings import NOTES, Shard
from DRAMLesionLib.errors import OutputError
from Testing.library.batch import stub

NAMES = ("a", "bb", "broken", "dddd", "e", "f10", "f9")


def test_processes_and_shards_give_the_results_of_one_after_the_other(folder, other, tmp_path):
    folder.add(*NAMES)
    other.add(*NAMES)
    alone = folder.run(one_by_one)
    assert [row["scan"] for row in alone.rows] == sorted(NAMES)
    assert alone.line == "6 of 7 scans done"
    assert other.run(Processes(2)).rows == alone.rows
    assert other.results() == folder.results()
    assert all(other.begun(name) == 1 for name in NAMES)
    assert multiprocessing.active_children() == []


def test_shards_in_any_order_make_one_summary(folder, other):
    folder.add(*NAMES)
    other.add(*NAMES)
    folder.run(one_by_one)
    begun = other.run(one_by_one, Shard(3, 3))
    assert begun.line == "1 of 7 scans done, 5 wait for other shards"
    assert other.rows()["a"]["status"] == "open"
    other.run(one_by_one, Shard(1, 3))
    assert other.run(one_by_one, Shard(2, 3)).line == "6 of 7 scans done"
    assert other.results() == folder.results()
    assert all(other.begun(name) == 1 for name in NAMES)


def test_a_shard_counts_no_result_of_other_weights_and_no_old_failure(folder):
    folder.add("a", "broken", "c")
    scans = {scan.name: scan for scan in folder.scans()}
    folder.run(one_by_one)
    # another version has done them since
    newer = replace(folder.settings, weight_sums={"segmentation": "new"})
    for name in ("a", "broken"):
        stub.write(scans[name], newer)
    rows = folder.run(one_by_one, Shard(3, 3)).rows
    assert [(row["scan"], row["status"]) for row in rows] == [
        ("a", "open"),
        ("broken", "failed"),
        ("c", "done"),
    ]


def test_a_shard_is_for_one_run(folder):
    folder.add("a")
    with (
        writing.locked(folder.place / "out" / NOTES / "shard-1-of-2"),
        pytest.raises(OutputError, match="in use by another run"),
    ):
        folder.run(one_by_one, Shard(1, 2))
    assert folder.begun("a") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_that_is_killed_is_replaced_and_a_scan_that_kills_three_set_aside(folder):
    folder.add("a", "killer", "once", "z")
    outcome = folder.run(Processes(2))
    assert [row["status"] for row in outcome.rows] == ["done", "failed", "done", "done"]
    reason = folder.rows()["killer"]["reason"]
    assert reason.startswith("the process that worked on it was ended 3 times, the last time by")
    assert "memory did not do" in reason
    assert [folder.begun(name) for name in ("a", "killer", "once", "z")] == [1, 3, 2, 1]
    assert sum(line.endswith("/4 killer") for line in folder.lines) == 1


def test_a_batch_that_is_stopped_leaves_no_process_and_the_rows_so_far(folder):
    folder.add("a", "slow")

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.run(Processes(2), progress=stop)
    assert multiprocessing.active_children() == []
    assert list(folder.rows()) == ["a"]
    assert not list((folder.place / "out").rglob("*.part*"))
    (folder.place / "in" / "slow.nii.gz").unlink()
    assert folder.run(one_by_one).line == "1 of 1 scans done"


def test_progress_tells_rate_time_left_and_failures(folder, monkeypatch):
    folder.add("a", "broken", "c")
    clock = itertools.count(0.0, 30.0)  # each look at it takes half a minute
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    shares = []
    folder.run(one_by_one, progress=lambda title, share: shares.append((title, round(share, 2))))
    assert shares == [("a", 0.33), ("broken", 0.67), ("c", 1.0)]
    assert folder.lines == [
        "1/3 a",
        "  done (120 an hour, 1 min left)",
        "2/3 broken",
        "  failed broken is broken (48 an hour, 1 min left, 1 failed)",
        "3/3 c",
        "  done",
    ]


@pytest.mark.parametrize(
    ("free", "cores", "scans", "workers"),
    [(None, 8, 100, 8), (9e9, 8, 100, 3), (1e9, 8, 100, 1), (1e11, 8, 5, 5), (1e11, 1, 5, 1)],
)
def test_as_many_workers_as_memory_and_cores_allow(monkeypatch, free, cores, scans, workers):
    monkeypatch.setattr(local, "free_bytes", lambda: free)
    monkeypatch.setattr(local, "cores", lambda: cores)
    assert local.default_workers(scans, "cpu") == workers
