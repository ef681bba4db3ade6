"""Points of a reader in files of 3D Slicer's Markups: ``.mrk.json``.

Slicer writes one list of points a file and can read several, so both kinds of point go into one
file: a list ``lesion`` and a list ``background``. The file does not hold the name of a list; a
point is of the kind with which its label begins, as Slicer labels the points of such a list
(``lesion-1``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from DRAMLesionLib import typed, writing
from DRAMLesionLib.errors import InputError

LESION, BACKGROUND = "lesion", "background"
KINDS = (LESION, BACKGROUND)

SUFFIX = ".mrk.json"

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/"
    "Resources/Schema/markups-schema-v1.0.3.json#"
)
COLOURS = {LESION: (1.0, 0.35, 0.15), BACKGROUND: (0.25, 0.65, 1.0)}
"""Colours of the points in the views, red, green, blue (0 to 1)."""

_MILLIMETRES = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
_FARTHEST_MM = 1e5


@dataclass(frozen=True)
class Point:
    """A place that a reader has called lesion or not.

    Attributes:
        place: Millimetres, LPS (as images of SimpleITK have them).
        lesion: Whether there is a lesion.
    """

    place: tuple[float, float, float]
    lesion: bool

    @property
    def kind(self) -> str:
        """``lesion`` or ``background``."""
        return LESION if self.lesion else BACKGROUND


@dataclass(frozen=True)
class _ControlPoint:
    position: list[float] | None = None
    label: str = ""
    description: str = ""
    positionStatus: str = "defined"  # noqa: N815  (the file's own names)


@dataclass(frozen=True)
class _Markup:
    type: str
    coordinateSystem: Literal["LPS", "RAS"] = "LPS"  # noqa: N815
    coordinateUnits: str | list[str] = "mm"  # noqa: N815
    controlPoints: list[_ControlPoint] = field(default_factory=list)  # noqa: N815


@dataclass(frozen=True)
class _File:
    markups: list[_Markup]


def read_points(path: Path | str) -> list[Point]:
    """Read the points of a file that Slicer or :func:`write_points` has written.

    Points that were never placed are passed over.

    Returns:
        The points in the order of the file; a place that is there twice is there once.

    Raises:
        InputError: If the file is damaged or no list of points, a point is of no kind or outside
            any scanner, or one place is of both kinds.
    """
    path = Path(path)
    content = typed.build(
        _File, typed.load_json(path), str(path), required=["markups"], others=True
    )
    found: dict[tuple[float, float, float], Point] = {}
    for markup in content.markups:
        if markup.type != "Fiducial":
            message = f"{path}: a markup of type {markup.type!r} is no list of points (Fiducial)"
            raise InputError(message)
        sign, millimetres = _system(markup, path)
        for number, control in enumerate(markup.controlPoints, 1):
            if control.positionStatus != "defined":
                continue
            place = _place(control, number, path)
            x, y, z = (value * millimetres for value in place)
            point = Point((sign * x, sign * y, z), _is_lesion(control, number, path))
            if found.setdefault(point.place, point).lesion != point.lesion:
                message = (
                    f"{path}: point {number} ({control.label!r}) lies on a point of the other "
                    "kind; take one of the two away"
                )
                raise InputError(message)
    return list(found.values())


def _system(markup: _Markup, path: Path) -> tuple[float, float]:
    """Return the sign of the first two axes in LPS, and the millimetres of a unit."""
    unit = markup.coordinateUnits
    if not isinstance(unit, str) or unit not in _MILLIMETRES:
        message = f"{path}: coordinateUnits is {unit!r}; save the points in mm"
        raise InputError(message)
    return (-1.0 if markup.coordinateSystem == "RAS" else 1.0), _MILLIMETRES[unit]


def _place(control: _ControlPoint, number: int, path: Path) -> list[float]:
    place = control.position or []
    if len(place) != 3 or not all(math.isfinite(v) and abs(v) < _FARTHEST_MM for v in place):
        message = f"{path}: the position of point {number} ({control.label!r}) is no place in mm"
        raise InputError(message)
    return place


def _is_lesion(control: _ControlPoint, number: int, path: Path) -> bool:
    for text in (control.label, control.description):
        for kind in KINDS:
            if text.strip().lower().startswith(kind):
                return kind == LESION
    message = (
        f"{path}: point {number} is called {control.label!r}; its label has to begin with "
        f"'{LESION}' or '{BACKGROUND}', as those of lists of that name do"
    )
    raise InputError(message)


def write_points(points: Sequence[Point], path: Path | str) -> None:
    """Write points as a file that Slicer reads: a list ``lesion`` and a list ``background``.

    Raises:
        OutputError: If the file cannot be written.
    """
    writing.write_json(content_of(points), path)


def content_of(points: Sequence[Point]) -> dict[str, Any]:
    """Return the content of the file of some points; a kind without points has no list."""
    lists = {kind: [point.place for point in points if point.kind == kind] for kind in KINDS}
    markups = [_markup(kind, places) for kind, places in lists.items() if places]
    return {"@schema": SCHEMA, "markups": markups}


def _markup(kind: str, places: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    return {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(places),
        "controlPoints": [
            {
                "id": str(number),
                "label": f"{kind}-{number}",
                "description": "",
                "associatedNodeID": "",
                "position": list(place),
                "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
            for number, place in enumerate(places, 1)
        ],
        "measurements": [],
        "display": {"color": list(COLOURS[kind]), "selectedColor": list(COLOURS[kind])},
    }
