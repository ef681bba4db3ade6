"""The result of a run on one CT: its nodes, found again from the CT in any scene."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import slicer
import vtk

from DRAMLesionLib.lesions import severity
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.mrml import display, scores, segments, volumes
from DRAMLesionLib.reading.markups import BACKGROUND, LESION

if TYPE_CHECKING:
    from DRAMLesionLib.report.model import LobeRow

MODULE_NAME = "DRAMLesionResult"
"""Tells the nodes that hold a result from other scripted module nodes."""

NETWORK, PSEUDOLABEL = "network", "pseudolabel"
"""Where the numbers of the table come from."""

DEFAULT_THRESHOLD = 0.5

EMPTY_BELOW = 0.05
"""A refined dRAM without any value above this says nothing; the dRAM then takes its place."""

MAPS = ("dram", "refined")
SEGMENTATIONS = ("segmentation", "pseudolabel")

_SERIES = {lobe: f"series.{lobe.name}" for lobe in Lobe}
"""Role of the series of each lobe in the chart."""

_NUMBERS = ("table", "chartTable", "chart", *_SERIES.values())
"""Roles of what shows the rows: made anew from them wherever they are missing."""

POINTS = {"lesionPoints": LESION, "backgroundPoints": BACKGROUND}
"""Role of each list of a reader's points, and of what kind they are."""

CLICKS = "clicks"
"""Parameter with the clicks that map and pseudo-label follow, by lobe, "0" for no lobe."""

BEFORE_CLICKS = "beforeClicks"
"""Role of the volume with the map as the network made it, around the lobes; and parameter with
its first voxel, (k, j, i). It is not hidden: Slicer's dialog does not save hidden nodes."""

PAGE = "page"
"""Role of the text node with the HTML report of the run; results of scripts may lack it."""

_KINDS = {
    "dram": ("vtkMRMLScalarVolumeNode", "dRAM"),
    "refined": ("vtkMRMLScalarVolumeNode", "refined dRAM"),
    "segmentation": ("vtkMRMLSegmentationNode", "lesions"),
    "pseudolabel": ("vtkMRMLSegmentationNode", "pseudo-label"),
    "table": ("vtkMRMLTableNode", "lobe scores"),
    "chartTable": ("vtkMRMLTableNode", "lesion % by lobe"),
    "chart": ("vtkMRMLPlotChartNode", "lesion % by lobe chart"),
    **{role: ("vtkMRMLPlotSeriesNode", f"lesion % {lobe.name}") for lobe, role in _SERIES.items()},
    **{role: ("vtkMRMLMarkupsFiducialNode", f"{kind} points") for role, kind in POINTS.items()},
    BEFORE_CLICKS: ("vtkMRMLScalarVolumeNode", "map before clicks"),
    PAGE: ("vtkMRMLTextNode", "report"),
}
"""Role of each node of a result: its class, and what its name adds to the CT's."""

_HELPERS = ("chartTable", *_SERIES.values())

_VOXEL_ML = "voxelMl"
"""Parameter with the volume of a voxel that the rows were counted with."""

_FILLING = "filling"
"""Parameter that is set as long as the nodes are filled: what is there belongs to no one run."""

ROLE_ATTRIBUTE = "DRAMLesion.Role"
"""Attribute of every node of a result, so that nobody takes it for a CT or for lobes."""


