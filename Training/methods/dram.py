"""Ours: the pipeline that ships, with its stages as rows of the table."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from DRAMLesionLib.lesions.types import classify_lesions
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.pipeline import LesionPipeline, LesionResult
from Training.learning.engine import make_fabric, train
from Training.methods.base import Method, Outcome, Prediction, Predictor, Workplace
from Training.stages import export, regression, rounds, vessels

NAME = "dram"
RAW, REFINED, FINAL = "dRAM", "dRAM refined", "dRAM refined + context"


class DRAMMethod(Method):
    """Interval regression of lobe scores, pseudo-labels, and the final segmentation network."""

    name = NAME
    rows = (RAW, REFINED, FINAL)

    def train(self, work: Workplace) -> Path:
        """Run the stages of the training; see the base class."""
        folder, config = work.output / NAME, work.config
        fabric = make_fabric(config)
        if config.vessels.enabled:
            train(
                vessels.VesselExperiment(work.cases, config), folder / vessels.NAME, config, fabric
            )
            if config.regression.vessels == "network":
                vessels.find_vessels(work.cases, folder, config, work.report)
        first = regression.RegressionExperiment(work.cases, config)
        train(first, folder / regression.NAME, config, fabric)
        rounds.label(work.cases, folder, config, work.report)
        rounds.train_final(work.cases, folder, config, fabric, work.report)
        return export.export(work.cases, folder, config, work.report)

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the pipeline with the weights of a folder; see the base class."""
        return PipelinePredictor(folder, device)


class PipelinePredictor(Predictor):
    """The pipeline: dRAM, refined dRAM, and the final segmentation.

    Args:
        folder: Folder with the weights.
        device: Where to compute.
    """

    name = NAME

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self._pipeline = LesionPipeline(device, folder)

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
