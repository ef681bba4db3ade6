"""The process that reads changed files, under limits of memory; it may die of any of them."""

from __future__ import annotations

import faulthandler
import importlib
import os
import resource
import shutil
import sys
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from DRAMLesionLib.errors import DRAMLesionError
from Testing.fuzz.kinds import Change, Kind, Reading, same

MEMORY_GB = 3.0
"""What reading a file may take of address space, beside what the process has at its start."""

BLOW_UP_MB = 600.0
"""Files of the fuzz hold less than 100 kB: whoever takes this much believed a claim."""

CHANGE = "change"
"""File that tells what was changed, for a worker that cannot tell any more."""

MAX_TEXT = 1500
"""A longer message is no sentence."""


def work(connection: Connection, folder: Path, log: Path, kinds: str) -> None:
    """Read the cases whose seed, number and kind come in, and send what became of each.

    Args:
        connection: Where cases come from and answers go to.
        folder: For files.
        log: For what C++ libraries print.
        kinds: Module and name of the dictionary of kinds.
    """
    _redirect(log)
    module, _, name = kinds.partition(":")
    known: dict[str, Kind] = getattr(importlib.import_module(module), name)
    truths: dict[str, Reading | None] = {}
    _limit_memory()
    while (order := connection.recv()) is not None:
        seed, number, name = order
        kind = known[name]
        if name not in truths:
            truths[name] = _truth(kind, folder)
        connection.send(_one(kind, seed, number, folder, truths[name]))


def make_case(kind: Kind, seed: int, number: int, folder: Path) -> tuple[Path, Change]:
    """Write a changed file; the same for the same seed and number."""
    case = folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(_base(kind, folder), case, symlinks=True)
    change = kind.change(case, np.random.default_rng([seed, number]))
    return case, change


def _base(kind: Kind, folder: Path) -> Path:
    base = folder / f"base-{kind.name}"
    if not base.exists():
        # a killed worker leaves no half of it
        part = folder / f"part-{kind.name}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        kind.write(part)
        part.rename(base)
    return base


def _truth(kind: Kind, folder: Path) -> Reading | None:
    """Read the sound file; None where it is refused."""
    case = folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(_base(kind, folder), case)
    try:
        return kind.read(case)
    except DRAMLesionError:
        if kind.accepted:
            raise
        return None


def _one(
    kind: Kind, seed: int, number: int, folder: Path, truth: Reading | None
) -> tuple[str, str, str]:
    """Return outcome, what was changed, and details."""
    case, change = make_case(kind, seed, number, folder)
    (folder / CHANGE).write_text(change.what, encoding="utf-8")
    _reset_peak()
    before = _peak_mb()
    try:
        reading = kind.read(case)
    except DRAMLesionError as error:
        outcome, details = "refused", _unclear(str(error))
        outcome = "unclear" if details else outcome
    except MemoryError:
        outcome, details = "memory", traceback.format_exc()
    except Exception:
        outcome, details = "traceback", traceback.format_exc()
    else:
        outcome, details = _judge(reading, truth, change)
    taken = _peak_mb() - before
    if taken > BLOW_UP_MB:
        outcome, details = "memory", f"{taken:.0f} MB"
    return outcome, change.what, details


def _judge(reading: Reading, truth: Reading | None, change: Change) -> tuple[str, str]:
    if truth is not None and same(reading.content, truth.content):
        return "same", ""
    if reading.warnings - (truth.warnings if truth else frozenset()):
        return "warned", ""
    if not change.guarded:
        return "another", ""
    return "wrong", f"read as something else without a warning: {_difference(reading, truth)}"


def _difference(reading: Reading, truth: Reading | None) -> str:
    if truth is None:
        return "the sound file is refused"
    a, b = truth.content, reading.content
    names = [n for n in a if n not in b or not same({n: a[n]}, {n: b[n]})]
    shown = [f"{n}: {_short(a[n])} -> {_short(b.get(n))}" for n in names[:3]]
    return "; ".join([*shown, *(f"{n} is new" for n in b if n not in a)])


def _short(value: object) -> str:
    if isinstance(value, np.ndarray):
        middle = f", {value.min():g} to {value.max():g}" if value.dtype.kind in "iufb" else ""
        return f"{value.shape}{middle}"
    return repr(value)[:300]


def _unclear(message: str) -> str:
    if "\n" in message.strip() or len(message) > MAX_TEXT or not message.strip():
        return f"not one sentence: {message[:300]!r}"
    try:
        message.encode("utf-8")
    except UnicodeEncodeError:
        return f"cannot be printed: {message!r}"
    return ""


def _redirect(log: Path) -> None:
    """Send what C++ libraries print to a file, of which a crash shows the end."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    faulthandler.enable(sys.__stderr__)
    warnings.simplefilter("ignore")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(MEMORY_GB * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1e3
    return 0.0
