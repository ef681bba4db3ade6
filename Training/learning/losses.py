"""The loss terms (equations 1 to 4 of the paper).

Every term is a mean over samples of a value that depends on one sample alone: so the losses of one
process with a batch and of several with its parts are the same. Only the interval loss can be a sum
instead, as in the authors' code; then its weight grows with the batch of a process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each sample over the voxels of a mask.

    Args:
        values: (batch, ...).
        mask: Same shape, bool or non-negative weights.

    Returns:
        (batch,); 0 where the mask is empty.
    """
    weights = mask.to(values.dtype).flatten(1)
    return (values.flatten(1) * weights).sum(1) / weights.sum(1).clamp_min(1e-6)


def interval_regression_loss(
    fraction: Tensor,
    lower: Tensor,
    upper: Tensor,
    weight: Tensor | None = None,
    scale: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Return equation 1: how far a lesion fraction lies outside of its score's interval.

    ``max(0, (y - (r_l + r_u) / 2)^2 - ((r_l - r_u) / 2)^2)``, 0 inside the interval.

    Args:
        fraction: (batch,) predicted fraction y in [0, 1], the mean of the dRAM over the lobe.
        lower: (batch,) lower bound r_l.
        upper: (batch,) upper bound r_u.
        weight: (batch,) weight of each lobe, see :func:`inverse_frequency_weights`; 1 if left out.
        scale: ``sum`` leaves the weighted sum over the batch as it is.

    Returns:
        Weighted sum over the batch; with ``mean``, divided by the size of the batch.
    """
    middle, half = (lower + upper) / 2.0, (upper - lower) / 2.0
    loss = ((fraction - middle) ** 2 - half**2).clamp_min(0.0)
    weighted = loss if weight is None else weight * loss
    return weighted.sum() if scale == "sum" else weighted.mean()


def region_shares(
    probability: Tensor,
    mask: Tensor,
    present: Tensor,
    whole: Tensor,
    planes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the lesion shares of lobe chunks, and of regions that may span several of them.

    ``share(region) = sum_c n_c mean_c / sum_c n_c`` over the chunks c of a sample, n_c the voxels
    of the lungs that the region has in a lobe. A slice has its voxels in planes of the chunks, each
    of which has a mean of its own.

    Args:
        probability: (chunks, 1, k, j, i) map of the chunks that are there, in [0, 1].
        mask: Same shape, bool.
        present: (batch, c) bool, which chunks of each sample are there; as many as ``chunks``.
        whole: (batch, r, c) share of each lobe in the voxels of a region; adds up to 1, or to 0 for
            slices and where there is no label.
        planes: (batch, r, c, k) voxels of slices in the planes of the chunks.

    Returns:
        (chunks,) and (batch, r).
    """
    fractions = masked_mean(probability, mask)
    shares = (whole * _spread(fractions, present)[:, None]).sum(-1)
    if planes is None:
        return fractions, shares
    weights = mask.to(probability.dtype)
    area = weights.sum((1, 3, 4))
    profile = (probability * weights).sum((1, 3, 4)) / area.clamp_min(1.0)
    # planes of a chunk without a voxel of the lobe have no mean
    there = planes * _spread((area > 0).to(planes.dtype), present)[:, None]
    along = (there * _spread(profile, present)[:, None]).sum((-2, -1))
    return fractions, shares + along / there.sum((-2, -1)).clamp_min(1e-6)


def _spread(values: Tensor, present: Tensor) -> Tensor:
    """Return (batch, c, ...) with the values (chunks, ...) where ``present``, 0 elsewhere."""
    result = values.new_zeros((*present.shape, *values.shape[1:]))
    return result.index_put((present,), values)


def region_loss(
    shares: Tensor,
    lower: Tensor,
    upper: Tensor,
    weight: Tensor,
    scale: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Return how far the shares of regions lie outside of their intervals, see equation 1.

    Args:
        shares: (batch, r) predicted lesion shares.
        lower: (batch, r) least shares.
        upper: (batch, r) largest shares.
        weight: (batch, r) weight of each label, 0 where there is none.
        scale: See :func:`interval_regression_loss`.

    Returns:
        Sum over the labels of a sample; with ``mean``, mean over the samples.
    """
    total = interval_regression_loss(
        shares.flatten(), lower.flatten(), upper.flatten(), weight.flatten(), scale
    )
    return total if scale == "sum" else total * shares.shape[1]


def voxel_cross_entropy(logits: Tensor, lesion: Tensor, background: Tensor) -> Tensor:
    """Return the cross-entropy on labelled voxels; those without a label teach nothing.

    ``-(sum_v l_v log p_v + b_v log(1 - p_v)) / sum_v (l_v + b_v)``

    Args:
        logits: (batch, 1, k, j, i) map before the sigmoid.
        lesion: Same shape, l: how many voxels that a reader called lesion lie there.
        background: Same shape, b.

    Returns:
        Mean over the batch; 0 for a sample without labels.
    """
    each = lesion * F.softplus(-logits) + background * F.softplus(logits)
    count = (lesion + background).flatten(1).sum(1)
    return (each.flatten(1).sum(1) / count.clamp_min(1e-6)).mean()


def inverse_frequency_weights(
    scores: Iterable[int], scale: Literal["mean", "sum"] = "mean"
) -> dict[int, float]:
    """Return the weight of each score: the inverse of its frequency in the training set.

    With ``mean`` scaled so that the mean weight over the training set is 1. With ``sum`` it is the
    inverse itself, of a frequency held between 0.2 and 0.8.

    Raises:
        ValueError: If there are no scores.
    """
    counts = Counter(scores)
    if not counts:
        message = "there is no score to take frequencies of"
        raise ValueError(message)
    total = sum(counts.values())
    if scale == "sum":
        return {s: 1.0 / min(max(n / total, 0.2), 0.8) for s, n in sorted(counts.items())}
    return {score: total / (len(counts) * count) for score, count in sorted(counts.items())}


def entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return equation 3: the mean entropy of the dRAM in nats over the lobe's voxels.

    Args:
        logits: (batch, 1, k, j, i) dRAM before the sigmoid.
        mask: Same shape, bool, the lobe.
    """
    # -p log p - (1-p) log(1-p) with p = sigmoid(x); finite for every x, unlike log(p)
    each = F.softplus(logits) - logits * torch.sigmoid(logits)
    return masked_mean(each, mask).mean()


def bootstrapping_loss(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, beta: float = 0.8
) -> Tensor:
    """Return equation 4 with its minus sign: cross-entropy against target and own opinion.

    ``-sum_k (beta t_k + (1 - beta) z_k) log q_k`` where q is the softmax, t the one-hot target and
    z the one-hot argmax of q, detached.

    Args:
        logits: (batch, classes, k, j, i).
        target: (batch, k, j, i) integer class of each voxel.
        mask: (batch, k, j, i) voxels that count; all if left out.
        beta: Trust in the target.
    """
    log_q = torch.log_softmax(logits, dim=1)
    own = log_q.gather(1, logits.detach().argmax(dim=1, keepdim=True)).squeeze(1)
    given = log_q.gather(1, target.long().unsqueeze(1)).squeeze(1)
    each = -(beta * given + (1.0 - beta) * own)
    if mask is None:
        mask = torch.ones_like(each)
    return masked_mean(each, mask).mean()


def two_class_logits(logit: Tensor) -> Tensor:
    """Return (batch, 2, ...) logits whose softmax is (1 - sigmoid, sigmoid) of (batch, 1, ...)."""
    return torch.cat((torch.zeros_like(logit), logit), dim=1)


def equivariance(transformed: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Return equation 2: mean |F(A(I)) - A(F(I))| over the voxels where both are known.

    Args:
        transformed: (batch, 1, k, j, i) dRAM of the transformed image, in [0, 1].
        reference: Transformed dRAM of the image, same shape.
        mask: Same shape, voxels inside the transformed lobe and the volume.
    """
    return masked_mean((transformed - reference).abs(), mask).mean()


def weighted_average(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted average of loss terms; terms with weight 0 are left out.

    Raises:
        ValueError: If no term has a weight.
    """
    used = {name: weights[name] for name in terms if weights[name] > 0}
    if not used:
        message = f"none of the terms {', '.join(terms)} has a weight above 0"
        raise ValueError(message)
    total = torch.stack([used[name] * terms[name] for name in used]).sum()
    return total / sum(used.values())
