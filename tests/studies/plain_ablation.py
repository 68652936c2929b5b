"""Ablation the plain way: a hook and a full forward pass."""

from __future__ import annotations

import torch


def plain_accuracy(network, layer, x, y, units):
    """Accuracy of each sample with ``units`` of ``layer`` at zero, by a hook and a full forward pass."""

    def ablate(_module, _args, output):
        output = output.clone()
        output[:, units] = 0
        return output

    handle = network.get_submodule(layer).register_forward_hook(ablate)
    with torch.no_grad():
        right = (network(x).argmax(1) == y).double()
    handle.remove()
    return right
