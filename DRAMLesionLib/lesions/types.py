"""Ground glass, consolidation or mixed: the type of every connected lesion (METHOD section 6).

The paper's way without training (its section III-B6): the HU of a component are taken for a
Gaussian; of the K reference components that are nearest in volume, the N with the smallest
Kullback-Leibler divergence vote, the nearer the heavier.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError, WeightsError
from DRAMLesionLib.images.boxes import Slices, bounding_box
from DRAMLesionLib.images.geometry import image_like, same_grid, voxel_ml

SHIPPED_TABLE = Path(__file__).with_name("types.json")

FORMAT = "dramlesion-lesion-types"
VERSION = 1
FIELDS = ("volume_ml", "mean_hu", "sd_hu", "type")

CHUNK = 4096
"""Components compared with the table at a time, so that memory does not grow with their number."""


class LesionType(IntEnum):
    """The types of lesion, with their values in a type map."""

    GROUND_GLASS = 1
    CONSOLIDATION = 2
    MIXED = 3


@dataclass(frozen=True)
class TypeConfig:
    """Parameters of the vote.

    Attributes:
        shortlist: The paper's K, reference components nearest in volume.
        voters: The paper's N, those of the K with the smallest divergence. The nearest votes with
            weight N, the last with weight 1.
        min_sd_hu: Standard deviations count as at least this. Without it a component of a few
            equal voxels would be infinitely far from everything.
        ground_glass_share: A reference component is ground glass where at least this share of its
            voxels is.
        consolidation_share: And consolidation where at least this share is; less, since lung mixes
            into the rim of every consolidation. All others are mixed.
        dense_hu: From here on a voxel is consolidation, where nobody has said what it is.
    """

    shortlist: int = 10
    voters: int = 5
    min_sd_hu: float = 20.0
    ground_glass_share: float = 0.85
    consolidation_share: float = 0.6
    dense_hu: float = -300.0


@dataclass(frozen=True)
class Components:
    """Connected components of a lesion mask and their statistics.

    Attributes:
        labels: int32 (k, j, i) inside ``box``: 0 or 1 + the place of the component in the rest.
        box: The part of the mask that holds all components.
        volume_ml: Volume of each.
        mean_hu: Mean of its HU.
        sd_hu: Standard deviation of its HU (of the population, not estimated from a sample).
    """

    labels: np.ndarray
    box: Slices
    volume_ml: np.ndarray
    mean_hu: np.ndarray
    sd_hu: np.ndarray


@dataclass(frozen=True)
class ReferenceTable:
    """Labelled components that unknown ones are compared with.

    Attributes:
        volume_ml: Volume of each component, above 0.
        mean_hu: Mean HU of each.
        sd_hu: Standard deviation of the HU of each, 0 or more.
        types: :class:`LesionType` of each.
        source: What the components come from, one line for the report.
    """

    volume_ml: np.ndarray
    mean_hu: np.ndarray
    sd_hu: np.ndarray
    types: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def from_components(
        cls, rows: Iterable[tuple[float, float, float, int]], source: str
    ) -> ReferenceTable:
        """Make a table of (volume in ml, mean HU, sd of HU, type) rows.

        Raises:
            WeightsError: No row, or a row that no lesion can have; the message names it.
        """
        checked = [_checked_row(row, place) for place, row in enumerate(rows, start=1)]
        if not checked:
            msg = "a table of reference lesions needs at least one component, this one has none"
            raise WeightsError(msg)
        volume, mean, sd, types = (np.array(column) for column in zip(*checked, strict=True))
        return cls(volume, mean, sd, types.astype(np.uint8), source)

    @classmethod
    def load(cls, path: Path | str | None = None) -> ReferenceTable:
        """Read a table from JSON; the shipped one without a ``path``.

        Raises:
            WeightsError: The file is missing, no JSON, of another kind or version, or holds a
                component that no lesion can have.
        """
        file = SHIPPED_TABLE if path is None else Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            msg = f"cannot read the table of reference lesions {file.name}: {error.strerror}"
            raise WeightsError(msg) from error
        except ValueError as error:
            msg = f"the table of reference lesions {file.name} is not JSON: {error}"
            raise WeightsError(msg) from error
        _check_head(content, file.name)
        return cls.from_components(
            (tuple(row) if isinstance(row, list) else (row,) for row in content["components"]),
            str(content.get("source", "")),
        )

    def save(self, path: Path | str) -> None:
        """Write the table as JSON, one component a line.

        Raises:
            OutputError: If it cannot be written.
        """
        rows = zip(self.volume_ml, self.mean_hu, self.sd_hu, self.types, strict=True)
        lines = ",\n".join(
            f"  [{volume:.6g}, {mean:.1f}, {sd:.1f}, {int(kind)}]"
            for volume, mean, sd, kind in rows
        )
        head = {"format": FORMAT, "version": VERSION, "source": self.source, "fields": FIELDS}
        text = json.dumps(head, indent=1)[:-2] + ',\n "components": [\n' + lines + "\n ]\n}\n"
        writing.write_text(text, path)


def classify_lesions(
    ct: sitk.Image,
    lesions: sitk.Image,
    table: ReferenceTable | None = None,
    exclude: sitk.Image | None = None,
    config: TypeConfig | None = None,
) -> sitk.Image:
    """Give every connected lesion one type.

    Args:
        ct: CT in HU.
        lesions: Lesion mask on the same grid, not 0 inside.
        table: Reference components; the shipped ones by default.
        exclude: Vessels on the same grid, left out of the statistics: they shine through ground
            glass and would make it look mixed. The table must be made the same way.
        config: Numbers of the vote.

    Returns:
        uint8 image on the same grid: 0 or the :class:`LesionType`.

    Raises:
        InputError: The grids differ.
        WeightsError: The shipped table is damaged.
    """
    config = config or TypeConfig()
    found = find_components(ct, lesions, exclude)
    types = np.zeros(lesions.GetSize()[::-1], dtype=np.uint8)
    if len(found.volume_ml):
        votes = vote_types(found, table or ReferenceTable.load(), config)
        types[found.box] = np.concatenate(([0], votes)).astype(np.uint8)[found.labels]
    return image_like(types, lesions)


def find_components(
    ct: sitk.Image, lesions: sitk.Image, exclude: sitk.Image | None = None
) -> Components:
    """Return the components of a lesion mask, voxels touching at corners included.

    Args:
        ct: CT in HU.
        lesions: Lesion mask on the same grid, not 0 inside.
        exclude: Vessels on the same grid; they count for the volume of a component, not for its
            HU, unless there is nothing else in it.

    Raises:
        InputError: The grids differ.
    """
    for name, image in (("lesion", lesions), ("vessel", exclude)):
        if image is not None and not same_grid(ct, image):
            msg = f"the {name} mask lies on another grid than the CT; resample it to the CT first"
            raise InputError(msg)
    mask = sitk.GetArrayViewFromImage(lesions) != 0
    box = bounding_box(mask)
    labels, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    owner = flat[inside] - 1
    size = np.bincount(owner, minlength=count)
    hu = sitk.GetArrayViewFromImage(ct)[box].ravel()[inside].astype(np.float64)
    weight = np.ones(len(inside))
    if exclude is not None:
        weight[sitk.GetArrayViewFromImage(exclude)[box].ravel()[inside] != 0] = 0.0
        nothing_else = np.bincount(owner, weight, minlength=count) == 0
        weight[nothing_else[owner]] = 1.0
    mean, sd = _moments(owner, hu, weight, count)
    return Components(labels, box, size * voxel_ml(ct), mean, sd)


def vote_types(
    components: Components, table: ReferenceTable, config: TypeConfig | None = None
) -> np.ndarray:
    """Return the :class:`LesionType` value of each component (n,), by rank-weighted vote.

    Ties in volume, divergence or votes go to the earlier row of the table or the smaller value.
    """
    config = config or TypeConfig()
    votes = [
        _vote(slice(start, start + CHUNK), components, table, config)
        for start in range(0, len(components.volume_ml), CHUNK)
    ]
    return np.concatenate(votes) if votes else np.zeros(0, dtype=np.uint8)


def kl_divergence(
    mean_p: np.ndarray, sd_p: np.ndarray, mean_q: np.ndarray, sd_q: np.ndarray
) -> np.ndarray:
    """Return the divergence of Gaussian p from Gaussian q (eq. 6 of the paper), 0 or more.

    In the paper's symbols p is N(mu_1, sigma_1) and q is N(mu_2, sigma_2), as the formula has it;
    the sentence below the formula swaps the two names. Here p is the component in question and q
    the reference, so that a wide (mixed) reference is near to a narrow component, not the reverse.
    """
    ratio = (sd_p**2 + (mean_p - mean_q) ** 2) / (2.0 * sd_q**2)
    return np.log(sd_q / sd_p) + ratio - 0.5


def reference_rows(
    ct: sitk.Image,
    types: sitk.Image,
    exclude: sitk.Image | None = None,
    config: TypeConfig | None = None,
) -> list[tuple[float, float, float, int]]:
    """Return rows for a reference table from a CT whose lesions are known voxel by voxel.

    Args:
        ct: CT in HU.
        types: :class:`LesionType` map on the same grid, 0 where there is no lesion; by hand or
            from :func:`types_by_density`.
        exclude: Vessels, as for :func:`classify_lesions`.
        config: Says which shares make a component ground glass, consolidation or mixed.

    Returns:
        One (volume in ml, mean HU, sd of HU, type) for each connected component.

    Raises:
        InputError: The grids differ, or the map holds values that are no lesion type.
    """
    config = config or TypeConfig()
    found = find_components(ct, types, exclude)
    kinds = sitk.GetArrayViewFromImage(types)[found.box]
    if kinds.size and not 0 <= kinds.min() <= kinds.max() <= max(LesionType):
        msg = f"a map of lesion types holds 0 to {max(LesionType)}, not {kinds.min()}–{kinds.max()}"
        raise InputError(msg)
    count = len(found.volume_ml)
    width = max(LesionType) + 1
    cells = found.labels.ravel() * width + kinds.ravel().astype(np.int64)
    voxels = np.bincount(cells, minlength=(count + 1) * width).reshape(-1, width)[1:]
    return [
        (float(volume), float(mean), float(sd), int(_type_of(cell, config)))
        for volume, mean, sd, cell in zip(
            found.volume_ml, found.mean_hu, found.sd_hu, voxels, strict=True
        )
    ]


def types_by_density(
    ct: sitk.Image, lesions: sitk.Image, config: TypeConfig | None = None
) -> sitk.Image:
    """Return ground glass and consolidation voxel by voxel, told apart by the HU around them.

    For reference lesions of which only the outline is known.
    """
    config = config or TypeConfig()
    hu = sitk.Cast(ct, sitk.sitkFloat32)
    # the mean of 3 x 3 x 3 voxels, so that noise does not make ground glass look mixed
    dense = sitk.BoxMean(hu, (1, 1, 1)) >= config.dense_hu
    inside = lesions != 0
    return sitk.Cast(inside, sitk.sitkUInt8) + sitk.Cast(inside & dense, sitk.sitkUInt8)


def _type_of(voxels: np.ndarray, config: TypeConfig) -> LesionType:
    """Return the type of a component from its voxels (4,) of no type, 1, 2 and 3."""
    share = voxels / voxels.sum()
    if share[LesionType.GROUND_GLASS] >= config.ground_glass_share:
        return LesionType.GROUND_GLASS
    if share[LesionType.CONSOLIDATION] >= config.consolidation_share:
        return LesionType.CONSOLIDATION
    return LesionType.MIXED


def _vote(
    part: slice, components: Components, table: ReferenceTable, config: TypeConfig
) -> np.ndarray:
    # K nearest in volume
    distance = np.abs(components.volume_ml[part, None] - table.volume_ml[None])
    near = np.argsort(distance, axis=1, kind="stable")[:, : config.shortlist]
    # N of them nearest by divergence
    divergence = kl_divergence(
        components.mean_hu[part, None],
        np.maximum(components.sd_hu[part, None], config.min_sd_hu),
        table.mean_hu[near],
        np.maximum(table.sd_hu[near], config.min_sd_hu),
    )
    order = np.argsort(divergence, axis=1, kind="stable")[:, : config.voters]
    voters = table.types[np.take_along_axis(near, order, axis=1)]
    # weights by rank: N for the nearest, 1 for the last
    weights = np.arange(voters.shape[1], 0, -1)
    totals = np.stack([(weights * (voters == kind)).sum(axis=1) for kind in LesionType], axis=1)
    return (np.argmax(totals, axis=1) + 1).astype(np.uint8)


def _moments(
    owner: np.ndarray, hu: np.ndarray, weight: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted mean and standard deviation (count,) of the values of each owner."""
    total = np.bincount(owner, weight, minlength=count)
    mean = np.bincount(owner, weight * hu, minlength=count) / total
    # second pass around the mean: squares of raw HU would cancel
    variance = np.bincount(owner, weight * (hu - mean[owner]) ** 2, minlength=count) / total
    return mean, np.sqrt(variance)


