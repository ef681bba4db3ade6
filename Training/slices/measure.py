"""Measure weights on 2D slices with masks: ``python -m Training slices``.

The final segmentation network reads volumes; a slice becomes one by :mod:`Training.slices.prepare`
(HU, spacing and lungs are estimated from the picture) and :mod:`Training.slices.flat` (the slice is
repeated without end). What is found is brought back to the picture's own pixels and limited to the
lungs. There are no lobes.

``OUTPUT`` gets ``masks/NAME.png`` (0 or 255), ``maps/NAME.png`` (probability of lesion times 255),
``outlines/NAME.png`` (to look at) and ``slices.json``: whole, or nothing at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.transform import resize

from DRAMLesionLib import weights
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.segmentation import LESION, VESSEL, SegmentationConfig, lesion_margin
from DRAMLesionLib.lesions.types import LesionType
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.writing import whole_folder, write_text
from Training import metrics
from Training.learning.results import plain
from Training.slices import prepare as slices_prepare
from Training.slices.classes import agreement, read_classes, type_slice, types_on_picture
from Training.slices.flat import flat_probabilities
from Training.slices.pictures import Slice, read_slices
from Training.slices.prepare import CHEST_WALL_HU, LUNGS_MM, prepare_slice

RESULT = "slices.json"
MASKS, MAPS, OUTLINES = "masks", "maps", "outlines"

CLASS_GREYS = {38: LesionType.GROUND_GLASS, 75: LesionType.CONSOLIDATION}
"""What the greys of COVID-SemiSeg's multi-class labels mean."""

TRUTH_COLOUR, FOUND_COLOUR, LUNG_COLOUR = (230, 159, 0), (86, 180, 233), (120, 120, 120)
"""Orange, sky blue and grey: told apart by the colour-blind and in print."""


@dataclass(frozen=True)
class Found:
    """What was found in a slice, on its own pixels.

    Attributes:
        mask: (j, i) bool, lesion.
        probability: (j, i) float32 in [0, 1], 0 outside the lungs.
        lungs: (j, i) bool.
        pixel_mm: Estimated edge of a pixel; None if no lung was found.
        note: What went wrong, or empty.
        types: (j, i) uint8, 0 or the type of the lesion; None where they were not asked for.
    """

    mask: np.ndarray
    probability: np.ndarray
    lungs: np.ndarray
    pixel_mm: float | None = None
    note: str = ""
    types: np.ndarray | None = None


Finder = Callable[[np.ndarray], Found]
"""From greys (j, i) to what is found."""


def measure_slices(
    images: Path,
    masks: Path,
    output: Path,
    finder: Finder,
    settings: dict[str, Any],
    report: Callable[[str], None] = lambda _: None,
    classes: Path | None = None,
) -> dict[str, Any]:
    """Find the lesions of every slice, compare with the masks, and write it all.

    Args:
        images: See :func:`Training.slices.pictures.read_slices`.
        masks: See there.
        output: Folder of the results; one that holds results of an earlier run is replaced.
        finder: From :func:`network_finder`, say.
        settings: What goes into the file beside the figures.
        report: Called with a line of text for each slice, and each file that was left out.
        classes: Folder of a reader's types of lesion, with the greys of ``CLASS_GREYS``; the
            finder has to tell types, too.

    Returns:
        The content of ``slices.json``.

    Raises:
        InputError: If the slices cannot be used, all reasons named, or the output not written.
    """
    notes: list[str] = []
    slices = read_slices(images, masks, notes.append)
    for note in notes:
        report(note)
    read = read_classes(classes, slices, CLASS_GREYS) if classes is not None else []
    with whole_folder(output, RESULT) as folder:
        for name in (MASKS, MAPS, OUTLINES):
            (folder / name).mkdir()
        found = []
        for number, one in enumerate(slices, start=1):
            found.append(finder(one.grey))
            _write_pictures(folder, one, found[-1])
            overlap = metrics.dice(found[-1].mask, one.truth)
            report(f"{number}/{len(slices)} {one.name}: Dice {overlap:.3f} {found[-1].note}")
        content = {"settings": settings, "notes": notes, **compare(slices, found)}
        if classes is not None:
            kinds = [what.types for what in found]
            content["types"] = plain(
                agreement(
                    read,
                    [
                        np.zeros_like(r) if k is None else k
                        for r, k in zip(read, kinds, strict=True)
                    ],
                )
            )
        write_text(json.dumps(content, indent=1) + "\n", folder / RESULT)
    return content


