"""Which cases of a data set are kept for validation: decided once for each case, for good.

``DATA/split.json`` lists them. A case that is not listed yet gets its side when it is first seen:
further cases move none of those that were there, and weights that were improved on the set before
have never been trained on what is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.typed import read_json
from DRAMLesionLib.writing import locked, write_json

SPLIT = "split.json"


@dataclass(frozen=True)
class Split:
    """The sides of the cases of a data set, by name.

    Attributes:
        validation: Never trained on.
        training: All others.
    """

    validation: list[str]
    training: list[str]


def read_split(folder: Path) -> Split:
    """Read the sides of a data set; both are empty where nothing was decided yet.

    Raises:
        InputError: If the file is damaged, or has a case on both sides.
    """
    path = folder / SPLIT
    if not path.exists():
        return Split([], [])
    split = read_json(path, Split)
    both = sorted(set(split.validation) & set(split.training))
    if both:
        message = f"{path} has the case {both[0]!r} on both sides: take it out of one of them"
        raise InputError(message)
    return split


def keep_split(folder: Path, names: Iterable[str], share: float) -> Split:
    """Give each new case of a data set its side, and write that down.

    New cases come in the order of their names' checksums. One goes to validation while fewer than
    ``share`` of the cases so far are there, so the first of a new set does: two cases are enough to
    have one on each side.

    Args:
        folder: The data set.
        names: Cases that are in it now.
        share: Of all cases, for validation.

    Raises:
        InputError: See :func:`read_split`.
        OutputError: If the file cannot be written.
    """
    split = extended(read_split(folder), names, share)
    if split == read_split(folder):
        return split
    with locked(folder):
        # another run may have decided meanwhile
        split = extended(read_split(folder), names, share)
        write_json(asdict(split), folder / SPLIT)
    return split


def extended(split: Split, names: Iterable[str], share: float) -> Split:
    """Return a split with further cases, see :func:`keep_split`; those that it has stay."""
    validation, training = list(split.validation), list(split.training)
    known = {*validation, *training}
    for name in sorted(set(names) - known, key=_order):
        number = len(validation) + len(training) + 1
        (validation if len(validation) < share * number else training).append(name)
    return Split(validation, training)


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
