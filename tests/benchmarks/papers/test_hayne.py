"""The parts of the replication of Hayne et al. that can be checked by hand, and a quick run of all of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.papers import hayne, hayne_subjects
from benchmarks.papers.efficientnet import InvertedResidual, with_own_activations
from benchmarks.papers.hayne_claims import family_table, network_figures, over_networks
from benchmarks.papers.hayne_networks import small_alexnet, small_mobilenet
from benchmarks.papers.hayne_protocol import METHODS, LayerStudy, NetworkStudy
from benchmarks.papers.scale import Scale
from benchmarks.papers.superclasses import RANGES, joined_logits, members, superclass_of
from captum_ablate import list_layers


def test_superclasses_are_disjoint_and_hold_well_known_classes():
    sizes = {name: len(indices) for name, indices in members().items()}
    assert sizes == {"dog": 118, "bird": 59, "reptile": 36, "insect": 27, "food": 44, "artifact": 518}
    assert int((superclass_of() >= 0).sum()) == sum(sizes.values())
    names = list(RANGES)
    known = {207: "dog", 13: "bird", 51: "reptile", 301: "insect", 963: "food", 404: "artifact"}
    for index, name in known.items():  # golden retriever, junco, triceratops, ladybug, pizza, airliner
        assert names[superclass_of()[index]] == name
    for index in (269, 281, 958, 968, 980):  # timber wolf, tabby, hay, cup, volcano
        assert superclass_of()[index] == -1


def test_the_softmax_of_joined_logits_sums_the_softmax_of_the_classes():
    logits = torch.randn(5, 1000, dtype=torch.float64)
    joined = joined_logits(logits).softmax(1)
    for k, indices in enumerate(members().values()):
        torch.testing.assert_close(joined[:, k], logits.softmax(1)[:, indices].sum(1))
    torch.testing.assert_close(joined.sum(1), torch.ones(5, dtype=torch.float64))


class SharedBlock(nn.Module):
    """A block as the package has it: one ReLU6, called twice."""

    def __init__(self, before, after, expand):
        super().__init__()
        inner = before * (6 if expand else 1)
        if expand:
            self._expand_conv, self._bn0 = nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self._depthwise_conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner)
        self._project_conv, self._bn2 = nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after)
        self._swish = nn.ReLU6()
        self._block_args = SimpleNamespace(stride=[1], id_skip=True, input_filters=before, output_filters=after)

    def forward(self, x):
        y = self._swish(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = self._bn2(self._project_conv(self._swish(self._bn1(self._depthwise_conv(y)))))
        return y + x if x.shape == y.shape else y


@pytest.mark.parametrize(("before", "after", "expand"), [(4, 4, True), (4, 6, True), (4, 4, False)])
def test_a_block_with_its_own_activations_computes_the_same(before, after, expand):
    given = SharedBlock(before, after, expand).eval()
    for norm in (m for m in given.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()
    x = 3 * torch.randn(2, before, 5, 5)
    ours = InvertedResidual(given).eval()
    torch.testing.assert_close(ours(x), given(x), rtol=0, atol=0)
    assert (list_layers(ours, x)["calls"] == 1).all()


def test_the_pretrained_network_with_its_own_activations_computes_the_same():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    given = package.EfficientNet.from_name("efficientnet-lite0").eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(with_own_activations(given).eval()(x), given(x), rtol=0, atol=0)


@pytest.mark.parametrize(("make", "kind"), [(small_alexnet, "alexnet"), (small_mobilenet, "mobilenet")])
def test_the_further_networks_run_each_layer_once_and_repeat_by_seed(make, kind):
    network = make(seed=1).eval()
    x = torch.randn(2, 3, 32, 32)
    layers = list_layers(network, x).set_index("name")
    assert (layers["calls"] == 1).all()
    assert (layers.loc[list(hayne_subjects.LAYERS[kind]), "units"] >= 64).all()
    torch.testing.assert_close(network(x), make(seed=1).eval()(x))
    assert network(x).shape == (2, 10)


def invented(network, product, seed=0):
    """A network's study with one layer of 100 units: selectivity unrelated to the deficits, the probe weakly so."""
    random = np.random.default_rng(seed)
    s, a, noise = random.normal(size=(3, 80))
    margin = random.normal(size=100)
    units = pd.DataFrame({"unit": range(100), "margin": margin, "accuracy": margin, "preferred": margin})
    units = units.assign(first=margin, second=margin, selectivity=random.normal(size=100))
    units["probe"] = 0.3 * margin + random.normal(size=100)
    units["mean activity"] = units["selectivity x activity"] = random.normal(size=100)
    groups = pd.DataFrame({"selectivity": s, "mean_activity": a, "overall_activity": a, "n_units": 5})
    groups["excess"] = groups["deficit"] = product * s * a + 0.01 * noise
    groups = groups.assign(network=network, layer="one", **{"class": np.arange(80) % 4})
    area = random.normal(size=50)
    deletion = {name: area + (0.2 if name == "selectivity x activity" else 0) for name in METHODS}
    layer = LayerStudy(
        network, "f", "one", 100, 0, 10, 50, 0.9, units, groups, pd.DataFrame(), deletion, deletion, None
    )
    return NetworkStudy(network, "f", 0.9, (layer,), 1.0, 2.0)


