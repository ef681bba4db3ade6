"""The result of a run on one CT: its nodes, found again from the CT in any scene."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from DRAMLesionLib.lesions import severity
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.mrml import display, scores, segments, volumes

if TYPE_CHECKING:
    from DRAMLesionLib.report.model import LobeRow

MODULE_NAME = "DRAMLesionResult"
"""Tells the nodes that hold a result from other scripted module nodes."""

NETWORK, PSEUDOLABEL = "network", "pseudolabel"
"""Where the numbers of the table come from."""

DEFAULT_THRESHOLD = 0.5

EMPTY_BELOW = 0.05
"""A refined dRAM without any value above this says nothing; the dRAM then takes its place."""

_KINDS = {
    "dram": ("vtkMRMLScalarVolumeNode", "dRAM"),
    "refined": ("vtkMRMLScalarVolumeNode", "refined dRAM"),
    "segmentation": ("vtkMRMLSegmentationNode", "lesions"),
    "pseudolabel": ("vtkMRMLSegmentationNode", "pseudo-label"),
    "table": ("vtkMRMLTableNode", "lobe scores"),
    "chartTable": ("vtkMRMLTableNode", "lesion % by lobe"),
    "series": ("vtkMRMLPlotSeriesNode", "lesion %"),
    "chart": ("vtkMRMLPlotChartNode", "lesion % by lobe chart"),
}
"""Role of each node of a result: its class, and what its name adds to the CT's."""

_HELPERS = ("chartTable", "series")


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
        for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
            is_result = node.GetAttribute("ModuleName") == MODULE_NAME
            if is_result and node.GetNodeReferenceID("ct") == ct.GetID():
                return cls(node)
        return None

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
        """Whether every node is there."""
        return all(self.get(role) is not None for role in ("ct", *_KINDS))

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
        if self.get("table") is not None:
            scores.fill_table(self.get("table"), self.rows, self.reader_scores)

    def set_rows(
        self, rows: Sequence[LobeRow], source: str, threshold: float | None = None
    ) -> None:
        """Show rows in table and chart, and keep them."""
        with modified_once(self.node):
            self.node.SetParameter("rows", json.dumps(_plain_rows(rows)))
            self.node.SetParameter("source", source)
            if threshold is not None:
                self.node.SetParameter("threshold", f"{threshold:.4f}")
        scores.fill_table(self.get("table"), rows, self.reader_scores)
        scores.fill_chart_table(self.get("chartTable"), rows)

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

    @property
    def pseudolabel_is_chosen(self) -> bool:
        """Whether a person edited the pseudo-label, or chose another threshold than the run's."""
        other = abs(self.threshold - _threshold_of(self.report)) > 1e-3
        return other or self.is_edited("pseudolabel")

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

    def update_scores(self, source: str) -> None:
        """Recompute table and chart from the segments as they are now, edited or not.

        Args:
            source: ``network`` counts the lesion types, ``pseudolabel`` the pseudo-label.
        """
        ml, before = volumes.voxel_ml(self.ct), scores.rows_of_report(self.report)
        lobes = self.lobes()
        if source == NETWORK:
            labels = self.lesions_and_vessels()
            vessels = labels == segments.LESION_SEGMENTS[3].label
            labels[vessels] = 0
            rows = scores.count_rows(lobes, labels, ml, before, vessels)
        else:
            lesion = segments.mask_of(self.get("pseudolabel"), "lesion", self.ct)
            counts = np.bincount(lobes.ravel(), minlength=6)
            inside = np.bincount(lobes[lesion], minlength=6)
            rows = scores.untyped_rows(
                {lobe: float(counts[lobe] * ml) for lobe in Lobe},
                {lobe: float(inside[lobe] * ml) for lobe in Lobe},
                before,
            )
        self.set_rows(rows, source)

    def remove(self) -> None:
        """Take every node of the result out of the scene, the CT stays."""
        for role in _KINDS:
            node = self.get(role)
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)
        slicer.mrmlScene.RemoveNode(self.node)


def show(
    ct: Any,
    images: Mapping[str, np.ndarray],
    report: Mapping[str, Any],
    keep: Sequence[str] = (),
) -> Result:
    """Put the result of a run into the scene, in place of an earlier one of the same CT.

    Args:
        ct: The CT's volume node.
        images: ``lesions``, ``vessels``, ``lobes``, ``dram``, ``dram_refined``, each (k, j, i) as
            the CT has it.
        report: Content of ``report.json``.
        keep: Roles of segmentations that were edited by hand and must stay as they are.

    Returns:
        The result.

    Raises:
        ValueError: If the images do not fit the CT. The scene is as it was before.
    """
    for name, values in images.items():
        if values.shape != volumes.shape(ct):
            message = f"{name}: {values.shape} voxels do not fit a CT of {volumes.shape(ct)}"
            raise ValueError(message)
    is_new = Result.find(ct) is None
    result = Result.of(ct)
    try:
        _fill(result, images, report, keep)
    except BaseException:
        if is_new:
            result.remove()
        raise
    return result


