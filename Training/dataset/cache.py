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
    segmentation/map.npy   float32, what the label is made of, until it is made
    regression/voxels.npy, segmentation/voxels.npy
                           uint8, what a person has labelled, points and masks together, where there
                           is something: 0 background, 1 lesion, 255 nobody looked

All arrays are (k, j, i), and are opened as memory maps, so that reading a part reads no more. Each
file ends with its checksum (:mod:`Training.learning.seals`). The stage that makes an array verifies
it when it starts, and makes a damaged one again; the stages that read it look at its length and
header alone, since reading whole scans for a few patches of each would cost more than it finds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from DRAMLesionLib import typed
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.chunks import Slices
from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.writing import whole_file, write_text
from Training.dataset.files import Index, Meta
from Training.dataset.regions import Region
from Training.dataset.scores import Scores
from Training.learning import seals

INDEX, META = "index.json", "meta.json"
_CHECKSUM = "checksum"
VESSELS, VESSELS_BY_NETWORK = "regression/vessels", "regression/vessels_network"
LABELS, MAP = "segmentation/labels", "segmentation/map"
VOXELS, VOXELS_OF_SCAN = "regression/voxels", "segmentation/voxels"
UNKNOWN = 255
"""Value of voxels that nobody has labelled."""
PREPARED = ("regression/image", "regression/lobes", "segmentation/image", "segmentation/lobes")
"""Arrays that every prepared case has."""

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
        """What ``prepare`` knew about the case.

        Raises:
            InputError: If it is missing or damaged.
        """
        path = self.folder / META
        try:
            content = typed.read_json(path, dict[str, Any])
            if content.get(_CHECKSUM) not in (None, _checksum(content)):
                message = "its checksum is another"
                raise InputError(message)
            typed.build(Meta, content, str(path), others=True)
        except InputError as error:
            message = f"{path} is missing or damaged ({error}): {_remedy(META)}"
            raise InputError(message) from error
        return content

    @property
    def scores(self) -> Scores:
        """Severity score of each lobe, None where there is none."""
        return {lobe: self.meta["scores"][lobe.name] for lobe in Lobe}

    @property
    def regions(self) -> list[Region]:
        """Labels of regions: the scores of its lobes, and then those of other kinds.

        Lobes that are not there have none.
        """
        boxes = self.boxes
        scored = [
            Region(lobe.name, *score_to_interval(score), (lobe,))
            for lobe in boxes
            if (score := self.scores[lobe]) is not None
        ]
        more = [
            Region(
                one["region"],
                one["lower"],
                one["upper"],
                tuple(lobe for name in one["lobes"] if (lobe := Lobe[name]) in boxes),
                None if one["planes"] is None else (one["planes"][0], one["planes"][1]),
            )
            for one in self.meta.get("regions", [])
        ]
        return scored + [one for one in more if one.lobes]

    @property
    def outlined(self) -> frozenset[Lobe]:
        """Lobes in which a person has labelled voxels."""
        return frozenset(Lobe[name] for name in self.meta.get("outlined", []))

    @property
    def known(self) -> frozenset[Lobe]:
        """Lobes about which a label says something."""
        scored = {lobe for lobe, score in self.scores.items() if score is not None}
        return self.outlined | scored | {lobe for one in self.regions for lobe in one.lobes}

    @property
    def clear(self) -> frozenset[Lobe]:
        """Lobes without lesions, as a score of 0 or a region that is free of them says."""
        free = {lobe for one in self.regions if one.is_clear for lobe in one.lobes}
        return frozenset(free | {lobe for lobe, score in self.scores.items() if score == 0})

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

    def is_sound(self, name: str) -> bool:
        """Tell whether an array is there and undamaged; reads all of it."""
        return seals.is_sound(self._path(name))

    def load(self, name: str) -> np.ndarray:
        """Open an array as a memory map.

        Raises:
            InputError: If it is not there or, as far as length and header tell, damaged.
        """
        path = self._path(name)
        if not path.is_file():  # reading a pipe would wait for ever
            message = f"{path} is missing: {_remedy(name)}"
            raise InputError(message)
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            whole = seals.sealed_length(path) == values.offset + values.nbytes
        # what a damaged header raises depends on where the damage is
        except (OSError, ValueError, TypeError, SyntaxError, OverflowError, MemoryError) as error:
            message = f"{path} is damaged ({error}): {_remedy(name)}"
            raise InputError(message) from error
        if not whole:
            message = f"{path} is damaged (its length is not what its header says): {_remedy(name)}"
            raise InputError(message)
        return values

    def checksum(self, name: str) -> str:
        """Return the SHA-256 of an array's file; that of nothing if it is not there."""
        path = self._path(name)
        return seals.checksum(path) if path.is_file() else ""

    def fingerprint(self, vessels: str) -> str:
        """Return a checksum of all that is computed from a case: arrays, scores and grids.

        Args:
            vessels: Which vessel mask is used, ``frangi`` or ``network``.
        """
        names = (*PREPARED, VESSELS_BY_NETWORK if vessels == "network" else VESSELS)
        content = [self.meta[key] for key in ("scores", "boxes", "grids")]
        content += [self.meta[key] for key in ("regions", "counts") if key in self.meta]
        sums = {name: self.checksum(name) for name in names}
        sums |= {name: self.checksum(name) for name in (VOXELS, VOXELS_OF_SCAN) if self.has(name)}
        return hashlib.sha256(json.dumps([content, sums], sort_keys=True).encode()).hexdigest()

    def save(self, name: str, values: np.ndarray) -> None:
        """Write an array; it appears whole or not at all.

        Raises:
            OutputError: If it cannot be written.
        """
        with whole_file(self._path(name)) as part:
            with part.open("wb") as file:
                np.save(file, values, allow_pickle=False)
            seals.seal(part)

    def remove(self, name: str) -> None:
        """Remove an array if it is there."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


@dataclass(frozen=True)
class CaseWithTruth(CachedCase):
    """A prepared case of which one array is made from the truth, and lies beside the cache.

    Attributes:
        labels: Folder of these arrays.
        replaced: Name of the array.
    """

    labels: Path = Path()
    replaced: str = ""

    def _path(self, name: str) -> Path:
        if name == self.replaced:
            return self.labels / f"{self.name}.npy"
        return super()._path(name)


def write_meta(folder: Path, content: dict[str, Any]) -> None:
    """Write what ``prepare`` knows about a case, with a checksum."""
    content = {**content, _CHECKSUM: _checksum(content)}
    write_text(json.dumps(content, indent=1) + "\n", folder / META)


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of some content, its own checksum left out."""
    rest = {key: value for key, value in content.items() if key != _CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _remedy(name: str) -> str:
    stage = {VESSELS_BY_NETWORK: "vessels", LABELS: "pseudolabels", MAP: "pseudolabels"}.get(
        name, "prepare"
    )
    return f"run the stage {stage!r}, which makes it anew"


def read_cache(folder: Path, whole: Sequence[str] = ()) -> list[CachedCase]:
    """Return the prepared cases.

    Args:
        folder: ``OUTPUT/cache``.
        whole: Arrays that must be undamaged where they are there; all of each is read.

    Raises:
        InputError: If ``prepare`` has not finished there, or an array is damaged.
    """
    try:
        index = typed.read_json(folder / INDEX, Index, others=True)
    except InputError as error:
        message = (
            f"there is no prepared data set in {folder}: run the stage 'prepare' first ({error})"
        )
        raise InputError(message) from error
    cases = [CachedCase(one.name, folder / one.name, one.validation) for one in index.cases]
    for case in cases:
        for name in whole:
            if case.has(name) and not case.is_sound(name):
                message = f"the array {name} of {case.name} is damaged: {_remedy(name)}"
                raise InputError(message)
    return cases


def for_lesions(cases: Sequence[CachedCase], alone: Sequence[str]) -> list[CachedCase]:
    """Return the cases, but for those that the vessel network alone learns from.

    Args:
        cases: Prepared cases.
        alone: Their names, see :class:`Training.config.VesselTrainingConfig`.
    """
    return [case for case in cases if not any(fnmatchcase(case.name, p) for p in alone)]


def write_index(folder: Path, names: list[str], validation_share: float) -> None:
    """Write the list of cases, and which of them are for validation."""
    cases = [{"name": n, "validation": is_validation(n, validation_share)} for n in names]
    write_text(json.dumps({"cases": cases}, indent=1) + "\n", folder / INDEX)


def is_validation(name: str, share: float) -> bool:
    """Tell the side of a case by its name, so that it never changes as the data set grows."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
