"""Types of lesion on 2D slices, and how far they agree with a reader's.

A reader's file has one grey for each type. The slice is repeated to a volume as high as the
surroundings that a type is told from, so the library's own :func:`classify_lesions` is what is
measured. Pixels count that both call lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from skimage.transform import resize

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.types import LesionType, TypeConfig, classify_lesions
from Training.slices.pictures import Slice, read_grey
from Training.slices.prepare import PreparedSlice

READ_TYPES = (LesionType.GROUND_GLASS, LesionType.CONSOLIDATION)
"""What readers of slices tell apart; the library's third, mixed, is neither."""


def read_classes(
    folder: Path, slices: Sequence[Slice], greys: Mapping[int, LesionType]
) -> list[np.ndarray]:
    """Read a reader's types of lesion.

    Args:
        folder: ``NAME.png`` for each slice, 0 where there is no lesion.
        slices: The slices.
        greys: What a grey means.

    Returns:
        For each slice (j, i) uint8: 0 or the type.

    Raises:
        InputError: If a file is missing, has another size or another grey.
    """
    table = np.zeros(256, dtype=np.uint8)
    for grey, kind in greys.items():
        table[grey] = kind
    classes = []
    for one in slices:
        path = folder / f"{one.name}.png"
        values = read_grey(path)
        if values.shape != one.grey.shape:
            message = f"{path} is not of the size of its slice"
            raise InputError(message)
        if unknown := sorted(set(np.unique(values).tolist()) - {0, *greys}):
            message = (
                f"{path} has the greys {', '.join(map(str, unknown))}, which mean nothing: known "
                f"are 0 and {', '.join(map(str, greys))}"
            )
            raise InputError(message)
        classes.append(table[values])
    return classes


def type_slice(prepared: PreparedSlice, lesion: np.ndarray, vessel: np.ndarray) -> np.ndarray:
    """Tell the types of the lesions of a slice.

    Args:
        prepared: The slice.
        lesion: (j, i) bool on its grid.
        vessel: (j, i) bool on its grid.

    Returns:
        (j, i) uint8 on its grid: 0 or the :class:`LesionType`.
    """
    height = 2 * round(TypeConfig().window_mm / prepared.spacing / 2) + 1
    ct, mask, vessels = (
        _repeated(plane, height, prepared.spacing)
        for plane in (prepared.hu, lesion.astype(np.uint8), vessel.astype(np.uint8))
    )
    return np.array(geometry.array(classify_lesions(ct, mask, vessels=vessels))[height // 2])


def types_on_picture(types: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Bring types to the pixels of a picture, each the nearest; (j, i) uint8."""
    options: dict[str, Any] = {"order": 0, "mode": "edge", "anti_aliasing": False}
    return resize(types, grey.shape, preserve_range=True, **options).astype(np.uint8)


def agreement(read: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> dict[str, Any]:
    """Count how often reader and library name the same type, over the pixels that both call lesion.

    Args:
        read: For each slice (j, i): 0 or the reader's type.
        found: Likewise the library's.

    Returns:
        ``pixels`` of each reader's type by the library's; ``mixed``, the share that the library
        calls mixed; ``agreement`` and Cohen's ``kappa`` on the rest, None where there is none.
    """
    counts = np.zeros((len(LesionType) + 1,) * 2, dtype=np.int64)
    for one, other in zip(read, found, strict=True):
        both = (one > 0) & (other > 0)
        np.add.at(counts, (one[both], other[both]), 1)
    both_named = counts[np.ix_(READ_TYPES, READ_TYPES)]
    total, named = int(counts[list(READ_TYPES)].sum()), int(both_named.sum())
    by_chance = float((both_named.sum(0) * both_named.sum(1)).sum()) / max(named, 1) ** 2
    agreed = float(np.trace(both_named)) / named if named else None
    kappa = (agreed - by_chance) / (1 - by_chance) if agreed is not None and by_chance < 1 else None
    return {
        "pixels": {
            kind.name.lower(): {to.name.lower(): int(counts[kind, to]) for to in LesionType}
            for kind in READ_TYPES
        },
        "mixed": 1 - named / total if total else None,
        "agreement": agreed,
        "kappa": kappa,
    }


def _repeated(plane: np.ndarray, height: int, spacing: float) -> sitk.Image:
    image = sitk.GetImageFromArray(np.repeat(plane[None], height, axis=0))
    image.SetSpacing((spacing,) * 3)
    return image
