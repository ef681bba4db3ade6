"""Who finds the lobes: the embedded estimate, or tools that the user has installed."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.lobes.estimate import LobeEstimate, estimate_lobes
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.memory import is_out_of_memory

Provider = Literal["embedded", "totalsegmentator", "lungmask"]
Progress = Callable[[float], None]

TOTALSEGMENTATOR_LOBES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
"""Names of the lobes in TotalSegmentator's task 'total', labels 10 to 14."""


def provide_lobes(
    ct: sitk.Image, provider: str = "embedded", progress: Progress | None = None
) -> LobeEstimate:
    """Find the lobes of a CT.

    Args:
        ct: CT in HU.
        provider: ``embedded``, ``totalsegmentator`` or ``lungmask``. The last two run the package
            of that name, which may download its own weights the first time.
        progress: Told the share of the work that is done; may raise to stop.

    Returns:
        Lobes on the CT's grid. Other tools do not say how sure they are: their confidence is
        empty.

    Raises:
        InputError: If no lung is found, the provider is unknown or fails.
        MissingDependencyError: If the package is not installed.
    """
    report = progress or (lambda _: None)
    if provider == "embedded":
        return estimate_lobes(ct, progress)
    runners = {"totalsegmentator": _totalsegmentator, "lungmask": _lungmask}
    if provider not in runners:
        known = ", ".join(("embedded", *runners))
        message = f"unknown lobe provider {provider!r}; there are {known}"
        raise InputError(message)
    if importlib.util.find_spec(provider) is None:
        message = (
            f"{provider} is not installed here: install it with 'pip install {provider}', or use "
            "the embedded estimate"
        )
        raise MissingDependencyError(message)
    report(0.0)
    try:
        labels = runners[provider](ct)
    except (RuntimeError, OSError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        message = f"{provider} could not find the lobes: {error}; use the embedded estimate instead"
        raise InputError(message) from error
    report(1.0)
    lobes = to_lobes(labels, provider, name=f"the result of {provider}")
    return LobeEstimate(lobes, {}, [], sitk.Image(ct.GetSize(), sitk.sitkUInt8))


def _totalsegmentator(ct: sitk.Image) -> sitk.Image:
    api = importlib.import_module("totalsegmentator.python_api")
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "ct.nii.gz", Path(folder) / "lobes.nii.gz"
        sitk.WriteImage(ct, str(source))
        api.totalsegmentator(
            source,
            result,
            ml=True,
            task="total",
            roi_subset=list(TOTALSEGMENTATOR_LOBES),
            quiet=True,
        )
        return sitk.Cast(sitk.ReadImage(str(result)), sitk.sitkUInt8)


def _lungmask(ct: sitk.Image) -> sitk.Image:
    inferer = importlib.import_module("lungmask").LMInferer(
        modelname="LTRCLobes_R231", tqdm_disable=True
    )
    labels = sitk.GetImageFromArray(inferer.apply(ct))
    labels.CopyInformation(ct)
    return sitk.Cast(labels, sitk.sitkUInt8)
