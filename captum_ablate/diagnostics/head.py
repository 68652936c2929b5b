"""What a network's last layer receives and gives: features, logits and labels of a data set."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batches import UnpackBatch, as_batches
from captum_ablate.inputs.model import Layer, as_model, find_layer, layer_name, refuse_training_mode
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.statistics.activations import layer_pass


class HeadTable(NamedTuple):
    """What the last layer receives, ``features [n, d]``, and gives, ``logits [n, classes]``, with ``target [n]``."""

    features: Tensor
    logits: Tensor
    target: Tensor


def head_table(
    forward_func: Any,
    head: Layer,
    data: Any,
    *,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> HeadTable:
    """Return what ``head``, the model's last linear layer (a module or its name), receives and gives for ``data``.

    ``data`` are as everywhere: ``(inputs, target)`` or an iterable of batches ``(*inputs, labels)``.
    """
    model = as_model(forward_func)
    layer = find_layer(model, head)
    name = layer_name(model, layer)
    if not isinstance(layer, nn.Linear):
        raise TypeError(
            "head must be the last linear layer, which turns features into logits; "
            f"{name!r} is a {type(layer).__name__}"
        )
    refuse_training_mode(model)
    batches = as_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    features, logits, target = [], [], []
    with unchanged(model, batches.owner):
        shown = with_progress(batches, f"features of {name}", show_progress)
        inputs = layer_pass(model, [layer], shown, _kept, at_input=True)
        for batch, ((received, *_),) in inputs:
            with torch.no_grad():
                given = layer(received)
            if received.ndim != 2 or len(received) != len(batch.target):
                raise ValueError(
                    f"the last layer {name!r} must receive one row of features per sample, [n, d]; "
                    f"got {tuple(received.shape)} for {len(batch.target)} samples"
                )
            features.append(received.cpu())
            logits.append(given.cpu())
            target.append(batch.target.cpu())
    return HeadTable(torch.cat(features), torch.cat(logits), torch.cat(target))


def last_linear(model: nn.Module) -> str:
    """Return the name of the model's last linear layer in the order of definition."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    if not names:
        raise ValueError(f"{type(model).__name__} has no linear layer, so no last one; it needs a linear classifier")
    return names[-1]


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()
