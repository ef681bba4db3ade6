"""The whole way of a CT: check, lobes, vessels, dRAM, segmentation, lesion types, lobe scores.

This is the only module that strings the stages together.
"""

from __future__ import annotations

import copy
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, cast

import SimpleITK as sitk
import torch
from torch import nn

from DRAMLesionLib import weights
from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.errors import Cancelled, ScanWarning, WeightsError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import dram, segmentation
from DRAMLesionLib.lesions import types as lesion_types
from DRAMLesionLib.lesions.dram import DRAMConfig
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.lobes import Lobe, fit
from DRAMLesionLib.lobes.providers import provide_lobes
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.memory import is_out_of_memory
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.reading import checks
from DRAMLesionLib.report.model import Report, tabulate
from DRAMLesionLib.report.result import LesionResult
from DRAMLesionLib.version import __version__
from DRAMLesionLib.vessels import masks as vessels

T = TypeVar("T")

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the share of the whole run that is done, 0 to 1."""

Cancel = Callable[[], bool]
"""Asked again and again; true stops the run with :class:`Cancelled`."""

STAGES: dict[str, float] = {
    "check": 2.0,
    "lobes": 25.0,
    "vessels": 10.0,
    "dRAM": 25.0,
    "segmentation": 30.0,
    "lesion types": 4.0,
    "scores": 2.0,
}
"""Stages in their order, and their usual shares of the time."""

_DRAM_SETTINGS = ("chunk", "scales", "crf", "threshold")
"""What the card of a regression network has to say of its use."""


class LesionPipeline:
    """Segment the lesions of chest CTs.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        weights_folder: Folder with the networks' weights; the bundled ones if left out.
        lobe_provider: Where lobes come from if none are given: ``embedded``, ``totalsegmentator``
            or ``lungmask``.

    Raises:
        InputError: If the device is not there.
        WeightsError: If the weights cannot be used.

    Example:
        >>> from DRAMLesionLib import LesionPipeline
        >>> result = LesionPipeline(device="cpu").run(ct)  # doctest: +SKIP
        >>> result.report.total_score  # doctest: +SKIP
        7
    """

    def __init__(
        self,
        device: str = "auto",
        weights_folder: Path | str = weights.BUNDLED,
        lobe_provider: str = "embedded",
    ) -> None:
        self.device = pick_device(device)
        self.weights_folder = Path(weights_folder)
        self.lobe_provider = lobe_provider
        self._cards: list[weights.Card] = []
        self._regression, regression_card = self._load("regression")
        self._segmentation, segmentation_card = self._load("segmentation")
        self.dram_config = weights.settings(
            self.weights_folder, regression_card, DRAMConfig, _DRAM_SETTINGS
        )
        self._vessels: UNet3D | None = None
        self._vessel_threshold = 0.0
        if weights.has_network(self.weights_folder, "vessels"):
            self._load_vessels()
        self.segmentation_config = weights.settings(
            self.weights_folder, segmentation_card, SegmentationConfig, ("spacing",)
        )
        self.reference_types = lesion_types.ReferenceTable.load(None)

    def run(
        self,
        ct: sitk.Image,
        lobes: sitk.Image | None = None,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        *,
        lobe_scheme: str = "auto",
        lobe_names: Mapping[int, str] | None = None,
        name: str = "the CT",
        warnings: Sequence[ScanWarning] = (),
    ) -> LesionResult:
        """Take one CT all the way.

        Args:
            ct: 3D image in HU, any orientation.
            lobes: Label map of the lobes on any grid that overlaps the CT; found if left out.
            progress: See :data:`Progress`.
            cancel: See :data:`Cancel`.
            lobe_scheme: How ``lobes`` numbers the lobes, see :mod:`DRAMLesionLib.lobes.schemes`.
            lobe_names: Names of the labels of ``lobes`` where the file had some.
            name: What to call the CT in messages.
            warnings: What reading the CT has found already; they go on into the report.

        Raises:
            InputError: If the CT or the lobes cannot be used.
            Cancelled: If ``cancel`` said so.
        """
        clock = _Clock(progress, cancel)
        found = list(warnings)
        with clock.stage("check"):
            found += checks.check_ct(ct, name)
        given = None if lobes is None else to_lobes(lobes, lobe_scheme, lobe_names)
        with clock.stage("lobes"):
            lungs = self._find_lobes(ct, given, name, clock)
            found += lungs.warnings
        with clock.stage("vessels"):
            grid = _lung_grid(ct, lungs.lobes, self.dram_config.chunk.spacing)
            fine_ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
            fine_lobes = geometry.resample(lungs.lobes, grid, "nearest")
            fine_vessels = self._find_vessels(fine_ct, fine_lobes, found, clock)
        with clock.stage("dRAM"):
            maps = self._on_device(
                self._regression,
                lambda network, device: dram.compute_dram(
                    cast(RegressionNetwork, network),
                    fine_ct,
                    fine_lobes,
                    fine_vessels,
                    self.dram_config,
                    device,
                    clock.tick,
                ),
                found,
            )
        with clock.stage("segmentation"):
            share, lesion_mask = self._segment(ct, lungs.lobes, fine_vessels, found, clock)
            vessel_mask = geometry.resample(fine_vessels, ct, "labels")
            vessel_mask = sitk.Mask(vessel_mask, lesion_mask, 0, 1)
        with clock.stage("lesion types"):
            types = lesion_types.classify_lesions(ct, lesion_mask, self.reference_types)
        with clock.stage("scores"):
            report = self._report(ct, lungs, types, vessel_mask, found, clock)
        return LesionResult(ct, lungs.lobes, types, vessel_mask, report, maps, share)

    def _load(self, name: weights.NetworkName) -> tuple[nn.Module, weights.Card]:
        network, card = weights.load_network(self.weights_folder, name)
        self._cards.append(card)
        return network.to(self.device), card

    def _load_vessels(self) -> None:
        network, card = self._load("vessels")
        spacing = self.dram_config.chunk.spacing
        settings = weights.settings(self.weights_folder, card, vessels.VesselSettings)
        if settings.spacing != spacing:
            message = (
                f"{self.weights_folder}: the vessel network works at {settings.spacing} mm, "
                f"the regression network at {spacing} mm; take both from the same training"
            )
            raise WeightsError(message)
        self._vessels = cast(UNet3D, network)
        self._vessel_threshold = settings.threshold

    def _find_lobes(
        self, ct: sitk.Image, given: sitk.Image | None, name: str, clock: _Clock
    ) -> _Lobes:
        if given is not None:
            lobes, reasons, warnings = fit.fit_lobes(given, ct)
            result = _Lobes(lobes, "given", reasons, None, warnings)
        else:
            estimate = provide_lobes(ct, self.lobe_provider, clock.tick)
            source = "estimated" if self.lobe_provider == "embedded" else self.lobe_provider
            result = _Lobes(
                estimate.lobes, source, {}, estimate.confidence or None, list(estimate.warnings)
            )
        result.warnings.extend(fit.check_lung_extent(result.lobes, ct, name))
        return result

    def _on_device(
        self,
        network: nn.Module,
        work: Callable[[nn.Module, torch.device], T],
        warnings: list[ScanWarning],
    ) -> T:
        """Do ``work`` on the device, or on the processor if the GPU's memory does not suffice."""
        try:
            return work(network, self.device)
        except RuntimeError as error:
            if self.device.type == "cpu" or not is_out_of_memory(error):
                raise
        notice = ScanWarning(
            "gpu-memory",
            "The memory of the GPU did not suffice; a part was computed on the processor instead, "
            "with the same result in more time. Closing other programs that use the GPU helps.",
        )
        if notice not in warnings:
            warnings.append(notice)
        cpu = torch.device("cpu")
        return work(copy.deepcopy(network).to(cpu), cpu)

    def _find_vessels(
        self, ct: sitk.Image, lobes: sitk.Image, warnings: list[ScanWarning], clock: _Clock
    ) -> sitk.Image:
        lungs = sitk.Cast(lobes > 0, sitk.sitkUInt8)
        if self._vessels is None:
            return vessels.reference_vessels(ct, lungs, progress=clock.tick)
        _, mask = self._on_device(
            self._vessels,
            lambda network, device: vessels.predict_vessels(
                cast(UNet3D, network), ct, lungs, self._vessel_threshold, device, clock.tick
            ),
            warnings,
        )
        return mask

    def _segment(
        self,
        ct: sitk.Image,
        lobes: sitk.Image,
        fine_vessels: sitk.Image,
        warnings: list[ScanWarning],
        clock: _Clock,
    ) -> tuple[sitk.Image, sitk.Image]:
        """Return the lesion probability on the working grid and the mask on the CT's grid."""
        config = self.segmentation_config
        grid = geometry.working_grid(ct, config.spacing)
        coarse_ct = geometry.resample(ct, grid, fill=geometry.AIR_HU, antialias=True)
        lungs = geometry.resample(sitk.Cast(lobes > 0, sitk.sitkUInt8), grid, "nearest")
        probabilities = self._on_device(
            self._segmentation,
            lambda network, device: segmentation.segment(
                cast(UNet3D, network), coarse_ct, lungs, config, device, clock.tick
            ),
            warnings,
        )
        known = geometry.array(geometry.resample(fine_vessels, grid, "labels")) > 0
        margin = segmentation.lesion_margin(probabilities)
        margin = segmentation.surer_at_cut_ends(margin, geometry.array(lungs) > 0, config)
        margin = segmentation.drop_false_components(margin, known, config)
        lesion = geometry.resample(geometry.image_like(margin, grid), ct, fill=-1.0) > 0
        mask = sitk.Mask(sitk.Cast(lesion, sitk.sitkUInt8), sitk.Cast(lobes > 0, sitk.sitkUInt8))
        share = geometry.image_like(probabilities[segmentation.LESION], grid)
        return share, mask

    def _report(
        self,
        ct: sitk.Image,
        lungs: _Lobes,
        types: sitk.Image,
        vessel_mask: sitk.Image,
        warnings: list[ScanWarning],
        clock: _Clock,
    ) -> Report:
        rows, totals = tabulate(
            sitk.GetArrayViewFromImage(lungs.lobes),
            sitk.GetArrayViewFromImage(types),
            geometry.voxel_ml(ct),
            lungs.not_assessable,
            lungs.confidence,
            sitk.GetArrayViewFromImage(vessel_mask),
        )
        return Report(
            rows=rows,
            totals=totals,
            total_score=next(row.score for row in totals if row.name == "total"),
            lobes_source=lungs.source,
            grid={"size": ct.GetSize(), "spacing_mm": [round(s, 4) for s in ct.GetSpacing()]},
            version=__version__,
            created=datetime.date.today().isoformat(),
            warnings=tuple(warnings),
            parameters={
                "device": str(self.device),
                "dRAM": asdict(self.dram_config),
                "segmentation": asdict(self.segmentation_config),
                "vessels": "Frangi reference" if self._vessels is None else "network",
            },
            weights=tuple(
                {
                    "name": f"{card.name}.safetensors",
                    "sha256": card.sha256,
                    "summary": "; ".join(card.data),
                }
                for card in self._cards
            ),
            timings_s={stage: round(seconds, 2) for stage, seconds in clock.seconds.items()},
        )


