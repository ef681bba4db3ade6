"""Ground glass, consolidation or mixed: the type of every voxel of a lesion (METHOD section 6).

The paper's way without training (its section III-B6) takes the HU of a lesion for a Gaussian and
lets the references vote that are nearest by Kullback-Leibler divergence, the nearer the heavier. A
lung in COVID-19 often has one lesion that holds all types, so the Gaussian here is that of a
voxel's surroundings within the lesion, and each voxel gets its own vote. Surroundings are of one
size, so the paper's shortlist by volume falls away.
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

from DRAMLesionLib.errors import InputError, WeightsError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.writing import write_text

SHIPPED_TABLE = Path(__file__).with_name("types.json")

FORMAT = "dramlesion-lesion-types"
VERSION = 2
FIELDS = ("mean_hu", "sd_hu", "type")

_MEANS = np.arange(-1000.0, 201.0, 10.0)
_SDS = np.arange(0.0, 401.0, 10.0)
"""Means and standard deviations for which the vote is held once and for all."""


class LesionType(IntEnum):
    """The types of lesion, with their values in a type map."""

    GROUND_GLASS = 1
    CONSOLIDATION = 2
    MIXED = 3


@dataclass(frozen=True)
class TypeConfig:
    """Parameters of the vote.

    Attributes:
        spacing: Isotropic voxel size in mm at which surroundings are looked at; those of thick
            slices and of thin ones are then alike.
        window_mm: Edge of the cube around a voxel whose HU are its surroundings.
        rim_mm: What lies so near to the outside of a lesion, or to a vessel, holds a part of
            something else and is left out of surroundings that hold anything more.
        smooth_mm: Edge of the cube in which the most frequent type wins, so that islands vanish.
        voters: The paper's N, references with the smallest divergence. The nearest votes with
            weight N, the last with weight 1.
        min_sd_hu: Standard deviations count as at least this. Without it surroundings of equal
            voxels would be infinitely far from everything.
        ground_glass_share: A whole lesion is ground glass where at least this share of it is.
        consolidation_share: And consolidation where at least this share is; all others are mixed.
    """

    spacing: float = 1.5
    window_mm: float = 10.5
    rim_mm: float = 3.0
    smooth_mm: float = 16.5
    voters: int = 5
    min_sd_hu: float = 20.0
    ground_glass_share: float = 0.85
    consolidation_share: float = 0.6


@dataclass(frozen=True)
class ReferenceTable:
    """Surroundings of known type that unknown ones are compared with.

    Attributes:
        mean_hu: Mean HU of each.
        sd_hu: Standard deviation of the HU of each, 0 or more.
        types: :class:`LesionType` of each.
        source: What they come from, one line for the report.
    """

    mean_hu: np.ndarray
    sd_hu: np.ndarray
    types: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[float, float, int]], source: str) -> ReferenceTable:
        """Make a table of (mean HU, sd of HU, type) rows.

        Raises:
            WeightsError: No row, or a row that no lesion can have; the message names it.
        """
        checked = [_checked_row(row, place) for place, row in enumerate(rows, start=1)]
        if not checked:
            msg = "a table of reference lesions needs at least one row, this one has none"
            raise WeightsError(msg)
        mean, sd, types = (np.array(column) for column in zip(*checked, strict=True))
        return cls(mean, sd, types.astype(np.uint8), source)

    @classmethod
    def load(cls, path: Path | str | None = None) -> ReferenceTable:
        """Read a table from JSON; the shipped one without a ``path``.

        Raises:
            WeightsError: The file is missing, no JSON, of another kind or version, or holds a row
                that no lesion can have.
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
        return cls.from_rows(
            (tuple(row) if isinstance(row, list) else (row,) for row in content["rows"]),
            str(content.get("source", "")),
        )

    def save(self, path: Path | str) -> None:
        """Write the table as JSON, one row a line."""
        rows = zip(self.mean_hu, self.sd_hu, self.types, strict=True)
        lines = ",\n".join(f"  [{mean:.1f}, {sd:.1f}, {int(kind)}]" for mean, sd, kind in rows)
        head = {"format": FORMAT, "version": VERSION, "source": self.source, "fields": FIELDS}
        text = json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}\n"
        write_text(text, path)