def _check_head(content: Any, name: str) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        msg = f"{name} is no table of reference lesions (its format is not '{FORMAT}')"
        raise WeightsError(msg)
    if content.get("version") != VERSION:
        msg = (
            f"the table of reference lesions {name} has version {content.get('version')}, "
            f"this program reads version {VERSION}; make the table again"
        )
        raise WeightsError(msg)
    if not isinstance(content.get("components"), list):
        msg = f"the table of reference lesions {name} has no list 'components'"
        raise WeightsError(msg)


def _checked_row(row: tuple[Any, ...], place: int) -> tuple[float, float, float, int]:
    """Return the row with plain numbers, or say what is wrong with it."""
    wanted = ", ".join(FIELDS)
    numbers = [v for v in row if isinstance(v, (int, float, np.number)) and math.isfinite(v)]
    if len(row) != len(FIELDS) or len(numbers) != len(FIELDS):
        msg = f"reference lesion {place} must be four numbers ({wanted}), not {list(row)}"
        raise WeightsError(msg)
    volume, mean, sd, kind = numbers
    if volume <= 0 or sd < 0 or kind not in tuple(LesionType):
        msg = (
            f"reference lesion {place} ({wanted} = {list(row)}) needs a volume above 0, a standard "
            f"deviation of at least 0 and a type of {', '.join(str(int(t)) for t in LesionType)}"
        )
        raise WeightsError(msg)
    return float(volume), float(mean), float(sd), int(kind)
