"""The five lobes of the lung: what they are called, how files number them, how they are found."""

from __future__ import annotations

from enum import IntEnum


class Lobe(IntEnum):
    """A lobe; the value is its label in every file that this project writes.

    Other tools number the lobes differently: never read a lobe from a bare number, use
    :mod:`DRAMLesionLib.lobes.schemes`.
    """

    LUL = 1
    LLL = 2
    RUL = 3
    RML = 4
    RLL = 5

    @property
    def full_name(self) -> str:
        """Name in words, such as ``"left upper lobe"``."""
        return _FULL_NAMES[self]

    @property
    def is_left(self) -> bool:
        """Whether the lobe belongs to the patient's left lung."""
        return self in (Lobe.LUL, Lobe.LLL)


_FULL_NAMES = {
    Lobe.LUL: "left upper lobe",
    Lobe.LLL: "left lower lobe",
    Lobe.RUL: "right upper lobe",
    Lobe.RML: "right middle lobe",
    Lobe.RLL: "right lower lobe",
}

LEFT_LOBES = (Lobe.LUL, Lobe.LLL)
RIGHT_LOBES = (Lobe.RUL, Lobe.RML, Lobe.RLL)

__all__ = ["LEFT_LOBES", "RIGHT_LOBES", "Lobe"]