@dataclass(frozen=True)
class Surroundings:
    """The lesion around each voxel of a working grid.

    Attributes:
        grid: Empty image; only its geometry matters.
        lesion: (k, j, i) bool, lesion on that grid.
        mean_hu: (k, j, i) float32, mean HU of the lesion around each voxel; NaN where there is
            none.
        sd_hu: Standard deviation of the same.
    """

    grid: sitk.Image
    lesion: np.ndarray
    mean_hu: np.ndarray
    sd_hu: np.ndarray


def classify_lesions(
    ct: sitk.Image,
    lesions: sitk.Image,
    table: ReferenceTable | None = None,
    vessels: sitk.Image | None = None,
    config: TypeConfig | None = None,
) -> sitk.Image:
    """Give every voxel of the lesions a type.

    Args:
        ct: CT in HU.
        lesions: Lesion mask on the same grid, not 0 inside.
        table: References; the shipped ones by default.
        vessels: Vessel mask on the same grid, those within lesions included. They are left out of
            the surroundings: shining through ground glass they would make it look mixed.
        config: Numbers of the vote.

    Returns:
        uint8 image on the same grid: 0 or the :class:`LesionType`.

    Raises:
        InputError: The grids differ.
        WeightsError: The shipped table is damaged.
    """
    config = config or TypeConfig()
    _check_grids(ct, lesions, vessels)
    mask = sitk.GetArrayViewFromImage(lesions) != 0
    types = np.zeros(mask.shape, dtype=np.uint8)
    if not mask.any():
        return geometry.image_like(types, lesions)
    box = bounding_box(mask)
    around = surroundings(ct, lesions, vessels, config)
    voted = _looked_up(around, vote_table(table or ReferenceTable.load(), config))
    part = _crop(lesions, box)
    types[box] = _smoothed(voted, around, part, config) * mask[box]
    return geometry.image_like(types, lesions)


def surroundings(
    ct: sitk.Image,
    lesions: sitk.Image,
    vessels: sitk.Image | None = None,
    config: TypeConfig | None = None,
) -> Surroundings:
    """Return mean and spread of the HU of the lesion around each voxel.

    Args:
        ct: CT in HU.
        lesions: Lesion mask on the same grid, with at least one voxel inside.
        vessels: As for :func:`classify_lesions`.
        config: Says how large surroundings are.
    """
    config = config or TypeConfig()
    box = bounding_box(sitk.GetArrayViewFromImage(lesions) != 0)
    part = _crop(lesions, box)
    grid = geometry.working_grid(part, config.spacing, margin=config.window_mm)
    hu = geometry.array(geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True))
    inside = sitk.Cast(part != 0, sitk.sitkUInt8)
    lesion = geometry.array(geometry.resample(inside, grid, "labels")) > 0
    # a lesion smaller than a voxel of this grid has no majority anywhere
    lesion |= geometry.array(geometry.resample(inside, grid, "nearest")) > 0
    core = lesion
    if vessels is not None:
        bright = sitk.Cast(vessels != 0, sitk.sitkUInt8)
        core = core & (geometry.array(geometry.resample(bright, grid, "labels")) == 0)
    core = ndimage.binary_erosion(core, iterations=max(1, round(config.rim_mm / config.spacing)))
    mean, sd = _local_moments(hu, core, config)
    for wider in (lesion, ndimage.binary_dilation(lesion, iterations=2)):
        lacking = np.isnan(mean)
        if not (lacking & lesion).any():
            break
        more = _local_moments(hu, wider, config)
        mean, sd = np.where(lacking, more[0], mean), np.where(lacking, more[1], sd)
    return Surroundings(grid, lesion, mean, sd)


