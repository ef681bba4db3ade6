"""Losses of the methods that learn from slices (papers 001 and 002)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from Training.learning.losses import masked_mean

_LEAST_SQUARE = 1e-12
"""Under the root of a norm, whose gradient at 0 there is none of otherwise."""


def tversky_index(probability: Tensor, target: Tensor, known: Tensor, missed: float) -> Tensor:
    """Return TP / (TP + (1 - missed) FP + missed FN) over all known pixels of a batch.

    Args:
        probability: (batch, 1, j, i) in [0, 1].
        target: The same shape, 1 lesion, 0 none.
        known: The same shape, bool.
        missed: Weight of false negatives; 0.5 makes it the Dice coefficient.

    Returns:
        A number in [0, 1]; 1 where there is nothing to find and nothing is found.
    """
    counted, wanted = known.to(probability.dtype), target.to(probability.dtype)
    hit = (probability * wanted * counted).sum()
    false = (probability * (1.0 - wanted) * counted).sum()
    lost = ((1.0 - probability) * wanted * counted).sum()
    tiny = torch.finfo(probability.dtype).tiny
    return (hit + tiny) / (hit + (1.0 - missed) * false + missed * lost + tiny)


def focal_loss(logits: Tensor, target: Tensor, known: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return the mean of -α_t (1 - p_t)^γ log p_t over all known pixels of a batch (Lin 2017).

    Args:
        logits: (batch, 1, j, i).
        target: The same shape, 1 lesion, 0 none.
        known: The same shape, bool.
        gamma: γ.
        alpha: α of lesion; 1 - α for the rest.
    """
    wanted = target.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    weight = torch.where(wanted > 0, alpha, 1.0 - alpha)
    each = weight * (1.0 - torch.exp(-entropy)) ** gamma * entropy
    counted = known.to(logits.dtype)
    return (each * counted).sum() / counted.sum().clamp_min(1.0)


def fusion_loss(
    logits: Tensor,
    target: Tensor,
    known: Tensor,
    *,
    missed: float,
    gamma: float,
    alpha: float,
    focal_weight: float,
    epsilon: float,
) -> Tensor:
    """Return -log(TI + ε) + λ FL (paper 002, equation 19); see the two terms for the arguments.

    Args:
        logits: (batch, 1, j, i).
        target: The same shape, 1 lesion, 0 none.
        known: The same shape, bool; pixels that nobody knows do not count.
        missed: See :func:`tversky_index`.
        gamma: See :func:`focal_loss`.
        alpha: See :func:`focal_loss`.
        focal_weight: λ.
        epsilon: ε.
    """
    index = tversky_index(torch.sigmoid(logits), target, known, missed)
    focal = focal_loss(logits, target, known, gamma, alpha)
    return -torch.log(index + epsilon) + focal_weight * focal


def distance(a: Tensor, b: Tensor, lungs: Tensor) -> Tensor:
    """Return the mean absolute difference of each slice over its lungs, (batch,).

    The norm of equations 1 and 2 of paper 001 with p = 1; outside the lungs there is nothing to
    tell apart, and the mean makes the weights the same for every size (ours).
    """
    return masked_mean((a - b).abs(), lungs)


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of some of the values of a batch, (batch,); 0 if none is chosen."""
    weights = chosen.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp_min(1.0)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, place: Tensor
) -> Tensor:
    """Return the mean of (‖∇D(x)‖₂ - 1)² between real and made slices (WGAN-GP, Gulrajani 2017).

    In single precision whatever the surroundings, and with a little under the root: where a slice
    does not reach the critic's output at all, its gradient is 0 and the root's is not finite.

    Args:
        critic: D, from (batch, 1, j, i) to (batch,).
        real: (batch, 1, j, i).
        fake: The same shape; no gradient goes to either.
        place: (batch,) in [0, 1], 1 for the real one.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = place.float()[:, None, None, None]
        between = share * real.detach().float() + (1.0 - share) * fake.detach().float()
        between.requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        norm = (gradient.flatten(1).square().sum(1) + _LEAST_SQUARE).sqrt()
        return (norm - 1.0).square().mean()
