"""Coded concepts of the DICOM results, and the colours of their segments.

Lobes, vessels and units are those of the dictionaries of pydicom and highdicom; ground glass is
DICOM's own code. Lung consolidation has a code in SNOMED CT that those dictionaries do not list.
What has none anywhere is of a private scheme, with its identification.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from DRAMLesionLib.lobes import Lobe, terminology

SCHEME = "99DRAMLESION"
"""The private scheme."""


def sct(code: terminology.Code) -> Code:
    """Return a code of SNOMED CT as DICOM writes it."""
    return Code(code.value, "SCT", code.meaning)


def _own(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


ANATOMY = sct(terminology.ANATOMY)
ALTERED = sct(terminology.ALTERED)
LOBE = Code("31094006", "SCT", "Lobe of lung")
LESION = Code("52988006", "SCT", "Lesion")
LUNG = Code("39607008", "SCT", "Lung")
VESSEL = Code("59820001", "SCT", "Blood Vessel")
BILATERAL = Code("51440002", "SCT", "Bilateral")

LESIONS: dict[int, Code] = {
    1: Code("112120", "DCM", "Ground glass opacity"),
    2: Code("95436008", "SCT", "Lung consolidation"),
    3: _own("mixed", "Mixed ground glass and consolidation"),
}
"""By label of the lesions."""

LOBES: Mapping[Lobe, tuple[Code, Code]] = {
    lobe: (sct(term.type), sct(term.modifier))
    for lobe, term in terminology.LOBE_TERMS.items()
    if term.modifier is not None
}
"""Site and side of each lobe, of CID 6126 and CID 244."""

VOLUME = Code("118565006", "SCT", "Volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
SHARE = _own("lesion-share", "Lesion share of lobe volume")
SCORE = _own("lobe-score", "Lobe severity score")
TOTAL_SCORE = _own("ctss", "CT severity score")

MILLILITRE = Code("ml", "UCUM", "milliliter")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")

METHOD = Code("123110", "DCM", "Artificial Intelligence")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
CHEST_CT = Code("24627-2", "LN", "CT Chest Report")

COLOURS: dict[str, str] = {
    "LUL": "#b1d6a4",
    "LLL": "#7aa96b",
    "RUL": "#a8c4e0",
    "RML": "#d8c28f",
    "RLL": "#7398bd",
    "vessels": "#d83c3c",
}
"""Of segments that are no lesions; those have the report's."""


def identify_scheme(dataset: Dataset) -> None:
    """Say in a DICOM object what the private scheme is."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "DRAMLesion"
    item.CodingSchemeVersion = "1"
    item.CodingSchemeResponsibleOrganization = "DRAMLesion"
    dataset.CodingSchemeIdentificationSequence = [
        *dataset.get("CodingSchemeIdentificationSequence", []),
        item,
    ]
