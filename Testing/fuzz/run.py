"""Sends cases to worker processes, and counts what became of them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from Testing.fuzz.worker import CHANGE, work

FAILURES = ("crash", "hang", "traceback", "memory", "wrong", "unclear")
"""Outcomes that must not be; the others are ``refused``, ``warned``, ``same`` and ``another``."""

TIME_LIMIT_S = 20.0
"""Of the processor for one file, or asleep; a sound one takes a tenth of a second."""

_START = 6.0
"""So many times that for the first file of a kind, with which the sound one is written and read."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Failure:
    """A file that was dealt with wrongly.

    Attributes:
        kind: Of file.
        number: Of the case; with the seed it makes the file again.
        outcome: One of :data:`FAILURES`.
        change: What was done to the file.
        details: Traceback, last words, or difference.
    """

    kind: str
    number: int
    outcome: str
    change: str
    details: str


@dataclass
class Result:
    """What became of all files.

    Attributes:
        counts: Outcomes by kind of file.
        failures: Files that were dealt with wrongly.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, kind: str, number: int, outcome: str, change: str, details: str) -> None:
        """Count one file."""
        self.counts.setdefault(kind, Counter())[outcome] += 1
        if outcome in FAILURES:
            self.failures.append(Failure(kind, number, outcome, change, details))


def fuzz(
    seed: int,
    cases: Iterable[tuple[int, str]],
    jobs: int = 1,
    keep: Path | None = None,
    tell: Callable[[Failure], object] = lambda _: None,
    time_limit: float = TIME_LIMIT_S,
    kinds: str = "Testing.fuzz.registry:KINDS",
) -> Result:
    """Read changed files of a seed.

    Args:
        seed: What the changes hang on.
        cases: Number and kind of each.
        jobs: Worker processes.
        keep: Where files that were dealt with wrongly are kept.
        tell: Called for each of them.
        time_limit: Seconds for one file.
        kinds: Module and name of the dictionary of kinds.

    Returns:
        What became of them.
    """
    result, lock, waiting = Result(), threading.Lock(), iter(cases)

    def loop() -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            worker = _Worker(Path(folder), time_limit, kinds)
            try:
                while True:
                    with lock:
                        case = next(waiting, None)
                    if case is None:
                        return
                    number, kind = case
                    outcome, change, details = worker.read(seed, number, kind)
                    with lock:
                        result.add(kind, number, outcome, change, details)
                        if outcome in FAILURES:
                            if keep is not None:
                                _keep(worker.case, keep / f"{kind}-{seed}-{number}")
                            tell(result.failures[-1])
            finally:
                worker.stop()

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(loop) for _ in range(jobs)]:
            future.result()
    return result


class _Worker:
    """A process, begun anew whenever a file has ended it."""

    def __init__(self, folder: Path, time_limit: float, kinds: str) -> None:
        self._folder, self._limit, self._kinds = folder, time_limit, kinds
        self._process: multiprocessing.process.BaseProcess | None = None
        self._known: set[str] = set()

    @property
    def case(self) -> Path:
        """The files of the last case."""
        return self._folder / "case"

    def read(self, seed: int, number: int, kind: str) -> tuple[str, str, str]:
        """Return outcome, change and details of one case."""
        if self._process is None:
            self._start()
        assert self._process is not None
        # the first of a kind writes and reads the sound file as well
        limit = self._limit if kind in self._known else _START * self._limit
        self._known.add(kind)
        (self._folder / CHANGE).unlink(missing_ok=True)
        self._connection.send((seed, number, kind))
        if not self._answers(limit):
            self.stop()
            return "hang", self._change(), f"not done after {limit:.0f} s"
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self.stop()
            if not self._change():
                message = f"the fuzz itself failed: {self._last_words()}"
                raise RuntimeError(message) from None
            return "crash", self._change(), f"exit code {code}: {self._last_words()}"
        if answer[0] == "memory":
            # what it still holds would count against the next file
            self.stop()
        return answer

    def _answers(self, limit: float) -> bool:
        """Wait for an answer or an end, on a loaded machine longer."""
        assert self._process is not None
        began, asleep = _used_s(self._process.pid)[0], 0.0
        while not wait([self._connection, self._process.sentinel], 1.0):
            used, waits = _used_s(self._process.pid)
            asleep = asleep + 1.0 if waits else 0.0
            if used - began > limit or asleep > limit:
                return False
        return True

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, self._folder, self._log, self._kinds), daemon=True
        )
        self._process.start()
        theirs.close()
        self._known = set()

    def _change(self) -> str:
        path = self._folder / CHANGE
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _last_words(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return text[:1000] if "Fatal Python error" in text else text[-1000:]


def _used_s(process: int | None) -> tuple[float, bool]:
    """Return the seconds of processor that a process has used, and whether it waits."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, False
    return (int(fields[11]) + int(fields[12])) / _TICKS, fields[0] == "S"


def _keep(case: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if case.exists():
        shutil.copytree(case, place, symlinks=True, copy_function=_copy)


def _copy(source: str, target: str) -> None:
    # a pipe has nothing to copy
    if Path(source).is_file():
        shutil.copyfile(source, target)