class Result:
    """What a run on one CT left in the scene.

    A scripted module node holds references to all nodes and the facts that have no node of their
    own; it is saved with the scene.

    Attributes:
        node: The vtkMRMLScriptedModuleNode.
    """

    def __init__(self, node: Any) -> None:
        self.node = node

    @classmethod
    def find(cls, ct: Any) -> Result | None:
        """Return the result of a CT, None if it has none."""
        if ct is None:
            return None
        own = (r for r in every_result() if r.node.GetNodeReferenceID("ct") == ct.GetID())
        return next(own, None)

    @classmethod
    def of(cls, ct: Any) -> Result:
        """Return the result of a CT, an empty one if it has none."""
        found = cls.find(ct)
        if found is not None:
            return found
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetAttribute("ModuleName", MODULE_NAME)
        node.SetName(f"{ct.GetName()} DRAMLesion")
        node = slicer.mrmlScene.AddNode(node)
        node.SetNodeReferenceID("ct", ct.GetID())
        return cls(node)

    def get(self, role: str) -> Any:
        """Return a node by its role, None if it is not there (any more)."""
        return self.node.GetNodeReference(role)

    @property
    def ct(self) -> Any:
        """The CT's volume node, None if it was removed."""
        return self.get("ct")

    @property
    def complete(self) -> bool:
        """Whether everything is there that cannot be made anew, on the grid of the CT."""
        is_filled = not self.node.GetParameter(_FILLING)
        return self.ct is not None and is_filled and not self.missing and self.fits

    @property
    def missing(self) -> list[str]:
        """What the nodes that were removed are called; what is made anew anyway is left out."""
        return [_KINDS[role][1] for role in (*MAPS, *SEGMENTATIONS) if self.get(role) is None]

    @property
    def fits(self) -> bool:
        """Whether the CT has still the grid that the result was made for."""
        there = [self.get(role) for role in MAPS if self.get(role) is not None]
        if self.ct.GetImageData() is None:
            return False
        sizes = [node.GetImageData().GetDimensions() for node in there if node.GetImageData()]
        return all(size == self.ct.GetImageData().GetDimensions() for size in sizes)

    @property
    def page(self) -> str:
        """The HTML report of the run, '' if there is none."""
        node = self.get(PAGE)
        return (node.GetText() or "") if node is not None else ""

    def follow_ct(self) -> bool:
        """Bring everything to where the CT is now; return whether it had to move.

        The CT may have been put under a transform, taken out of it, or hardened.
        """
        ct, maps = self.ct, [self.get(role) for role in MAPS if self.get(role) is not None]
        if ct is None or not maps or not self.fits:
            return False
        before = volumes.ijk_to_ras(maps[0])
        change = volumes.ijk_to_ras(ct) @ np.linalg.inv(before)
        is_shifted = not np.allclose(change, np.eye(4), atol=1e-6)
        nodes = [*maps, *(self.get(role) for role in SEGMENTATIONS if self.get(role) is not None)]
        others = [n for n in nodes if n.GetTransformNodeID() != ct.GetTransformNodeID()]
        if not is_shifted and not others:
            return False
        for node in maps:
            volumes.place(node, ct)
        for node in nodes[len(maps) :]:
            if is_shifted:
                segments.shift(node, change)
            _place(node, ct)
        self._move_clicks(change)
        return True

    def _move_clicks(self, change: np.ndarray) -> None:
        """Bring points, and the map before them, to where the CT is; ``change`` is 4x4, RAS mm."""
        before = self.get(BEFORE_CLICKS)
        if before is not None:
            volumes.place(before, self.ct, json.loads(self.node.GetParameter(BEFORE_CLICKS)))
        for role in POINTS:
            points = self.get(role)
            if points is not None:
                _shift_points(points, change)
                points.SetAndObserveTransformNodeID(self.ct.GetTransformNodeID())

    def recount_if_scaled(self) -> bool:
        """Count anew if a transform above the CT has changed the size of its voxels.

        Returns:
            Whether the numbers have changed.

        Raises:
            InputError: If there is a transform above the CT that cannot be included.
        """
        ml = volumes.voxel_ml(self.ct)
        if np.isclose(ml, float(self.node.GetParameter(_VOXEL_ML) or ml), rtol=1e-6):
            return False
        self.node.SetParameter(_VOXEL_ML, repr(ml))
        self.update_scores(self.source)
        return True

    @property
    def report(self) -> dict[str, Any]:
        """Content of ``report.json`` of the run."""
        return json.loads(self.node.GetParameter("report") or "{}")

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know, in plain words."""
        return [warning["message"] for warning in self.report.get("warnings", [])]

    @property
    def threshold(self) -> float:
        """Threshold of the refined dRAM that made the pseudo-label."""
        return float(self.node.GetParameter("threshold") or DEFAULT_THRESHOLD)

    @property
    def map_role(self) -> str:
        """Role of the map that the threshold acts on: ``refined``, or ``dram`` if that is empty."""
        return self.node.GetParameter("map") or "refined"

    @property
    def source(self) -> str:
        """Where the numbers of the table come from: ``network`` or ``pseudolabel``."""
        return self.node.GetParameter("source") or NETWORK

    @property
    def rows(self) -> list[LobeRow]:
        """Rows of the table as they are now: lobes and totals."""
        return scores.rows_of_report(json.loads(self.node.GetParameter("rows")))

    @property
    def reader_scores(self) -> dict[Lobe, int | None]:
        """The reader's own scores."""
        stored = json.loads(self.node.GetParameter("readerScores") or "{}")
        return {lobe: stored.get(lobe.name) for lobe in Lobe}

    def set_reader_score(self, lobe: Lobe, text: str) -> None:
        """Keep the reader's score of a lobe; nothing takes it away.

        Raises:
            ValueError: If it is no whole number from 0 to 5.
        """
        score = scores.check_reader_score(text)
        kept = {known.name: value for known, value in self.reader_scores.items()}
        self.node.SetParameter("readerScores", json.dumps(kept | {lobe.name: score}))
        self._show_rows(self.rows)

    def set_rows(
        self, rows: Sequence[LobeRow], source: str, threshold: float | None = None
    ) -> None:
        """Show rows in table and chart, and keep them."""
        with modified_once(self.node):
            self.node.SetParameter("rows", json.dumps(plain_rows(rows)))
            self.node.SetParameter("source", source)
            if threshold is not None:
                self.node.SetParameter("threshold", f"{threshold:.4f}")
        self._show_rows(rows)

    def chart(self) -> Any:
        """Return the chart; it is made anew if it was removed."""
        if any(self.get(role) is None for role in _NUMBERS):
            self._show_rows(self.rows)
        return self.get("chart")

    def _show_rows(self, rows: Sequence[LobeRow]) -> None:
        """Write rows into table and chart, which are made where they are missing."""
        if any(self.get(role) is None for role in _NUMBERS):
            for role in _NUMBERS:
                make_node(self, role)
            title = f"{self.ct.GetName()}: lesion % by lobe"
            scores.make_chart(self._series(), self.get("chart"), self.get("chartTable"), title)
        scores.fill_table(self.get("table"), rows, self.reader_scores)
        scores.fill_chart(self.get("chartTable"), self._series(), rows)

    def _series(self) -> dict[Lobe, Any]:
        return {lobe: self.get(role) for lobe, role in _SERIES.items()}

    def lobes(self) -> np.ndarray:
        """Return the lobes as they are now, (k, j, i) uint8 on the grid of the CT."""
        return segments.labels_of(self.get("segmentation"), segments.LOBE_SEGMENTS, self.ct)

    def lesions_and_vessels(self) -> np.ndarray:
        """Return lesion types (1 to 3) and vessels (4) as they are now."""
        return segments.labels_of(self.get("segmentation"), segments.LESION_SEGMENTS, self.ct)

    def pseudolabel(self) -> np.ndarray:
        """Return the pseudo-label as it is now: 0 none, 1 vessel, 2 lesion; inside the lobes."""
        labels = segments.labels_of(self.get("pseudolabel"), segments.PSEUDOLABEL_SEGMENTS, self.ct)
        labels[self.lobes() == 0] = 0
        return labels

    def edited(self) -> list[str]:
        """Return the roles of the segmentations that were changed by hand since they were made."""
        return [role for role in ("segmentation", "pseudolabel") if self.is_edited(role)]

    def is_edited(self, role: str) -> bool:
        """Tell whether a segmentation was changed by hand since it was made."""
        stored = self.fingerprint(role)
        there = self.get(role) is not None and self.ct is not None
        return bool(stored) and there and self._current_print(role) != stored

    def edited_layers(self) -> tuple[bool, bool]:
        """Tell whether lesions and vessels, and whether lobes were changed since they were made."""
        made, now = self.fingerprint("segmentation"), self._current_print("segmentation")
        before = made.split("|") if made else now.split("|")
        lesions, lobes = (a != b for a, b in zip(before, now.split("|"), strict=True))
        return lesions, lobes

    @property
    def pseudolabel_is_chosen(self) -> bool:
        """Whether a person edited or clicked, or chose another threshold than the run's."""
        other = abs(self.threshold - _threshold_of(self.report)) > 1e-3
        clicked = set(json.loads(self.node.GetParameter(CLICKS) or "{}")) - {"0"}
        return other or bool(clicked) or self.is_edited("pseudolabel")

    def fingerprint(self, role: str) -> str:
        """Return the fingerprint of a segmentation when it was made."""
        return self.node.GetParameter(f"fingerprint.{role}") or ""

    def accept(self, role: str, fingerprint: str | None = None) -> None:
        """Note that a segmentation is now as it was made."""
        self.node.SetParameter(f"fingerprint.{role}", fingerprint or self._current_print(role))

    def _current_print(self, role: str) -> str:
        if role == "segmentation":
            parts = (self.lesions_and_vessels(), self.lobes())
            return "|".join(segments.checksum(labels) for labels in parts)
        specs = segments.PSEUDOLABEL_SEGMENTS
        labels = segments.labels_of(self.get("pseudolabel"), specs, self.ct)
        return segments.Fingerprint.of(labels).text

    def update_scores(self, source: str, lobes: np.ndarray | None = None) -> None:
        """Recompute table and chart from the segments as they are now, edited or not.

        Args:
            source: ``network`` counts the lesion types, ``pseudolabel`` the pseudo-label.
            lobes: As :meth:`lobes` gives them, if that was asked already.
        """
        ml, before = volumes.voxel_ml(self.ct), scores.rows_of_report(self.report)
        lobes = self.lobes() if lobes is None else lobes
        if source == NETWORK:
            labels = self.lesions_and_vessels()
            vessels = labels == segments.LESION_SEGMENTS[3].label
            labels[vessels] = 0
            rows = scores.count_rows(lobes, labels, ml, before, vessels)
        else:
            lesion = segments.mask_of(self.get("pseudolabel"), "lesion", self.ct)
            # not by bincount of all voxels, which makes 64-bit numbers of them
            counts = {lobe: float(np.count_nonzero(lobes == lobe) * ml) for lobe in Lobe}
            inside = np.bincount(lobes[lesion], minlength=6) * ml
            rows = scores.untyped_rows(counts, {lobe: float(inside[lobe]) for lobe in Lobe}, before)
        self.set_rows(rows, source)

    def remove(self) -> None:
        """Take every node of the result out of the scene, the CT stays."""
        for role in _KINDS:
            _remove_node(self.get(role))
        slicer.mrmlScene.RemoveNode(self.node)


