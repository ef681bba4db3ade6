"""What methods that learn from axial slices have in common: their slices, weights, inference."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

import SimpleITK as sitk
from torch import Tensor, nn

from DRAMLesionLib import weights
from DRAMLesionLib.devices import pick_device
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions import by_slice
from DRAMLesionLib.lesions.by_slice import SliceConfig
from DRAMLesionLib.lesions.dram import fine_scan
from DRAMLesionLib.networks.slices import SliceNetwork
from DRAMLesionLib.vessels.masks import reference_vessels
from DRAMLesionLib.writing import write_text
from Training.config import Config, dump_config
from Training.dataset.cache import CachedCase
from Training.dataset.slices import LabelledSlice, find_slices
from Training.learning.engine import last_logged
from Training.methods.base import MaskPredictor, Workplace
from Training.methods.supervised import true_cases

WEIGHTS = "weights"
_TRUTH = "truth"

T = TypeVar("T")


def slices_of(work: Workplace, folder: Path, stride: int) -> list[LabelledSlice]:
    """Return the slices that a method learns from.

    Args:
        work: Cases and settings.
        folder: Of the method; the labels of slices by the truth of phantoms are made in it.
        stride: Of the method's network.

    Raises:
        InputError: If their labels are not known, or of one kind alone.
    """
    cases = with_truth(work, folder) if needs_truth(work.config) else work.cases
    return find_slices([case for case in cases if not case.validation], work.config.slices, stride)


def needs_truth(config: Config) -> bool:
    """Tell whether slices are labelled by the truth."""
    return config.slices.labels == "truth_of_phantoms"


def with_truth(work: Workplace, folder: Path) -> list[CachedCase]:
    """Return the cases with their true lesions as :data:`LABELS`.

    Raises:
        InputError: If a case has no truth.
    """
    return list(true_cases(work, folder / _TRUTH))


def export_network(
    network: SliceNetwork,
    arguments: dict[str, Any],
    settings: SliceConfig,
    run: Path,
    work: Workplace,
    given: str,
) -> Path:
    """Write a trained network as weights that the library loads.

    Args:
        network: The network.
        arguments: What builds it.
        settings: Of its use.
        run: Folder of its training.
        work: For the card.
        given: What it was trained on, in words.

    Returns:
        The folder of the weights, beside the run.

    Raises:
        OutputError: If they cannot be written.
    """
    folder, config = run.parent / WEIGHTS, work.config
    weights.save_network(
        network,
        folder,
        "segmentation",
        architecture={"type": type(network).__name__, "arguments": arguments},
        config=asdict(settings),
        metrics={
            "steps": work.steps,
            "training": last_logged(run, "train"),
            "validation": last_logged(run, "validation"),
        },
        date=config.export.date or datetime.date.today().isoformat(),
        data=[*(config.export.data or ("data of the user",)), given],
        licence=config.export.licence,
    )
    write_text(dump_config(config), folder / "segmentation.training.yaml")
    work.report(f"wrote {folder / 'segmentation'}.safetensors")
    return folder


def given_words(items: Sequence[LabelledSlice], config: Config) -> str:
    """Say for a card what a network was trained on."""
    ill = sum(item.diseased for item in items)
    scans = len({item.case.name for item in items})
    source = "the truth of phantoms" if needs_truth(config) else "weak labels"
    return (
        f"{ill} slices called diseased and {len(items) - ill} called normal by {source}, of "
        f"{scans} scans"
    )


class SlicePredictor(MaskPredictor):
    """A network for slices from its weights, run as the pipeline runs it.

    Args:
        name: Of the method.
        row: Of its row in the tables.
        folder: Of the weights.
        device: Where to compute.
    """

    def __init__(self, name: str, row: str, folder: Path, device: str = "cpu") -> None:
        super().__init__()
        self.name, self.row = name, row
        network, card = weights.load_network(folder, "segmentation")
        self._config = weights.settings(folder, card, SliceConfig, ("spacing",))
        self._device = pick_device(device)
        self._network = cast(SliceNetwork, network.to(self._device))

    def segment(self, ct: sitk.Image, lungs: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
        """Run the network; see the base class."""
        vessels = None
        if self._config.suppress_vessels:
            scan = fine_scan(ct, lungs, self._config.spacing)
            vessels = reference_vessels(scan.ct, scan.lungs)
        lesions = by_slice.find_lesions(
            self._network, ct, lungs, self._config, self._device, vessels=vessels
        )
        return lesions.mask, geometry.resample(lesions.share, ct)


def in_order(pictures: Any, batch: int, use: Callable[[dict[str, Tensor]], T]) -> list[T]:
    """Return what a function gives for batches of samples in their order.

    Args:
        pictures: A :class:`Training.dataset.slices.SlicePictures` that is not augmented.
        batch: Samples at a time.
        use: From a batch to anything.
    """
    from torch.utils.data import DataLoader

    return [use(one) for one in DataLoader(pictures, batch_size=batch)]


def load_tensors(network: nn.Module, tensors: dict[str, Tensor], prefix: str = "") -> None:
    """Load the tensors of a checkpoint whose names begin with ``prefix``."""
    chosen = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    network.load_state_dict(chosen)