def vote_table(table: ReferenceTable, config: TypeConfig | None = None) -> np.ndarray:
    """Hold the rank-weighted vote for every pair of mean and standard deviation.

    Ties in divergence or votes go to the earlier row of the table or the smaller value.

    Returns:
        uint8 of shape (means, standard deviations): :class:`LesionType` values.
    """
    config = config or TypeConfig()
    means, sds = np.meshgrid(_MEANS, _SDS, indexing="ij")
    divergence = kl_divergence(
        means.ravel()[:, None],
        np.maximum(sds.ravel()[:, None], config.min_sd_hu),
        table.mean_hu,
        np.maximum(table.sd_hu, config.min_sd_hu),
    )
    order = np.argsort(divergence, axis=1, kind="stable")[:, : config.voters]
    voters = table.types[order]
    # weights by rank: N for the nearest, 1 for the last
    weights = np.arange(voters.shape[1], 0, -1)
    totals = np.stack([(weights * (voters == kind)).sum(axis=1) for kind in LesionType], axis=1)
    return (np.argmax(totals, axis=1) + 1).astype(np.uint8).reshape(means.shape)


def kl_divergence(
    mean_p: np.ndarray, sd_p: np.ndarray, mean_q: np.ndarray, sd_q: np.ndarray
) -> np.ndarray:
    """Return the divergence of Gaussian p from Gaussian q (eq. 6 of the paper), 0 or more.

    In the paper's symbols p is N(mu_1, sigma_1) and q is N(mu_2, sigma_2), as the formula has it;
    the sentence below the formula swaps the two names. Here p is the lesion in question and q the
    reference, so that a wide (mixed) reference is near to a narrow lesion, not the reverse.
    """
    ratio = (sd_p**2 + (mean_p - mean_q) ** 2) / (2.0 * sd_q**2)
    return np.log(sd_q / sd_p) + ratio - 0.5


def reference_rows(
    ct: sitk.Image,
    types: sitk.Image,
    vessels: sitk.Image | None = None,
    config: TypeConfig | None = None,
) -> np.ndarray:
    """Return rows for a reference table from a CT whose lesions are typed voxel by voxel.

    Args:
        ct: CT in HU.
        types: :class:`LesionType` map on the same grid, 0 where there is no lesion.
        vessels: As for :func:`classify_lesions`.
        config: Says how large surroundings are.

    Returns:
        (n, 3) float: mean HU, standard deviation and type of each voxel of a working grid.

    Raises:
        InputError: The grids differ, or the map holds values that are no lesion type.
    """
    config = config or TypeConfig()
    _check_grids(ct, types, vessels)
    kinds = sitk.GetArrayViewFromImage(types)
    low, high = int(kinds.min()), int(kinds.max())
    if low < 0 or high > max(LesionType):
        msg = f"a map of lesion types holds 0 to {max(LesionType)}, not {low}–{high}"
        raise InputError(msg)
    if high == 0:
        return np.zeros((0, 3))
    around = surroundings(ct, types, vessels, config)
    known = geometry.array(geometry.resample(types, around.grid, "nearest"))
    here = around.lesion & (known > 0) & np.isfinite(around.mean_hu)
    return np.stack([around.mean_hu[here], around.sd_hu[here], known[here]], axis=1)


def type_of_lesion(voxels: np.ndarray, config: TypeConfig | None = None) -> LesionType:
    """Return the type of a whole lesion from its voxels (4,) of no type, 1, 2 and 3."""
    config = config or TypeConfig()
    share = voxels / voxels.sum()
    if share[LesionType.GROUND_GLASS] >= config.ground_glass_share:
        return LesionType.GROUND_GLASS
    if share[LesionType.CONSOLIDATION] >= config.consolidation_share:
        return LesionType.CONSOLIDATION
    return LesionType.MIXED


