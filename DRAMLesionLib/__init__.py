"""DRAMLesion: COVID-19 lesions on chest CT by dense regression activation maps.

Research use only, not a medical device. Nothing here sends data anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from DRAMLesionLib.version import __version__

if TYPE_CHECKING:
    from DRAMLesionLib.pipeline import LesionPipeline, LesionResult

__all__ = ["LesionPipeline", "LesionResult", "__version__"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to load: it is imported with the pipeline, not with the package
    if name in ("LesionPipeline", "LesionResult"):
        from DRAMLesionLib import pipeline

        return getattr(pipeline, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
