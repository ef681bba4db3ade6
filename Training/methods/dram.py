"""Ours: the pipeline that ships, with its stages as rows of the table."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.lesion_types import classify_lesions
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.pipeline import LesionPipeline, LesionResult
from Training.methods.base import Outcome, Prediction, Predictor

RAW, REFINED, FINAL = "dRAM", "dRAM refined", "dRAM refined + context"


class PipelinePredictor(Predictor):
    """The pipeline: dRAM, refined dRAM, and the final segmentation.

    Args:
        folder: Folder with the weights.
    """

    name = "dram"

    def __init__(self, folder: Path) -> None:
        self._pipeline = LesionPipeline("cpu", folder)

    def __call__(self, ct: sitk.Image, lobes: sitk.Image | None) -> Outcome:
        """Run the pipeline; see the base class."""
        result = self._pipeline.run(ct, lobes, lobe_scheme="dram")
        threshold = self._pipeline.dram_config.threshold
        predictions = {
            RAW: self._thresholded(result, result.dram, threshold, result.maps.fractions),
            REFINED: self._thresholded(result, result.dram_refined, threshold, {}),
            FINAL: Prediction(result.lesion_probability, result.lesions),
        }
        missing = frozenset(Lobe[row.name] for row in result.report.rows if not row.assessed)
        return Outcome(predictions, result.lobes, missing, dict(result.report.timings_s))

    def _thresholded(
        self,
        result: LesionResult,
        values: sitk.Image,
        threshold: float,
        fractions: dict[Lobe, float],
    ) -> Prediction:
        mask = sitk.Cast(values > threshold, sitk.sitkUInt8)
        types = classify_lesions(result.ct, mask, self._pipeline.reference_types)
        return Prediction(values, types, fractions)
