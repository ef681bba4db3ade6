"""Cases side by side: what ends with what, and what is said when the memory does not do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from DRAMLesionLib.errors import OutOfMemory
from Training.learning.workers import in_workers, run_command

ROOT = Path(__file__).resolve().parents[3]


def _square(n):
    return n * n


def _fails(n):
    if n == "b":
        message = "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"
        raise RuntimeError(message)
    return n


def _is_killed(n):
    if n == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return n


def _wrong(n):
    message = "no memory of it"
    raise RuntimeError(message)


def _all(function, tasks, workers):
    return list(in_workers(function, tasks, workers, case=str, setting="prepare.workers"))


def test_each_task_comes_with_its_result():
    assert _all(_square, [1, 2, 3], 1) == [(1, 1), (2, 4), (3, 9)]


def test_an_error_of_memory_names_case_and_remedy():
    words = r"the memory did not do for b: .*fewer workers than 2 \(prepare\.workers\)"
    with pytest.raises(OutOfMemory, match=words):
        _all(_fails, ["a", "b"], 2)
    with pytest.raises(OutOfMemory, match="the memory did not do for b: close other programs"):
        _all(_fails, ["a", "b"], 1)
    with pytest.raises(RuntimeError, match="no memory of it"):
        _all(_wrong, ["a"], 1)


def test_a_worker_that_the_system_has_killed_is_told_with_its_case():
    with pytest.raises(OutOfMemory, match=r"has ended a worker.* at .*b.*: .*fewer workers than 2"):
        _all(_is_killed, ["a", "b", "c", "d", "e"], 2)


STARTS_WORKERS = """
import os, sys, time
from pathlib import Path
from Training.__main__ import _terminable
from Training.learning.workers import in_workers

def work(n):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(300)

if __name__ == "__main__":
    with _terminable():
        list(in_workers(work, [1, 2], 2, case=str, setting="workers"))
"""


def _is_alive(process):
    try:
        # what has ended, and whose parent has not asked yet, is no longer at work
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_process_that_started_it(tmp_path, number):
    script, seen = tmp_path / "script.py", tmp_path / "seen"
    script.write_text(STARTS_WORKERS)
    seen.mkdir()
    parent = subprocess.Popen(  # noqa: S603
        [sys.executable, str(script), str(seen)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        _within(120, lambda: len(list(seen.iterdir())) == 2)
        workers = [int(path.name) for path in seen.iterdir()]
        assert all(map(_is_alive, workers))
        parent.send_signal(number)
        assert parent.wait(60) != 0
        _within(20, lambda: not any(map(_is_alive, workers)))
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")
def test_a_program_ends_with_all_that_it_has_started_when_it_is_no_longer_waited_for(tmp_path):
    started = tmp_path / "started"
    words = ["sh", "-c", f"sleep 300 & echo $! > {started}; wait"]

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with (tmp_path / "said").open("w") as said, pytest.raises(KeyboardInterrupt):
            run_command(words, said, dict(os.environ))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    _within(20, lambda: not _is_alive(int(started.read_text())))
    with (tmp_path / "said").open("w") as said:
        assert run_command(["sh", "-c", "echo gone; exit 3"], said, dict(os.environ)) == 3
    assert (tmp_path / "said").read_text() == "gone\n"