def _remove_node(node: Any) -> None:
    """Take a node out of the scene, with its display and storage; None is ignored."""
    if node is not None:
        for helper in _helpers_of(node):
            slicer.mrmlScene.RemoveNode(helper)
        slicer.mrmlScene.RemoveNode(node)


def drop_map_before_clicks(result: Result) -> None:
    """Take what is kept of the map as the network made it out of the scene."""
    _remove_node(result.get(BEFORE_CLICKS))


def _shift_points(points: Any, matrix: np.ndarray) -> None:
    """Move points, as hardening a transform does; ``matrix`` is 4x4 in RAS mm."""
    for number in range(points.GetNumberOfControlPoints()):
        place = [0.0, 0.0, 0.0]
        points.GetNthControlPointPosition(number, place)
        moved = (matrix @ (*place, 1.0))[:3].tolist()
        points.SetNthControlPointPosition(number, moved, points.PositionDefined)


def _helpers_of(node: Any) -> list[Any]:
    """Return the display and storage nodes of a node, which the scene would keep without it."""
    found = []
    if node.IsA("vtkMRMLDisplayableNode"):
        found += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        found += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    return [helper for helper in found if helper is not None]


Voxels: TypeAlias = "np.ndarray | vtk.vtkImageData"
"""(k, j, i) as the CT has them; a map may also be an image of :func:`volumes.new_image`."""


