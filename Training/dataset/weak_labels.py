"""Labels of regions: how much of a lobe, a lung, both lungs or a slice is lesion.

``DIR/labels.csv`` has the columns ``case, region, lower, upper`` and, if wanted, ``step``:

* ``region``: a lobe (``LUL`` …), ``left``, ``right``, ``lungs`` or ``scan`` (the same: what lies
  outside the lungs is no lesion), or ``slice:K``, counted from 0 in the file's own k;
* ``lower`` and ``upper``: per cent of the lung voxels of the region. ``lower`` alone is a reader's
  guess: give or take ``step``, 5 points where there is none;
* or ``free`` (nothing) and ``diseased`` (at least a thousandth, ours) in place of ``lower``.

Every label is an interval of the lesion share of a region, as a lobe's score is; a region may have
several labels.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.tables import Row, Table, read_table
from Training.dataset.scores import Problem, no_name, short

LABELS_FILE = "labels.csv"
COLUMNS = ("case", "region", "lower", "upper")
STEP = "step"
STEP_POINTS = 5.0
"""Per cent that a reader's guess is taken to be off at most where no step is given (ours)."""

FREE, DISEASED = "free", "diseased"
LEAST_DISEASED = 0.001
"""Least share of a region that is called diseased: one voxel in a thousand (ours)."""

LEFT, RIGHT = (Lobe.LUL, Lobe.LLL), (Lobe.RUL, Lobe.RML, Lobe.RLL)
WIDE = {"left": LEFT, "right": RIGHT, "lungs": tuple(Lobe), "scan": tuple(Lobe)}
"""Lobes of the regions that are more than a lobe."""

_SLICE = re.compile(r"slice\s*:\s*([0-9]{1,6})")
_NUMBER = re.compile(r"([0-9]{1,3}(?:[.,][0-9]{1,9})?|[.,][0-9]{1,9})\s*%?")


@dataclass(frozen=True)
class RegionLabel:
    """An interval of the lesion share of a region.

    Attributes:
        region: Name of a lobe, a key of :data:`WIDE`, or ``slice:K``.
        lower: Least share of its lung voxels in [0, 1].
        upper: Largest share.
    """

    region: str
    lower: float
    upper: float

    @property
    def lobes(self) -> tuple[Lobe, ...]:
        """The lobes that it may be in."""
        return WIDE.get(self.region) or ((Lobe[self.region],) if not self.is_slice else tuple(Lobe))

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice."""
        return self.region.startswith("slice:")

    @property
    def slice_number(self) -> int:
        """The file's own k of a slice."""
        return int(self.region.partition(":")[2])

    def __str__(self) -> str:
        if self.upper == 0:
            return f"{self.region} {FREE}"
        if (self.lower, self.upper) == (LEAST_DISEASED, 1.0):
            return f"{self.region} {DISEASED}"
        return f"{self.region} {100 * self.lower:g} to {100 * self.upper:g} %"


def read_region_labels(path: Path) -> tuple[dict[str, tuple[RegionLabel, ...]], list[Problem]]:
    """Read a table of labels of regions.

    Args:
        path: Text with the columns of the module in any order, and others, which are passed over.

    Returns:
        The labels of each case in the order of the file, and the problems of single rows; a row
        that cannot be used gives no label.

    Raises:
        InputError: If the table cannot be read, lacks a column or has it twice.
    """
    table = read_table(path, COLUMNS)
    found: dict[str, list[RegionLabel]] = {}
    problems: list[Problem] = []
    numbers: list[float] = []
    for row in table.rows:
        name, where = table.cell(row, "case"), f"{path.name}, line {row.line}"
        if reason := no_name(name):
            problems.append(Problem(path.name, f"line {row.line} {reason}"))
            continue
        if misfit := table.misfit(row):
            problems.append(Problem(name, f"{path.name}: {misfit}"))
            continue
        label = _parse(table, row)
        if isinstance(label, str):
            problems.append(Problem(name, f"{label} ({where})"))
            continue
        found.setdefault(name, [])
        if label not in found[name]:
            found[name].append(label)
        numbers += [p for c in ("lower", "upper") if (p := _per_cent(table.cell(row, c)))]
    if numbers and max(numbers) <= 1.0:
        message = "no share is above 1: they are read as per cent, 0.3 as three in a thousand"
        problems.append(Problem(path.name, message, fatal=False))
    return {name: tuple(labels) for name, labels in found.items()}, problems


def _parse(table: Table, row: Row) -> RegionLabel | str:
    """Return the label of a row, or what is wrong with it."""
    region = _region(table.cell(row, "region"))
    if region is None:
        known = ", ".join([*(lobe.name for lobe in Lobe), *WIDE, "slice:K"])
        return f"the region {short(table.cell(row, 'region'))!r} is none of {known}"
    low, high = (table.cell(row, column).lower() for column in ("lower", "upper"))
    if low in (FREE, DISEASED):
        if high not in ("", low):
            return f"{low!r} of {region} leaves no place for the upper bound {short(high)!r}"
        return RegionLabel(region, *((0.0, 0.0) if low == FREE else (LEAST_DISEASED, 1.0)))
    lower, upper = _per_cent(low), _per_cent(high)
    if lower is None or (upper is None and high):
        wrong = low if lower is None else high
        return (
            f"the bound {short(wrong)!r} of {region} is neither per cent (0 to 100) nor {FREE!r} "
            f"or {DISEASED!r}"
        )
    if upper is None:
        given = table.cell(row, STEP) if STEP in table.names else ""
        step = _per_cent(given) if given else STEP_POINTS
        if step is None:
            return f"the step {short(given)!r} of {region} is no number of per cent"
        lower, upper = max(0.0, lower - step), min(100.0, lower + step)
    if lower > upper:
        return f"the lower bound {lower:g} of {region} lies above the upper one, {upper:g}"
    return RegionLabel(region, lower / 100.0, upper / 100.0)


def _region(text: str) -> str | None:
    """Return the name of a region as the code writes it; None if it is none."""
    if text.upper() in Lobe.__members__:
        return text.upper()
    if text.lower() in WIDE:
        return text.lower()
    found = _SLICE.fullmatch(text.lower())
    return f"slice:{int(found[1])}" if found else None


def _per_cent(text: str) -> float | None:
    """Return a number of per cent; None if it is none."""
    found = _NUMBER.fullmatch(text)
    value = float(found[1].replace(",", ".")) if found else math.inf
    return value if value <= 100.0 else None
