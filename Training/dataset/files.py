"""What the JSON files of a prepared data set hold, for the check when they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from DRAMLesionLib.typed import Between, FileName

LobeName = Literal["LUL", "LLL", "RUL", "RML", "RLL"]
Score = Annotated[int, Between(0, 5)] | None
Voxels = Annotated[int, Between(0, 1 << 20)]
Side = tuple[Voxels, Voxels]
Millimetres = tuple[float, float, float]
Spacing = Annotated[float, Between(0.01, 100)]


@dataclass(frozen=True)
class ScoresOfCase:
    """Severity score of each lobe, None where there is none."""

    LUL: Score
    LLL: Score
    RUL: Score
    RML: Score
    RLL: Score


@dataclass(frozen=True)
class Grid:
    """Size in voxels, spacing and origin in mm of a working grid, (i, j, k)."""

    size: tuple[Voxels, Voxels, Voxels]
    spacing: tuple[Spacing, Spacing, Spacing]
    origin: Millimetres


@dataclass(frozen=True)
class Grids:
    """Both working grids of a case."""

    regression: Grid
    segmentation: Grid


@dataclass(frozen=True)
class RegionOfCase:
    """A label of a region, see :mod:`Training.dataset.regions`."""

    region: str
    lower: Annotated[float, Between(0, 1)]
    upper: Annotated[float, Between(0, 1)]
    lobes: list[LobeName]
    planes: Side | None = None


@dataclass(frozen=True)
class Meta:
    """What ``meta.json`` of a case has to hold.

    Attributes:
        scores: Of its lobes.
        boxes: First and last + 1 index (k, j, i) of each lobe that is there.
        grids: Of its arrays.
        origin: Settings and files that the case was made from.
        notes: What a user has to know about it.
        regions: Labels of regions, beside the scores.
        outlined: Lobes in which a person has labelled voxels.
        counts: How many labels of voxels it has, by kind.
    """

    scores: ScoresOfCase
    boxes: dict[LobeName, tuple[Side, Side, Side]]
    grids: Grids
    origin: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    regions: list[RegionOfCase] = field(default_factory=list)
    outlined: list[LobeName] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexEntry:
    """A case in ``index.json``."""

    name: Annotated[str, FileName()]
    validation: bool


@dataclass(frozen=True)
class Index:
    """What ``index.json`` of a cache has to hold."""

    cases: list[IndexEntry]
