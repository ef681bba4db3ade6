"""Pictures of volumes for TensorBoard."""

from __future__ import annotations

import torch
from torch import Tensor


def row_of_slices(*volumes: Tensor, gap: int = 2) -> Tensor:
    """Return the middle axial slices of volumes side by side.

    Args:
        volumes: (k, j, i) each, all of one size, in [0, 1] or integers 0 and 1.
        gap: White columns between two of them.

    Returns:
        (3, j, width) in [0, 1].
    """
    parts: list[Tensor] = []
    for volume in volumes:
        middle = volume[volume.shape[0] // 2].float().clamp(0.0, 1.0)
        if parts:
            parts.append(torch.ones(middle.shape[0], gap))
        parts.append(middle.cpu())
    return torch.cat(parts, dim=1).expand(3, -1, -1)
