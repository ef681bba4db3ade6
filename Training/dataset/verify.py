"""Check the images of a case before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import SimpleITK as sitk

from DRAMLesionLib.errors import DRAMLesionError, InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe, fit
from DRAMLesionLib.lobes.masks import read_lobes
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.reading import checks, files
from DRAMLesionLib.reading.markups import Point, read_points
from DRAMLesionLib.reading.notes import notes
from Training.dataset.cache import LESION, UNKNOWN
from Training.dataset.contradictions import check_labels
from Training.dataset.folder import Case
from Training.dataset.labels import label_on, read_pseudolabel
from Training.dataset.scores import Problem
from Training.dataset.voxel_labels import read_outlined, voxels_on


@dataclass(frozen=True)
class LoadedCase:
    """A case that is fit for training, and the notes about it.

    Attributes:
        ct: HU on the scan's own grid.
        lobes: :class:`Lobe` values on the same grid.
        estimated: Whether the lobes are the embedded estimate.
        problems: What a user should know; none of them is fatal.
        outlined: uint8: 0 background, 1 lesion, 255 unknown on a grid of its own; None if a person
            has outlined nothing.
        points: That a person has placed.
    """

    ct: sitk.Image
    lobes: sitk.Image
    estimated: bool
    problems: list[Problem] = field(default_factory=list)
    outlined: sitk.Image | None = None
    points: list[Point] = field(default_factory=list)


def load_case(case: Case, lobe_scheme: str = "auto") -> tuple[LoadedCase | None, list[Problem]]:
    """Read and check scan, lobes and labels of a case.

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
        outlined, points, more_problems = _voxel_labels(case, ct, lobes)
        problems += more_problems
    except DRAMLesionError as error:
        return None, [Problem(case.name, error.stored)]
    problems += [Problem(case.name, warning.message, fatal=False) for warning in warnings]
    if any(problem.fatal for problem in problems):
        return None, problems
    present = _present(lobes)
    of_regions = [one for one in case.regions if one.is_slice or set(one.lobes) & present]
    scored = any(case.scores[lobe] is not None for lobe in Lobe if lobe in present)
    if not scored and not of_regions and outlined is None and not points:
        problems.append(Problem(case.name, "no lobe has both a score and a place in the scan"))
        return None, problems
    for lobe in Lobe:
        if case.scores[lobe] is not None and lobe not in present:
            message = f"has a score for the {lobe.full_name}, which its lobes lack: left out"
            problems.append(Problem(case.name, message, fatal=False))
    for one in case.regions:
        if one not in of_regions:
            message = f"has a label of {one.region}, which its lobes lack: left out"
            problems.append(Problem(case.name, message, fatal=False))
    loaded = LoadedCase(ct, lobes, case.lobes is None, problems, outlined, points)
    return loaded, problems


def _voxel_labels(
    case: Case, ct: sitk.Image, lobes: sitk.Image
) -> tuple[sitk.Image | None, list[Point], list[Problem]]:
    """Read what a person has labelled in a scan, and check all of its labels together."""
    if case.points is None and case.outlined is None and not case.regions:
        return None, [], []
    outlined, name = read_outlined(case)
    points = read_points(case.points) if case.points is not None else []
    voxels = None
    if outlined is not None:
        voxels = voxels_on(ct, outlined, [])
        if (voxels == UNKNOWN).all() and (geometry.array(outlined) != UNKNOWN).any():
            message = f"{name} lies outside of the CT: was it saved from another scan?"
            raise InputError(message)
    labels = geometry.array(lobes)
    found = check_labels(case.name, ct, labels, case.regions, case.scores, voxels, points)
    return outlined, points, found


def _label_problems(case: Case, ct: sitk.Image) -> list[Problem]:
    """Check the pseudo-label that lies in the data set, if there is one."""
    if case.label is None:
        return []
    name = f"the pseudo-label {case.label.name}"
    given = read_pseudolabel(case.label)
    found = [Problem(case.name, f"{name}: {n.message}", fatal=False) for n in notes(given)]
    label = label_on(given, ct, name)
    if any(case.scores.values()) and not (label == LESION).any():
        message = f"{name} has no lesion ({LESION}), but the lobes have scores above 0"
        found.append(Problem(case.name, message, fatal=False))
    return found


def _lobes(case: Case, ct: sitk.Image, scheme: str) -> tuple[sitk.Image, list]:
    if case.lobes is not None:
        given, names = read_lobes(case.lobes)
        name = f"the lobe mask of {case.name}"
        lobes, _, warnings = fit.fit_lobes(to_lobes(given, scheme, names, name), ct, name)
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
