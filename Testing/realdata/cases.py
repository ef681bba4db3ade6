"""The real CTs, what is known about each, and where the files lie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from Testing.library.realdata import DATA


@dataclass(frozen=True)
class Case:
    """One CT.

    Attributes:
        name: What the table calls it.
        place: File or DICOM folder, relative to the data.
        contours: Lungs, 1 right and 2 left, drawn by experts or checked by them, if there are any.
        clear: Whether its lungs are without pneumonia, so that any lesion is a wrong one.
        dice: What the contours have to be met with.
    """

    name: str
    place: str
    contours: str = ""
    clear: bool = True
    dice: float = 0.0

    @property
    def path(self) -> Path:
        """Where the CT is."""
        return DATA / self.place

    @property
    def contours_path(self) -> Path | None:
        """Where the contours are, if there are any."""
        path = DATA / self.contours
        return path if self.contours and path.is_file() else None

    def infected_slices(self) -> dict[int, bool] | None:
        """Return the readers' answer by slice index k, if they were asked slice by slice."""
        path = self.path.parent / "slice_lobe_labels.json"
        if not path.is_file():
            return None
        slices = json.loads(path.read_text(encoding="utf-8"))["slices"]
        return {one["nii_index_from_inferior"]: bool(one["infected"]) for one in slices}


def _lctsc(number: int) -> Case:
    folder = f"ct2/lctsc-test-s1-{number}"
    return Case(f"lctsc-{number}", f"{folder}/ct.nii.gz", f"{folder}/lungs_rl.nii.gz", dice=0.975)


CASES = (
    *(_lctsc(number) for number in (101, 102, 103, 104)),
    Case("covid-P001", "ct2/covidctmd-covid-P001/ct.nii.gz", clear=False),
    Case("cap001", "ct2/covidctmd-cap001/ct.nii.gz", clear=False),
    Case("normal001", "ct2/covidctmd-normal001/ct.nii.gz"),
    Case("lidc-0001", "ct/lidc-idri-0001.nii.gz"),
    Case("lidc-0002", "ct/lidc-idri-0002.nii.gz"),
    Case("lidc-1011", "ct2/lidc-1011/ct.nii.gz"),
    Case("lungdx-A0002", "ct2/lungdx-A0002-8mm/ct.nii.gz"),
    Case(
        "copd-10002k",
        "ct2/cip-copd-10002k-64/ct.nii.gz",
        "ct2/cip-copd-10002k-64/lungs_rl.nii.gz",
        dice=0.97,
    ),
    Case("cptac-00247", "dicom/cptac-c3n-00247"),
    Case("ricord-1a-slab", "ct/ricord-1a-000006-slab.nii.gz", clear=False),
    Case("ricord-1b-slab", "ct/ricord-1b-000063-slab.nii.gz"),
)
