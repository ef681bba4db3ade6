"""Changes that know nothing of a format: bits, cuts, holes, odd things in place of a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from Testing.fuzz.kinds import Change

Rng = np.random.Generator

TEXTS = (b"", b"nan", b"-1", b"1e400", b"\xff\xfe", b"\0", b"0", b"99999999999999999999", b"%s%n")
"""What stands where a number or word should be."""


def pick(rng: Rng, choices):
    """Return one of some things."""
    return choices[int(rng.integers(len(choices)))]


def flip_bits(data: bytes, rng: Rng, start: int = 0, stop: int | None = None) -> bytes:
    """Flip one to eight bits between two places."""
    changed = bytearray(data)
    stop = len(data) if stop is None else min(stop, len(data))
    if stop <= start:
        return data
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(start, stop))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: Rng) -> bytes:
    """Drop the end: any share of it, or a few bytes."""
    if rng.random() < 0.3:
        return data[: max(0, len(data) - int(rng.integers(1, 64)))]
    return data[: int(rng.integers(0, max(1, len(data))))]


def hole(data: bytes, rng: Rng, start: int = 0) -> bytes:
    """Overwrite a run with zeros, ones or noise, as a bad sector does."""
    if len(data) <= start:
        return data
    at = int(rng.integers(start, len(data)))
    length = min(int(rng.integers(8, 4096)), len(data) - at)
    fill = pick(rng, (b"\0" * length, b"\xff" * length, rng.bytes(length)))
    return data[:at] + fill + data[at + length :]


def lose(data: bytes, rng: Rng, start: int = 0) -> bytes:
    """Take a run out."""
    if len(data) <= start:
        return data
    at = int(rng.integers(start, len(data)))
    return data[:at] + data[at + int(rng.integers(1, 512)) :]


def insert(data: bytes, rng: Rng, start: int = 0) -> bytes:
    """Put a run in."""
    at = int(rng.integers(min(start, len(data)), len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 512))) + data[at:]


def change_bytes(data: bytes, rng: Rng, voxels: int, checked: bool) -> tuple[bytes, Change]:
    """Do one of these to the content of a file.

    Args:
        data: The content.
        rng: Decides.
        voxels: Where the voxels begin.
        checked: Whether the format can tell that a byte of the voxels is wrong (a checksum).
    """
    how = pick(rng, ("header", "bits", "cut", "hole", "lose", "insert"))
    if how == "header":
        return flip_bits(data, rng, 0, voxels), Change("bits of the header", guarded=False)
    if how == "bits":
        return flip_bits(data, rng, voxels), Change("bits of the voxels", guarded=checked)
    if how == "hole":
        return hole(data, rng, voxels), Change("a hole in the voxels", guarded=checked)
    if how == "lose":
        return lose(data, rng, voxels), Change("bytes of the voxels lost", guarded=True)
    if how == "insert":
        return insert(data, rng, voxels), Change("bytes between the voxels", guarded=True)
    return cut(data, rng), Change("cut", guarded=True)


def replace_file(path: Path, rng: Rng) -> Change:
    """Put something else in the place of a file."""
    content = path.read_bytes()
    path.unlink()
    how = pick(rng, ("nothing", "empty", "folder", "pipe", "loop", "noise", "text"))
    if how == "empty":
        path.touch()
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "noise":
        path.write_bytes(b"" if not content else rng_bytes(rng, len(content)))
    elif how == "text":
        path.write_text("<html><body>404 Not Found</body></html>\n")
    return Change(f"{how} instead of {path.name}", guarded=True)


def rng_bytes(rng: Rng, length: int) -> bytes:
    """Return noise of a length."""
    return rng.bytes(min(length, 1 << 16))
