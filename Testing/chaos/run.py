"""Kills a job at random moments, starts it again, and compares with a run that was left alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from Testing.chaos.jobs import Job
from Testing.chaos.starting import start

TERMINATE_SHARE = 0.2
"""So many of the kills are SIGTERM, which may be cleaned up after; the others SIGKILL."""

EARLY_SHARE = 0.25
"""So many come at any moment, the others after the mark, where files are written."""

MOST_KILLS = 3
"""In one round, before the job may finish."""

_END_S = 1200.0
_GRACE_S = 20.0


@dataclass
class Outcome:
    """What was seen.

    Attributes:
        kills: Processes that were killed in their work.
        rounds: Runs that were finished after kills.
        problems: What was wrong, with how to make it again.
    """

    kills: int = 0
    rounds: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Ended:
    code: int
    seconds: float
    marked: float
    output: str


def torture(
    job: Job, kills: int, seed: int, tell: Callable[[str], object] = lambda _: None
) -> Outcome:
    """Kill a job ``kills`` times, in rounds that are finished and compared.

    Args:
        job: What to kill.
        kills: How many processes.
        seed: What the moments hang on; what is running then hangs on the machine.
        tell: Called with a line for each round.

    Returns:
        What was seen.
    """
    outcome = Outcome()
    reference = job.folder / "reference"
    alone = _run(job, reference)
    if alone.code != 0:
        outcome.problems.append(f"the undisturbed run failed: {alone.output[-2000:]}")
        return outcome
    expected = job.results(reference)
    outcome.problems += [f"undisturbed run: {text}" for text in left_overs(reference)]
    tell(f"{job.name}: undisturbed in {alone.seconds:.1f} s, mark at {alone.marked:.1f} s")
    while outcome.kills < kills:
        rng = np.random.default_rng([seed, outcome.rounds])
        _round(job, expected, alone, min(MOST_KILLS, kills - outcome.kills), rng, outcome)
        tell(f"{job.name}: {outcome.kills} kills, {len(outcome.problems)} problems")
    return outcome


def _round(
    job: Job,
    expected: dict[str, Any],
    alone: _Ended,
    kills: int,
    rng: np.random.Generator,
    outcome: Outcome,
) -> None:
    """Kill once or more, let it finish, compare."""
    output = job.folder / f"round-{outcome.rounds}"
    where = f"{job.name}, round {outcome.rounds}"
    outcome.rounds += 1
    job.prepare(output, rng)
    problems: list[str] = []
    for _ in range(int(rng.integers(1, kills + 1))):
        number = signal.SIGTERM if rng.random() < TERMINATE_SHARE else signal.SIGKILL
        early = rng.random() < EARLY_SHARE
        share = float(rng.random())
        delay = share * (alone.seconds if early else alone.seconds - alone.marked)
        ended = _run(job, output, (number, delay, early))
        killed = ended.code != 0
        outcome.kills += killed
        how = (
            f"{signal.Signals(number).name} {delay:.2f} s after the {'start' if early else 'mark'}"
        )
        if killed and number == signal.SIGTERM:
            problems += [f"{how}: {text}" for text in left_overs(output)]
        if "Traceback" in ended.output:
            problems.append(f"{how}: {ended.output[-1500:]}")
        problems += [f"{how}: {text}" for text in _compare_done(job, output, expected)]
    last = _run(job, output)
    if last.code != 0:
        problems.append(f"the last start failed with {last.code}: {last.output[-1500:]}")
    else:
        problems += _compare(expected, job.results(output))
        problems += left_overs(output)
    outcome.problems += [f"{where}: {text}" for text in problems]
    if not problems:
        shutil.rmtree(output)


def _compare_done(job: Job, output: Path, expected: dict[str, Any]) -> list[str]:
    """Compare what counts as done after a kill with what it should be."""
    if not output.is_dir():
        return []
    try:
        done = job.done(output)
    except Exception as error:  # whatever is missing or cut short
        return [f"counts as done, but cannot be read: {type(error).__name__}: {error}"]
    problems = []
    for name, found in done.items():
        wanted = expected.get(name, expected)
        wanted = wanted if isinstance(wanted, dict) else expected
        problems += [f"counts as done: {t}" for t in _compare(wanted, found, part=True)]
    return problems


def _compare(expected: dict[str, Any], found: dict[str, Any], part: bool = False) -> list[str]:
    """Name what differs."""
    names = found.keys() if part else expected.keys() | found.keys()
    return [
        f"{name} differs from the undisturbed run's"
        for name in sorted(names)
        if name not in expected or name not in found or not _same(expected[name], found[name])
    ]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    return bool(a == b)


def left_overs(output: Path) -> list[str]:
    """Name what unfinished writing has left in a folder, or beside it."""
    found = [path for path in output.rglob("*") if _is_left(path)] if output.is_dir() else []
    found += [path for path in output.parent.iterdir() if _is_left(path)]
    return [f"{path.relative_to(output.parent)} was left over" for path in found]


def _is_left(path: Path) -> bool:
    return ".part" in path.name or path.name.startswith((".dramlesion-", ".dramlesion.owner"))


def _run(job: Job, output: Path, kill: tuple[int, float, bool] | None = None) -> _Ended:
    """Run a job, to its end or to its kill: signal, delay, and whether from the start."""
    started = time.monotonic()
    process, stream = start(job.command(output))
    lines: list[str] = []
    marked: list[float] = []
    mark = threading.Event()

    def read() -> None:
        for line in stream:
            lines.append(line)
            if job.mark in line and not marked:
                marked.append(time.monotonic() - started)
                mark.set()
        mark.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if kill is not None:
            number, delay, early = kill
            if not early:
                mark.wait(_END_S)
            process.join(delay)
            if process.exitcode is None:
                os.kill(process.pid, number)
        process.join(_END_S)
    finally:
        if process.exitcode is None:
            process.kill()
            process.join()
    seconds = time.monotonic() - started
    lines += _orphans(process.pid)
    reader.join(_GRACE_S)
    code = -1 if process.exitcode is None else process.exitcode
    return _Ended(code, seconds, marked[0] if marked else 0.0, "".join(lines))


def _orphans(session: int | None) -> list[str]:
    """End what a run has left behind, and complain if it does not end by itself."""
    until = time.monotonic() + _GRACE_S
    while (left := _members(session)) and time.monotonic() < until:
        time.sleep(0.1)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return [f"Traceback: {len(left)} processes outlived their parent\n"] if left else []


def _members(session: int | None) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(path.name))
    return found
