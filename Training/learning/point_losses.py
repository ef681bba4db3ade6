"""The losses of learning from points (paper 003), for slices and volumes alike.

Laradji et al., "A Weakly Supervised Consistency-based Learning Method for COVID-19 Segmentation in
CT Images": point loss (equation 2), consistency (equation 3), their sum (equation 1). LCFCN is the
loss of their reference [18] ("Where are the blobs", 2018), for counting. The networks have one
logit, whose sigmoid is the softmax of the paper's two classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from skimage.segmentation import watershed
from torch import Tensor
from torch.nn import functional as F

from Training.config import PointsConfig


@dataclass(frozen=True)
class Turn:
    """A transformation t_k of the paper: a flip, and then quarter turns, of the last two axes.

    Attributes:
        flip: Whether left and right are exchanged.
        quarters: Turns by 90 degrees.
    """

    flip: bool = True
    quarters: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """Return t(x); the last two axes are j and i, of one length if quarters are odd."""
        flipped = torch.flip(x, (-1,)) if self.flip else x
        return torch.rot90(flipped, self.quarters, (-2, -1))

    def undo(self, x: Tensor) -> Tensor:
        """Return the inverse of :meth:`apply`."""
        turned = torch.rot90(x, -self.quarters, (-2, -1))
        return torch.flip(turned, (-1,)) if self.flip else turned


def each(turns: Sequence[Turn], x: Tensor, undo: bool = False) -> Tensor:
    """Return every sample of a batch by its own transformation."""
    one = (lambda t, part: t.undo(part)) if undo else (lambda t, part: t.apply(part))
    return torch.stack([one(turn, part) for turn, part in zip(turns, x, strict=True)])


def point_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return equation 2: the cross-entropy, mean over all labelled pixels of the batch.

    Args:
        logits: (batch, 1, ...).
        labels: (batch, 1, ...) uint8: 0 background, 1 lesion, 255 unknown.

    Returns:
        A number; 0 without a labelled pixel.
    """
    known = labels != 255
    losses = F.binary_cross_entropy_with_logits(
        logits, (labels == 1).to(logits.dtype), reduction="none"
    )
    return (losses * known).sum() / known.sum().clamp_min(1)


def consistency(logits: Tensor, turned: Tensor, turns: Sequence[Turn]) -> Tensor:
    """Return equation 3 as a mean: |t^-1(f(t(x))) - f(x)| over all pixels, gradients through both.

    Args:
        logits: f(x), (batch, 1, ...).
        turned: f(t(x)), same shape.
        turns: t of each sample.
    """
    return (each(turns, turned, undo=True) - logits).abs().mean()


def total_loss(
    network: Callable[[Tensor], Tensor], batch: Mapping[str, Tensor], config: PointsConfig
) -> dict[str, Tensor]:
    """Return equation 1, L_P + λ L_C, as ``total``, with both terms.

    With λ = 0 the network sees the image alone; otherwise L_P is that of both branches (figure 2).

    Args:
        network: From images (batch, 1, ...) to logits of the same shape.
        batch: ``image``, ``labels`` (0, 1, 255), ``flip`` and ``quarters`` of each sample.
        config: Which terms.
    """
    image, labels = batch["image"], batch["labels"]
    supervised = _SUPERVISED[config.loss]
    logits = network(image).float()
    points = supervised(logits, labels)
    terms = {"points": points, "total": points}
    if config.consistency > 0:
        flips, quarters = batch["flip"].tolist(), batch["quarters"].tolist()
        turns = [Turn(bool(f), int(q)) for f, q in zip(flips, quarters, strict=True)]
        turned = network(each(turns, image)).float()
        terms["points"] = points + supervised(turned, each(turns, labels))
        terms["consistency"] = consistency(logits, turned, turns)
        terms["total"] = terms["points"] + config.consistency * terms["consistency"]
    return terms


