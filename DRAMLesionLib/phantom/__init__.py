"""A parametric chest CT with truth: the demo, Slicer's sample data, and training material.

``make_phantom`` makes a whole CT; ``insert_lesions`` sets the same lesions into any lung.
"""

from DRAMLesionLib.lesions.types import LesionType
from DRAMLesionLib.phantom.config import PhantomConfig
from DRAMLesionLib.phantom.lesions import (
    LesionStyle,
    draw_fraction,
    draw_scores,
    draw_style,
    insert_lesions,
)
from DRAMLesionLib.phantom.make import Phantom, make_phantom

__all__ = [
    "LesionStyle",
    "LesionType",
    "Phantom",
    "PhantomConfig",
    "draw_fraction",
    "draw_scores",
    "draw_style",
    "insert_lesions",
    "make_phantom",
]
