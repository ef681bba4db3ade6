"""What settings of networks have in common, and those of the methods that learn from slices.

:mod:`Training.config` holds the others and reads them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from DRAMLesionLib.networks.unet import Width
from DRAMLesionLib.typed import Between

Share = Annotated[float, Between(0, 1)]
NotNegative = Annotated[float, Between(0)]
Count = Annotated[int, Between(0)]
AtLeast1 = Annotated[int, Between(1)]
Edge = Annotated[int, Between(8, 512, step=8)]
Spacing = Annotated[float, Between(0.1, 20)]
Fusion = Literal["mean", "ema", "max"]


@dataclass(frozen=True)
class OptimiserConfig:
    """How a network's tensors are moved.

    Attributes:
        name: ``sgd`` as in the paper, or ``adam``.
        learning_rate: Initial rate; the paper: 1e-5.
        momentum: For ``sgd``; the paper: 0.9.
        weight_decay: L2 penalty; decoupled for ``adam``.
        schedule: ``constant``, or ``cosine`` that ends at 0 with the last step.
        warmup: Steps in which the rate rises from 0.
        clip: Largest norm of the gradient; 0 switches the limit off.
    """

    name: Literal["sgd", "adam"] = "adam"
    learning_rate: NotNegative = 1e-3
    momentum: Share = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Count = 20
    clip: NotNegative = 1.0


@dataclass(frozen=True)
class LoopConfig:
    """How long, how often and how much at a time.

    Attributes:
        steps: Optimiser steps in all.
        batch: Samples a step, over all processes; a multiple of their number.
        checkpoint_every: Steps between two checkpoints.
        log_every: Steps between two entries of the log.
        validate_every: Steps between two validations; 0 for none.
        pictures_every: Steps between two pictures in TensorBoard; 0 for none.
        workers: Processes that read and augment; 0 does it in the training process.
        tensorboard: Whether to write event files.
    """

    steps: Count = 1000
    batch: AtLeast1 = 4
    checkpoint_every: Count = 50
    log_every: Count = 10
    validate_every: Count = 200
    pictures_every: Count = 200
    workers: Count = 0
    tensorboard: bool = True


@dataclass(frozen=True)
class SliceSetConfig:
    """Axial slices with the label 'normal' or 'diseased', on the grid of ``segmentation.spacing``.

    Attributes:
        labels: Where a slice's label comes from. ``weak``: from scores and whatever else is known
            of regions; a slice is normal if all of its lobes are surely free, diseased if it cuts
            a lobe that surely is not, and left out otherwise. ``truth_of_phantoms``: from the true
            masks of phantoms and synthetic lesions, as the tables of the papers have it, whose
            slices a reader has labelled one by one; no voxel of them is used.
        size: Least edge of what the networks see, in voxels; lungs that are larger enlarge it.
        least_lung: Lung voxels below which a slice is left out.
        flip: Whether slices are mirrored left to right at random.
        shift: Largest shift of a slice in voxels, either way.
        contrast: See :class:`AugmentationConfig`.
    """

    labels: Literal["weak", "truth_of_phantoms"] = "weak"
    size: Annotated[int, Between(16, 1024, step=16)] = 160
    least_lung: Count = 400
    flip: bool = True
    shift: Count = 8
    contrast: Share = 0.03


@dataclass(frozen=True)
class ClassifierConfig:
    """The classifier of slices whose maps are fused (paper 002), and that of Grad-CAM.

    Attributes:
        base_channels: Width of the encoder; the paper fine-tunes a WideResNet-38.
        levels: Number of down-samplings.
        attention: Whether spatial attention precedes the pooling.
        optimiser: How the tensors are moved.
        loop: How long and how much at a time; the steps are those of the comparison.
    """

    base_channels: Width = 16
    levels: Annotated[int, Between(1, 5)] = 3
    attention: bool = True
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=8))


@dataclass(frozen=True)
class FusionConfig:
    """Attention fusion (paper 002); what has no figure in the paper is ours.

    Attributes:
        fusion: How the maps of the classifier's epochs become one; the paper: ``mean``.
        epochs: Passes over all slices, spread evenly over the classifier's training.
        classifier_share: Share of the steps that the classifier gets; the light network has the
            others.
        foreground: Fused map above which dense lung is lesion.
        labels: ``fused``, or the ``truth`` with which the paper compares networks (its table 5).
        network: ``light``, or a plain U-Net to compare it with.
        base_channels: Width of either network.
        features: FE blocks.
        channels: Channel attention.
        pyramid: MDPPM, ASPP or neither.
        residual: Bottlenecks on the skip connections.
        threshold: Lesion is where the network's probability lies above it.
        epsilon: ε of the logarithm.
        missed: Weight of false negatives in the Tversky index; false positives have the rest.
        focal_weight: λ.
        gamma: γ of the focal loss.
        alpha: α of the focal loss, the weight of lesion.
        optimiser: Of the segmentation network; the paper: Adam.
        loop: Of the segmentation network; its steps are those that the classifier leaves.
    """

    fusion: Fusion = "mean"
    epochs: AtLeast1 = 10
    classifier_share: Share = 0.5
    foreground: Share = 0.3
    labels: Literal["fused", "truth"] = "fused"
    network: Literal["light", "unet"] = "light"
    base_channels: Width = 16
    features: bool = True
    channels: bool = True
    pyramid: Literal["mdppm", "aspp", "none"] = "mdppm"
    residual: bool = True
    threshold: Share = 0.5
    epsilon: NotNegative = 1e-6
    missed: Share = 0.7
    focal_weight: NotNegative = 1.0
    gamma: NotNegative = 2.0
    alpha: Share = 0.25
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=8))


@dataclass(frozen=True)
class DecompositionConfig:
    """Decomposition by a GAN with a lesion decoder (paper 001).

    Attributes:
        base_channels: Width of the U-Nets; the paper: 64.
        levels: Number of down-samplings.
        critic_channels: Width of the critic, whose layers the paper does not give.
        normal_skip: See :class:`DRAMLesionLib.networks.decomposition.DecompositionNetwork`.
        adversarial: α1.
        reconstruction: α2.
        fidelity: α3.
        no_lesion: Weight of the mean lesion part of normal slices; the paper: 0.
        no_negative: Weight of what is negative in the lesion part; the paper: 0.
        penalty: Weight λ of the gradient penalty.
        penalty_every: Steps between two penalties, each as heavy as those that it stands for.
        critic_first: Steps in which only the critic learns from the generator and not the other
            way, so that its first gradients are worth something.
        threshold: Lesion is where the lesion part lies above it; the paper: 0.1 to 0.4.
        suppress_vessels: Whether vessels are taken out of the map.
        critic_betas: Adam's betas of the critic, as for WGAN-GP.
        optimiser: Of both; the paper: Adam with 2e-4.
        loop: How long and how much at a time; the steps are those of the comparison.
    """

    base_channels: Width = 16
    levels: Annotated[int, Between(1, 5)] = 4
    critic_channels: Width = 32
    normal_skip: bool = False
    adversarial: NotNegative = 0.01
    reconstruction: NotNegative = 100.0
    fidelity: NotNegative = 100.0
    no_lesion: NotNegative = 100.0
    no_negative: NotNegative = 10.0
    penalty: NotNegative = 10.0
    penalty_every: AtLeast1 = 1
    critic_first: Count = 100
    threshold: Share = 0.2
    suppress_vessels: bool = True
    critic_betas: tuple[Share, Share] = (0.0, 0.9)
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            learning_rate=2e-4, schedule="constant", warmup=0, clip=0.0
        )
    )
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=8))
