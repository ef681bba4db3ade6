"""Two scans laid over each other, beside a plain registration by SimpleITK: time and landmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.followup.registration import Lungs, Registration, register
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.phantom.breathing import Breath, breathe, landmarks
from DRAMLesionLib.phantom.make import Phantom
from Testing.benchmarks.measuring import peak_mb, timings

LIMIT_S = 60.0
SPACING = 1.25
"""Of the phantom; we work on 3 mm whatever it is."""

PEER_SPACING = 2.5
"""The peer gets a coarser CT, on which a round takes minutes and not hours."""

BREATH = Breath(lift_mm=25.0, narrowing=0.06, seed=1)


def run(rounds: int = 1) -> list[dict[str, Any]]:
    """Return the row of the benchmark table; the error of landmarks stands in its target."""
    before, after = _pair(SPACING)
    coarse = _pair(PEER_SPACING)
    points = landmarks(before, 100)
    kept: dict[str, sitk.Transform] = {}

    def ours() -> None:
        kept["ours"] = _ours(before, after).transform

    def peer() -> None:
        kept["peer"] = _plain(*coarse)

    row = timings(ours, peer, "SimpleITK, B-spline, 2.5 mm", rounds, 2.0, warm=False)
    mine, theirs = (_error_mm(kept[name], points) for name in ("ours", "peer"))
    row["target"] = f"<= {LIMIT_S:g} s; {mine:.1f} mm off, peer {theirs:.1f}"
    row["met"] = row["ours_s"] <= LIMIT_S and mine <= theirs
    return [{"name": "compare, registration of a whole CT", **row, "peak_mb": round(peak_mb(_one))}]


def _pair(spacing: float) -> tuple[Phantom, Phantom]:
    before = make_phantom(1, spacing)
    return before, breathe(before, BREATH, noise_hu=20.0, seed=1)


def _ours(before: Phantom, after: Phantom) -> Registration:
    return register(*(Lungs(one.ct, one.lobes, one.lesions) for one in (before, after)))


def _one() -> Callable[[], Registration]:
    before, after = _pair(SPACING)
    return lambda: _ours(before, after)


def _plain(before: Phantom, after: Phantom) -> sitk.Transform:
    """Register as SimpleITK's own examples do: affine, then B-splines, on the CTs as they are."""
    fixed, moving = (sitk.Cast(one.ct, sitk.sitkFloat32) for one in (before, after))
    mask = sitk.Cast(before.lobes > 0, sitk.sitkUInt8)
    affine = sitk.CenteredTransformInitializer(
        fixed,
        moving,
        sitk.AffineTransform(3),
        sitk.CenteredTransformInitializerFilter.GEOMETRY,
    )
    first = _method(mask)
    first.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    first.SetOptimizerScalesFromPhysicalShift()
    first.SetInitialTransform(affine, True)
    first.Execute(fixed, moving)
    splines = sitk.BSplineTransformInitializer(fixed, [8, 8, 8])
    second = _method(mask)
    second.SetOptimizerAsLBFGSB(numberOfIterations=50)
    second.SetMovingInitialTransform(affine)
    second.SetInitialTransform(splines, True)
    second.Execute(fixed, moving)
    return sitk.CompositeTransform([affine, splines])


def _method(mask: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, seed=1)
    method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _error_mm(transform: sitk.Transform, points: np.ndarray) -> float:
    found = np.array([transform.TransformPoint(point) for point in points.tolist()])
    return float(np.linalg.norm(found - BREATH.after(points), axis=1).mean())