def lcfcn_loss(logits: Tensor, points: Tensor) -> Tensor:
    """Return the loss of LCFCN, equation 1 of Laradji et al. 2018, mean over the batch.

    Four terms, all binary cross-entropies of p = sigmoid(logit):

    * *image*: the largest p towards 1 if there are points and towards 0 if there are none, the
      smallest towards 0;
    * *points*: n times the mean over the n points, towards 1;
    * *split*: n - 1 times the mean over the watershed lines between all points, towards 0, and for
      each blob (p > 0.5) with k > 1 points k - 1 times that over the lines inside of it;
    * *false positives*: for each blob without a point the mean over it, towards 0.

    Args:
        logits: (batch, 1, ...) of a slice or a volume.
        points: (batch, 1, ...) bool, one voxel for each lesion.
    """
    losses = [_lcfcn(one[0], there[0]) for one, there in zip(logits, points, strict=True)]
    return torch.stack(losses).mean()


def _lcfcn(logits: Tensor, points: Tensor) -> Tensor:
    """Return the loss of one image, (j, i) or (k, j, i)."""
    count = int(points.sum())
    flat = logits.flatten()
    largest, smallest = flat[flat.argmax()], flat[flat.argmin()]
    loss = (F.softplus(-largest) if count else F.softplus(largest)) + F.softplus(smallest)
    if count:
        loss = loss + count * F.softplus(-logits[points]).mean()
    for weight, where in _pushed_down(logits, points):
        mask = torch.from_numpy(where).to(logits.device)
        loss = loss + weight * F.softplus(logits[mask]).mean()
    return loss


def _pushed_down(logits: Tensor, points: Tensor) -> list[tuple[int, np.ndarray]]:
    """Return the masks whose voxels go towards background, each with its weight."""
    p = torch.sigmoid(logits.detach().float()).cpu().numpy()
    there = points.cpu().numpy()
    seeds = np.zeros(p.shape, dtype=np.int32)
    seeds[there] = np.arange(1, int(there.sum()) + 1)
    found = [(int(seeds.max()) - 1, split_lines(p, seeds, np.ones(p.shape, dtype=bool)))]
    blobs, count = find_blobs(p > 0.5)
    for number in range(1, count + 1):
        blob = blobs == number
        inside = int(there[blob].sum())
        if inside == 0:
            found.append((1, blob))
        elif inside > 1:
            found.append((inside - 1, split_lines(p, np.where(blob, seeds, 0), blob)))
    return [(weight, where) for weight, where in found if weight > 0 and where.any()]


def split_lines(p: np.ndarray, seeds: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the watershed lines between seeds, where the probability is flooded from its tops.

    Args:
        p: Probability in [0, 1].
        seeds: Numbers of the points from 1, 0 elsewhere.
        inside: What is flooded.

    Returns:
        bool, inside and of no basin; without any where there is one seed.
    """
    basins = watershed(-p, seeds, mask=inside, watershed_line=True)
    # what no flood reaches is no line between two of them
    lines: np.ndarray = inside & (basins == 0) & ndimage.binary_dilation(basins > 0)
    return lines & (seeds == 0)


def find_blobs(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the connected regions of a mask, numbered from 1, and how many there are.

    Voxels that touch at a corner are connected, as in the code of the paper.
    """
    blobs, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return blobs, int(count)


def outlined_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the loss of full supervision: weighted cross-entropy and weighted IoU (Wei et al.).

    Equations 3 and 5 of F3Net: pixels that differ from the mean of the 31 x 31 around them weigh up
    to six times as much.

    Args:
        logits: (batch, 1, ...) of slices or volumes.
        masks: Same shape, bool.
    """
    truth = masks.to(logits.dtype)
    mean = F.avg_pool2d if truth.dim() == 4 else F.avg_pool3d
    around = mean(truth, 31, stride=1, padding=15)
    weight = 1.0 + 5.0 * (around - truth).abs()
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (weight * losses).flatten(1).sum(1) / weight.flatten(1).sum(1)
    p = torch.sigmoid(logits)
    both = (weight * p * truth).flatten(1).sum(1)
    either = (weight * (p + truth)).flatten(1).sum(1) - both
    return (entropy + 1.0 - (both + 1.0) / (either + 1.0)).mean()


_SUPERVISED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "points": point_loss,
    "lcfcn": lambda logits, labels: lcfcn_loss(logits, labels == 1),
    "masks": lambda logits, labels: outlined_loss(logits, labels == 1),
}