def show(
    ct: Any,
    images: Mapping[str, Voxels],
    report: Mapping[str, Any],
    keep: Sequence[str] = (),
    page: str = "",
) -> Result:
    """Put the result of a run into the scene, in place of an earlier one of the same CT.

    Args:
        ct: The CT's volume node.
        images: ``lesions``, ``vessels``, ``lobes``, ``dram``, ``dram_refined``, each (k, j, i) as
            the CT has it.
        report: Content of ``report.json``.
        keep: Roles of segmentations that were edited by hand and must stay as they are.
        page: Content of ``report.html``.

    Returns:
        The result.

    Raises:
        ValueError: If the images do not fit the CT. The scene is as it was before.
    """
    for _step in show_in_steps(ct, dict(images), report, keep, page):
        pass
    return Result.of(ct)


def show_in_steps(
    ct: Any,
    images: dict[str, Voxels],
    report: Mapping[str, Any],
    keep: Sequence[str] = (),
    page: str = "",
) -> Iterator[None]:
    """Do what :func:`show` does, and yield after each step, so that a window stays usable.

    ``images`` is emptied on the way: nothing is in memory longer than it is needed. A result that
    was not there before is taken away again if a step fails or the iterator is closed early.
    """
    for name, values in images.items():
        given = volumes.view(values).shape if isinstance(values, vtk.vtkImageData) else values.shape
        if given != volumes.shape(ct):
            message = f"{name}: {given} voxels do not fit a CT of {volumes.shape(ct)}"
            raise ValueError(message)
    is_new = Result.find(ct) is None
    result = Result.of(ct)
    try:
        yield from _fill(result, images, report, keep, page)
    except BaseException:
        if is_new:
            result.remove()
        raise