def _fill(
    result: Result,
    images: Mapping[str, np.ndarray],
    report: Mapping[str, Any],
    keep: Sequence[str],
) -> None:
    ct = result.ct
    for role in _KINDS:
        _make_node(result, role)
    result.node.SetParameter("report", json.dumps(report))
    for role, name in (("dram", "dram"), ("refined", "dram_refined")):
        volumes.put_array(result.get(role), images[name], ct)
        display.show_as_heat_map(result.get(role))
    is_empty = images["dram_refined"].max() <= EMPTY_BELOW < images["dram"].max()
    result.node.SetParameter("map", "dram" if is_empty else "refined")
    if "segmentation" not in keep:
        labels = images["lesions"].astype(np.uint8)
        labels[(images["vessels"] > 0) & (labels == 0)] = segments.LESION_SEGMENTS[3].label
        _place(result.get("segmentation"), ct)
        with modified_once(result.get("segmentation")):
            segments.put_layer(result.get("segmentation"), segments.LESION_SEGMENTS, labels, ct)
            segments.put_layer(
                result.get("segmentation"), segments.LOBE_SEGMENTS, images["lobes"], ct
            )
        result.accept("segmentation")
    if "pseudolabel" not in keep:
        threshold = _threshold_of(report)
        result.node.SetParameter("threshold", f"{threshold:.4f}")
        put_pseudolabel(result, threshold)
    scores.make_chart(
        result.get("series"),
        result.get("chart"),
        result.get("chartTable"),
        f"{ct.GetName()}: lesion % by lobe",
    )
    result.set_rows(scores.rows_of_report(report), NETWORK)
    if keep:
        result.update_scores(PSEUDOLABEL if "segmentation" not in keep else NETWORK)


def put_pseudolabel(result: Result, threshold: float) -> None:
    """Make the pseudo-label anew: vessels, and above them where the map is higher.

    Args:
        result: A result with maps and segmentation.
        threshold: Of the map that :attr:`Result.map_role` names, 0 to 1.
    """
    ct, node = result.ct, result.get("pseudolabel")
    lobes = result.lobes()
    values = slicer.util.arrayFromVolume(result.get(result.map_role))
    labels = np.zeros(lobes.shape, dtype=np.uint8)
    labels[segments.mask_of(result.get("segmentation"), "vessels", ct)] = segments.VESSEL_LABEL
    labels[values > np.float32(threshold)] = segments.LESION_LABEL
    labels[lobes == 0] = 0
    _place(node, ct)
    with modified_once(node):
        box = segments.bounding_box(lobes)
        segments.put_layer(node, segments.PSEUDOLABEL_SEGMENTS, labels, ct, box)
        segments.put_layer(node, [segments.LUNGS_SEGMENT], (lobes > 0).astype(np.uint8), ct)
    result.accept("pseudolabel", segments.Fingerprint.of(labels).text)


def refresh_mask(result: Result) -> None:
    """Make the mask for editing, a segment of the pseudo-label, from the lobes as they are now."""
    mask = (result.lobes() > 0).astype(np.uint8)
    segments.put_layer(result.get("pseudolabel"), [segments.LUNGS_SEGMENT], mask, result.ct)


def _threshold_of(report: Mapping[str, Any]) -> float:
    settings = report.get("parameters", {}).get("dRAM", {})
    return float(settings.get("threshold", DEFAULT_THRESHOLD))


def _make_node(result: Result, role: str) -> Any:
    """Make a node of the result unless it is there, name it, and file it under the CT's study."""
    node = result.get(role)
    if node is not None:
        return node
    class_name, text = _KINDS[role]
    node = slicer.mrmlScene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetName(slicer.mrmlScene.GenerateUniqueName(f"{result.ct.GetName()} {text}"))
    node.SetHideFromEditors(role in _HELPERS)
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


def _plain_rows(rows: Sequence[LobeRow]) -> dict[str, Any]:
    """Return rows as ``report.json`` has them."""
    entries = [dict(row.__dict__) for row in rows]
    return {
        "lobes": [entry for entry in entries if entry["name"] in Lobe.__members__],
        "totals": [entry for entry in entries if entry["name"] not in Lobe.__members__],
    }


def reader_total(reader: Mapping[Lobe, int | None]) -> int | None:
    """Return the sum of the reader's scores, None as soon as one is missing."""
    return severity.total_score(reader.get(lobe) for lobe in Lobe)


def is_result_volume(node: Any) -> bool:
    """Tell whether a volume is a map of some result, and no CT."""
    for holder in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
        if holder.GetAttribute("ModuleName") == MODULE_NAME:
            ids = (holder.GetNodeReferenceID("dram"), holder.GetNodeReferenceID("refined"))
            if node.GetID() in ids:
                return True
    return False
