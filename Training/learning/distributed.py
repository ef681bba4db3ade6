"""What makes several processes compute what one would."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SharedBatchNorm3d(nn.BatchNorm3d):
    """BatchNorm over the samples of all processes, each of which has equally many.

    PyTorch's own is for GPUs alone. Tensors and their names are those of the plain one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, channels, k, j, i)."""
        if not self.training:
            return super().forward(x)
        axes = (0, 2, 3, 4)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        wide = x.float()
        mean = _Sum.apply(wide.sum(axes)) / count
        centred = wide - mean.reshape(1, -1, 1, 1, 1)
        variance = _Sum.apply((centred * centred).sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        result = centred * scale.reshape(1, -1, 1, 1, 1) + self.bias.reshape(1, -1, 1, 1, 1)
        return result.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """Sum over all processes; so is its gradient, since each process' loss hangs on the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def share_statistics(network: nn.Module) -> nn.Module:
    """Replace each BatchNorm of a network by one over the samples of all processes, in place."""
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm3d:
            shared = SharedBatchNorm3d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(network, name, shared)
        else:
            share_statistics(child)
    return network


@torch.no_grad()
def average_gradients(network: nn.Module) -> None:
    """Replace the gradients by their mean over all processes.

    Done once after the whole backward pass, so it does not matter that a step runs the network
    several times, or that a term of the loss joins later and leaves tensors without a gradient.
    """
    # the same ones in every process: which terms there are hangs on the step alone
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view(gradient.shape))
