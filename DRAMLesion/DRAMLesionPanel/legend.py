"""Which colour is what: one line below the table."""

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


def describe(result: "Result") -> str:
    """The types of what the table counts, each with its colour as it is now, as HTML."""
    from DRAMLesionLib.mrml.result import PSEUDOLABEL
    from DRAMLesionLib.mrml.segments import LESION_SEGMENTS, PSEUDOLABEL_SEGMENTS

    isPseudo = result.source == PSEUDOLABEL
    node = result.get("pseudolabel" if isPseudo else "segmentation")
    specs = PSEUDOLABEL_SEGMENTS if isPseudo else LESION_SEGMENTS
    found = [node.GetSegmentation().GetSegment(spec.id) for spec in specs]
    return " \u00a0 ".join(_entry(segment) for segment in found if segment is not None)


def _entry(segment: Any) -> str:
    colour = "".join(f"{round(255 * part):02x}" for part in segment.GetColor())
    name = html.escape(segment.GetName()).replace(" ", "\u00a0")
    return f'<span style="color:#{colour}">■</span>\u00a0{name}'
