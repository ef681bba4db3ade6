"""The lobes of a scan, given or estimated, brought to its grid and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import SimpleITK as sitk

from DRAMLesionLib.errors import ScanWarning
from DRAMLesionLib.lobes import Lobe, fit
from DRAMLesionLib.lobes.providers import provide_lobes

EMBEDDED = "embedded"


@dataclass(frozen=True)
class ScanLobes:
    """Lobes on the CT's grid and what is known about them.

    Attributes:
        lobes: uint8 labels of :class:`Lobe`.
        source: ``"given"``, ``"estimated"`` or the name of the provider.
        not_assessable: Why, for each lobe that cannot be assessed.
        confidence: How sure the borders of each lobe are, 0 to 1; None if they were given.
        warnings: What the report has to say.
    """

    lobes: sitk.Image
    source: str
    not_assessable: dict[Lobe, str] = field(default_factory=dict)
    confidence: dict[Lobe, float] | None = None
    warnings: tuple[ScanWarning, ...] = ()

    @property
    def lungs(self) -> sitk.Image:
        """Mask of all lobes."""
        return sitk.Cast(self.lobes > 0, sitk.sitkUInt8)


def find_lobes(
    ct: sitk.Image,
    given: sitk.Image | None,
    provider: str,
    name: str,
    progress: Callable[[float], None] | None = None,
) -> ScanLobes:
    """Fit the lobes that were given to a CT, or ask a provider for them.

    Args:
        ct: HU, any orientation.
        given: Image with the values of :class:`Lobe` on any grid; None asks the provider.
        provider: See :func:`DRAMLesionLib.lobes.providers.provide_lobes`.
        name: What to call the CT in an error.
        progress: Called with the share done, 0 to 1.

    Raises:
        InputError: If there is too little lung, or the lobes do not fit the CT.
    """
    if given is not None:
        lobes, reasons, warnings = fit.fit_lobes(given, ct)
        source, confidence = "given", None
    else:
        estimate = provide_lobes(ct, provider, progress)
        lobes, reasons, warnings = estimate.lobes, {}, list(estimate.warnings)
        source = "estimated" if provider == EMBEDDED else provider
        confidence = estimate.confidence or None
    warnings += fit.check_lung_extent(lobes, ct, name)
    return ScanLobes(lobes, source, reasons, confidence, tuple(warnings))
