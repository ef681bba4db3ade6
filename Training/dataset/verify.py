"""Check the images of a case before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import DRAMLesionError, InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe, fit
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.reading import checks, files
from Training.dataset.cache import LESION, VESSEL
from Training.dataset.folder import Case, Problem


@dataclass(frozen=True)
class LoadedCase:
    """A case that is fit for training, and the notes about it.

    Attributes:
        ct: HU on the scan's own grid.
        lobes: :class:`Lobe` values on the same grid.
        estimated: Whether the lobes are the embedded estimate.
        problems: What a user should know; none of them is fatal.
    """

    ct: sitk.Image
    lobes: sitk.Image
    estimated: bool
    problems: list[Problem] = field(default_factory=list)


def load_case(case: Case, lobe_scheme: str = "auto") -> tuple[LoadedCase | None, list[Problem]]:
    """Read and check scan and lobes of a case.

    Args:
        case: What the data set says about it.
        lobe_scheme: How its lobe mask numbers the lobes, see :mod:`DRAMLesionLib.lobes.schemes`.

    Returns:
        The images, or None if they cannot be used, and every problem found.
    """
    problems: list[Problem] = []
    try:
        ct, warnings = files.read_ct(case.scan)
        warnings = [*warnings, *checks.check_ct(ct, case.scan.name)]
        lobes, more = _lobes(case, ct, lobe_scheme)
        warnings += more
        warnings += fit.check_lung_extent(lobes, ct, case.scan.name)
        problems += _label_problems(case, ct)
    except DRAMLesionError as error:
        return None, [Problem(case.name, str(error))]
    problems += [Problem(case.name, warning.message, fatal=False) for warning in warnings]
    present = _present(lobes)
    if not any(case.scores[lobe] is not None for lobe in Lobe if lobe in present):
        problems.append(Problem(case.name, "no lobe has both a score and a place in the scan"))
        return None, problems
    for lobe in Lobe:
        if case.scores[lobe] is not None and lobe not in present:
            message = f"has a score for the {lobe.full_name}, which its lobes lack: left out"
            problems.append(Problem(case.name, message, fatal=False))
    return LoadedCase(ct, lobes, case.lobes is None, problems), problems


def label_on(label: sitk.Image, grid: sitk.Image, name: str) -> np.ndarray:
    """Bring a pseudo-label by a person to a grid of its scan.

    Args:
        label: 0 background, 1 vessel, 2 lesion.
        grid: Covers the scan.
        name: What to call the label in an error.

    Returns:
        (k, j, i) uint8.

    Raises:
        InputError: If the label holds another value or lies elsewhere.
    """
    values = np.unique(sitk.GetArrayViewFromImage(label))
    if strange := [int(value) for value in values if value not in (0, VESSEL, LESION)]:
        message = (
            f"{name} has the values {', '.join(map(str, strange))}; a pseudo-label has 0 for "
            f"background, {VESSEL} for vessel and {LESION} for lesion"
        )
        raise InputError(message)
    result = geometry.array(geometry.resample(label, grid, "nearest")).astype(np.uint8)
    if values.any() and not result.any():
        message = f"{name} lies outside of the CT: was it saved from another scan?"
        raise InputError(message)
    return result


def _label_problems(case: Case, ct: sitk.Image) -> list[Problem]:
    """Check the pseudo-label that lies in the data set, if there is one."""
    if case.label is None:
        return []
    name = f"the pseudo-label {case.label.name}"
    label = label_on(files.read_labels(case.label), ct, name)
    if any(case.scores.values()) and not (label == LESION).any():
        message = f"{name} has no lesion ({LESION}), but the lobes have scores above 0"
        return [Problem(case.name, message, fatal=False)]
    return []


def _lobes(case: Case, ct: sitk.Image, scheme: str) -> tuple[sitk.Image, list]:
    if case.lobes is not None:
        given = files.read_labels(case.lobes)
        name = f"the lobe mask of {case.name}"
        lobes, _, warnings = fit.fit_lobes(to_lobes(given, scheme, name=name), ct, name)
        return lobes, list(warnings)
    # imported late: data sets that bring their lobes do without the estimate
    from DRAMLesionLib.lobes.providers import provide_lobes

    estimate = provide_lobes(ct, "embedded", None)
    return estimate.lobes, list(estimate.warnings)


def _present(lobes: sitk.Image) -> set[int]:
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputePerimeterOff()
    statistics.Execute(lobes)
    return set(statistics.GetLabels())
