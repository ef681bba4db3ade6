"""Methods that learn from slices: each part by hand, and each method from slices to a report."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from DRAMLesionLib import weights
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.windows import SliceWindow, lung_window
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.pipeline import LesionPipeline
from DRAMLesionLib.report.output import write_result
from DRAMLesionLib.writing import write_image
from Testing.library import simple_chest
from Testing.training.small_cache import write_small_cache
from Training.config import load_config
from Training.dataset.cache import LABELS, LESION, read_cache
from Training.dataset.regions import Region
from Training.dataset.slices import SlicePictures, find_slices, weak_label
from Training.learning.engine import logged, make_fabric, read_checkpoint, train
from Training.methods import get_method
from Training.methods import slice_classifier as classifier
from Training.methods.attention_fusion import MapKeeper, fuse, label_slices, pseudo_label
from Training.methods.base import Workplace
from Training.methods.decomposition import (
    Adversaries,
    Critic,
    DecompositionExperiment,
    build,
    frozen,
)
from Training.methods.slice_classifier import SliceClassifier
from Training.methods.slice_methods import slices_of
from Training.stages.prepare import grid_image

QUICK = "{steps: 4, batch: 4, checkpoint_every: 1, validate_every: 2, log_every: 1,"
QUICK += " pictures_every: 0, tensorboard: false}"
SETTINGS = [
    "regression.loop.steps=3",
    "segmentation.loop.steps=3",
    "segmentation.spacing=4.0",
    "slices.size=16",
    "slices.least_lung=10",
    "slices.shift=2",
    "classifier.base_channels=2",
    "attention_fusion.base_channels=3",
    "attention_fusion.epochs=2",
    "decomposition.base_channels=2",
    "decomposition.critic_channels=2",
    "decomposition.critic_first=1",
    "decomposition.penalty_every=2",
    *(f"{name}.loop={QUICK}" for name in ("classifier", "attention_fusion", "decomposition")),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return read_cache(write_small_cache(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def work(cases, tmp_path):
    return Workplace((), cases, tmp_path, load_config(None, SETTINGS))


@pytest.fixture(scope="module")
def chest():
    grid = simple_chest.grid(size=(70, 60, 40), spacing=(5.0, 5.0, 6.0))
    return simple_chest.hu(grid), simple_chest.lobes(grid)


def test_a_window_reaches_beyond_the_slice_and_comes_back():
    plane = np.arange(12.0).reshape(3, 4)
    window = SliceWindow((-1, 2), (5, 4))
    seen = window.cut(plane)
    assert seen.shape == (5, 4)
    assert seen[1:4, :2].tolist() == plane[:, 2:].tolist()
    assert seen.sum() == plane[:, 2:].sum()
    back = np.zeros_like(plane)
    window.paste(seen, back)
    assert back[:, 2:].tolist() == plane[:, 2:].tolist()
    assert not back[:, :2].any()
    assert not SliceWindow((9, 9), (4, 4)).cut(plane).any()


def test_the_window_of_a_scan_holds_all_of_its_lungs():
    lungs = np.zeros((5, 60, 70), dtype=bool)
    lungs[1, 10:40, 5] = lungs[3, 20, 5:60] = True
    window = lung_window(lungs, 16, 16)
    assert window.size == (32, 64)
    cut = window.cut(lungs)
    assert cut.sum() == lungs.sum()
    assert window.start == (9, 1)


def test_slices_are_labelled_by_the_lobes_that_they_cut(cases, work):
    found = find_slices(cases, work.config.slices, 16)
    labels = {(one.case.name, one.k): one.diseased for one in found}
    assert labels == {
        (f"case-{n}", k): (n, k >= 12) not in ((0, False), (1, True))
        for n in range(3)
        for k in range(24)
    }
    assert len({one.window.size for one in found}) == 1


def test_a_slice_through_an_unscored_lobe_is_normal_to_nobody(cases, monkeypatch):
    scores = {Lobe.LUL: 0, Lobe.LLL: None}
    monkeypatch.setattr(type(cases[0]), "scores", property(lambda _: scores))
    assert weak_label(cases[0], 3) is False
    assert weak_label(cases[0], 20) is None
    scores[Lobe.LUL] = 1
    assert weak_label(cases[0], 3) is True


def test_labels_of_slices_lungs_and_scans_count(cases, monkeypatch):
    scores, regions = dict.fromkeys(Lobe), []
    monkeypatch.setattr(type(cases[0]), "scores", property(lambda _: scores))
    monkeypatch.setattr(type(cases[0]), "regions", property(lambda _: regions))
    assert weak_label(cases[0], 3) is None
    regions.append(Region("slice:3", 0.0, 0.0, (Lobe.LUL,), (3, 5)))
    regions.append(Region("slice:7", 0.001, 1.0, (Lobe.LUL,), (7, 8)))
    assert [weak_label(cases[0], k) for k in (2, 3, 4, 5, 7)] == [None, False, False, None, True]
    regions.append(Region("LLL", 0.0, 0.0, (Lobe.LLL,)))
    assert weak_label(cases[0], 20) is False
    regions.append(Region("lungs", 0.2, 0.4, (Lobe.LUL, Lobe.LLL)))
    # the lobe that is free is not what the lungs' lesion is in
    assert [weak_label(cases[0], k) for k in (2, 3, 20)] == [True, False, False]


def test_without_normal_slices_there_is_nothing_to_learn(cases, work):
    settings = replace(work.config.slices, labels="truth_of_phantoms")
    ill = [case for case in cases if case.name == "case-1"]
    found = find_slices(ill, settings, 16)
    assert {one.diseased for one in found} == {True, False}
    with pytest.raises(InputError, match=r"no slice .* is known to be normal"):
        find_slices(cases, replace(settings, least_lung=10_000), 16)


def test_samples_hang_on_their_number_and_batches_have_both_kinds(cases, work):
    items = find_slices(cases, work.config.slices, 16)
    targets = np.stack([item.window.cut(item.lungs()).astype(np.uint8) for item in items])
    drawn = SlicePictures(items, work.config.slices, 5, augment=True, targets=targets)
    again = SlicePictures(items, work.config.slices, 5, augment=True, targets=targets)
    for n in (7, 0, 2):
        one, other = drawn[n], again[n]
        assert all(torch.equal(one[name], other[name]) for name in one)
        # the label moves and turns with the slice
        assert torch.equal(one["target"] > 0, one["lungs"])
    assert [bool(drawn[n]["diseased"]) for n in range(4)] == [False, True, False, True]
    assert drawn[0]["image"][~drawn[0]["lungs"]].abs().max() == 0
    plain = SlicePictures(items, work.config.slices, 5, augment=False)[30]
    window = items[30].window
    np.testing.assert_array_equal(plain["image"][0], window.cut(items[30].image()))


def test_maps_of_the_classifier_by_hand():
    torch.manual_seed(0)
    network = SliceClassifier(2, 1, attention=False).eval()
    image, lungs = torch.rand(3, 1, 8, 8), torch.ones(3, 1, 8, 8, dtype=torch.bool)
    lungs[0, :, :4] = False
    features = network.encoder(image)[-1]
    weighted = torch.einsum("bcji,c->bji", features, network.linear.weight[0, :, 0, 0]).detach()
    logit = torch.stack([weighted[0, 2:].mean(), weighted[1].mean(), weighted[2].mean()])
    torch.testing.assert_close(network(image, lungs).detach(), logit + network.bias.detach())
    positive = weighted.clamp_min(0)
    positive[0, :2] = 0
    maps, logits = classifier.cam(network, image, lungs)
    wanted = positive / positive.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
    torch.testing.assert_close(maps[:, 0], wanted)
    torch.testing.assert_close(logits, network(image, lungs).detach())
    # without attention and in lungs that fill the slice, the gradient is the weight: same map
    grad, _ = classifier.grad_cam(network, image[1:], lungs[1:])
    torch.testing.assert_close(grad[:, 0], wanted[1:])


def test_grad_cam_with_attention_is_the_numerical_gradient():
    torch.manual_seed(1)
    network = SliceClassifier(2, 1, attention=True).double().eval()
    image, lungs = torch.rand(1, 1, 4, 4).double(), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    features, step = network.encoder(image)[-1].detach(), 1e-6
    slopes = torch.zeros_like(features)
    for place in np.ndindex(*features.shape):
        up, down = features.clone(), features.clone()
        up[place] += step
        down[place] -= step
        slopes[place] = (network.logit(up, lungs) - network.logit(down, lungs)).item() / (2 * step)
    wanted = (slopes.mean(dim=(2, 3), keepdim=True) * features).sum(1, keepdim=True).clamp_min(0)
    found, _ = classifier.grad_cam(network, image, lungs)
    torch.testing.assert_close(found, wanted / wanted.max().clamp_min(1e-6), atol=1e-6, rtol=1e-4)


def test_fusions_by_hand():
    maps = np.array([[0.2, 0.9, 0.4], [1.0, 0.1, 0.5], [0.6, 0.5, 0.3], [0.1, 0.0, 0.8]])
    right = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)
    shaped = maps[..., None, None]
    wanted = {
        # the first slice was told right three times, the second twice, the third never
        "mean": [(0.2 + 1.0 + 0.1) / 3, 0.3, 0.8],
        "ema": [((0.2 + 1.0) / 2 + 0.1) / 2, 0.3, 0.8],
        "max": [1.0, 0.5, 0.8],
    }
    for how, values in wanted.items():
        assert fuse(shaped, right, how).ravel().tolist() == pytest.approx(values)


def test_pseudo_labels_by_hand():
    image = np.array([[0.1, 0.6, 0.6, 0.9, 0.9]])
    lungs = np.array([[True, True, True, True, False]])
    fused = np.array([[0.9, 0.9, 0.2, 0.3, 0.9]])
    found = pseudo_label(fused, image, lungs, dense=0.5, foreground=0.25)
    # thin lung, lesion, dense but nobody looked, lesion, outside
    assert found.tolist() == [[0, 1, 255, 1, 0]]


def test_labels_of_normal_slices_are_background(cases, work):
    items = find_slices(cases, work.config.slices, 16)
    ill = sum(item.diseased for item in items)
    labels = label_slices(items, np.ones((ill, 2, 2), dtype=np.float32), 0.3)
    for item, label in zip(items, labels, strict=True):
        assert set(np.unique(label)) == ({0, 1} if item.diseased else {0})


def test_the_critic_has_seven_layers_and_sees_slices_of_any_size():
    critic = Critic(4)
    layers = [m for m in critic.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 7
    assert critic.last.in_features == 4 + 8 + 16
    assert not any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    assert critic(torch.rand(3, 1, 16, 24)).shape == (3,)


def test_a_frozen_critic_sends_its_gradient_to_the_slices_alone():
    critic, x = Critic(2), torch.rand(2, 1, 8, 8, requires_grad=True)
    torch.testing.assert_close(frozen(critic, x), critic(x))
    frozen(critic, x).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in critic.parameters())


def _batch():
    lungs = torch.ones(4, 1, 16, 16, dtype=torch.bool)
    lungs[..., :3] = False
    diseased = torch.tensor([False, True, False, True])
    image = torch.rand(4, 1, 16, 16) * lungs
    return {"image": image, "lungs": lungs, "diseased": diseased, "place": torch.rand(4)}


def test_terms_of_the_decomposition_by_hand(work):
    torch.manual_seed(0)
    network, batch = Adversaries(build(work.config.decomposition), Critic(2)).eval(), _batch()
    lungs, x = batch["lungs"], torch.where(batch["lungs"], 2 * batch["image"] - 1, -1.0)
    normal, lesion = (part.detach() for part in network.generator(x, lungs))
    terms = {name: term.item() for name, term in network(batch, True, True).items()}
    inside = (slice(None), slice(None), slice(None), slice(3, None))

    def mean(values, which=slice(None)):
        return values[which][inside].mean().item()

    assert terms["reconstruction"] == pytest.approx(mean((x - normal - lesion).abs()), rel=1e-5)
    assert terms["fidelity"] == pytest.approx(mean((x - normal).abs(), [0, 2]), rel=1e-5)
    assert terms["no_lesion"] == pytest.approx(mean(lesion.abs(), [0, 2]), rel=1e-5)
    assert terms["no_negative"] == pytest.approx(mean((-lesion).clamp_min(0)), rel=1e-5)
    made, real = network.critic(normal), network.critic(x[[0, 2]])
    assert terms["critic"] == pytest.approx((made.mean() - real.mean()).item(), abs=1e-6)
    assert terms["adversarial"] == pytest.approx(-made.mean().item(), abs=1e-6)


def test_neither_side_moves_the_other(work):
    torch.manual_seed(0)
    network, batch = Adversaries(build(work.config.decomposition), Critic(2)), _batch()
    terms = network(batch, True, True)
    (terms["critic"] + terms["penalty"]).backward(retain_graph=True)
    assert all(p.grad is None for p in network.generator.parameters())
    network.zero_grad()
    names = ("reconstruction", "fidelity", "no_lesion", "no_negative", "adversarial")
    torch.stack([terms[name] for name in names]).sum().backward()
    assert all(p.grad is None for p in network.critic.parameters())
    assert all(p.grad.isfinite().all() for p in network.generator.parameters())


def test_an_odd_batch_is_refused(work):
    config = load_config(None, [*SETTINGS, "decomposition.loop.batch=3"])
    with pytest.raises(InputError, match=r"decomposition.loop.batch is even.*not 3"):
        DecompositionExperiment([], config, 4, work.output)


def test_a_killed_decomposition_goes_on_to_the_same_end(work):
    items = slices_of(work, work.output, 16)
    ends = {}
    for name in ("whole", "killed"):
        run = work.output / name

        def stop(done, name=name):
            if name == "killed" and done == 0.5:
                raise KeyboardInterrupt

        def go(progress, run=run):
            experiment = DecompositionExperiment(items, work.config, 4, run)
            train(experiment, run, work.config, make_fabric(work.config), progress)

        if name == "killed":
            with pytest.raises(KeyboardInterrupt):
                go(stop)
            assert 0 < read_checkpoint(run)["step"] < 4
        go(lambda _: None)
        ends[name] = read_checkpoint(run)
    groups = ends["whole"]["optimiser"]["param_groups"]
    assert [group["betas"] for group in groups] == [(0.9, 0.999), (0.0, 0.9)]
    for kind in ("network", "optimiser"):
        one, other = (_flat(ends[name][kind]) for name in ("whole", "killed"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    before = Adversaries(build(work.config.decomposition), Critic(2)).state_dict()
    assert before.keys() == ends["whole"]["network"].keys()


def _flat(values, prefix=""):
    if isinstance(values, torch.Tensor):
        return {prefix: values}
    found = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        found |= _flat(value, f"{prefix}/{key}")
    return found


def test_maps_of_every_epoch_are_kept_and_read_back(cases, work):
    items = find_slices(cases, work.config.slices, 16)
    keeper = MapKeeper(items, work.config.slices, work.output / "maps", batch=5)
    network = SliceClassifier(2, 3, attention=True).eval()
    shares = [keeper(network, torch.device("cpu"), step) for step in (3, 6, 9)]
    maps, right = keeper.load(6)
    ill = sum(item.diseased for item in items)
    assert maps.shape == (2, ill, 4, 4)
    assert right.shape == (2, ill)
    assert right[0].mean() == pytest.approx(shares[0])
    one = SlicePictures(keeper.ill, work.config.slices, 0, augment=False)[6]
    found, _ = classifier.cam(network, one["image"][None], one["lungs"][None])
    np.testing.assert_allclose(maps[0, 6], found[0, 0], atol=1e-3)
    (work.output / "maps" / "00000003.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="missing or damaged"):
        keeper.load(9)


@pytest.mark.parametrize(
    "name", ["gradcam", "decomposition", "attention_fusion", "attention_fusion_max"]
)
def test_a_method_is_trained_and_finds_something_on_a_scan(name, work, chest):
    method = get_method(name)
    folder = method.train(work)
    steps = {p.parent.name: read_checkpoint(p.parent)["step"]
             for p in work.output.rglob("checkpoint.pt")}  # fmt: skip
    parted = {"classifier": 3, "segmentation": 3}
    whole = {"gradcam": {"gradcam": 6}, "decomposition": {"segmentation": 6}}
    assert steps == whole.get(name, parted)
    outcome = method.load(folder)(*chest)
    assert tuple(outcome.predictions) == method.rows
    lungs = sitk.GetArrayFromImage(chest[1]) > 0
    for prediction in outcome.predictions.values():
        values = sitk.GetArrayFromImage(prediction.probability)
        assert 0 <= values.min() <= values.max() <= 1
        assert values[~lungs].max() == 0
    # a second call finds all of it done
    assert method.train(work) == folder


def test_weights_of_a_method_go_through_the_pipeline(work, chest, tmp_path):
    folder = get_method("decomposition").train(work)
    card = weights.read_card(folder, "segmentation")
    assert card.architecture["type"] == "DecompositionNetwork"
    assert card.config["method"] == "decomposition"
    assert "slices called diseased" in card.data[-1]
    assert weights.is_for_slices(card)
    pipeline = LesionPipeline("cpu", folder)
    stages = []
    result = pipeline.run(
        *chest, lobe_scheme="dram", progress=lambda stage, _: stages.append(stage)
    )
    assert "dRAM" not in stages
    assert result.report.parameters["dRAM"] == {
        "threshold": 0.2,
        "map": "that of decomposition, no dRAM",
    }
    values = geometry.array(result.dram)
    assert np.array_equal(values, geometry.array(result.lesion_probability))
    found = geometry.array(result.lesions) > 0
    assert np.array_equal(found, (values > 0.2) & (geometry.array(result.lobes) > 0))
    predicted = get_method("decomposition").load(folder)(*chest).predictions["Decomposition"]
    np.testing.assert_allclose(geometry.array(predicted.probability), values, atol=1e-4)
    names = {path.name for path in write_result(result, tmp_path / "out", maps=True)}
    assert {"dram.nii.gz", "lesions.nii.gz", "report.html"} <= names


def test_slices_and_masks_by_the_truth_of_phantoms(cases, work):
    data = work.output / "data"
    (data / "truth" / "lesions").mkdir(parents=True)
    for case in cases:
        lesions = np.asarray(case.load(LABELS)) == LESION
        image = geometry.image_like(lesions, grid_image(case.meta["grids"]["segmentation"]))
        write_image(image, data / "truth" / "lesions" / f"{case.name}.nii.gz")
    kept = [replace(case, validation=case.name == "case-2") for case in cases]
    words = [*SETTINGS, "slices.labels=truth_of_phantoms", "attention_fusion.labels=truth"]
    work = replace(work, data=(data,), cases=kept, config=load_config(None, words))
    items = slices_of(work, work.output / "x", 16)
    assert {item.case.name for item in items} == {"case-0", "case-1"}
    for item in items:
        assert item.diseased == bool((item.case.load(LABELS)[item.k] == LESION).any())
    folder = get_method("decomposition").train(work)
    run = folder.parent / "segmentation"
    found = [entry["average_precision"] for entry in logged(run, "validation")]
    assert len(found) == 3
    assert all(0 <= value <= 1 for value in found)
    # what is exported is the best step by the case that nothing was learnt from
    best = read_checkpoint(run / "best")["network"]
    exported, _ = weights.load_network(folder, "segmentation")
    assert all(torch.equal(exported.state_dict()[key], best[key]) for key in best)
    get_method("attention_fusion").train(work)
    assert not (work.output / "attention_fusion" / "classifier").exists()
    assert read_checkpoint(work.output / "attention_fusion" / "segmentation")["step"] == 6


def test_true_masks_are_for_slices_of_the_truth_alone(work):
    config = load_config(None, [*SETTINGS, "attention_fusion.labels=truth"])
    with pytest.raises(InputError, match=r"slices\.labels=truth_of_phantoms"):
        get_method("attention_fusion").train(replace(work, config=config))
