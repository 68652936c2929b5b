"""Networks whose every activation is a module of its own compute the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.papers.hayne import subjects
from benchmarks.papers.hayne.efficientnet import InvertedResidual, with_own_activations
from benchmarks.papers.hayne.networks import small_alexnet, small_mobilenet
from captum_ablate import list_layers


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
    assert (layers.loc[list(subjects.LAYERS[kind]), "units"] >= 64).all()
    torch.testing.assert_close(network(x), make(seed=1).eval()(x))
    assert network(x).shape == (2, 10)
