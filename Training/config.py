"""What can be chosen about a training, read from YAML into dataclasses.

A key that no dataclass knows is an error that names the ones there are, so that a misspelt setting
never passes for its default. ``dump_config`` writes the whole of it beside the weights.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.chunks import ChunkConfig, Scale
from DRAMLesionLib.lesions.crf import CRFConfig
from DRAMLesionLib.networks.unet import Prior, Width
from DRAMLesionLib.paths import content_of
from DRAMLesionLib.typed import Between, Filled, build
from Training.settings import (
    ClassifierConfig,
    Count,
    DecompositionConfig,
    Edge,
    FusionConfig,
    LoopConfig,
    NotNegative,
    OptimiserConfig,
    Share,
    SliceSetConfig,
    Spacing,
)


@dataclass(frozen=True)
class PrepareConfig:
    """Verification and cache.

    Attributes:
        workers: Scans worked on at a time.
        validation_share: Share of the cases, chosen by their names, that no stage trains on.
        skip_broken: Leave broken cases out instead of stopping when there are some.
        vessels: Whether the Frangi reference of every scan is computed and cached.
        vessel_guards: Whether that reference is guarded against noise, the rims of vessels and
            consolidations; the paper has Otsu's threshold alone.
        lobe_scheme: How lobe masks number the lobes, see :mod:`DRAMLesionLib.lobes.schemes`.
    """

    workers: Count = 2
    validation_share: Share = 0.1
    skip_broken: bool = False
    vessels: bool = True
    vessel_guards: bool = True
    lobe_scheme: str = "auto"


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the training data (section IV-A of the paper).

    Attributes:
        flips: Axes that are flipped with probability 1/2: any of ``k``, ``j``, ``i``.
        spacing_jitter: Largest relative change of the grid's spacing.
        contrast: Largest shift of either end of the intensity window, relative to its width.
        thick_slices: Share of the samples whose slices are as thick as two to four voxels.
    """

    flips: tuple[str, ...] = ("i",)
    spacing_jitter: Share = 0.1
    contrast: Share = 0.03
    thick_slices: Share = 0.0

    def __post_init__(self) -> None:
        if unknown := set(self.flips) - {"k", "j", "i"}:
            message = f"the axes to flip are k, j and i, not {', '.join(sorted(unknown))}"
            raise InputError(message)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the total loss, a weighted average; 0 switches a term off.

    Attributes:
        regression: Interval regression, equation 1.
        equivariance: Equation 2.
        entropy: Equation 3.
        refinement: Bootstrapping loss against the refined target, equation 4.
        voxels: Cross-entropy on voxels that a person has labelled, where there are some (ours).
    """

    regression: NotNegative = 2.0
    equivariance: NotNegative = 1.0
    entropy: NotNegative = 1.0
    refinement: NotNegative = 1.0
    voxels: NotNegative = 1.0


@dataclass(frozen=True)
class VesselTrainingConfig:
    """The vessel network (section III-A 3).

    Attributes:
        enabled: Whether ``all`` trains it and ``export`` writes it.
        source: ``scans`` learns from scans without any lesion as in the paper, ``lobes`` from
            every lobe with score 0.
        alone: Names of cases, ``*`` and ``?`` as in names of files, that nothing but this network
            learns from, as the paper's 435 scans of healthy lungs.
        patch: Edge of the cubes in voxels, a multiple of 8, on the grid of the lobe chunks.
        border: Outer voxels of a cube that do not count: the zeros beyond it reach them.
        base_channels: Width of the U-Net; the paper: 32.
        local: See :class:`RegressionConfig`.
        freeze_norm: See :class:`RegressionConfig`.
        prior: Share of vessel that the untrained network starts with.
        beta: Trust in the reference, see :func:`Training.learning.losses.bootstrapping_loss`; 1 for
            the
            plain cross-entropy.
        threshold: Vessel is where the probability lies above it; the paper: 0.7.
        vessel_centres: Share of the cubes that are centred on a vessel instead of anywhere.
        workers: Scans at a time when the network is asked for their vessels.
        augmentation: Random changes of the data.
        optimiser: How the tensors are moved.
        loop: How long and how much at a time.
    """

    enabled: bool = False
    source: Literal["lobes", "scans"] = "lobes"
    alone: tuple[str, ...] = ()
    patch: int = 64
    border: Count = 8
    base_channels: Width = 8
    local: bool = False
    freeze_norm: Share = 1.0
    prior: Prior = 0.1
    beta: Share = 1.0
    threshold: Share = 0.7
    vessel_centres: Share = 0.5
    workers: Count = 2
    augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(("k", "j", "i"))
    )
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=2))

    def __post_init__(self) -> None:
        if self.patch % 8 or not 0 <= 2 * self.border < self.patch:
            message = (
                "the edge of a cube of the vessel network is a multiple of 8 above twice its "
                f"border, not {self.patch} with a border of {self.border}"
            )
            raise InputError(message)


@dataclass(frozen=True)
class RegressionConfig:
    """The regression network (sections III-A 1, 2 and 4).

    Attributes:
        chunk: Grid and size of the lobe chunks.
        base_channels: Width of the U-Net; the paper: 32.
        prior: Lesion fraction that the untrained map starts with.
        attention: Whether the refinement branch has the local attention (equation 5).
        local: Hold what comes from below the second level of the U-Net at 0. The interval loss
            alone is easily met by a map that is constant in a lobe; without the deep levels the
            network sees a few centimetres and has to mark places.
        sizes: Chunk sizes that steps draw from, multiples of 8; ``chunk.size`` alone if empty.
        freeze_norm: Share of the steps after which BatchNorm uses its running statistics, as at
            inference: batches of a few chunks, much of them outside the lobe, differ from each
            other.
        balance: ``loss`` weights each lobe by the inverse frequency of its score, as the paper
            does; ``sampling`` draws all scores equally often instead, which has the same
            expectation and less scatter in small batches.
        weights: Weights of the loss terms.
        rotation: Largest angle of the equivariance's rotation in degrees, about a random axis.
        scale: Range of the equivariance's scale.
        beta: Trust in the target of the bootstrapping loss.
        suppress_vessels: Whether vessels are taken out of the target of the refinement.
        vessels: Which ones: the ``frangi`` reference or those of the vessel ``network``.
        crf: Dense CRF of the target of the refinement and of the inference.
        refine_after: Steps before the refinement term joins: the target of an untrained map
            teaches nothing.
        target: Which map the target of the refinement is made of: the ``raw`` one as in the paper
            (figure 2), or the ``attended`` one.
        gain: Steepness that the map of a lobe gets for that target, about the level above which as
            much of the lobe lies as fraction and score say
            (:func:`DRAMLesionLib.lesions.levels.steepen`); 0, as in the paper, takes the map as it
            is: one that has not got to 0.5 anywhere has no lesion in its target and unlearns what
            it knows. Inference steepens its refined map by as much.
        highest_level: Highest such level. At 0.5 a score can enlarge the target of a map, never
            shrink it; at 1 both.
        least_level: Inference does not steepen a map whose dRAM has a lower level than this.
        refined_by: See :class:`DRAMLesionLib.lesions.dram.DRAMConfig`.
        loss_scale: ``mean`` averages the interval loss over the batch, with weights whose mean is
            1. ``sum`` adds it up over the batch, with the inverse of the frequency itself, held
            between 0.2 and 0.8, as weight: 40 to 50 times as much beside the other terms in
            batches of ten, which is the scale that the authors' published code has.
        scales: Chunk sizes whose dRAMs inference averages, relative to ``chunk.size``.
        threshold: The refined map means lesion above this value.
        augmentation: Random changes of the data.
        optimiser: How the tensors are moved.
        loop: How long and how much at a time.
    """

    chunk: ChunkConfig = field(default_factory=lambda: ChunkConfig(size=64))
    base_channels: Width = 8
    prior: Prior = 0.1
    attention: bool = False
    local: bool = False
    sizes: tuple[Edge, ...] = ()
    freeze_norm: Share = 1.0
    balance: Literal["loss", "sampling"] = "loss"
    weights: LossWeights = field(default_factory=LossWeights)
    rotation: NotNegative = 180.0
    scale: tuple[Scale, Scale] = (0.8, 1.2)
    beta: Share = 0.8
    suppress_vessels: bool = True
    vessels: Literal["frangi", "network"] = "frangi"
    crf: CRFConfig = field(default_factory=lambda: CRFConfig(reference_size=80))
    refine_after: Count = 0
    target: Literal["raw", "attended"] = "attended"
    gain: NotNegative = 0.0
    highest_level: Share = 0.5
    least_level: Share = 0.25
    refined_by: Literal["crf", "attention"] = "crf"
    loss_scale: Literal["mean", "sum"] = "mean"
    scales: Annotated[tuple[Scale, ...], Filled()] = (0.8, 1.0, 1.2, 1.5)
    threshold: Share = 0.5
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True)
class PseudoLabelConfig:
    """From dRAMs to the labels that the final network learns (section III-A 5).

    Attributes:
        workers: Scans worked on at a time.
        use_scores: Whether lobes with score 0 are left without lesion.
        refined: Whether the refined map decides; otherwise the raw dRAM.
        match_scores: Instead of a fixed threshold, take in each lobe the voxels with the highest
            values, as many as the predicted fraction says, within the interval of the score. A
            weak map is right about the order of the voxels before it is right about their values.
        amounts: How many those are: ``ranks`` spreads all lobes of a score over its interval, in
            the order of their predicted fractions; ``clipped`` takes the fraction, clipped to the
            interval, which is one of its bounds for most lobes.
        fill_vessels: Whether vessels with lesion all around them are lesion too, as readers outline
            it. Suppression takes them out of the map with all the others.
    """

    workers: Count = 2
    use_scores: bool = True
    refined: bool = True
    match_scores: bool = False
    amounts: Literal["ranks", "clipped"] = "ranks"
    fill_vessels: bool = False


@dataclass(frozen=True)
class SegmentationTrainingConfig:
    """The final segmentation network (section III-A 5).

    Attributes:
        spacing: Isotropic grid in mm.
        patch: Edge of the output patch in voxels, 4 + 8 n; the input is 88 voxels larger.
        padding: ``valid`` as in the paper; ``zero`` trains on cubes of ``patch + 4`` voxels with
            zero padding, at a tenth of the cost for as many labelled voxels.
        border: With ``zero``, outer voxels of the patch that do not count.
        start: ``scratch`` as in the paper, or the trained layers of the ``regression``.
        rounds: The steps of ``loop`` are shared out to so many rounds; from the second on, the
            network goes on with labels that itself has made, see :mod:`Training.stages.rounds`.
            The paper: 1.
        local: See :class:`RegressionConfig`.
        freeze_norm: See :class:`RegressionConfig`.
        base_channels: Width of the U-Net; the paper: 32.
        prior: Share of vessel and of lesion that the untrained network starts with.
        beta: Trust in the pseudo-labels, see :func:`Training.learning.losses.bootstrapping_loss`.
        level: See :class:`DRAMLesionLib.lesions.segmentation.SegmentationConfig`.
        region: ``patch`` counts every voxel of the output; ``lungs`` those inside the lobes.
        centres: ``patch`` centres output patches anywhere in the scan; ``lungs`` on lung voxels.
        lesion_centres: Share of the patches that are centred on a lesion of the pseudo-label
            instead, where there is one.
        dense_centres: Share of the patches that are centred on something dense in a lesion-free
            lobe, where there is one: what is dense there, such as the hilum, is surely no lesion.
        augmentation: Random changes of the data.
        optimiser: How the tensors are moved.
        loop: How long and how much at a time.
    """

    spacing: Spacing = 1.5
    patch: int = 44
    padding: Literal["valid", "zero"] = "valid"
    border: Count = 6
    start: Literal["scratch", "regression"] = "scratch"
    rounds: int = 1
    local: bool = False
    freeze_norm: Share = 1.0
    base_channels: Width = 8
    prior: Prior = 0.1
    beta: Share = 0.8
    level: Share = 0.0
    region: Literal["patch", "lungs"] = "lungs"
    centres: Literal["patch", "lungs"] = "lungs"
    lesion_centres: Share = 0.3
    dense_centres: Share = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=2))

    def __post_init__(self) -> None:
        if self.patch % 8 != 4 or self.patch < 4:
            message = f"the edge of an output patch is 4 + 8 n (such as 44), not {self.patch}"
            raise InputError(message)
        if not 1 <= self.rounds <= max(1, self.loop.steps):
            message = f"segmentation.rounds is at least 1 and at most the steps, not {self.rounds}"
            raise InputError(message)


@dataclass(frozen=True)
class PointsConfig:
    """Learning from points with consistency (paper 003), in volumes and on slices.

    Attributes:
        loss: ``points``, equation 2; ``lcfcn``, for counting; ``masks``, full supervision, whose
            labels are masks of all voxels.
        consistency: λ of equation 1; 0 for the loss on points alone.
        rotate: Whether quarter turns join the flip; the table of the paper has both.
        base_channels: Width of the U-Net; the paper has a VGG16-FCN8 that knows ImageNet.
        prior: Share of lesion that the untrained network starts with.
        freeze_norm: See :class:`RegressionConfig`.
        patch: Edge of the cubes of volumes in voxels, on the grid of the segmentation.
        size: Edge in pixels that slices are brought to; the paper: 352.
        levels: Down-samplings of the network for slices.
        contrast: See :class:`AugmentationConfig`.
        optimiser: How the tensors are moved; the paper: Adam with 1e-4 for 100 epochs, which is too
            slow for a network that starts from nothing.
        loop: How long and how much at a time; the paper: batches of 8.
    """

    loss: Literal["points", "lcfcn", "masks"] = "points"
    consistency: NotNegative = 1.0
    rotate: bool = True
    base_channels: Width = 8
    prior: Prior = 0.1
    freeze_norm: Share = 1.0
    patch: Edge = 56
    size: Annotated[int, Between(32, 1024, step=32)] = 160
    levels: Annotated[int, Between(1, 5)] = 4
    contrast: Share = 0.03
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(batch=4))


@dataclass(frozen=True)
class AblationConfig:
    """The ablation of the paper's table II.

    Attributes:
        weights: Weights of the loss terms, each from the row on that brings it in.
        workers: Scans at a time when a row is measured.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    workers: Count = 2

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self.weights)) <= 0:
            message = "every term has a weight above 0 in an ablation, or its row changes nothing"
            raise InputError(message)


