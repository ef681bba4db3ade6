"""The small interface behind which every method is trained and measured.

A :class:`Method` is *trained* at a :class:`Workplace`, which gives all methods the same cases,
settings and number of steps, with the engine that ours has (:mod:`Training.learning.engine`), so a
stopped training goes on where it was. It is *measured* as a :class:`Predictor`: from a CT and its
lobes to one or more maps with their masks.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.lesions.density import at_common_level, find_level
from DRAMLesionLib.lesions.types import ReferenceTable, classify_lesions
from DRAMLesionLib.lobes import Lobe, fit
from DRAMLesionLib.lobes.providers import provide_lobes
from Training.config import Config
from Training.dataset.cache import CachedCase


@dataclass(frozen=True)
class Prediction:
    """What a method, or one stage of it, makes of a scan; images lie on the grid of the CT.

    Attributes:
        probability: float32 in [0, 1], larger means lesion.
        lesions: uint8: 0 none, 1 ground glass, 2 consolidation, 3 mixed.
        fractions: Lesion fraction of a lobe where the method says it itself; from ``lesions`` if
            left out.
    """

    probability: sitk.Image
    lesions: sitk.Image
    fractions: dict[Lobe, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a predictor says about a scan.

    Attributes:
        predictions: By the name of the row in the tables; the last one is the method's result.
        lobes: uint8 labels of :class:`Lobe` that were used, on the grid of the CT.
        not_assessable: Lobes without a score.
        seconds: Run time by stage.
    """

    predictions: dict[str, Prediction]
    lobes: sitk.Image
    not_assessable: frozenset[Lobe] = frozenset()
    seconds: dict[str, float] = field(default_factory=dict)


class Predictor(ABC):
    """A trained method, ready to be measured.

    Attributes:
        name: Of the method.
    """

    name: str

    @abstractmethod
    def __call__(self, ct: sitk.Image, lobes: sitk.Image | None) -> Outcome:
        """Find the lesions of a CT.

        Args:
            ct: HU, any orientation.
            lobes: Labels of :class:`Lobe` on the same grid; estimated if left out.
        """


@dataclass(frozen=True)
class Workplace:
    """All that methods are trained with, the same for each.

    Attributes:
        data: Data sets that the cases come from. Their truth is for supervised methods alone.
        cases: Prepared cases; those for validation are kept apart.
        output: Folder; each method has one of its own in it.
        config: All settings.
        report: Called with a line of text for each step of the work.
    """

    data: Sequence[Path]
    cases: Sequence[CachedCase]
    output: Path
    config: Config
    report: Callable[[str], None] = lambda _: None

    @property
    def steps(self) -> int:
        """Optimiser steps of each method in all: those of our two networks together."""
        return self.config.regression.loop.steps + self.config.segmentation.loop.steps


class Method(ABC):
    """A way to learn to find lesions.

    Attributes:
        name: What commands call it.
        rows: Names of its rows in the tables; the last one is its result.
    """

    name: str
    rows: tuple[str, ...]

    @abstractmethod
    def train(self, work: Workplace) -> Path:
        """Train, or go on training; returns the folder to load from.

        Raises:
            InputError: If it cannot be trained on these cases.
            MissingDependencyError: If it needs something that is not installed.
            Cancelled: If it was stopped; the next call goes on from there.
        """

    @abstractmethod
    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the trained method.

        Args:
            folder: From :meth:`train`.
            device: Where its networks compute.

        Raises:
            InputError: If it was not trained.
            WeightsError: If its weights cannot be used.
        """


@dataclass(frozen=True)
class Trained:
    """Where a trained method lies; small enough to be sent to a worker.

    Attributes:
        method: Its name, see :data:`Training.methods.METHODS`.
        folder: Folder of its weights or of its run.
        label: What its rows are called by before their names, such as ``shipped``; or nothing.
        device: Where its networks compute.
    """

    method: str
    folder: Path
    label: str = ""
    device: str = "cpu"


class Stopwatch:
    """Run time by stage.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def find_lobes(ct: sitk.Image, lobes: sitk.Image | None) -> tuple[sitk.Image, frozenset[Lobe]]:
    """Return the lobes of a CT as all methods see them, and those that cannot be assessed.

    Args:
        ct: The CT.
        lobes: Labels of :class:`Lobe`; estimated if left out.
    """
    if lobes is None:
        estimate = provide_lobes(ct).lobes
        return estimate, frozenset()
    fitted, reasons, _ = fit.fit_lobes(lobes, ct)
    return fitted, frozenset(reasons)


class MaskPredictor(Predictor):
    """A method with one row: from the CT to a mask and a probability inside the lungs.

    Attributes:
        row: Name of its row in the tables.
    """

    row: str

    def __init__(self) -> None:
        self._types = ReferenceTable.load(None)

    @abstractmethod
    def segment(self, ct: sitk.Image, lungs: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
        """Find lesions; what lies outside the lungs does not count.

        Args:
            ct: HU, any orientation.
            lungs: uint8 mask on the same grid.

        Returns:
            Mask and probability on the grid of the CT.
        """

    def __call__(self, ct: sitk.Image, lobes: sitk.Image | None) -> Outcome:
        """Segment the scan and tell the types of its lesions; see the base class."""
        clock = Stopwatch()
        with clock.stage("lobes"):
            lobes, missing = find_lobes(ct, lobes)
        lungs = sitk.Cast(lobes > 0, sitk.sitkUInt8)
        ct = at_common_level(ct, find_level(ct, lungs))
        with clock.stage("segmentation"):
            found, share = (sitk.Mask(image, lungs) for image in self.segment(ct, lungs))
        with clock.stage("lesion types"):
            types = classify_lesions(ct, found, self._types)
        return Outcome({self.row: Prediction(share, types)}, lobes, missing, clock.seconds)
