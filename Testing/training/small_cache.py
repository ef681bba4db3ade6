"""A prepared data set in a moment: three small scans with two lobes, tubes and a bright lesion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from DRAMLesionLib.lobes import Lobe
from Training.dataset.cache import LESION, VESSEL, CachedCase, write_index

SHAPE = (24, 30, 28)
SCORES = ({Lobe.LUL: 0, Lobe.LLL: 2}, {Lobe.LUL: 4, Lobe.LLL: 0}, {Lobe.LUL: 2, Lobe.LLL: 4})


def write_small_cache(folder: Path) -> Path:
    """Write the cases into a new folder and return it."""
    for number, scores in enumerate(SCORES):
        _write_case(folder / f"case-{number}", scores, np.random.default_rng(number))
    write_index(folder, [f"case-{n}" for n in range(len(SCORES))], 0.0)
    return folder


def _write_case(folder: Path, scores: dict[Lobe, int], rng: np.random.Generator) -> None:
    case = CachedCase(folder.name, folder, validation=False)
    lobes = np.full(SHAPE, Lobe.LUL, dtype=np.uint8)
    lobes[12:] = Lobe.LLL
    vessels = np.zeros(SHAPE, dtype=np.uint8)
    for k, j in rng.integers(3, 21, size=(4, 2)):
        vessels[k : k + 2, j : j + 2] = 1
    lesion = np.zeros(SHAPE, dtype=bool)
    for lobe, score in scores.items():
        first = 12 * (lobe == Lobe.LLL)
        lesion[first : first + 12, : 6 * score, 4:20] = score > 0
    image = np.maximum(0.2 + 0.4 * lesion, 0.8 * vessels) + 0.05 * rng.normal(size=SHAPE)
    labels = np.where(lesion, LESION, np.where(vessels > 0, VESSEL, 0)).astype(np.uint8)
    for kind in ("regression", "segmentation"):
        case.save(f"{kind}/image", image.clip(0, 1).astype(np.float16))
        case.save(f"{kind}/lobes", lobes)
    case.save("regression/vessels", vessels)
    case.save("segmentation/labels", labels)
    box = [[0, n] for n in SHAPE]
    grid = {"size": list(SHAPE[::-1]), "spacing": [4.0] * 3, "origin": [0.0] * 3}
    meta = {
        "origin": {"format": 0, "files": {"scan": [["scan.nii.gz", 1, 1]]}},
        "scores": {lobe.name: scores.get(lobe) for lobe in Lobe},
        "boxes": {"LUL": [[0, 12], *box[1:]], "LLL": [[12, 24], *box[1:]]},
        "grids": {"regression": grid, "segmentation": grid},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
