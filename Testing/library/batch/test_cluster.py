"""Scans on the workers of a Dask scheduler."""

from __future__ import annotations

import sys

import pytest

from DRAMLesionLib.batch.cluster import Cluster
from DRAMLesionLib.batch.local import one_by_one
from DRAMLesionLib.errors import InputError, MissingDependencyError

distributed = pytest.importorskip("distributed", reason="Dask is not installed")
dask = pytest.importorskip("dask")

_PATIENT = {
    "distributed.comm.timeouts.connect": "300s",
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.deploy.lost-worker-timeout": "300s",
    "distributed.scheduler.worker-ttl": None,
}
"""For machines that do other things as well."""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_workers_that_are_lost_lose_no_scan_and_a_scan_that_ends_three_is_set_aside(folder, other):
    names = ("a", "bb", "broken", "killer", "once", "z")
    folder.add(*names)
    with (
        dask.config.set(_PATIENT),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
    ):
        outcome = folder.run(Cluster(cluster.scheduler_address))
    found = {row["scan"]: row["status"] for row in outcome.rows}
    assert [name for name, status in found.items() if status == "failed"] == ["broken", "killer"]
    assert folder.rows()["killer"]["reason"].startswith("the workers that worked on it were ended")
    assert [folder.begun(name) for name in ("a", "bb", "killer", "once", "z")] == [1, 1, 3, 2, 1]
    assert not list((folder.place / "out").glob(".dramlesion-*"))

    # the others are as without a cluster
    for place in (folder, other):
        place.add("a", "bb", "z")
    (folder.place / "in" / "killer.nii.gz").unlink()
    (folder.place / "in" / "once.nii.gz").unlink()
    other.add("broken")
    other.run(one_by_one)
    folder.run(one_by_one)
    same = {name: data for name, data in folder.results().items() if not name.startswith("once/")}
    assert same == other.results()


def test_a_scheduler_without_workers_is_waited_for_and_told(folder):
    folder.add("a")
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address=":0", silence_logs=50
    ) as cluster:

        def tell(line):
            folder.lines.append(line)
            if "has no worker" in line:
                cluster.scale(1)

        assert folder.run(Cluster(cluster.scheduler_address, tell)).line == "1 of 1 scans done"
    assert sum("has no worker: waiting for one" in line for line in folder.lines) == 1


def test_a_scheduler_that_does_not_answer_is_told(folder, monkeypatch):
    monkeypatch.setattr("DRAMLesionLib.batch.cluster._CONNECT_S", 0.5)
    folder.add("a")
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        folder.run(Cluster("tcp://127.0.0.1:9"))
    assert folder.begun("a") == 0


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install \"dramlesion\[cluster\]\""):
        Cluster("tcp://127.0.0.1:9")
