"""Any trained method on 2D slices: the slice becomes a volume that all methods read.

The slice is repeated to a stack as high as the lungs are wide, on the grid of
:mod:`Training.slices.prepare`; the two lungs take the place of the lobes, as LUL and RUL. What the
method finds in the middle of the stack counts. The final segmentation network of ours has a way of
its own that knows no ends (:mod:`Training.slices.flat`); this one works for maps of lobe chunks,
too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from Training.methods import get_method, load_method
from Training.methods.base import Trained
from Training.slices.measure import Finder, Found, nothing_found, preparation_settings, to_picture
from Training.slices.prepare import LUNGS_MM, PreparedSlice, prepare_slice

SPACING_MM = 1.5
_LUNGS = {1: Lobe.LUL, 2: Lobe.RUL}


def method_finder(
    trained: Trained, row: str | None = None, lungs_mm: float = LUNGS_MM
) -> tuple[Finder, dict[str, Any]]:
    """Return what finds lesions in a slice by a method, and its settings.

    Args:
        trained: The method.
        row: Which of its rows in the tables; its result if left out.
        lungs_mm: Width of both lungs together.

    Raises:
        InputError: If there is no such method or row, or it was not trained.
        WeightsError: If its weights cannot be used.
    """
    rows = get_method(trained.method).rows
    chosen = rows[-1] if row is None else row
    if chosen not in rows:
        message = f"the method {trained.method} has no row {chosen!r}; known: {', '.join(rows)}"
        raise InputError(message)
    predictor = load_method(trained)

    def find(grey: np.ndarray) -> Found:
        try:
            prepared = prepare_slice(grey, SPACING_MM, lungs_mm)
        except InputError as error:
            return nothing_found(grey, str(error))
        if not prepared.lungs.any():
            return nothing_found(grey, "no lung was found")
        ct, lobes = as_volume(prepared, lungs_mm)
        prediction = predictor(ct, lobes).predictions[chosen]
        middle = ct.GetSize()[2] // 2
        share, types = (
            geometry.array(image)[middle] for image in (prediction.probability, prediction.lesions)
        )
        lungs = to_picture(prepared.lungs > 0, grey) > 0.5
        probability = np.clip(to_picture(share, grey), 0.0, 1.0) * lungs
        mask = (to_picture(types > 0, grey) > 0.5) & lungs
        return Found(mask, probability, lungs, prepared.pixel_mm)

    settings = {
        "method": f"{chosen}, in the middle of the slice repeated over {lungs_mm:g} mm",
        "spacing_mm": SPACING_MM,
        "lobes": "each lung is one",
        **preparation_settings(lungs_mm),
    }
    return find, settings


def as_volume(prepared: PreparedSlice, height_mm: float) -> tuple[sitk.Image, sitk.Image]:
    """Return a slice as a CT of so many mm, HU, and its lungs as lobes."""
    count = max(8, round(height_mm / prepared.spacing))
    names = np.zeros(max(_LUNGS) + 1, dtype=np.uint8)
    for side, lobe in _LUNGS.items():
        names[side] = lobe
    planes = (prepared.hu.astype(np.float32), names[prepared.lungs])
    stacks = [np.repeat(plane[None], count, axis=0) for plane in planes]
    # a scanner never gives the same slice twice, and what checks a CT knows that
    stacks[0][1::2] += 0.25
    images = []
    for stack in stacks:
        image = sitk.GetImageFromArray(stack)
        image.SetSpacing((prepared.spacing,) * 3)
        images.append(image)
    return images[0], images[1]
