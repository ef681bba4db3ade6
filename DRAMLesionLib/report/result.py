"""What a run gives: images on the grid of the CT, and the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import SimpleITK as sitk

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.dram import DRAM
from DRAMLesionLib.report.model import Report


@dataclass(frozen=True)
class LesionResult:
    """What a run gives; every image lies on the grid of the CT.

    Attributes:
        ct: The CT in HU as it was given.
        lobes: uint8 labels of :class:`Lobe`.
        lesions: uint8: 0 none, 1 ground glass, 2 consolidation, 3 mixed.
        vessels: uint8 mask.
        report: Table, scores, warnings and what produced them.
        maps: dRAM and refined dRAM on the working grid of that stage.
        lesion_share: Softmax probability of lesion, on the segmentation's grid.
    """

    ct: sitk.Image
    lobes: sitk.Image
    lesions: sitk.Image
    vessels: sitk.Image
    report: Report
    maps: DRAM = field(repr=False)
    lesion_share: sitk.Image = field(repr=False)

    @cached_property
    def dram(self) -> sitk.Image:
        """DRAM on the CT's grid, float32 in [0, 1]."""
        return self._on_ct(self.maps.dram)

    @cached_property
    def dram_refined(self) -> sitk.Image:
        """Refined dRAM on the CT's grid, float32 in [0, 1]."""
        return self._on_ct(self.maps.refined)

    @cached_property
    def lesion_probability(self) -> sitk.Image:
        """Probability of lesion by the final network on the CT's grid, float32 in [0, 1]."""
        return self._on_ct(self.lesion_share)

    def _on_ct(self, image: sitk.Image) -> sitk.Image:
        resampled = geometry.resample(image, self.ct)
        return sitk.Mask(resampled, sitk.Cast(self.lobes > 0, sitk.sitkUInt8))
