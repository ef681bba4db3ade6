"""Labels of regions on the grid of the lobe chunks, and what they say about the lobes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from DRAMLesionLib.lobes import Lobe


@dataclass(frozen=True)
class Region:
    """A part of the lungs of which so much is lesion.

    Attributes:
        name: Such as ``LUL``, ``left``, ``slice:40``.
        lower: Least share of its lung voxels in [0, 1].
        upper: Largest share.
        lobes: The lobes that it is in.
        planes: First and last + 1 plane k of the regression grid for a slice; None for all of the
            lobes.
    """

    name: str
    lower: float
    upper: float
    lobes: tuple[Lobe, ...]
    planes: tuple[int, int] | None = None

    @property
    def is_clear(self) -> bool:
        """Whether it says that whole lobes have no lesion."""
        return self.upper == 0 and self.planes is None


def fit_shares(
    shares: Mapping[Lobe, float], voxels: Mapping[Lobe, int], regions: Sequence[Region]
) -> dict[Lobe, float]:
    """Bring lesion shares of lobes into the intervals of their labels.

    Labels of single lobes hold for each; where the share of a larger region lies outside of its
    interval, the shares of its lobes are scaled alike, up to 1 (ours). Slices say too little about
    a lobe to change it.

    Args:
        shares: Of the lobes, in [0, 1].
        voxels: How many voxels each lobe has.
        regions: Labels.

    Returns:
        New shares of the same lobes.
    """
    fitted = dict(shares)
    whole = [one for one in regions if one.planes is None and set(one.lobes) <= fitted.keys()]
    for one in sorted(whole, key=lambda one: -len(one.lobes)):
        if len(one.lobes) == 1:
            lobe = one.lobes[0]
            fitted[lobe] = min(max(fitted[lobe], one.lower), one.upper)
            continue
        size = sum(voxels[lobe] for lobe in one.lobes)
        now = sum(voxels[lobe] * fitted[lobe] for lobe in one.lobes) / max(size, 1)
        wanted = min(max(now, one.lower), one.upper)
        for lobe in one.lobes if wanted != now else ():
            fitted[lobe] = min(1.0, fitted[lobe] * wanted / now) if now > 0 else wanted
    return fitted
