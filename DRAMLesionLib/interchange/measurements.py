"""Volumes, densities, shares and scores as a DICOM structured report (TID 1500)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.interchange import codes
from DRAMLesionLib.interchange.findings import Findings
from DRAMLesionLib.interchange.segmentation import NAME, parameters, series_number
from DRAMLesionLib.interchange.source import Source
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.report.model import LESION_LABELS, LobeRow

if TYPE_CHECKING:
    import highdicom as hd
    from pydicom.sr.coding import Code

_TYPES = len(LESION_LABELS) + 1


def measurement_report(
    source: Source, findings: Findings, lobes: hd.seg.Segmentation
) -> hd.sr.Comprehensive3DSR:
    """Return the report.

    A group for each lobe that could be assessed, with its volume, lesion share and score, refers to
    its segment; one for each type of lesion in it has volume, share and mean density; the last one
    has what both lungs have together. Where a type has no voxel, it has no density.

    Args:
        source: Slices of the CT.
        findings: Lobes and lesions, and their numbers.
        lobes: Segmentation of the lobes, of the same findings.
    """
    import highdicom as hd

    rows = [row for row in findings.report.rows if row.assessed]
    means = mean_densities(findings.ct, findings.lobes, findings.lesions)
    groups: list[Any] = [_lobe_group(row, source, findings, lobes) for row in rows]
    groups += [g for row in rows for g in _type_groups(row, findings, means)]
    groups += list(_total_groups(findings))
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_device(findings)),
        procedure_reported=codes.CHEST_CT,
        imaging_measurements=groups,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            hd.sr.CodedConcept.from_code(codes.ENGLISH)
        ),
    )
    report = hd.sr.Comprehensive3DSR(
        evidence=[*source.slices, lobes],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=series_number("measurements"),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=NAME,
        is_complete=True,
        is_final=False,
        series_description=f"{NAME} measurements",
    )
    codes.identify_scheme(report)
    return report


def mean_densities(
    ct: sitk.Image, lobes: sitk.Image, lesions: sitk.Image
) -> dict[tuple[Lobe, int], float]:
    """Return the mean HU of each lesion type in each lobe; where there is no voxel, nothing.

    Args:
        ct: In HU.
        lobes: uint8 labels of :class:`~DRAMLesionLib.lobes.Lobe` on its grid.
        lesions: uint8 labels of :data:`~DRAMLesionLib.report.model.LESION_LABELS` on its grid.
    """
    size = (max(Lobe) + 1) * _TYPES
    counts, sums = np.zeros(size), np.zeros(size)
    hu, places, types = (sitk.GetArrayViewFromImage(image) for image in (ct, lobes, lesions))
    for k in range(hu.shape[0]):
        cell = (places[k].astype(np.intp) * _TYPES + types[k]).ravel()
        counts += np.bincount(cell, minlength=size)
        sums += np.bincount(cell, hu[k].ravel().astype(float), minlength=size)
    return {
        (lobe, label): float(sums[lobe * _TYPES + label] / counts[lobe * _TYPES + label])
        for lobe in Lobe
        for label in LESION_LABELS
        if counts[lobe * _TYPES + label]
    }


def _lobe_group(
    row: LobeRow, source: Source, findings: Findings, lobes: hd.seg.Segmentation
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    import highdicom as hd

    lobe = Lobe[row.name]
    segment = hd.sr.ReferencedSegment(
        sop_class_uid=lobes.SOPClassUID,
        sop_instance_uid=lobes.SOPInstanceUID,
        segment_number=int(lobe),
        source_series=hd.sr.SourceSeriesForSegmentation(source.slices[0].SeriesInstanceUID),
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=row.full_name),
        referenced_segment=segment,
        finding_type=codes.LOBE,
        finding_sites=[_site(lobe)],
        algorithm_id=_algorithm(findings),
        measurements=[
            _measured(codes.VOLUME, row.volume_ml, codes.MILLILITRE),
            _measured(codes.SHARE, row.lesion_percent, codes.PERCENT),
            _measured(codes.SCORE, row.score, codes.NO_UNITS),
        ],
    )


def _type_groups(
    row: LobeRow, findings: Findings, means: dict[tuple[Lobe, int], float]
) -> Iterator[hd.sr.MeasurementsAndQualitativeEvaluations]:
    lobe = Lobe[row.name]
    for label, (name, finding, ml) in _kinds(row, findings.typed).items():
        measurements = [
            _measured(codes.VOLUME, ml, codes.MILLILITRE),
            _measured(codes.SHARE, 100.0 * ml / (row.volume_ml or 1.0), codes.PERCENT),
        ]
        if (lobe, label) in means:
            mean = means[lobe, label]
            measurements.append(
                _measured(codes.ATTENUATION, mean, codes.HOUNSFIELD, derivation=codes.MEAN)
            )
        title = f"{name}, {row.full_name}"
        yield _group(title, finding, [_site(lobe)], measurements, findings)


def _kinds(row: LobeRow, is_typed: bool) -> dict[int, tuple[str, Code, Any]]:
    """Return name, code and volume of what is measured in a lobe, by its label."""
    if not is_typed:
        return {1: ("lesions", codes.LESION, row.lesion_ml)}
    return {
        label: (name, codes.LESIONS[label], getattr(row, f"{name.replace(' ', '_')}_ml"))
        for label, name in LESION_LABELS.items()
    }


def _total_groups(
    findings: Findings,
) -> Iterator[hd.sr.MeasurementsAndQualitativeEvaluations]:
    import highdicom as hd

    total = findings.report.row("total")
    if not total.assessed:
        return
    measurements = [
        _measured(codes.VOLUME, total.lesion_ml, codes.MILLILITRE),
        _measured(codes.SHARE, total.lesion_percent, codes.PERCENT),
    ]
    if findings.report.total_score is not None:
        measurements.append(
            _measured(codes.TOTAL_SCORE, findings.report.total_score, codes.NO_UNITS)
        )
    both = hd.sr.FindingSite(codes.LUNG, laterality=codes.BILATERAL)
    yield _group("lesions, both lungs", codes.LESION, [both], measurements, findings)


def _group(
    title: str,
    finding: Code,
    sites: list[Any],
    measurements: list[Any],
    findings: Findings,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    import highdicom as hd

    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=title),
        finding_type=finding,
        finding_sites=sites,
        algorithm_id=_algorithm(findings),
        measurements=measurements,
    )


def _site(lobe: Lobe) -> hd.sr.FindingSite:
    import highdicom as hd

    site, side = codes.LOBES[lobe]
    return hd.sr.FindingSite(site, laterality=side)


def _measured(
    name: Code, value: float | None, unit: Code, derivation: Code | None = None
) -> hd.sr.Measurement:
    import highdicom as hd

    if value is None:
        message = f"{name.meaning} has no value"
        raise AssertionError(message)
    # a decimal string has 16 characters
    return hd.sr.Measurement(name, round(float(value), 3), unit, derivation=derivation)


def _algorithm(findings: Findings) -> hd.sr.AlgorithmIdentification:
    import highdicom as hd

    sums = [f"{name}: {text}" for name, text in parameters(findings.report).items()]
    return hd.sr.AlgorithmIdentification(NAME, findings.report.version, parameters=sums)


def _device(findings: Findings) -> hd.sr.ObserverContext:
    import highdicom as hd
    from pydicom.sr.codedict import codes as known

    return hd.sr.ObserverContext(
        observer_type=known.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(),
            name=NAME,
            manufacturer_name=NAME,
            model_name=findings.report.version,
        ),
    )
