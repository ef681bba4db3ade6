"""The small interface behind which every method is trained and measured.

A method is *trained* as an :class:`Training.engine.Experiment`, on the cache that ``prepare`` made,
with the same engine as ours. It is *measured* as a :class:`Predictor`: from a CT and its lobes to
one or more maps with their masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.lobes import Lobe


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
class Trained:
    """Where a trained method lies; small enough to be sent to a worker.

    Attributes:
        method: Its name, see :data:`Training.methods.METHODS`.
        folder: Folder of its weights or of its run.
    """

    method: str
    folder: Path