def _check_grids(ct: sitk.Image, lesions: sitk.Image, vessels: sitk.Image | None) -> None:
    for name, image in (("lesion", lesions), ("vessel", vessels)):
        if image is not None and not geometry.same_grid(ct, image):
            msg = f"the {name} mask lies on another grid than the CT; resample it to the CT first"
            raise InputError(msg)


def _crop(image: sitk.Image, box: tuple[slice, ...]) -> sitk.Image:
    start = [part.start for part in reversed(box)]
    size = [part.stop - part.start for part in reversed(box)]
    return sitk.RegionOfInterest(image, size, start)


def _odd(millimetres: float, config: TypeConfig) -> int:
    """Return an odd number of voxels, at least 3."""
    return max(3, 2 * round((millimetres / config.spacing - 1) / 2) + 1)


def _local_moments(
    hu: np.ndarray, core: np.ndarray, config: TypeConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the HU of ``core`` in the cube around each voxel."""
    edge = _odd(config.window_mm, config)
    share = ndimage.uniform_filter(core.astype(np.float32), edge)
    # about the middle of a lesion's range: squares of raw HU would cancel
    shifted = np.where(core, hu + 400.0, 0.0).astype(np.float64)
    known = share > 0.5 / edge**3
    count = np.where(known, share, np.nan)
    mean = ndimage.uniform_filter(shifted, edge) / count
    variance = ndimage.uniform_filter(shifted**2, edge) / count - mean**2
    return (mean - 400.0).astype(np.float32), np.sqrt(np.maximum(variance, 0.0)).astype(np.float32)


def _looked_up(around: Surroundings, votes: np.ndarray) -> np.ndarray:
    """Return the type (k, j, i) that the surroundings of each voxel of lesion vote for."""
    here = around.lesion
    types = np.zeros(here.shape, dtype=np.uint8)
    mean = np.clip(np.rint((around.mean_hu[here] - _MEANS[0]) / 10.0), 0, len(_MEANS) - 1)
    sd = np.clip(np.rint(around.sd_hu[here] / 10.0), 0, len(_SDS) - 1)
    types[here] = votes[mean.astype(int), sd.astype(int)]
    return types


def _smoothed(
    types: np.ndarray, around: Surroundings, part: sitk.Image, config: TypeConfig
) -> np.ndarray:
    """Return the most frequent type around each voxel of ``part``, on its grid."""
    edge = _odd(config.smooth_mm, config)
    best = np.zeros(part.GetSize()[::-1], dtype=np.float32)
    winner = np.zeros(best.shape, dtype=np.uint8)
    for kind in LesionType:
        share = ndimage.uniform_filter((types == kind).astype(np.float32), edge)
        fine = geometry.array(geometry.resample(geometry.image_like(share, around.grid), part))
        larger = fine > best + 1e-6
        winner[larger], best[larger] = kind, fine[larger]
    return winner


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
    if not isinstance(content.get("rows"), list):
        msg = f"the table of reference lesions {name} has no list 'rows'"
        raise WeightsError(msg)


def _checked_row(row: tuple[Any, ...], place: int) -> tuple[float, float, int]:
    """Return the row with plain numbers, or say what is wrong with it."""
    wanted = ", ".join(FIELDS)
    numbers = [v for v in row if isinstance(v, (int, float, np.number)) and math.isfinite(v)]
    if len(row) != len(FIELDS) or len(numbers) != len(FIELDS):
        msg = f"reference {place} must be three numbers ({wanted}), not {list(row)}"
        raise WeightsError(msg)
    mean, sd, kind = numbers
    if sd < 0 or kind not in tuple(LesionType):
        msg = (
            f"reference {place} ({wanted} = {list(row)}) needs a standard deviation of at least 0 "
            f"and a type of {', '.join(str(int(t)) for t in LesionType)}"
        )
        raise WeightsError(msg)
    return float(mean), float(sd), int(kind)
