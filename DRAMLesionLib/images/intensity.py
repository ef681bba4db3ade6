"""The one intensity window that every network sees."""

from __future__ import annotations

from typing import Any

import numpy as np

HU_MIN = -1200.0
HU_MAX = 300.0


def window(hu: Any) -> Any:
    """Clamp Hounsfield units to [-1200, 300] and rescale to [0, 1].

    Args:
        hu: numpy array or torch tensor of any shape, in HU.

    Returns:
        The same kind and shape, floating point, in [0, 1]; HU_MIN maps to 0.
    """
    if isinstance(hu, np.ndarray):
        scaled = (hu.astype(np.float32) - np.float32(HU_MIN)) / np.float32(HU_MAX - HU_MIN)
        return np.clip(scaled, 0.0, 1.0)
    return ((hu.float() - HU_MIN) / (HU_MAX - HU_MIN)).clamp(0.0, 1.0)


def unwindow(value: float) -> float:
    """Return the HU value that :func:`window` maps to ``value`` in [0, 1]."""
    return HU_MIN + value * (HU_MAX - HU_MIN)