def test_claims_follow_from_what_was_measured():
    found = [network_figures(invented(f"n{k}", 0.05, seed=k)) for k in range(4)]
    verdicts = {claim.id: claim.verdict for claim in over_networks(found)}
    assert verdicts["C0.1"] == "holds"
    assert verdicts["C0.2b"] == "holds"
    assert verdicts["C0.4"] == "holds"
    assert verdicts["C0.2c"] == "reported"
    assert all(one.layers[0].interaction_helps for one in found)
    mean, interval = found[0].curves
    assert mean == pytest.approx(0.2)
    np.testing.assert_allclose(interval, [0.2, 0.2], atol=1e-9)


def test_families_count_once_whatever_their_seeds():
    found = [network_figures(invented(f"n{k}", 0.05 * (1 + k), seed=k)) for k in range(3)]
    for one, family in zip(found, "ffg", strict=True):
        object.__setattr__(one.study, "family", family)
    row = family_table(found).set_index("figure").loc["C0.2b product"]
    first, second, third = (one.product[0] for one in found)
    assert row["f"] == f"{(first + second) / 2:.4f}"
    assert row["g"] == f"{third:.4f}"
    assert row["mean of 2"].startswith(f"{((first + second) / 2 + third) / 2:.4f} [")


def test_an_interaction_of_the_other_sign_fails_the_expected_one():
    found = [network_figures(invented(f"n{k}", -0.05, seed=k)) for k in range(3)]
    claim = next(claim for claim in over_networks(found) if claim.id == "C0.2b")
    assert claim.verdict == "fails"
    with pytest.raises(ValueError, match="claims over networks need at least 2 networks; got 1"):
        over_networks(found[:1])


def test_a_folder_that_is_not_imagenet_is_refused(tmp_path):
    pytest.importorskip("torchvision")
    (tmp_path / "n01").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "n01" / "a.png")
    with pytest.raises(ValueError, match=r"1,000 classes of ImageNet, .* it holds 1 folders"):
        hayne_subjects._folder_images(tmp_path, 2, 4)


@pytest.mark.slow
def test_a_quick_run_writes_its_page(data_folder, capsys):
    hayne.run(Scale.QUICK)
    page = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("wrote ")
    with open(page) as written:
        text = written.read()
    for claim in ("C0.1", "C0.2a", "C0.2b", "C0.3a", "C0.3b", "C0.4"):
        assert f"| {claim}: " in text
    assert "EfficientNet" not in text.split("## Claims")[0]  # what did not run is not among the data
