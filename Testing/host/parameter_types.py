"""The types of parameters taken apart: annotations, unions, node classes."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any

import slicer


def split_annotations(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """The plain type and its annotations."""
    plain, *annotations = typing.get_args(Annotated[kind, "end"])
    return plain, tuple(annotations[:-1])


def alternatives(plain: Any) -> tuple[Any, ...]:
    """The types of a union, in order; empty for other types."""
    is_union = typing.get_origin(plain) in (typing.Union, types.UnionType)
    return typing.get_args(plain) if is_union else ()


def node_classes(kind: Any) -> tuple[type, ...]:
    """MRML classes of a node type or of a union of them with None; empty for other types."""
    plain = split_annotations(kind)[0]
    parts = tuple(part for part in alternatives(plain) or (plain,) if part is not type(None))
    if parts and all(isinstance(p, type) and issubclass(p, slicer.vtkMRMLNode) for p in parts):
        return parts
    return ()