def network_finder(
    folder: Path = weights.BUNDLED,
    lungs_mm: float = LUNGS_MM,
    threshold: float | None = None,
    types: bool = False,
) -> tuple[Finder, dict[str, Any]]:
    """Return what finds lesions by the final segmentation network, and its settings.

    Args:
        folder: Folder with the weights.
        lungs_mm: Width of both lungs together.
        threshold: Lesion where its probability is above; as the card says if left out, as in the
            pipeline.
        types: Whether the types of the lesions are told as well.

    Raises:
        WeightsError: If the weights cannot be used.
    """
    module, card = weights.load_network(folder, "segmentation")
    network = cast(UNet3D, module)
    config = weights.settings(folder, card, SegmentationConfig, ("spacing",))
    spacing = config.spacing

    def find(grey: np.ndarray) -> Found:
        try:
            prepared = prepare_slice(grey, spacing, lungs_mm)
        except InputError as error:
            return nothing_found(grey, str(error))
        if not prepared.lungs.any():
            return nothing_found(grey, "no lung was found")
        shares = flat_probabilities(network, prepared.hu, CHEST_WALL_HU)
        margin = lesion_margin(shares, config.level)
        if threshold is not None:
            margin = shares[LESION] - threshold
        lungs = to_picture(prepared.lungs > 0, grey) > 0.5
        probability = np.clip(to_picture(shares[LESION], grey), 0.0, 1.0) * lungs
        mask = (to_picture(margin, grey) > 0) & lungs
        kinds = None
        if types:
            lesion = (margin > 0) & (prepared.lungs > 0)
            vessel = (shares.argmax(axis=0) == VESSEL) & ~lesion
            kinds = types_on_picture(type_slice(prepared, lesion, vessel), grey) * mask
        return Found(mask, probability, lungs, prepared.pixel_mm, types=kinds)

    level = config.level if threshold is None else threshold
    settings = {
        "method": "final segmentation network on the slice repeated without end",
        "weights_sha256": card.sha256,
        "spacing_mm": spacing,
        "lesion": f"probability > {level}" if level else "most probable class",
        **preparation_settings(lungs_mm),
    }
    return find, settings


def preparation_settings(lungs_mm: float) -> dict[str, Any]:
    """Return how slices were made fit, for ``slices.json``."""
    return {
        "hu": (
            f"darkest {slices_prepare.DARK_SHARE:.0%} of the pixels = {slices_prepare.DARK_HU:g} "
            f"HU, soft tissue = {slices_prepare.SOFT_HU:g} HU, linear"
        ),
        "lungs_width_mm": lungs_mm,
        "lung_region": f"below {slices_prepare.AERATED_HU:g} HU, closed along the chest wall",
        "beyond_the_slice": f"{CHEST_WALL_HU:g} HU",
    }


def compare(slices: list[Slice], found: list[Found]) -> dict[str, Any]:
    """Return figures over all pixels, their means over slices, and those of each slice.

    Figures that are not defined (see :mod:`Training.metrics`) are None.
    """
    total = metrics.Confusion()
    rows: dict[str, dict[str, Any]] = {}
    for one, what in zip(slices, found, strict=True):
        confusion = metrics.Confusion.of(what.mask, one.truth)
        total += confusion
        rows[one.name] = {
            **confusion.figures(),
            "average_precision": metrics.average_precision(what.probability, one.truth),
            "lesion_inside_lungs": metrics.sensitivity(what.lungs, one.truth),
            "pixel_mm": what.pixel_mm,
            "note": what.note,
        }
    names = [*total.figures(), "average_precision", "lesion_inside_lungs"]
    means = {}
    for name in names:
        mean, count = metrics.mean_defined([row[name] for row in rows.values()])
        means[name] = {"mean": mean, "slices": count}
    interval = metrics.bootstrap_interval([row["dice"] for row in rows.values()], _mean)
    everywhere = metrics.average_precision(
        np.concatenate([what.probability.ravel() for what in found]),
        np.concatenate([one.truth.ravel() for one in slices]),
    )
    content = {
        "slices": len(slices),
        "all_pixels": {**total.figures(), "average_precision": everywhere},
        "mean_of_slices": means,
        "mean_dice_interval_95": list(interval),
        "by_slice": rows,
    }
    return cast(dict[str, Any], plain(content))


def _write_pictures(folder: Path, one: Slice, found: Found) -> None:
    name = f"{one.name}.png"
    Image.fromarray(found.mask.astype(np.uint8) * 255).save(folder / MASKS / name)
    grey = np.round(found.probability * 255).astype(np.uint8)
    Image.fromarray(grey).save(folder / MAPS / name)
    outlined = draw_outlines(
        one.grey,
        [(found.lungs, LUNG_COLOUR), (one.truth, TRUTH_COLOUR), (found.mask, FOUND_COLOUR)],
    )
    Image.fromarray(outlined).save(folder / OUTLINES / name)


def draw_outlines(
    grey: np.ndarray, masks: list[tuple[np.ndarray, tuple[int, int, int]]]
) -> np.ndarray:
    """Return (j, i, 3) uint8: a picture with the outlines of masks, the last one on top."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    for mask, colour in masks:
        picture[mask & ~ndimage.binary_erosion(mask)] = colour
    return picture


def to_picture(values: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Bring values of a network's grid to the pixels of a picture, linearly; (j, i) float32."""
    return resize(values.astype(np.float32), grey.shape, order=1, mode="edge", anti_aliasing=False)


def nothing_found(grey: np.ndarray, note: str) -> Found:
    """Return an empty result with the reason."""
    empty = np.zeros(grey.shape, dtype=bool)
    return Found(empty, empty.astype(np.float32), empty, note=note)


def _mean(values: Any) -> float:
    return float(np.mean(values))
