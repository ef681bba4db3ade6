"""The other ceiling: nnU-Net v2 itself on true masks, by its own commands.

``OUTPUT/nnunet`` holds what nnU-Net calls raw, preprocessed and results. Our cases for validation
are its fold 0; a scan is brought to LPS on its own voxels; lesions of any type are one class. It
counts epochs of 250 steps: it gets the longest of its own schedules that has no more steps than
the other methods have, and one epoch at least. What it finds outside the lungs does not count, as
for all methods.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.reading import files
from DRAMLesionLib.typed import read_json
from DRAMLesionLib.writing import write_text
from Training.dataset.folder import find_cases
from Training.learning.workers import in_workers, run_command
from Training.methods.base import MaskPredictor, Method, Predictor, Workplace
from Training.methods.supervised import find_truths

NAME = "nnunet"
ROW = "nnU-Net"
PLAN, TRAIN, PREDICT = "nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"

DATASET_ID = 501
DATASET = f"Dataset{DATASET_ID}_Lesions"
CONFIGURATION, FOLD = "3d_fullres", "0"
EPOCH_STEPS = 250
TRAINERS = {
    1: "nnUNetTrainer_1epoch",
    5: "nnUNetTrainer_5epochs",
    10: "nnUNetTrainer_10epochs",
    20: "nnUNetTrainer_20epochs",
    50: "nnUNetTrainer_50epochs",
    100: "nnUNetTrainer_100epochs",
    250: "nnUNetTrainer_250epochs",
    1000: "nnUNetTrainer",
}
"""nnU-Net's own schedules, by epochs."""

_RAW, _PREPROCESSED, _RESULTS = "raw", "preprocessed", "results"
_SETTINGS, _PLANNED = "settings.json", "planned"
_SHOWN_LINES = 5


@dataclass(frozen=True)
class _Settings:
    """What the prediction needs of a training's ``settings.json``."""

    trainer: str


class NNUNetMethod(Method):
    """nnU-Net v2, where it is installed."""

    name = NAME
    rows = (ROW,)

    def train(self, work: Workplace) -> Path:
        """Convert, plan and train; see the base class."""
        commands = find_commands()
        folder = work.output / NAME
        trainer, device = trainer_for(work.steps), _device(work.config.accelerator)
        write_dataset(work, folder / _RAW / DATASET)
        settings = {"trainer": trainer, "device": device}
        write_text(json.dumps(settings) + "\n", folder / _SETTINGS)
        workers = str(work.config.prepare.workers)
        if not (folder / _PLANNED).is_file():
            words = ["-d", str(DATASET_ID), "-c", CONFIGURATION, "--verify_dataset_integrity"]
            run([commands[PLAN], *words, "-np", workers], folder, work.config.prepare.workers)
            write_text("", folder / _PLANNED)
        _write_split(work, folder / _PREPROCESSED / DATASET)
        fold = _fold_folder(folder, trainer)
        if not (fold / "checkpoint_final.pth").is_file():
            words = [str(DATASET_ID), CONFIGURATION, FOLD, "-tr", trainer, "-device", device]
            if (fold / "checkpoint_latest.pth").is_file():
                words.append("--c")
            run([commands[TRAIN], *words], folder, work.config.prepare.workers)
        return folder

    def load(self, folder: Path, device: str = "cpu") -> Predictor:
        """Return the trained network; see the base class."""
        return NNUNetPredictor(folder, device)


