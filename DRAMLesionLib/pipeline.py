"""The whole way of a CT: check, lobes, vessels, dRAM, segmentation, lesion types, lobe scores.

This is the only module that strings the stages together.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import SimpleITK as sitk
import torch
from torch import nn

from DRAMLesionLib import weights
from DRAMLesionLib.devices import on_device, pick_device
from DRAMLesionLib.errors import Cancelled, ScanWarning, WeightsError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import by_slice, density, dram, segmentation, types
from DRAMLesionLib.lesions.by_slice import SliceConfig
from DRAMLesionLib.lesions.dram import DRAM, DRAMConfig
from DRAMLesionLib.lesions.gravity import dependent_warnings
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.scan import ScanLobes, find_lobes
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.networks.regression import RegressionNetwork
from DRAMLesionLib.networks.slices import SliceNetwork
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.reading import checks
from DRAMLesionLib.report.model import Report, tabulate
from DRAMLesionLib.report.result import LesionResult
from DRAMLesionLib.version import __version__
from DRAMLesionLib.vessels import masks as vessels

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
        self._regression: RegressionNetwork | None = None
        self.dram_config = DRAMConfig()
        self.segmentation_config: SegmentationConfig | SliceConfig
        if self._is_for_slices():
            self._load_slices()
        else:
            self._load_volumes()
        self._vessels: UNet3D | None = None
        self._vessel_threshold = 0.0
        if weights.has_network(self.weights_folder, "vessels"):
            self._load_vessels()
        self.reference_types = types.ReferenceTable.load(None)

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
            lungs = find_lobes(ct, given, self.lobe_provider, name, clock.tick)
            found += lungs.warnings
            level = density.find_level(ct, lungs.lungs)
            # what the networks see; what is measured is the CT as it was given
            seen = density.at_common_level(ct, level)
        with clock.stage("vessels"):
            scan = dram.fine_scan(seen, lungs.lobes, self.dram_config.chunk.spacing)
            fine_vessels = self._find_vessels(scan, found, clock)
        maps: DRAM | None = None
        if self._regression is None:
            clock.skip("dRAM")
        else:
            with clock.stage("dRAM"):
                maps = on_device(
                    self._regression,
                    self.device,
                    lambda network, device: dram.compute_dram(
                        network,
                        scan.ct,
                        scan.lobes,
                        fine_vessels,
                        self.dram_config,
                        device,
                        clock.tick,
                    ),
                    found,
                )
        with clock.stage("segmentation"):
            lesions = on_device(
                self._segmentation,
                self.device,
                lambda network, device: self._find_lesions(
                    network, device, seen, lungs.lungs, fine_vessels, level.expiration, clock.tick
                ),
                found,
            )
            # what is shown, thresholded and edited is then the map of the method itself
            maps = maps or DRAM(lesions.share, lesions.share, {})
            found += dependent_warnings(lesions.dependent_ml)
        with clock.stage("lesion types"):
            all_vessels = geometry.resample(fine_vessels, ct, "labels")
            typed = types.classify_lesions(seen, lesions.mask, self.reference_types, all_vessels)
            # a voxel is one thing in the results
            free_vessels = sitk.Mask(all_vessels, lesions.mask, 0, 1)
        with clock.stage("scores"):
            settings = self.segmentation_config
            interval = None if isinstance(settings, SliceConfig) else settings.interval
            sure = segmentation.lobe_intervals(lesions, lungs.lobes, interval)
            report = self._report(ct, lungs, level, typed, free_vessels, sure, found, clock)
        return LesionResult(ct, lungs.lobes, typed, free_vessels, report, maps, lesions.share)

    def _load(self, name: weights.NetworkName) -> tuple[nn.Module, weights.Card]:
        network, card = weights.load_network(self.weights_folder, name)
        self._cards.append(card)
        return network.to(self.device), card

    def _is_for_slices(self) -> bool:
        if not weights.has_network(self.weights_folder, "segmentation"):
            return False
        return weights.is_for_slices(weights.read_card(self.weights_folder, "segmentation"))

    def _load_volumes(self) -> None:
        regression, regression_card = self._load("regression")
        self._regression = cast(RegressionNetwork, regression)
        self._segmentation, segmentation_card = self._load("segmentation")
        self.dram_config = weights.settings(
            self.weights_folder, regression_card, DRAMConfig, dram.CARD_SETTINGS
        )
        self.segmentation_config = weights.settings(
            self.weights_folder, segmentation_card, SegmentationConfig, ("spacing",)
        )

    def _load_slices(self) -> None:
        """Load the network of a method that has no dRAM; its own map is shown in place of that."""
        self._segmentation, card = self._load("segmentation")
        config = weights.settings(self.weights_folder, card, SliceConfig, ("spacing",))
        self.segmentation_config = config
        chunk = replace(self.dram_config.chunk, spacing=config.spacing)
        self.dram_config = replace(self.dram_config, chunk=chunk, threshold=config.threshold)

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

    def _find_vessels(
        self, scan: dram.FineScan, warnings: list[ScanWarning], clock: _Clock
    ) -> sitk.Image:
        if self._vessels is None:
            return vessels.reference_vessels(scan.ct, scan.lungs, progress=clock.tick)
        _, mask = on_device(
            self._vessels,
            self.device,
            lambda network, device: vessels.predict_vessels(
                network, scan.ct, scan.lungs, self._vessel_threshold, device, clock.tick
            ),
            warnings,
        )
        return mask

    def _find_lesions(
        self,
        network: nn.Module,
        device: torch.device,
        seen: sitk.Image,
        lungs: sitk.Image,
        vessel_mask: sitk.Image,
        expiration: float,
        tick: Callable[[float], None],
    ) -> segmentation.Lesions:
        """Find the lesions by the network of the weights, whichever kind it is of."""
        config = self.segmentation_config
        if isinstance(config, SliceConfig):
            slices = cast(SliceNetwork, network)
            return by_slice.find_lesions(slices, seen, lungs, config, device, tick, vessel_mask)
        volumes = cast(UNet3D, network)
        return segmentation.find_lesions(volumes, seen, lungs, config, device, tick, expiration)

    def _dram_settings(self) -> dict[str, object]:
        """Return what the report says of the map whose threshold can be moved."""
        if isinstance(self.segmentation_config, SliceConfig):
            method = self.segmentation_config.method
            return {"threshold": self.dram_config.threshold, "map": f"that of {method}, no dRAM"}
        return asdict(self.dram_config)

    def _report(
        self,
        ct: sitk.Image,
        lungs: ScanLobes,
        level: density.LungLevel,
        typed: sitk.Image,
        vessel_mask: sitk.Image,
        intervals: Mapping[Lobe, tuple[float, float]],
        warnings: list[ScanWarning],
        clock: _Clock,
    ) -> Report:
        rows, totals = tabulate(
            sitk.GetArrayViewFromImage(lungs.lobes),
            sitk.GetArrayViewFromImage(typed),
            geometry.voxel_ml(ct),
            lungs.not_assessable,
            lungs.confidence,
            sitk.GetArrayViewFromImage(vessel_mask),
            intervals,
        )
        return Report(
            rows=rows,
            totals=totals,
            total_score=next(row.score for row in totals if row.name == "total"),
            lobes_source=lungs.source,
            grid={
                "size": ct.GetSize(),
                "spacing_mm": [round(s, 4) for s in ct.GetSpacing()],
                "voxels": geometry.voxel_sum(ct),
            },
            version=__version__,
            created=datetime.date.today().isoformat(),
            warnings=tuple(warnings),
            parameters={
                "device": str(self.device),
                "lungs": level.summary(),
                "dRAM": self._dram_settings(),
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

    def skip(self, name: str) -> None:
        """Count a stage that there is none of as done."""
        self._before += STAGES[name]

    def tick(self, fraction: float) -> None:
        """Tell that ``fraction`` of the current stage is done."""
        if self._cancel is not None and self._cancel():
            message = f"cancelled during the stage '{self._stage}'; nothing was written"
            raise Cancelled(message)
        if self._progress is not None:
            done = self._before + STAGES[self._stage] * fraction
            self._progress(self._stage, done / sum(STAGES.values()))
