"""From a seed to a whole phantom: the CT and the truth that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.lesions.types import LesionType
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import body, lungs
from DRAMLesionLib.phantom.config import PhantomConfig
from DRAMLesionLib.phantom.fields import Grid, centred_grid
from DRAMLesionLib.phantom.lesions import draw_scores, draw_style, insert_lesions
from DRAMLesionLib.phantom.parenchyma import paint_lungs
from DRAMLesionLib.phantom.patient import Patient, draw_patient, great_vessels
from DRAMLesionLib.phantom.pipes import draw_pipes, grow_pipes, pipe_labels
from DRAMLesionLib.phantom.scanner import draw_scan, scan_phantom
from DRAMLesionLib.phantom.tubes import smooth_path

Progress = Callable[[float], None]

IMAGES = ("ct", "lobes", "vessels", "airways", "lesions")
TRUTH = "truth.json"
"""The numbers of a phantom, and the file that says that it is complete."""

_STREAMS = (
    "patient",
    "shapes",
    "trees",
    "body",
    "parenchyma",
    "scores",
    "style",
    "lesions",
    "scan",
    "noise",
)
"""Independent sources of randomness. New ones go to the end: so the old ones stay as they are."""


@dataclass(frozen=True)
class Phantom:
    """A chest CT with its truth; all images share one axis-parallel LPS grid.

    Attributes:
        ct: HU, int16.
        lobes: :class:`Lobe` values, uint8.
        vessels: Vessels inside the lungs, uint8: 1 artery, 2 vein.
        airways: Trachea and bronchi, uint8: 1 lumen, 2 wall.
        lesions: :class:`LesionType` values, uint8, 0 none.
        fractions: True lesion fraction of each lobe, from ``lobes`` and ``lesions``.
        scores: Severity score of each lobe; its interval holds the fraction.
        seed: What the phantom was drawn from.
        spacing: Voxel edges (x, y, z) in mm.
    """

    ct: sitk.Image
    lobes: sitk.Image
    vessels: sitk.Image
    airways: sitk.Image
    lesions: sitk.Image
    fractions: dict[Lobe, float]
    scores: dict[Lobe, int]
    seed: int
    spacing: tuple[float, float, float]

    def write(self, folder: str | Path) -> None:
        """Write the images as NIfTI and the numbers as ``truth.json`` into ``folder``.

        The files appear under their names only when all of them are complete, ``truth.json`` as
        the last.

        Raises:
            OutputError: If the folder cannot be written to. What was there before is there again.
        """
        with writing.whole_results(folder, TRUTH) as part:
            for name in IMAGES:
                writing.write_image(getattr(self, name), part / f"{name}.nii.gz")
            writing.write_json(self._truth(), part / TRUTH)

    def _truth(self) -> dict[str, object]:
        return {
            "seed": self.seed,
            "spacing_mm": list(self.spacing),
            "lobes": {
                lobe.name: {
                    "label": int(lobe),
                    "score": self.scores[lobe],
                    "lesion_fraction": self.fractions[lobe],
                }
                for lobe in Lobe
            },
            "lesion_types": {t.name.lower(): int(t) for t in LesionType},
            "vessels": {"artery": 1, "vein": 2},
            "airways": {"lumen": 1, "wall": 2},
        }


def make_phantom(
    seed: int = 0,
    spacing: float | tuple[float, float, float] = 1.5,
    config: PhantomConfig | None = None,
    scores: Mapping[Lobe, int] | None = None,
    progress: Progress | None = None,
) -> Phantom:
    """Make the chest CT of an invented patient.

    The patient depends on the seed alone: the same seed at another spacing is the same patient on
    other voxels with other noise.

    Args:
        seed: Any whole number from 0.
        spacing: Voxel edge in mm, or edges (x, y, z). Slices much thicker than the pixels are
            averaged from thinner ones, as a scanner does.
        config: Ranges to draw from.
        scores: Severity scores; lobes that are not named get 0. None draws correlated scores.
        progress: Called with the share done, 0..1; may raise to stop.

    Raises:
        ValueError: If a spacing is not positive or a score is not one of 0..5.
    """
    config = config or PhantomConfig()
    edges = _edges(spacing)
    report = progress or (lambda _: None)
    children = np.random.SeedSequence(seed).spawn(len(_STREAMS))
    rng = dict(zip(_STREAMS, (np.random.default_rng(c) for c in children), strict=True))
    drawn = draw_scores(rng["scores"])
    wanted = drawn if scores is None else {lobe: int(scores.get(lobe, 0)) for lobe in Lobe}
    for score in wanted.values():
        score_to_interval(score)
    patient = draw_patient(rng["patient"], config)
    layers = max(1, round(edges[2] / max(edges[:2])))
    grid = _grid(patient, (edges[0], edges[1], edges[2] / layers))
    tubes = {name: smooth_path(tube) for name, tube in great_vessels(patient).items()}
    shapes = lungs.build_shapes(patient, tubes, grid, rng["shapes"])
    report(0.1)
    trees = grow_pipes(patient, shapes, config, rng["trees"])
    report(0.2)
    hu = body.paint_body(patient, shapes, tubes, grid, rng["body"])
    report(0.4)
    box = lungs.lung_box(shapes, grid)
    inner = grid.part(box)
    lung_distance, fissures = lungs.bring_to_grid(shapes, inner)
    lobes = lungs.lobe_labels(lung_distance, fissures)
    pipes = draw_pipes(trees, inner)
    report(0.6)
    chest = hu[box]
    paint_lungs(chest, patient, lung_distance, fissures, pipes, inner, config, rng["parenchyma"])
    lobes[pipes.large_airways] = 0
    vessels, airways = pipe_labels(pipes, lobes)
    report(0.7)
    step = (float(grid.steps[2]), float(grid.steps[1]), float(grid.steps[0]))
    style = draw_style(rng["style"], config.consolidation)
    hu[box], lesions = insert_lesions(
        chest, lobes, vessels, airways, step, rng["lesions"], wanted, style, keep_noise=False
    )
    report(0.85)
    moving = lungs.moving_share(shapes, grid)
    hu = scan_phantom(hu, moving, grid, draw_scan(rng["scan"], config), rng["noise"])
    ct = np.clip(np.rint(_average(hu, layers)), -1024, 3071).astype(np.int16)
    maps = [
        _middle(_in_whole(part, box, grid), layers) for part in (lobes, vessels, airways, lesions)
    ]
    report(1.0)
    return _phantom(ct, maps, grid, edges, wanted, seed)


def _phantom(
    ct: np.ndarray,
    maps: list[np.ndarray],
    grid: Grid,
    edges: tuple[float, float, float],
    scores: dict[Lobe, int],
    seed: int,
) -> Phantom:
    thick = (ct.shape[0] - 1) * edges[2]
    middle = (grid.z[0] + grid.z[-1]) / 2.0
    origin = (float(grid.x[0]), float(grid.y[0]), float(middle - thick / 2.0))
    lobes, vessels, airways, lesions = (_image(values, edges, origin) for values in maps)
    fractions = {}
    for lobe in Lobe:
        here = maps[0] == lobe
        count = int(np.count_nonzero(here))
        fractions[lobe] = int(np.count_nonzero(maps[3][here])) / max(count, 1)
    return Phantom(
        ct=_image(ct, edges, origin),
        lobes=lobes,
        vessels=vessels,
        airways=airways,
        lesions=lesions,
        fractions=fractions,
        scores=scores,
        seed=seed,
        spacing=edges,
    )


def _edges(spacing: float | tuple[float, float, float]) -> tuple[float, float, float]:
    values = (spacing,) * 3 if isinstance(spacing, int | float) else tuple(spacing)
    if len(values) != 3 or not all(0.0 < v <= 20.0 for v in values):
        message = f"a phantom's spacing is one or three lengths in mm up to 20, not {spacing!r}"
        raise ValueError(message)
    return float(values[0]), float(values[1]), float(values[2])


def _grid(patient: Patient, edges: tuple[float, float, float]) -> Grid:
    half = 166.0 * patient.scale[0] + 0.5 * patient.fat
    front = -112.0 * patient.scale[1] - 0.9 * patient.fat - (14.0 if patient.female else 0.0)
    back = 124.0 * patient.scale[1] + 0.5 * patient.fat + 44.0
    lower = (-half, front, patient.bottom - 14.0)
    return centred_grid(lower, (half, back, patient.top + 16.0), edges)


def _average(hu: np.ndarray, layers: int) -> np.ndarray:
    count = hu.shape[0] // layers
    return hu[: count * layers].reshape(count, layers, *hu.shape[1:]).mean(axis=1)


def _middle(labels: np.ndarray, layers: int) -> np.ndarray:
    count = labels.shape[0] // layers
    return labels[layers // 2 : count * layers : layers]


def _in_whole(part: np.ndarray, box: tuple[slice, slice, slice], grid: Grid) -> np.ndarray:
    whole = np.zeros(grid.shape, dtype=np.uint8)
    whole[box] = part
    return whole


def _image(
    values: np.ndarray, edges: tuple[float, float, float], origin: tuple[float, float, float]
) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    image.SetSpacing(edges)
    image.SetOrigin(origin)
    return image