class NNUNetPredictor(MaskPredictor):
    """Prediction by nnU-Net's command, a scan at a time.

    Args:
        folder: From :meth:`NNUNetMethod.train`.
        device: Where to compute.
    """

    name, row = NAME, ROW

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        super().__init__()
        self._command = find_commands()[PREDICT]
        self._folder, self._device = folder, device
        path = folder / _SETTINGS
        if not path.is_file():
            message = f"there is no trained nnU-Net in {folder}"
            raise InputError(message)
        self._trainer = read_json(path, _Settings, others=True).trainer

    def segment(self, ct: sitk.Image, lungs: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
        """Run nnU-Net's command; see the base class."""
        found, share = self._predict(ct)
        return geometry.resample(found, ct, "nearest"), geometry.resample(share, ct)

    def _predict(self, ct: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
        """Return lesions and their probability on the scan's voxels in LPS."""
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            given, made = Path(place) / "in", Path(place) / "out"
            given.mkdir()
            writing.write_image(_oriented(ct), given / "scan_0000.nii.gz")
            words = ["-i", str(given), "-o", str(made), "-d", str(DATASET_ID), "-c", CONFIGURATION]
            words += ["-f", FOLD, "-tr", self._trainer, "-device", self._device]
            words += ["--save_probabilities", "--disable_progress_bar", "-npp", "1", "-nps", "1"]
            run([self._command, *words], self._folder, 1)
            return read_prediction(made, "scan")


@dataclass(frozen=True)
class _ConversionTask:
    """One case to convert: scan, truth, and the folder of the data set."""

    name: str
    scan: Path
    truth: Path
    folder: Path


def find_commands() -> dict[str, str]:
    """Return where nnU-Net's commands are.

    Raises:
        MissingDependencyError: If one is missing.
    """
    found = {name: shutil.which(name) for name in (PLAN, TRAIN, PREDICT)}
    if missing := [name for name, path in found.items() if path is None]:
        message = (
            f"nnU-Net v2 is not installed (no command {', '.join(missing)}): install it with "
            "'pip install nnunetv2', or leave the method 'nnunet' out"
        )
        raise MissingDependencyError(message)
    return {name: path for name, path in found.items() if path is not None}


def trainer_for(steps: int) -> str:
    """Return the longest of nnU-Net's schedules that is no longer than so many steps."""
    fitting = [epochs for epochs in TRAINERS if epochs * EPOCH_STEPS <= steps]
    return TRAINERS[max(fitting, default=1)]


def write_dataset(work: Workplace, folder: Path) -> None:
    """Write the cases as nnU-Net wants them; those that are there stay.

    Args:
        work: Cases and data sets.
        folder: ``nnUNet_raw/DatasetNNN_NAME``.

    Raises:
        InputError: If a case has no truth.
    """
    names = [case.name for case in work.cases]
    truths = find_truths(work.data, names)
    scans = {case.name: case.scan for case in find_cases(work.data)[0]}
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    tasks = [_ConversionTask(name, scans[name], truths[name], folder) for name in names]
    todo = [task for task in tasks if not _label_file(task).is_file()]
    workers = work.config.prepare.workers
    for _ in in_workers(
        _convert, todo, workers, case=lambda task: task.name, setting="prepare.workers"
    ):
        pass
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    write_text(json.dumps(content, indent=1) + "\n", folder / "dataset.json")


def _convert(task: _ConversionTask) -> None:
    ct, _ = files.read_ct(task.scan)
    ct = _oriented(ct)
    lesions = geometry.resample(files.read_labels(task.truth), ct, "nearest") > 0
    writing.write_image(ct, task.folder / "imagesTr" / f"{task.name}_0000.nii.gz")
    # the label comes last: with it the case is whole
    writing.write_image(sitk.Cast(lesions, sitk.sitkUInt8), _label_file(task))


def _label_file(task: _ConversionTask) -> Path:
    return task.folder / "labelsTr" / f"{task.name}.nii.gz"


def _oriented(ct: sitk.Image) -> sitk.Image:
    rounded = sitk.Round(sitk.Cast(ct, sitk.sitkFloat32))
    return sitk.DICOMOrient(sitk.Cast(rounded, sitk.sitkInt16), "LPS")


def _write_split(work: Workplace, folder: Path) -> None:
    """Make our cases for validation nnU-Net's fold 0."""
    train = [case.name for case in work.cases if not case.validation]
    # it wants one at least; what it finds there decides nothing
    kept = [case.name for case in work.cases if case.validation] or train[:1]
    folder.mkdir(parents=True, exist_ok=True)
    split = [{"train": train, "val": kept}]
    write_text(json.dumps(split, indent=1) + "\n", folder / "splits_final.json")


def read_prediction(folder: Path, name: str) -> tuple[sitk.Image, sitk.Image]:
    """Return what nnU-Net wrote about a scan: lesions (uint8) and their probability (float32).

    Args:
        folder: Output of the prediction.
        name: Of the case.

    Raises:
        InputError: If a file is missing or does not fit.
    """
    try:
        found = sitk.Cast(sitk.ReadImage(str(folder / f"{name}.nii.gz")) > 0, sitk.sitkUInt8)
        with np.load(folder / f"{name}.npz", allow_pickle=False) as content:
            share = content["probabilities"][1].astype(np.float32)
    except (OSError, RuntimeError, KeyError, IndexError, ValueError) as error:
        message = f"nnU-Net left no usable prediction: {error}"
        raise InputError(message) from error
    if share.shape != geometry.array(found).shape:
        message = f"nnU-Net's probabilities {share.shape} do not fit its labels {found.GetSize()}"
        raise InputError(message)
    return found, geometry.image_like(share, found)


def run(words: Sequence[str], folder: Path, workers: int) -> None:
    """Run one of nnU-Net's commands; what it says goes to ``nnunet.log``.

    Args:
        words: The command.
        folder: Of the method.
        workers: Processes that it may start to load data.

    Raises:
        InputError: If it fails; its last lines are told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "nnUNet_raw": _RAW,
        "nnUNet_preprocessed": _PREPROCESSED,
        "nnUNet_results": _RESULTS,
    }
    environment = {name: str(folder / place) for name, place in places.items()}
    for place in places.values():
        (folder / place).mkdir(exist_ok=True)
    environment["nnUNet_n_proc_DA"] = str(workers)
    log = folder / "nnunet.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(words)}\n")
        file.flush()
        status = run_command(words, file, {**os.environ, **environment})
    if status:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        message = (
            f"{Path(words[0]).name} failed with status {status}, see {log}: "
            f"{' | '.join(said[-_SHOWN_LINES:])}"
        )
        raise InputError(message)


def _fold_folder(folder: Path, trainer: str) -> Path:
    plans = f"{trainer}__nnUNetPlans__{CONFIGURATION}"
    return folder / _RESULTS / DATASET / plans / f"fold_{FOLD}"


def _device(accelerator: str) -> str:
    import torch

    if accelerator != "auto":
        return accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"
