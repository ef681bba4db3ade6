"""The methods that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from DRAMLesionLib.errors import InputError
from Training.methods.base import Predictor, Trained


def _dram(folder: Path) -> Predictor:
    from Training.methods.dram import PipelinePredictor

    return PipelinePredictor(folder)


METHODS: dict[str, Callable[[Path], Predictor]] = {
    "dram": _dram,
}
"""From the name of a method to what loads it."""


def load_method(trained: Trained) -> Predictor:
    """Return a trained method.

    Raises:
        InputError: If there is no such method, or it was not trained.
        WeightsError: If its weights cannot be used.
    """
    if trained.method not in METHODS:
        message = f"there is no method {trained.method!r}; known: {', '.join(METHODS)}"
        raise InputError(message)
    return METHODS[trained.method](trained.folder)
