"""What a kind of file is to the fuzz: how it is written, changed and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Content = Mapping[str, object]
"""What was read, by name: arrays, numbers, texts."""


@dataclass(frozen=True)
class Reading:
    """What an entry made of a file.

    Attributes:
        content: What decides a result. Entries whose name begins with ``mm`` are places, equal
            within a millimetre.
        warnings: What the reader of the report is told.
    """

    content: Content
    warnings: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Change:
    """What was done to a file.

    Attributes:
        what: In words.
        guarded: Whether the file contradicts itself now, or lacks what decides voxels or geometry,
            so that it must not be read as something else without a warning. A change that makes
            another sound file (a voxel, a consistent header) is not guarded.
    """

    what: str
    guarded: bool


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: For the command line.
        write: Writes the sound files into an empty folder.
        change: Changes files of a copy of that folder.
        read: Reads the folder as library or training do; raises what they raise.
        accepted: Whether the sound file is accepted.
    """

    name: str
    write: Callable[[Path], None]
    change: Callable[[Path, np.random.Generator], Change]
    read: Callable[[Path], Reading]
    accepted: bool = field(default=True)


def same(a: Content, b: Content) -> bool:
    """Tell whether two contents decide the same result."""
    return a.keys() == b.keys() and all(_equal(key, a[key], b[key]) for key in a)


def _equal(key: str, a: object, b: object) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return a == b
    if a.shape != b.shape:
        return False
    return np.allclose(a, b, rtol=0.0, atol=1.0) if key.startswith("mm") else np.array_equal(a, b)
