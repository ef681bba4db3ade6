"""Coded names: SNOMED CT for what the product writes, and lobes recognised by name or by code.

Codes are those of 3D Slicer's own terminology lists, so that segments get the names that its users
know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from DRAMLesionLib.lobes import Lobe

TERMINOLOGY_TAG = "TerminologyEntry"
"""Name of the tag under which Slicer keeps a segment's term."""

_CATEGORY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Code:
    """A coded concept: SNOMED CT identifier and its meaning in words."""

    value: str
    meaning: str

    def serialised(self) -> str:
        """Return ``scheme^value^meaning``."""
        return f"SCT^{self.value}^{self.meaning}"


@dataclass(frozen=True)
class Term:
    """What a segment is: category, type, and where needed what modifies the type."""

    category: Code
    type: Code
    modifier: Code | None = None

    def entry(self) -> str:
        """Return the term as Slicer serialises it in a segment's terminology tag."""
        modifier = self.modifier.serialised() if self.modifier else "^^"
        return "~".join(
            (
                _CATEGORY_CONTEXT,
                self.category.serialised(),
                self.type.serialised(),
                modifier,
                _REGION_CONTEXT,
                "^^",
                "^^",
            )
        )


ANATOMY = Code("123037004", "Anatomical Structure")
ALTERED = Code("49755003", "Morphologically Altered Structure")
LEFT = Code("7771000", "Left")
RIGHT = Code("24028007", "Right")
UPPER_LOBE = Code("45653009", "Upper lobe of lung")
MIDDLE_LOBE = Code("72481006", "Middle lobe of right lung")
LOWER_LOBE = Code("90572001", "Lower lobe of lung")

LOBE_TERMS: dict[Lobe, Term] = {
    Lobe.LUL: Term(ANATOMY, UPPER_LOBE, LEFT),
    Lobe.LLL: Term(ANATOMY, LOWER_LOBE, LEFT),
    Lobe.RUL: Term(ANATOMY, UPPER_LOBE, RIGHT),
    Lobe.RML: Term(ANATOMY, MIDDLE_LOBE, RIGHT),
    Lobe.RLL: Term(ANATOMY, LOWER_LOBE, RIGHT),
}
LUNG_TERM = Term(ANATOMY, Code("39607008", "Lung"))
VESSEL_TERM = Term(ANATOMY, Code("59820001", "Blood vessel"))
LESION_TERM = Term(ALTERED, Code("52988006", "Lesion"))
"""Also for ground glass and consolidation, which Slicer's lists do not have: their names differ."""
INFILTRATE_TERM = Term(ALTERED, Code("47351003", "Infiltrate"), Code("840539006", "COVID-19"))

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_LEVELS = {
    "upper": "upper",
    "superior": "upper",
    "middle": "middle",
    "lower": "lower",
    "inferior": "lower",
}
_FILLERS = {"lobe", "lobes", "lung", "of", "the", "pulmonary", "structure"}
_EDITED = {"edited", "corrected", "copy", "final", "new", "mask", "segment", "segmentation"}
"""What people and programs add to the name of a segment that stays the same thing."""
_BY_SIDE_AND_LEVEL = {
    ("left", "upper"): Lobe.LUL,
    ("left", "lower"): Lobe.LLL,
    ("right", "upper"): Lobe.RUL,
    ("right", "middle"): Lobe.RML,
    ("right", "lower"): Lobe.RLL,
}
_BY_CODE: dict[tuple[str, str | None], Lobe] = {
    (UPPER_LOBE.value, LEFT.value): Lobe.LUL,
    (UPPER_LOBE.value, RIGHT.value): Lobe.RUL,
    (MIDDLE_LOBE.value, RIGHT.value): Lobe.RML,
    (MIDDLE_LOBE.value, None): Lobe.RML,
    (LOWER_LOBE.value, LEFT.value): Lobe.LLL,
    (LOWER_LOBE.value, RIGHT.value): Lobe.RLL,
    # one code for side and level, as other segmentations have it
    ("44714003", None): Lobe.LUL,
    ("41224006", None): Lobe.LLL,
    ("42400003", None): Lobe.RUL,
    ("266005", None): Lobe.RLL,
    # the SNOMED RT codes of older DICOM files
    ("T-28820", "G-A101"): Lobe.LUL,
    ("T-28830", "G-A101"): Lobe.LLL,
    ("T-28820", "G-A100"): Lobe.RUL,
    ("T-28830", "G-A100"): Lobe.RLL,
    ("T-28600", None): Lobe.LUL,
    ("T-28700", None): Lobe.LLL,
    ("T-28200", None): Lobe.RUL,
    ("T-28300", None): Lobe.RML,
    ("T-28400", None): Lobe.RLL,
}
_SIDE_IN_CODE = {code: lobe for (code, side), lobe in _BY_CODE.items() if side is None}
_LEFT_SIDE = {LEFT.value: True, RIGHT.value: False, "G-A101": True, "G-A100": False}


def lobe_from_name(name: str) -> Lobe | None:
    """Recognise a lobe by what people and tools call it.

    Args:
        name: Such as ``"RUL"``, ``"right upper lobe"``, ``"lung_upper_lobe_right"``,
            ``"Upper lobe of left lung"`` or ``"RightMiddleLobe"``.

    Returns:
        The lobe; None for anything else, also for a *part* of a lobe or something in it, such as
        ``"right upper lobe bronchus"``.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [w for w in re.findall(r"[^\W\d_]+", spaced.lower()) if w not in _EDITED]
    if len(words) == 1 and words[0].upper() in Lobe.__members__:
        return Lobe[words[0].upper()]
    if any(word not in _SIDES and word not in _LEVELS and word not in _FILLERS for word in words):
        return None
    sides = {_SIDES[word] for word in words if word in _SIDES}
    levels = {_LEVELS[word] for word in words if word in _LEVELS}
    if levels == {"middle"} and not sides:
        sides = {"right"}
    if len(sides) != 1 or len(levels) != 1 or not {"lobe", "lung"} & set(words):
        return None
    return _BY_SIDE_AND_LEVEL.get((sides.pop(), levels.pop()))


def lobe_from_entry(entry: str) -> Lobe | None:
    """Recognise a lobe by a terminology entry as Slicer serialises it, with or without its tag."""
    _, kind, modifier = entry_codes(entry)
    if kind in _SIDE_IN_CODE:
        lobe = _SIDE_IN_CODE[kind]
        return lobe if not modifier or _LEFT_SIDE.get(modifier) is lobe.is_left else None
    return _BY_CODE.get((kind, modifier or None))


def entry_codes(entry: str) -> tuple[str, str, str]:
    """Return the codes of category, type and modifier in a terminology entry; empty where none is.

    Args:
        entry: As Slicer serialises it, with or without its tag, and with others around it.
    """
    fields = entry.split(f"{TERMINOLOGY_TAG}:")[-1].split("|")[0].split("~")
    values = [field.split("^")[1] for field in fields if field.count("^") == 2]
    category, kind, modifier = values[:3] if len(values) >= 3 else ("", "", "")
    return category, kind, modifier
