"""The methods that are compared, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from DRAMLesionLib.errors import InputError
from Training.methods.base import Method, Predictor, Trained
from Training.settings import Fusion


def _cam() -> Method:
    from Training.methods.cam import CAMMethod

    return CAMMethod()


def _dram() -> Method:
    from Training.methods.dram import DRAMMethod

    return DRAMMethod()


def _supervised() -> Method:
    from Training.methods.supervised import SupervisedMethod

    return SupervisedMethod()


def _points(name: str) -> Method:
    from Training.methods.points import PointsMethod

    return PointsMethod(name)


def _nnunet() -> Method:
    from Training.methods.nnunet import NNUNetMethod

    return NNUNetMethod()


def _gradcam() -> Method:
    from Training.methods.slice_classifier import GradCAMMethod

    return GradCAMMethod()


def _attention_fusion(fusion: Fusion | None = None) -> Method:
    from Training.methods.attention_fusion import AttentionFusionMethod

    return AttentionFusionMethod(fusion)


def _decomposition() -> Method:
    from Training.methods.decomposition import DecompositionMethod

    return DecompositionMethod()


METHODS: dict[str, Callable[[], Method]] = {
    "cam": _cam,
    "gradcam": _gradcam,
    "decomposition": _decomposition,
    "attention_fusion": _attention_fusion,
    "attention_fusion_max": partial(_attention_fusion, "max"),
    "attention_fusion_ema": partial(_attention_fusion, "ema"),
    "dram": _dram,
    "points": partial(_points, "points"),
    "points_flip": partial(_points, "points_flip"),
    "points_alone": partial(_points, "points_alone"),
    "points_lcfcn": partial(_points, "points_lcfcn"),
    "supervised": _supervised,
    "nnunet": _nnunet,
}
"""From the name of a method to the method, in the order of the tables."""

OURS = "dram"


def get_method(name: str) -> Method:
    """Return a method.

    Raises:
        InputError: If there is no such method.
    """
    if name not in METHODS:
        message = f"there is no method {name!r}; known: {', '.join(METHODS)}"
        raise InputError(message)
    return METHODS[name]()


def load_method(trained: Trained) -> Predictor:
    """Return a trained method.

    Raises:
        InputError: If there is no such method, or it was not trained.
        WeightsError: If its weights cannot be used.
    """
    return get_method(trained.method).load(trained.folder, trained.device)