@dataclass(frozen=True)
class ExportConfig:
    """What the cards of the weights say.

    Attributes:
        data: Sources in words.
        licence: Licence of the weights.
        date: Day of the export, ISO 8601; the day of the command if left empty.
    """

    data: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    date: str = ""


@dataclass(frozen=True)
class Config:
    """All settings of a training.

    Attributes:
        seed: Start of everything random.
        threads: CPU threads of the numerical libraries; 0 leaves that to them.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        mixed_precision: Whether a GPU computes in 16 bits where that is safe; a CPU never does.
        prepare: See the class.
        vessels: See the class.
        regression: See the class.
        pseudolabels: See the class.
        segmentation: See the class.
        slices: See the class.
        classifier: See the class.
        attention_fusion: See the class.
        decomposition: See the class.
        points: See the class.
        ablation: See the class.
        export: See the class.
    """

    seed: Count = 0
    threads: Count = 0
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    mixed_precision: bool = True
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    vessels: VesselTrainingConfig = field(default_factory=VesselTrainingConfig)
    regression: RegressionConfig = field(default_factory=RegressionConfig)
    pseudolabels: PseudoLabelConfig = field(default_factory=PseudoLabelConfig)
    segmentation: SegmentationTrainingConfig = field(default_factory=SegmentationTrainingConfig)
    slices: SliceSetConfig = field(default_factory=SliceSetConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    attention_fusion: FusionConfig = field(default_factory=FusionConfig)
    decomposition: DecompositionConfig = field(default_factory=DecompositionConfig)
    points: PointsConfig = field(default_factory=PointsConfig)
    ablation: AblationConfig = field(default_factory=AblationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)


def load_config(path: Path | str | None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        path: YAML file; None takes the defaults.
        overrides: ``"regression.loop.steps=300"`` and the like, applied last; the right side is
            read as YAML.

    Raises:
        InputError: If the file cannot be read, or a key or value does not fit.
    """
    name = "the command line" if path is None else str(path)
    values = {} if path is None else _settings(Path(path))
    for override in overrides:
        _apply_override(values, override)
    return build(Config, values, name)


def dump_config(config: Any) -> str:
    """Return a configuration, or a part of one, as YAML that :func:`load_config` reads."""
    return yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)


def to_plain(value: Any) -> Any:
    """Return a dataclass as dictionaries and lists that JSON and YAML know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, and no key stands twice in a group."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+"),
    list("-+.0123456789"),
)


def _group(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    if twice := [key for n, key in enumerate(keys) if key in keys[:n]]:
        message = f"the setting {twice[0]!r} stands in it twice"
        raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _group)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, of whatever type; JSON is YAML, too.

    Raises:
        InputError: If it cannot be read, is no YAML, or has a setting twice.
    """
    try:
        return _parse_yaml(content_of(path).decode("utf-8"), str(path))
    except OSError as error:
        message = f"cannot read the configuration {path}: {error.strerror}"
        raise InputError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not a YAML file: it is no UTF-8 text"
        raise InputError(message) from error


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # dates and numbers that there are none of are ValueErrors
        message = f"{source} is not YAML: {' '.join(str(error).split())}"
        raise InputError(message) from error


def _settings(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        message = f"{path}: expected settings of the form 'key: value'"
        raise InputError(message)
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        message = f"a setting on the command line has the form key=value, not {override!r}"
        raise InputError(message)
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            message = f"{key}: {parent!r} is not a group of settings"
            raise InputError(message)
    values[last] = _parse_yaml(text, f"the setting {override!r}")
