"""Kinds of files that are dealt with in every way, to test the fuzz itself; quick to load."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from DRAMLesionLib.errors import InputError
from Testing.fuzz.kinds import Change, Kind, Reading


def _write(folder: Path) -> None:
    (folder / "file").write_bytes(b"sound")


def _note(folder: Path, rng: np.random.Generator) -> Change:
    (folder / "file").write_bytes(b"changed")
    return Change("changed", guarded=True)


def _kind(read) -> Kind:
    def either(folder: Path) -> Reading:
        if (folder / "file").read_bytes() == b"sound":
            return Reading({"values": np.zeros(3)})
        return read(folder)

    return Kind("made-up", _write, _note, either)


def _crash(_: Path) -> Reading:
    os.abort()


def _hang(_: Path) -> Reading:
    time.sleep(1000)
    raise AssertionError


def _raise(_: Path) -> Reading:
    message = "no message of ours"
    raise ValueError(message)


def _refuse(_: Path) -> Reading:
    message = "file is damaged: copy it again"
    raise InputError(message)


def _ramble(_: Path) -> Reading:
    message = "file is damaged:\n  line 1\n  line 2"
    raise InputError(message)


def _swell(_: Path) -> Reading:
    return Reading({"values": np.ones(200_000_000)})


def _believe(_: Path) -> Reading:
    return Reading({"values": np.ones(3)})


def _warn(_: Path) -> Reading:
    return Reading({"values": np.ones(3)}, frozenset({"strange"}))


def _same(_: Path) -> Reading:
    return Reading({"values": np.zeros(3)})


EXPECTED = {
    "crash": _crash,
    "hang": _hang,
    "traceback": _raise,
    "refused": _refuse,
    "unclear": _ramble,
    "memory": _swell,
    "wrong": _believe,
    "warned": _warn,
    "same": _same,
}
KINDS = {f"made-up-{name}": _kind(read) for name, read in EXPECTED.items()}
