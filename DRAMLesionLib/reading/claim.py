"""What a header claims of its voxels, and what it leaves open about their place in the body."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_BYTES = 1 << 32
"""No CT, and no label map with all its layers, holds more: 1024 x 1024 x 2048 voxels of int16."""

_SAME_SPACING = 0.005
"""Shares of a spacing; headers round it to four digits or so."""


@dataclass(frozen=True)
class Doubt:
    """Something that a file does not say about the place of its voxels, or says in two ways.

    Attributes:
        code: ``no-orientation``, ``no-spacing``, ``no-origin``, ``spacing-contradiction``,
            ``orientation-contradiction`` or ``surplus-bytes``.
        text: What the file does, to be put behind its name.
        severe: Whether a CT cannot be used with it.
        unplaced: Whether the place of the voxels that a reader makes up means nothing.
        consequence: What that means for the results, where it is not what follows from the rest.
    """

    code: str
    text: str
    severe: bool
    unplaced: bool = True
    consequence: str = ""


@dataclass(frozen=True)
class Claim:
    """Where the voxels of a file lie and how many bytes they take.

    Attributes:
        reader: Name of the reader in SimpleITK.
        data: File with the voxels; the file itself, or one beside it.
        shape: Sizes of all axes, the fastest first.
        voxel: Bytes of one value.
        start: First byte of the voxels, or of the stream that holds them.
        packing: ``raw``, ``gzip``, ``zlib``, or ``text`` or ``hex`` digits.
        skip: Bytes before the voxels in the unpacked stream.
        packed: Bytes of the stream, where the header tells; the reader takes no more.
        floats: dtype of the values if the reader would hide that some are no number.
        doubts: About the place of the voxels.
    """

    reader: str
    data: Path
    shape: tuple[int, ...]
    voxel: int
    start: int = 0
    packing: str = "raw"
    skip: int = 0
    packed: int | None = None
    floats: np.dtype | None = None
    doubts: tuple[Doubt, ...] = ()

    @property
    def length(self) -> int:
        """How many bytes the voxels take."""
        return math.prod(self.shape) * self.voxel


class HeaderError(ValueError):
    """A header that no sound file has; the text says why, to be put behind the file's name."""


def check_shape(shape: Sequence[int]) -> None:
    """Refuse sizes that no image has.

    Raises:
        HeaderError: If there are none, more than seven, or one is below 1.
    """
    if not 1 <= len(shape) <= 7 or min(shape) < 1:
        message = f"is damaged: its header tells of {_times(shape) or 'no'} voxels"
        raise HeaderError(message)


def check_length(claim: Claim) -> None:
    """Refuse an image that is larger than any CT.

    Raises:
        HeaderError: If its voxels take more than :data:`MAX_BYTES`.
    """
    if claim.length > MAX_BYTES:
        message = (
            f"claims {_times(claim.shape)} voxels, more than any CT has: crop it to the chest or "
            "convert it again"
        )
        raise HeaderError(message)


def no_spacing() -> Doubt:
    """A file that does not say how large its voxels are."""
    return Doubt("no-spacing", "does not say how large its voxels are", severe=True)


def no_orientation() -> Doubt:
    """A file that does not say which way its axes run in the body."""
    return Doubt("no-orientation", "does not say how its axes lie in the body", severe=False)


def no_origin() -> Doubt:
    """A file that does not say where its first voxel lies."""
    return Doubt(
        "no-origin",
        "does not say where it lies in the body",
        severe=False,
        consequence="masks that other programs made may not fit",
    )


def surplus(count: int) -> Doubt:
    """A file with some more bytes than its voxels take, all of them such as padding is made of."""
    return Doubt(
        "surplus-bytes",
        f"holds {count} bytes more than its header tells of",
        severe=False,
        unplaced=False,
        consequence="if they do not stand at the end, voxels are shifted",
    )


def sound_spacing(spacing: Iterable[float]) -> bool:
    """Tell whether numbers can be a spacing in mm."""
    return all(math.isfinite(s) and s > 0 for s in spacing)


def same_spacing(a: Sequence[float], b: Sequence[float]) -> bool:
    """Tell whether two spacings are the same but for rounding."""
    return all(abs(p - q) <= _SAME_SPACING * max(p, q) for p, q in zip(a, b, strict=True))


def letters(axes: np.ndarray) -> str:
    """Return to which side each axis runs most: L or R, P or A, S or I.

    Args:
        axes: (3, 3), the axes as columns, in LPS.
    """
    names = ("RL", "AP", "IS")
    result = ""
    for column in axes.T:
        most = int(np.abs(column).argmax())
        result += names[most][int(column[most] > 0)]
    return result


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
