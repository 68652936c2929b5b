"""Every activation function is a module of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.papers.common import networks


@pytest.mark.parametrize("make", [networks.small_vgg, networks.small_resnet])
def test_convolutional_networks_never_share_an_activation(make) -> None:
    network = make(width=4).eval()
    calls: dict[nn.Module, int] = {}
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            assert not module.inplace
            module.register_forward_hook(lambda m, _i, _o: calls.update({m: calls.get(m, 0) + 1}))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert set(calls.values()) == {1}
    assert len(calls) == sum(isinstance(m, nn.ReLU) for m in network.modules())


def test_an_mlp_has_the_activation_that_was_asked_for() -> None:
    network = networks.mlp(12, hidden=(5, 4), activation="tanh")
    assert isinstance(network.act2, nn.Tanh)
    assert network(torch.zeros(3, 3, 2, 2)).shape == (3, 10)
    with pytest.raises(ValueError, match="relu, tanh, sigmoid; got 'gelu'"):
        networks.mlp(12, activation="gelu")
