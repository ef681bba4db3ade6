"""Lungs and lobes by the embedded estimate, against the phantom's truth and on real CTs."""

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import LEFT_LOBES, Lobe
from DRAMLesionLib.lobes.estimate import estimate_lobes
from DRAMLesionLib.lobes.lungs import segment_lungs
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.reading import files
from Testing.library.overlap import dice
from Testing.library.realdata import DATA, needs_data

SEEDS = (11, 12)


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(seed, 2.0) for seed in SEEDS]


@pytest.fixture(scope="module")
def estimates(phantoms):
    return [estimate_lobes(phantom.ct) for phantom in phantoms]


def test_lobes_agree_with_the_truth(phantoms, estimates):
    scores = [
        dice(geometry.array(e.lobes) == lobe, geometry.array(p.lobes) == lobe)
        for p, e in zip(phantoms, estimates, strict=True)
        for lobe in Lobe
    ]
    assert np.mean(scores) >= 0.90
    assert min(scores) > 0.6


def test_the_estimate_lies_on_the_ct_and_says_how_sure_it_is(phantoms, estimates):
    for phantom, estimate in zip(phantoms, estimates, strict=True):
        assert geometry.same_grid(estimate.lobes, phantom.ct)
        assert set(estimate.confidence) == set(Lobe)
        assert all(0.0 <= value <= 1.0 for value in estimate.confidence.values())


def test_left_and_right_are_never_mixed(phantoms, estimates):
    for phantom, estimate in zip(phantoms, estimates, strict=True):
        found, true = geometry.array(estimate.lobes), geometry.array(phantom.lobes)
        both = (found > 0) & (true > 0)
        assert (np.isin(found, LEFT_LOBES) == np.isin(true, LEFT_LOBES))[both].mean() > 0.999


def test_without_visible_fissures_it_is_less_sure(phantoms, estimates):
    blurred = sitk.DiscreteGaussian(sitk.Cast(phantoms[0].ct, sitk.sitkFloat32), [16.0] * 3)
    unsure = estimate_lobes(blurred)
    sure = estimates[0]
    assert sum(unsure.confidence.values()) < sum(sure.confidence.values())


def test_a_dense_lobe_base_at_the_chest_wall_stays_lung(phantoms):
    phantom = phantoms[0]
    hu, lobes = geometry.array(phantom.ct), geometry.array(phantom.lobes)
    k, j, _ = np.nonzero(lobes == Lobe.RLL)
    dense = lobes == Lobe.RLL
    dense[:, : int(np.percentile(j, 60))] = False
    # below the dome of the diaphragm nothing tells consolidation from liver
    height = np.arange(lobes.shape[0])
    dense[(height < np.percentile(k, 30)) | (height > np.percentile(k, 60))] = False
    hu[dense] = 30
    lungs = segment_lungs(geometry.image_like(hu, phantom.ct))
    found = geometry.array(geometry.resample(lungs.lungs, phantom.ct, "nearest"))
    assert (found[dense] > 0).mean() > 0.85
    assert dice(found > 0, lobes > 0) > 0.9


def test_no_lung_is_an_error():
    water = sitk.Image(60, 60, 60, sitk.sitkInt16)
    water.SetSpacing((3.0,) * 3)
    with pytest.raises(InputError, match="No lung found"):
        segment_lungs(water)


@needs_data
@pytest.mark.parametrize(
    "name", ["ct/lidc-idri-0001.nii.gz", "ct/lidc-idri-0002.nii.gz", "dicom/cptac-c3n-00247"]
)
def test_real_cts_have_five_lobes_on_their_sides(name):
    ct, _ = files.read_ct(DATA / name)
    lobes = geometry.array(estimate_lobes(ct).lobes)
    litres = {lobe: (lobes == lobe).sum() * geometry.voxel_ml(ct) / 1000.0 for lobe in Lobe}
    assert all(volume > 0.15 for volume in litres.values())
    assert 2.0 < sum(litres.values()) < 8.0
    # the patient's left is where i is large on these scans
    column = np.arange(lobes.shape[2])
    left = np.isin(lobes, LEFT_LOBES).sum(axis=(0, 1))
    right = ((lobes > 0) & ~np.isin(lobes, LEFT_LOBES)).sum(axis=(0, 1))
    assert np.average(column, weights=left) > np.average(column, weights=right) + 60
