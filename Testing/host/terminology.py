"""A few entries of the application's terminology files, which the wheel does not carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_LEFT_RIGHT = [("7771000", "Left"), ("24028007", "Right")]
_ANATOMY = [
    ("39607008", "Lung", (197, 165, 145), _LEFT_RIGHT),
    ("45653009", "Upper lobe of lung", (172, 138, 115), _LEFT_RIGHT),
    ("90572001", "Lower lobe of lung", (224, 186, 162), _LEFT_RIGHT),
    ("72481006", "Middle lobe of right lung", (202, 164, 140), []),
    ("59820001", "Blood vessel", (216, 101, 79), []),
]
_ALTERED = [
    ("52988006", "Lesion", (253, 135, 192), []),
    ("47351003", "Infiltrate", (252, 178, 103), [("840539006", "COVID-19")]),
]
_CATEGORIES = [
    ("123037004", "Anatomical Structure", _ANATOMY),
    ("49755003", "Morphologically Altered Structure", _ALTERED),
]


def _code(value: str, meaning: str) -> dict[str, Any]:
    return {"CodingSchemeDesignator": "SCT", "CodeValue": value, "CodeMeaning": meaning}


def _type(value: str, meaning: str, color: tuple[int, ...], modifiers: list[Any]) -> dict[str, Any]:
    entry = _code(value, meaning) | {"recommendedDisplayRGBValue": list(color)}
    if modifiers:
        entry["Modifier"] = [
            _code(*pair) | {"recommendedDisplayRGBValue": list(color)} for pair in modifiers
        ]
    return entry


def write_terminologies(folder: Path) -> None:
    """Write the three files that the terminology logic reads at start."""
    folder.mkdir(parents=True, exist_ok=True)
    categories = [
        _code(value, meaning) | {"showAnatomy": True, "Type": [_type(*entry) for entry in types]}
        for value, meaning, types in _CATEGORIES
    ]
    schema = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"
    for name in ("SlicerGeneralAnatomy", "DICOM-Master"):
        content = {
            "SegmentationCategoryTypeContextName": f"Segmentation category and type - {name}",
            "@schema": schema + "segment-context-schema.json#",
            "SegmentationCodes": {"Category": categories},
        }
        path = folder / f"SegmentationCategoryTypeModifier-{name}.term.json"
        path.write_text(json.dumps(content))
    regions = [_type(*entry) for entry in _ANATOMY]
    content = {
        "AnatomicContextName": "Anatomic codes - DICOM master list",
        "@schema": schema + "anatomic-context-schema.json#",
        "AnatomicCodes": {"AnatomicRegion": regions},
    }
    (folder / "AnatomicRegionAndModifier-DICOM-Master.term.json").write_text(json.dumps(content))
