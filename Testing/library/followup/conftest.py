import pytest

from DRAMLesionLib.followup import compare as comparing
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.phantom.breathing import Breath, breathe
from Testing.library.followup.pairs import breathed, timepoint

SPACING = 5.0
BREATH = Breath(lift_mm=30.0, narrowing=0.07, seed=3)
EARLIER = {Lobe.LLL: 2, Lobe.RLL: 3, Lobe.RUL: 2}
LATER = {Lobe.LLL: 4, Lobe.RLL: 3, Lobe.LUL: 2}
"""Scores: grown, unchanged, gone and new."""


@pytest.fixture(scope="package")
def pair():
    """One phantom before and after: other lesions, another breath, other noise."""
    before = make_phantom(seed=3, spacing=SPACING, scores=EARLIER)
    after = make_phantom(seed=3, spacing=SPACING, scores=LATER)
    return before, breathe(after, BREATH, 15.0, seed=1)


@pytest.fixture(scope="package")
def compared(pair):
    """Their comparison, by the truth of both, and the registration: the breath's own formula."""
    found = breathed(pair[0].ct, BREATH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing, "register", lambda *_: found)
        return comparing.compare(timepoint(pair[0]), timepoint(pair[1]))
