"""Lobes by scheme, by name, by code, by anatomy, and never by guessing."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import LobeError
from DRAMLesionLib.lobes import Lobe, terminology
from DRAMLesionLib.lobes.schemes import (
    SCHEMES,
    anatomy_problems,
    labels_present,
    scheme_names,
    segment_names,
    to_lobes,
)
from DRAMLesionLib.reading.notes import notes
from Testing.library import simple_chest as chest


@pytest.fixture(scope="module")
def truth() -> sitk.Image:
    return chest.lobes(chest.grid())


def numbered(truth: sitk.Image, mapping: dict[int, Lobe], kind=np.uint8) -> sitk.Image:
    """Number true lobes as a scheme does."""
    values = chest.values(truth)
    result = np.zeros(values.shape, dtype=kind)
    for label, lobe in mapping.items():
        result[values == lobe] = label
    return chest.changed(truth, result)


def equal(a: sitk.Image, b: sitk.Image) -> bool:
    return bool((chest.values(a) == chest.values(b)).all())


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_named_scheme(truth, scheme, kind):
    found = to_lobes(numbered(truth, SCHEMES[scheme], kind), scheme)
    assert found.GetPixelID() == sitk.sitkUInt8
    assert equal(found, truth)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_auto_finds_every_scheme_by_numbers_and_anatomy(truth, scheme):
    assert equal(to_lobes(numbered(truth, SCHEMES[scheme])), truth)


def test_middle_and_lower_lobe_change_places_between_schemes(truth):
    ours, theirs = SCHEMES["dram"], SCHEMES["rtsunet"]
    assert ours[4] == Lobe.RML
    assert theirs[4] == Lobe.RLL
    assert ours[5] == Lobe.RLL
    assert theirs[5] == Lobe.RML
    # the wrong scheme is taken at its word, and the anatomy tells on it
    wrong = to_lobes(numbered(truth, theirs), "dram")
    assert not equal(wrong, truth)
    assert anatomy_problems(wrong)
    assert anatomy_problems(truth) == []


@pytest.mark.parametrize("direction", [np.diag([-1, -1, 1]), np.eye(3)[:, [2, 0, 1]]], ids=str)
@pytest.mark.parametrize("scheme", ["dram", "rtsunet"])
def test_auto_goes_by_physical_space_not_by_array_order(scheme, direction):
    truth = chest.lobes(chest.grid((75, 75, 75), direction=direction))
    assert equal(to_lobes(numbered(truth, SCHEMES[scheme])), truth)


@pytest.mark.parametrize("absent", Lobe, ids=lambda lobe: lobe.name)
@pytest.mark.parametrize("scheme", ["dram", "rtsunet", "totalsegmentator"])
def test_auto_with_one_lobe_missing(truth, scheme, absent):
    rest = {k: v for k, v in SCHEMES[scheme].items() if v != absent}
    found = chest.values(to_lobes(numbered(truth, rest)))
    expected = chest.values(truth)
    assert (found == np.where(expected == absent, 0, expected)).all()


def test_auto_in_a_whole_body_map(truth):
    labels = chest.values(numbered(truth, SCHEMES["totalsegmentator"]))
    labels[0, :10] = 5  # liver
    labels[0, 20:30] = 16  # trachea
    labels[1, 40:] = 117
    assert equal(to_lobes(chest.changed(truth, labels)), truth)


def test_auto_refuses_lungs_without_lobes(truth):
    left = np.isin(chest.values(truth), (Lobe.LUL, Lobe.LLL))
    lungs = chest.changed(truth, np.where(left, 2, chest.values(truth) > 0).astype(np.uint8))
    with pytest.raises(
        LobeError, match=r"file\.nii: the labels 1, 2 .* two lungs, not of the five"
    ):
        to_lobes(lungs, name="file.nii")


def test_auto_refuses_swapped_sides(truth):
    mirrored = sitk.Flip(truth, [True, False, False])
    mirrored.CopyInformation(truth)
    with pytest.raises(LobeError, match=r"left and right are not swapped.*dram, lungmask.*--lobe-"):
        to_lobes(mirrored)


def test_auto_refuses_when_several_schemes_fit():
    # the two upper lobes and the left lower one have the same numbers in 'dram' and 'rtsunet'
    # only where 4 or 5 is there, too, they differ: a flat stack cannot tell which
    values = np.zeros((6, 40, 80), dtype=np.uint8)
    values[:, :, 60:70], values[:, :, 70:] = 1, 2
    values[:, :, :10], values[:, 15:25, 10:20] = 3, 4
    image = sitk.GetImageFromArray(values)
    with pytest.raises(LobeError, match="fit more than one lobe scheme; name the scheme"):
        to_lobes(image)


def test_auto_refuses_foreign_numbers(truth):
    labels = numbered(truth, {201: Lobe.LUL, 202: Lobe.LLL, 203: Lobe.RUL})
    with pytest.raises(LobeError, match="201, 202, 203 are those of no lobe scheme"):
        to_lobes(labels)


def test_unknown_scheme_lists_the_known_ones(truth):
    with pytest.raises(LobeError, match="'x' is no known lobe scheme: choose from auto, dram, "):
        to_lobes(truth, "x")
    assert scheme_names()[0] == "auto"


def test_scheme_that_has_none_of_the_labels(truth):
    with pytest.raises(LobeError, match=r"has the labels 1, 2, 3, 4, 5, but the scheme 'totalseg"):
        to_lobes(truth, "totalsegmentator")


def test_empty_mask(truth):
    with pytest.raises(LobeError, match="the lobe mask is empty"):
        to_lobes(sitk.Image(truth) * 0)


def test_names_go_before_numbers(truth):
    odd = {7: Lobe.RLL, 9: Lobe.LUL, 2: Lobe.RML, 3: Lobe.LLL, 200: Lobe.RUL}
    names = {k: v.full_name for k, v in odd.items()}
    labels = numbered(truth, odd)
    assert equal(to_lobes(labels, names=names), truth)


def test_names_in_the_file_and_labels_that_are_no_lobes(truth):
    labels = numbered(truth, SCHEMES["rtsunet"])
    values = chest.values(labels)
    values[:3, :3] = 6
    labels = chest.changed(labels, values)
    texts = {1: "LUL", 2: "Left lower lobe", 3: "lung_upper_lobe_right", 4: "RLL", 5: "RML", 6: "x"}
    for index, (label, text) in enumerate(texts.items()):
        labels.SetMetaData(f"Segment{index}_LabelValue", str(label))
        labels.SetMetaData(f"Segment{index}_Name", text)
    assert segment_names(labels) == texts
    assert equal(to_lobes(labels), truth)
    # a scheme that is asked for by name is what counts
    assert not equal(to_lobes(labels, "dram"), truth)


def test_codes_in_the_file(truth):
    mapping = {11: Lobe.RML, 12: Lobe.RUL, 13: Lobe.RLL, 14: Lobe.LUL, 15: Lobe.LLL}
    labels = numbered(truth, mapping)
    for index, (label, lobe) in enumerate(mapping.items()):
        entry = terminology.LOBE_TERMS[lobe].entry()
        labels.SetMetaData(f"Segment{index}_LabelValue", str(label))
        labels.SetMetaData(f"Segment{index}_Name", f"Segment_{index}")
        labels.SetMetaData(f"Segment{index}_Tags", f"TerminologyEntry:{entry}|Status:done|")
    assert equal(to_lobes(labels), truth)


def test_a_name_that_its_code_contradicts_is_followed_and_told(truth):
    labels = sitk.Image(truth)
    for index, lobe in enumerate(Lobe):
        code = Lobe.RML if lobe == Lobe.RUL else lobe
        labels.SetMetaData(f"Segment{index}_LabelValue", str(int(lobe)))
        labels.SetMetaData(f"Segment{index}_Name", lobe.full_name)
        entry = terminology.LOBE_TERMS[code].entry()
        labels.SetMetaData(f"Segment{index}_Tags", f"TerminologyEntry:{entry}|")
    lobes = to_lobes(labels)
    assert equal(lobes, truth)
    (note,) = notes(lobes)
    assert note.code == "segment-contradicts-code"
    assert "right middle lobe by its code, but the right upper lobe by its name" in note.message


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_labels_present_finds_a_single_voxel(kind):
    values = np.zeros((5, 6, 7), dtype=kind)
    values[4, 5, 6], values[0, 0, 0] = 200, 3
    assert labels_present(sitk.GetImageFromArray(values)) == {3, 200}


@pytest.mark.parametrize(
    ("name", "lobe"),
    [
        ("RUL", Lobe.RUL),
        ("rll", Lobe.RLL),
        ("LUL_1", Lobe.LUL),
        ("right upper lobe", Lobe.RUL),
        ("Right Upper Lobe of Lung", Lobe.RUL),
        ("lung_upper_lobe_left", Lobe.LUL),
        ("lung_middle_lobe_right", Lobe.RML),
        ("Middle lobe of right lung", Lobe.RML),
        ("middle lobe", Lobe.RML),
        ("inferior lobe of left lung", Lobe.LLL),
        ("RightLowerLobe", Lobe.RLL),
        ("L upper lobe", Lobe.LUL),
        ("left middle lobe", None),
        ("left lung", None),
        ("upper lobe", None),
        ("right upper lobe bronchus", None),
        ("left and right upper lobe", None),
        ("lung_vessels", None),
        ("kidney_right", None),
        ("Segment_1", None),
        ("", None),
    ],
)
def test_lobe_from_name(name, lobe):
    assert terminology.lobe_from_name(name) == lobe


def test_every_full_name_and_term_is_recognised():
    for lobe in Lobe:
        assert terminology.lobe_from_name(lobe.full_name) == lobe
        assert terminology.lobe_from_name(lobe.name) == lobe
        assert terminology.lobe_from_entry(terminology.LOBE_TERMS[lobe].entry()) == lobe
    assert terminology.lobe_from_entry(terminology.LESION_TERM.entry()) is None
    assert terminology.lobe_from_entry("") is None


def test_terms_are_serialised_as_slicer_does():
    assert terminology.LOBE_TERMS[Lobe.LUL].entry() == (
        "Segmentation category and type - 3D Slicer General Anatomy list"
        "~SCT^123037004^Anatomical Structure~SCT^45653009^Upper lobe of lung~SCT^7771000^Left"
        "~Anatomic codes - DICOM master list~^^~^^"
    )
    assert "~SCT^52988006^Lesion~^^~" in terminology.LESION_TERM.entry()
    assert "SCT^59820001^Blood vessel" in terminology.VESSEL_TERM.entry()
