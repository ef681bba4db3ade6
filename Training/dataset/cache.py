"""The prepared data set: arrays that need neither SimpleITK nor MRML to read.

``OUTPUT/cache/index.json`` lists the cases; ``OUTPUT/cache/CASE/`` holds for each::

    meta.json              scores, boxes of the lobes, geometry of both grids, what it was made from
    regression/image.npy   float16, windowed to [0, 1], on the grid of the lobe chunks
    regression/lobes.npy   uint8, Lobe values, same grid
    regression/vessels.npy uint8, Frangi reference, same grid
    regression/vessels_network.npy uint8, the vessel network's mask, same grid
    segmentation/image.npy float16, windowed to [0, 1], the whole scan on the final network's grid
    segmentation/lobes.npy uint8, same grid
    segmentation/labels.npy uint8, pseudo-label: 0 background, 1 vessel, 2 lesion

All arrays are (k, j, i), and are opened as memory maps, so that reading a part reads no more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.chunks import Slices
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.writing import write_text
from Training.dataset.scores import Scores

INDEX, META = "index.json", "meta.json"
VESSELS, VESSELS_BY_NETWORK = "regression/vessels", "regression/vessels_network"
LABELS = "segmentation/labels"

BACKGROUND, VESSEL, LESION = 0, 1, 2
"""Classes of the pseudo-labels; those of ``lesions.segmentation``, which needs SimpleITK."""


@dataclass(frozen=True)
class CachedCase:
    """One prepared scan.

    Attributes:
        name: Its name.
        folder: Where its arrays lie.
        validation: Whether it is kept out of the training.
    """

    name: str
    folder: Path
    validation: bool

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What ``prepare`` knew about the case."""
        return json.loads((self.folder / META).read_text(encoding="utf-8"))

    @property
    def scores(self) -> Scores:
        """Severity score of each lobe, None where there is none."""
        return {lobe: self.meta["scores"][lobe.name] for lobe in Lobe}

    @property
    def boxes(self) -> dict[Lobe, Slices]:
        """Bounding box of each lobe that is present on the regression grid."""
        return {
            Lobe[name]: (slice(*b[0]), slice(*b[1]), slice(*b[2]))
            for name, b in self.meta["boxes"].items()
        }

    def vessels(self, source: str) -> np.ndarray | None:
        """Open the vessel mask on the regression grid.

        Args:
            source: ``frangi`` or ``network``.

        Returns:
            (k, j, i) uint8; None if ``prepare`` was told to leave Frangi's reference out.

        Raises:
            InputError: If the vessel network was not asked yet.
        """
        if source == "network":
            return self.load(VESSELS_BY_NETWORK)
        return self.load(VESSELS) if self.has(VESSELS) else None

    def has(self, name: str) -> bool:
        """Tell whether the array ``name``, such as ``"segmentation/labels"``, is there."""
        return self._path(name).is_file()

    def load(self, name: str) -> np.ndarray:
        """Open an array as a memory map.

        Raises:
            InputError: If it is not there or is damaged.
        """
        try:
            return np.load(self._path(name), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            message = (
                f"{self._path(name)} cannot be read ({error}); run the stage before this one "
                "again, it makes what is missing"
            )
            raise InputError(message) from error

    def checksum(self, name: str) -> str:
        """Return the SHA-256 of an array's file."""
        with self._path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def save(self, name: str, values: np.ndarray) -> None:
        """Write an array; it appears whole or not at all."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            np.save(file, values, allow_pickle=False)
        part.replace(path)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def read_cache(folder: Path) -> list[CachedCase]:
    """Return the prepared cases.

    Args:
        folder: ``OUTPUT/cache``.

    Raises:
        InputError: If ``prepare`` has not finished there.
    """
    try:
        names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["cases"]
    except (OSError, ValueError, KeyError) as error:
        message = f"there is no prepared data set in {folder}: run the stage 'prepare' first"
        raise InputError(message) from error
    return [CachedCase(n["name"], folder / n["name"], n["validation"]) for n in names]


def write_index(folder: Path, names: list[str], validation_share: float) -> None:
    """Write the list of cases, and which of them are for validation."""
    cases = [{"name": n, "validation": is_validation(n, validation_share)} for n in names]
    write_text(json.dumps({"cases": cases}, indent=1) + "\n", folder / INDEX)


def is_validation(name: str, share: float) -> bool:
    """Tell the side of a case by its name, so that it never changes as the data set grows."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
