"""Which device the networks run on."""

from __future__ import annotations

import torch

from DRAMLesionLib.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Args:
        name: ``auto`` (CUDA, else MPS, else CPU), ``cpu``, ``cuda`` or ``mps``.

    Raises:
        InputError: If the device is unknown or not available here.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available.get(name, False):
        there = ", ".join(kind for kind, has in available.items() if has)
        message = f"device {name!r} is not available on this computer; available: {there}"
        raise InputError(message)
    return torch.device(name)
