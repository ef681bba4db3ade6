"""The level of a map that a share of a lobe lies above; torch alone, for training machines."""

from __future__ import annotations

import torch
from torch import Tensor


def steepen(
    probability: Tensor, mask: Tensor, share: float, gain: float, highest: float = 0.5
) -> Tensor:
    """Steepen a map about the level above which a share of the lobe lies.

    Args:
        probability: (..., k, j, i) in [0, 1].
        mask: bool, the lobe, not empty.
        share: Share of the lobe, 0 to 1.
        gain: Factor of the logit's distance from that level.
        highest: The level is this at most: at 0.5 a share can enlarge what is above 0.5, and at 1
            shrink it as well.
    """
    level = torch.quantile(probability[mask], 1.0 - share).clamp(max=highest)
    return torch.sigmoid(gain * (_logit(probability) - _logit(level)))


def _logit(probability: Tensor) -> Tensor:
    return torch.logit(probability, eps=1e-6)