def _fill(
    result: Result,
    images: dict[str, Voxels],
    report: Mapping[str, Any],
    keep: Sequence[str],
    page: str,
) -> Iterator[None]:
    ct = result.ct
    result.node.SetParameter(_FILLING, "1")
    result.node.SetParameter("report", json.dumps(report))
    result.node.SetParameter(CLICKS, "")  # the points stay, and are followed anew
    drop_map_before_clicks(result)
    yield from _fill_maps(result, images)
    for role in SEGMENTATIONS:
        _place(make_node(result, role), ct)
    if "segmentation" not in keep:
        yield from _fill_segmentation(result, images)
    images.clear()
    if "pseudolabel" not in keep:
        threshold = _threshold_of(report)
        result.node.SetParameter("threshold", f"{threshold:.4f}")
        yield from _pseudolabel_steps(result, threshold)
        yield
    result.node.SetParameter(_VOXEL_ML, repr(volumes.voxel_ml(ct)))
    result.set_rows(scores.rows_of_report(report), NETWORK)
    if keep:
        result.update_scores(PSEUDOLABEL if "segmentation" not in keep else NETWORK)
    if page:
        node = make_node(result, PAGE)
        node.SetForceCreateStorageNode(node.CreateStorageNodeAlways)
        node.SetText(page)
    result.node.SetParameter(_FILLING, "")


def _fill_maps(result: Result, images: dict[str, Voxels]) -> Iterator[None]:
    highest = {}
    for role, name in (("dram", "dram"), ("refined", "dram_refined")):
        node = make_node(result, role)
        # before there are voxels: a new display would look for a window among all of them
        display.show_as_heat_map(node)
        volumes.put_map(node, images.pop(name), result.ct)
        yield
        highest[role] = float(slicer.util.arrayFromVolume(node).max())
        yield
    is_empty = highest["refined"] <= EMPTY_BELOW < highest["dram"]
    result.node.SetParameter("map", "dram" if is_empty else "refined")


def _fill_segmentation(result: Result, images: dict[str, Voxels]) -> Iterator[None]:
    ct, node = result.ct, result.get("segmentation")
    labels = np.asarray(images.pop("lesions"), dtype=np.uint8).copy()
    vessels = np.asarray(images.pop("vessels")) > 0
    labels[vessels & (labels == 0)] = segments.LESION_SEGMENTS[3].label
    with modified_once(node):
        segments.put_layer(node, segments.LESION_SEGMENTS, labels, ct)
    yield
    with modified_once(node):
        segments.put_layer(node, segments.LOBE_SEGMENTS, np.asarray(images.pop("lobes")), ct)
    yield
    result.accept("segmentation")
    yield


def put_pseudolabel(result: Result, threshold: float) -> None:
    """Make the pseudo-label anew: vessels, and above them where the map is higher.

    Args:
        result: A result with maps and segmentation.
        threshold: Of the map that :attr:`Result.map_role` names, 0 to 1.
    """
    for _step in _pseudolabel_steps(result, threshold):
        pass


def _pseudolabel_steps(result: Result, threshold: float) -> Iterator[None]:
    ct, node = result.ct, result.get("pseudolabel")
    lobes = result.lobes()
    box = segments.bounding_box(lobes)
    inside = tuple(slice(low, high) for low, high in zip(*box, strict=True))
    yield
    vessels = segments.mask_of(result.get("segmentation"), "vessels", ct)[inside]
    values = slicer.util.arrayFromVolume(result.get(result.map_role))[inside]
    labels = np.zeros(lobes.shape, dtype=np.uint8)
    labels[inside][vessels] = segments.VESSEL_LABEL
    labels[inside][values > np.float32(threshold)] = segments.LESION_LABEL
    labels[inside][lobes[inside] == 0] = 0
    yield
    _place(node, ct)
    with modified_once(node):
        segments.put_layer(node, segments.PSEUDOLABEL_SEGMENTS, labels, ct, box)
        segments.put_layer(node, [segments.LUNGS_SEGMENT], (lobes > 0).astype(np.uint8), ct, box)
    yield
    result.accept("pseudolabel", segments.Fingerprint.of(labels).text)


