"""Use the user's model for one call: refuse training mode, then leave everything as it came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from captum_ablate.inputs.unchanged import modules_of, unchanged


def refuse_training_mode(*owners: Any) -> None:
    """Raise if a layer is in training mode that would make outputs random, or move its own statistics."""
    for owner in owners:
        for name, module in _named(owner):
            if module.training and _acts_differently_in_training(module):
                raise ValueError(
                    f"the model is in training mode: {type(module).__name__} {name!r} would make every forward pass "
                    "different or move its statistics; call model.eval() first"
                )


def _named(owner: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of an owner, with their names where it is a module."""
    if isinstance(owner, nn.Module):
        yield from owner.named_modules()
    else:
        yield from ((type(module).__name__, module) for module in modules_of([owner]))


@contextmanager
def borrowed(*owners: Any) -> Iterator[None]:
    """Use the user's model for one call: refuse training mode, then leave everything as it came.

    ``owners`` are the model, layers that it may not contain, and what the data come from, as in ``unchanged``. Another
    thread that wants to use the model waits meanwhile.
    """
    _refuse_default_device()
    with unchanged(*owners):
        refuse_training_mode(*owners)
        yield


def _refuse_default_device() -> None:
    """Raise if new tensors are made elsewhere than on the CPU, where results are kept."""
    device = torch.empty(0).device  # torch.get_default_device fails in torch 2.5 after set_default_device(None)
    if device.type != "cpu":
        raise ValueError(
            f"torch.set_default_device({str(device)!r}), or a block under torch.device, makes every new tensor there, "
            "also those in which results are kept on the CPU; call torch.set_default_device('cpu') first. The model "
            "may stay where it is: batches are moved to its device"
        )


def _acts_differently_in_training(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return True
    if isinstance(module, (nn.modules.dropout._DropoutNd, nn.RReLU)) or type(module).__name__ == "StochasticDepth":
        return getattr(module, "p", 1) != 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return bool(module.dropout)
    return isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats
