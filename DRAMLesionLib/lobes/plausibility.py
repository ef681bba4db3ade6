"""Whether what was found can be a pair of lungs: its judgement of itself, scan by scan.

The limits are set so that none of fifteen real CTs, collapsed lungs and tumours apart, is told of
anything but expiration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.lobes.morphology import distance_to, erode, halved

LEFT, RIGHT = 1, 2
NAMES = {LEFT: "left", RIGHT: "right"}
LUNG_HU = (-1000, -500)
MODE_SMOOTHING_HU = 10.0
EXPIRATION_HU = -835.0
"""In deep inspiration most of a healthy lung is darker."""
LITRES = (1.2, 10.0)
UNEQUAL = 0.5
SOFT_HU, SOFT_SHARE = -200.0, 0.2
AIRWAY_MM = 25.0
DIAPHRAGM_MM = 70.0
FREE_GAS_HU, FREE_GAS_ML = -960.0, 30.0
DARKER_THAN_LUNG = 80.0
NOISE_HU = 70.0
CUT_SHARE = 0.12
"""A first or last slice with more than this share of the largest section cuts the lungs."""


@dataclass(frozen=True)
class LungFacts:
    """What is measured on the lungs of a scan.

    Attributes:
        litres: Volume of each lung that was found (1 left, 2 right).
        mode: The most frequent HU of the aerated lung, NaN if there is hardly any.
        noise: Robust standard deviation in HU of aerated lung about its local mean.
        soft: Share of each lung, its rim apart, that is as dense as soft tissue.
        to_airways_mm: Least distance of each lung to the airways; NaN where there are none.
        bottoms_mm: Height of the lowest place of each lung above the first slice.
        free_gas_ml: Gas without any tissue in it, in the lungs or left out beside them.
        cut: Whether the first or the last slice cuts the lungs.
    """

    litres: dict[int, float]
    mode: float
    noise: float
    soft: dict[int, float]
    to_airways_mm: dict[int, float]
    bottoms_mm: dict[int, float]
    free_gas_ml: float
    cut: bool


def lung_facts(
    hu: np.ndarray,
    smooth: np.ndarray,
    labels: np.ndarray,
    airways: np.ndarray,
    gas: np.ndarray,
    spacing: float,
) -> LungFacts:
    """Measure the lungs.

    Args:
        hu: HU, (k, j, i), LPS.
        smooth: Its mean over 3 x 3 x 3 voxels.
        labels: uint8, 1 in the left, 2 in the right lung.
        airways: Lumen of trachea and bronchi.
        gas: Gas in the body that was taken for none of the lungs.
        spacing: Edge of a voxel in mm.
    """
    ml = spacing**3 / 1000.0
    sides = [side for side in (LEFT, RIGHT) if (labels == side).any()]
    core = erode(labels > 0, 3)
    values = smooth[core]
    mode = _mode(values)
    aerated = core & (smooth > LUNG_HU[0]) & (smooth < LUNG_HU[1])
    noise = np.median(np.abs(hu - smooth)[aerated]) / 0.6745 if aerated.any() else np.nan
    heights = {side: np.flatnonzero((labels == side).any(axis=(1, 2))) for side in sides}
    areas = (labels > 0).sum(axis=(1, 2))
    far = distance_to(halved(airways) >= 0.5) if airways.any() else None
    return LungFacts(
        litres={side: float((labels == side).sum()) * ml / 1000.0 for side in sides},
        mode=mode,
        noise=float(noise),
        soft={side: float(np.mean(values[labels[core] == side] > SOFT_HU)) for side in sides},
        to_airways_mm={side: _least(far, labels == side) * 2.0 * spacing for side in sides},
        bottoms_mm={side: float(heights[side][0]) * spacing for side in sides},
        free_gas_ml=_free_gas(smooth, labels, gas, mode) * ml,
        cut=bool(max(areas[0], areas[-1]) > CUT_SHARE * areas.max()),
    )


def judge(facts: LungFacts) -> list[ScanWarning]:
    """Return a warning for each thing about the lungs that is not as it should be."""
    warnings = []
    if facts.mode > EXPIRATION_HU:
        text = (
            f"The lungs are denser than in deep inspiration (most of them near {facts.mode:.0f} "
            "HU, usually -900 to -850): a CT in expiration or free breathing, or diffuse disease. "
            "Ground glass may be overestimated, above all at the back."
        )
        warnings.append(ScanWarning("expiration", text))
    total = sum(facts.litres.values())
    if not facts.cut and not LITRES[0] < total < LITRES[1]:
        text = (
            f"The lungs hold {total:.1f} litres, which few lungs do: a child, a small or "
            "over-inflated lung, a wrong spacing, or lung that was not found. Look at the outlines."
        )
        warnings.append(ScanWarning("lung-volume", text))
    return warnings + _unequal(facts) + _dense(facts) + _place(facts) + _quality(facts)


def _unequal(facts: LungFacts) -> list[ScanWarning]:
    if len(facts.litres) < 2:
        return []
    small, large = sorted(facts.litres, key=lambda side: facts.litres[side])
    share = facts.litres[small] / facts.litres[large]
    if share > UNEQUAL:
        return []
    text = (
        f"The {NAMES[small]} lung has {100.0 * share:.0f} % of the volume of the {NAMES[large]} "
        "one: collapse, an operation or fluid, or a part of it was not found. Its figures are "
        "for the part that is outlined."
    )
    return [ScanWarning("lungs-unequal", text)]


def _dense(facts: LungFacts) -> list[ScanWarning]:
    dense = {side: share for side, share in facts.soft.items() if share > SOFT_SHARE}
    return [
        ScanWarning(
            f"dense-{NAMES[side]}-lung",
            f"{100.0 * share:.0f} % of the {NAMES[side]} lung, as outlined, are as dense as soft "
            "tissue: consolidation or fluid, or chest wall, heart or liver by mistake. Look at the "
            "outlines.",
        )
        for side, share in dense.items()
    ]


def _place(facts: LungFacts) -> list[ScanWarning]:
    warnings = []
    if not facts.cut and all(np.isnan(far) for far in facts.to_airways_mm.values()):
        text = (
            "Neither trachea nor bronchi were found, so that nothing proves what is lung and what "
            "is gas elsewhere. Look at the outlines."
        )
        warnings.append(ScanWarning("no-airways", text))
    for side, far in facts.to_airways_mm.items():
        if not facts.cut and far > AIRWAY_MM:
            text = (
                f"The {NAMES[side]} lung lies {far:.0f} mm from the airways: its bronchus is "
                "closed, or it is no lung. Look at the outlines."
            )
            warnings.append(ScanWarning(f"{NAMES[side]}-lung-apart", text))
    bottoms = facts.bottoms_mm
    if len(bottoms) == 2 and abs(bottoms[LEFT] - bottoms[RIGHT]) > DIAPHRAGM_MM:
        high = max(bottoms, key=lambda side: bottoms[side])
        text = (
            f"The {NAMES[high]} lung ends {abs(bottoms[LEFT] - bottoms[RIGHT]):.0f} mm above the "
            "other: a high diaphragm, fluid or collapse, or its base was not found. Its figures "
            "are for the part that is outlined."
        )
        warnings.append(ScanWarning("diaphragm", text))
    return warnings


def _quality(facts: LungFacts) -> list[ScanWarning]:
    warnings = []
    if facts.free_gas_ml > FREE_GAS_ML:
        text = (
            f"{facts.free_gas_ml:.0f} ml of gas without tissue lie in the chest: a pneumothorax, a "
            "large bulla or a hernia. Where they are outlined they count as healthy lung."
        )
        warnings.append(ScanWarning("free-gas", text))
    if facts.noise > NOISE_HU:
        text = (
            f"The CT is very noisy (SD {facts.noise:.0f} HU in the lungs at 1.5 mm): borders of "
            "lobes and faint lesions cannot be relied on."
        )
        warnings.append(ScanWarning("noisy", text))
    return warnings


def _mode(values: np.ndarray) -> float:
    """Return the most frequent HU of aerated lung."""
    counts, edges = np.histogram(values, bins=np.arange(LUNG_HU[0], LUNG_HU[1] + 1))
    if not counts.any():
        return float("nan")
    return float(edges[np.argmax(ndimage.gaussian_filter1d(counts * 1.0, MODE_SMOOTHING_HU))])


def _least(far: np.ndarray | None, lung: np.ndarray) -> float:
    """Return the least of ``far``, which has half the resolution, within ``lung``."""
    if far is None:
        return float("nan")
    return max(float(far[halved(lung) > 0.0].min()), 0.0)


def _free_gas(smooth: np.ndarray, labels: np.ndarray, gas: np.ndarray, mode: float) -> float:
    """Return the voxels of large spaces of gas at the height of the upper lungs, or in a lung."""
    used = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    upper = np.arange(len(labels)) > (used[0] + used[-1]) / 2.0
    level = min(FREE_GAS_HU, mode - DARKER_THAN_LUNG) if not np.isnan(mode) else FREE_GAS_HU
    beside = gas & upper[:, None, None] & (np.arange(len(labels)) <= used[-1])[:, None, None]
    spaces, count = ndimage.label(((labels > 0) | beside) & (smooth < level))
    sizes = np.bincount(spaces.ravel(), minlength=count + 1)
    return float(sizes[1:].max(initial=0))
