"""The level of a map that a share of a lobe lies above; torch alone, for training machines."""

from __future__ import annotations

import torch
from torch import Tensor


def steepen(probability: Tensor, mask: Tensor, share: float, gain: float) -> Tensor:
    """Steepen a map about the level above which a share of the lobe lies, 0.5 at most.

    Args:
        probability: (..., k, j, i) in [0, 1].
        mask: bool, the lobe, not empty.
        share: Share of the lobe, 0 to 1.
        gain: Factor of the logit's distance from that level.
    """
    level = torch.quantile(probability[mask], 1.0 - share).clamp(max=0.5)
    return torch.sigmoid(gain * (_logit(probability) - _logit(level)))


def _logit(probability: Tensor) -> Tensor:
    return torch.logit(probability, eps=1e-6)