def refresh_mask(result: Result, lobes: np.ndarray) -> None:
    """Make the mask for editing, a segment of the pseudo-label, from the lobes as they are now."""
    mask = (lobes > 0).astype(np.uint8)
    segments.put_layer(result.get("pseudolabel"), [segments.LUNGS_SEGMENT], mask, result.ct)


def _threshold_of(report: Mapping[str, Any]) -> float:
    settings = report.get("parameters", {}).get("dRAM", {})
    return float(settings.get("threshold", DEFAULT_THRESHOLD))


def make_node(result: Result, role: str) -> Any:
    """Make a node of the result unless it is there, name it, and file it under the CT's study."""
    node = result.get(role)
    if node is not None:
        return node
    class_name, text = _KINDS[role]
    node = slicer.mrmlScene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(f"{result.ct.GetName()} {text}"))
    node.SetHideFromEditors(role in _HELPERS)
    node.SetAttribute(ROLE_ATTRIBUTE, role)
    node = slicer.mrmlScene.AddNode(node)
    if node.IsA("vtkMRMLDisplayableNode"):
        node.CreateDefaultDisplayNodes()
    if role == "pseudolabel":
        node.GetDisplayNode().SetVisibility(False)
    if role == "table":
        node.SetLocked(True)
    result.node.SetNodeReferenceID(role, node.GetID())
    _file(node, result.ct)
    return node


def _file(node: Any, ct: Any) -> None:
    """File a node beside the CT in the subject hierarchy: under its study, where it has one."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item, of_ct = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(ct)
    if item and of_ct:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(of_ct))


def _place(segmentation: Any, ct: Any) -> None:
    """Give a segmentation the grid and the transform of the CT."""
    if segmentation.GetDisplayNode() is None:
        segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    segmentation.SetAndObserveTransformNodeID(ct.GetTransformNodeID())


@contextmanager
def modified_once(node: Any) -> Iterator[None]:
    """Tell the observers of a node once, at the end."""
    before = node.StartModify()
    try:
        yield
    finally:
        node.EndModify(before)


def plain_rows(rows: Sequence[LobeRow]) -> dict[str, Any]:
    """Return rows as ``report.json`` has them."""
    entries = [dict(row.__dict__) for row in rows]
    return {
        "lobes": [entry for entry in entries if entry["name"] in Lobe.__members__],
        "totals": [entry for entry in entries if entry["name"] not in Lobe.__members__],
    }


def reader_total(reader: Mapping[Lobe, int | None]) -> int | None:
    """Return the sum of the reader's scores, None as soon as one is missing."""
    return severity.total_score(reader.get(lobe) for lobe in Lobe)


def result_node_ids() -> list[str]:
    """Return the IDs of all nodes that belong to some result, and are no CT and no lobes."""
    marked = {
        node.GetID()
        for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode")
        for node in slicer.util.getNodesByClass(kind)
        if node.GetAttribute(ROLE_ATTRIBUTE)
    }
    for result in every_result():
        # scenes of earlier versions have no such attribute
        marked |= {result.node.GetNodeReferenceID(role) for role in (*MAPS, *SEGMENTATIONS)}
    return sorted(identifier for identifier in marked if identifier)


def every_result() -> list[Result]:
    """Return all results in the scene, whole or not."""
    return [
        Result(node)
        for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        if node.GetAttribute("ModuleName") == MODULE_NAME
    ]


def results_beside(ct: Any) -> list[Result]:
    """Return the complete results of the CTs of the same patient: under one subject or study.

    CTs that are filed nowhere, as those from NIfTI files, count as one group.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def highest(node: Any) -> int:
        item = hierarchy.GetItemByDataNode(node)
        scene, parent = hierarchy.GetSceneItemID(), hierarchy.GetItemParent(item)
        while parent not in (scene, 0):
            item, parent = parent, hierarchy.GetItemParent(parent)
        return int(item) if hierarchy.GetItemDataNode(item) is None else int(scene)

    group = highest(ct)
    return [r for r in every_result() if r.complete and highest(r.ct) == group]