@dataclass
class _Lobes:
    """Lobes on the CT's grid and what is known about them."""

    lobes: sitk.Image
    source: str
    not_assessable: dict[Lobe, str]
    confidence: dict[Lobe, float] | None
    warnings: list[ScanWarning]


class _Clock:
    """Times the stages, reports progress and asks whether to stop."""

    def __init__(self, progress: Progress | None, cancel: Cancel | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._cancel = cancel
        self._stage = ""
        self._before = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._stage = name
        self.tick(0.0)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self.tick(1.0)
        self._before += STAGES[name]

    def tick(self, fraction: float) -> None:
        """Tell that ``fraction`` of the current stage is done."""
        if self._cancel is not None and self._cancel():
            message = f"cancelled during the stage '{self._stage}'; nothing was written"
            raise Cancelled(message)
        if self._progress is not None:
            done = self._before + STAGES[self._stage] * fraction
            self._progress(self._stage, done / sum(STAGES.values()))


def _lung_grid(ct: sitk.Image, lobes: sitk.Image, spacing: float) -> sitk.Image:
    """Return the working grid around the lungs, a few millimetres of chest wall included."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOff()
    shape.Execute(sitk.Cast(lobes > 0, sitk.sitkUInt8))
    box = shape.GetBoundingBox(1)
    region = sitk.RegionOfInterest(lobes, box[3:], box[:3])
    return geometry.working_grid(region, spacing, margin=3 * spacing)
