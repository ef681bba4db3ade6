"""A checksum at the end of a file, by which damage is found.

The last 40 bytes are a mark and the SHA-256 of all that stands before it. NumPy and PyTorch read
what stands before and look no further. A second file beside would be simpler, but then there would
be a moment at which the two do not belong together.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_MARK = b"\0SHA-256"
_LENGTH = len(_MARK) + hashlib.sha256().digest_size
_BLOCK = 1 << 20


def seal(path: Path) -> None:
    """Add the checksum to a file that has just been written."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.write(_MARK + digest)


def sealed_length(path: Path) -> int | None:
    """Return how many bytes stand before the checksum; None if there is none."""
    length = path.stat().st_size - _LENGTH
    if length < 0:
        return None
    with path.open("rb") as file:
        file.seek(length)
        return length if file.read(len(_MARK)) == _MARK else None


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content: the one it carries, or that of all of it.

    A file that carries one is not read, so this says nothing about damage.
    """
    with path.open("rb") as file:
        if sealed_length(path) is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-(_LENGTH - len(_MARK)), os.SEEK_END)
        return file.read().hex()


def is_sound(path: Path) -> bool:
    """Tell whether a file is there and is still what was sealed; reads all of it."""
    try:
        left = sealed_length(path)
        if left is None:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while left and (block := file.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
        return digest.hexdigest() == checksum(path)
    except OSError:
        return False
