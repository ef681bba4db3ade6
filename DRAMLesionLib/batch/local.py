"""Scans on this computer: one after the other here, or side by side in processes of their own.

No process outlives the batch that started it, however that ends. A process that ends in the middle
of a scan, as when the system takes it for its memory, is replaced and the scan done again; one that
ends three of them is set aside.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from DRAMLesionLib import writing
from DRAMLesionLib.batch.settings import Row, Scan, Settings
from DRAMLesionLib.batch.summary import failed_row
from DRAMLesionLib.memory import free_bytes

Do = Callable[[Scan, Settings], Row]
"""What does one scan: :func:`~DRAMLesionLib.batch.case.do_case`."""

Event = tuple[Scan, Row | None]
"""A scan that is begun (None), or done with its row."""

STRIKES = 3
"""So many processes may end at a scan."""

_BYTES_A_WORKER = 2.5e9
"""What a CT of 512 x 512 x 300 voxels takes, with torch and the networks."""

_GRACE_S = 10.0
"""What a process has to clean up in."""


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_workers(scans: int, device: str) -> int:
    """Return how many processes pay: a core and 2.5 GB each, on CUDA one a GPU.

    Args:
        scans: How many there are to be done.
        device: As the command line names it.

    Raises:
        InputError: If the device is not there.
    """
    most = cores()
    free = free_bytes()
    if device in ("auto", "cuda", "mps"):
        from DRAMLesionLib.devices import pick_device

        kind = pick_device(device).type
        if kind == "cuda":
            most = len(_gpus())
        elif kind == "mps":
            most = 1
    if free is not None:
        most = min(most, int(free / _BYTES_A_WORKER))
    return max(1, min(most, scans))


def one_by_one(scans: Sequence[Scan], settings: Settings, do: Do) -> Generator[Event, None, None]:
    """Do all scans in this process, in their order."""
    for scan in scans:
        yield scan, None
        yield scan, do(scan, settings)


class Processes:
    """Does scans in processes, the cores and GPUs shared out among them.

    Args:
        workers: How many.
        gpus: Whether the networks may run on GPUs.
    """

    def __init__(self, workers: int, gpus: bool = True) -> None:
        self._workers = workers
        self._gpus = _gpus() if gpus else []

    def __call__(
        self, scans: Sequence[Scan], settings: Settings, do: Do
    ) -> Generator[Event, None, None]:
        """Yield each scan when it is begun, and with its row when it is done, in any order."""
        waiting = deque(scans)
        strikes: Counter[str] = Counter()
        count = min(self._workers, len(scans))
        team: list[_Worker] = []
        try:
            while waiting or any(worker.scan for worker in team):
                while waiting and len(team) < count:
                    team.append(self._start(_free(range(count), team), do, settings))
                for worker in team:
                    if waiting and worker.scan is None:
                        worker.scan = waiting.popleft()
                        if not strikes[worker.scan.title]:
                            yield worker.scan, None
                        with suppress(OSError):  # it has ended, as is seen below
                            worker.connection.send(worker.scan)
                for worker in _heard(team):
                    scan, row = worker.scan, worker.row()
                    worker.scan = None
                    if row is None:
                        team.remove(worker)
                    if scan is None:
                        continue
                    if row is None:
                        writing.clean(settings.output / scan.name)
                        strikes[scan.title] += 1
                        if strikes[scan.title] < STRIKES:
                            waiting.appendleft(scan)
                            continue
                        row = failed_row(scan, _ended(worker.process.exitcode))
                    yield scan, row
        finally:
            _stop(team, settings)

    def _start(self, place: int, do: Do, settings: Settings) -> _Worker:
        # not forked: a copy of a process with running threads may never finish
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        gpu = self._gpus[place % len(self._gpus)] if self._gpus else None
        threads = max(1, cores() // self._workers)
        process = context.Process(target=_work, args=(theirs, do, settings, threads, gpu))
        process.start()
        theirs.close()
        return _Worker(place, process, ours)


@dataclass
class _Worker:
    """A process, the way to it, and the scan that it is at."""

    place: int
    process: BaseProcess
    connection: Connection
    scan: Scan | None = None

    def row(self) -> Row | None:
        """Return what it has sent; None if it has ended instead."""
        try:
            row: Row = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.connection.close()
            return None
        return row


def _free(places: Sequence[int], team: Sequence[_Worker]) -> int:
    taken = {worker.place for worker in team}
    return next(place for place in places if place not in taken)


def _heard(team: Sequence[_Worker]) -> list[_Worker]:
    """Wait for those that have sent something or ended: then their connection ends as well."""
    ready = wait([worker.connection for worker in team])
    return [worker for worker in team if worker.connection in ready]


def _stop(team: Sequence[_Worker], settings: Settings) -> None:
    """Let idle processes go, end the others, and clean up after those that do not do it."""
    for worker in team:
        worker.connection.close()
        if worker.scan is not None:
            worker.process.terminate()
    for worker in team:
        worker.process.join(_GRACE_S)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        if worker.scan is not None:
            writing.clean(settings.output / worker.scan.name)


def _ended(code: int | None) -> str:
    how = f"with exit status {code}"
    if code is not None and code < 0:
        how = f"by signal {-code}"
    why = ", most likely since the memory did not do" if code == -9 else ""
    return (
        f"the process that worked on it was ended {STRIKES} times, the last time {how}{why}: try "
        "it again with fewer workers or on a computer with more memory"
    )


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    torch = sys.modules.get("torch")  # whoever computes on a GPU has asked it which are there
    return [str(number) for number in range(torch.cuda.device_count())] if torch else []


def _work(
    connection: Connection, do: Do, settings: Settings, threads: int, gpu: str | None
) -> None:
    """Do scans until no more come; the body of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the batch, which ends this one
    signal.signal(signal.SIGTERM, _terminated)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        asked = os.environ.get(name, "")
        most = int(asked) if asked.isdecimal() else threads
        os.environ[name] = str(min(most, threads))  # before what reads it is loaded
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    with suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(do(connection.recv(), settings))


def _terminated(_number: int, _frame: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    """End this process with the batch, however that ends: unfinished files tell whose they are."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
