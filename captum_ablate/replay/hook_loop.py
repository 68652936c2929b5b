"""The plain way: a full forward pass with a hook on the layer, for anything that cannot be replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_ablate.activations import check_calls
from captum_ablate.data import Batch, call
from captum_ablate.layers import ForwardFunc
from captum_ablate.replay.intercept import watching
from captum_ablate.replay.site import Site
from captum_ablate.replay.stage import Path, PathFinder


def full_forward(
    forward_func: ForwardFunc, site: Site, batch: Batch, replace: Callable[[Tensor], Tensor] | None = None
) -> Any:
    """Return the model's outputs, ``replace(activation)`` in the place of the layer's activation."""

    def new_output(output: Any) -> Any:
        part = site.part(output)
        return output if replace is None else site.with_part(output, replace(part))

    with site.hooked(new_output) as runs, torch.no_grad():
        outputs = call(forward_func, batch)
    check_calls(forward_func, site.layer, site.name, len(runs), lambda: call(forward_func, batch))
    return outputs


class Probe(NamedTuple):
    """An intact forward pass of ``batch``: the path of calls to the layer, the shape that it gave, the outputs."""

    batch: Batch
    path: Path | None
    shape: torch.Size
    outputs: Any


def probe(forward_func: ForwardFunc, site: Site, batch: Batch) -> Probe:
    """Run one intact forward pass and see where the layer is called, and what it gives."""
    finder, shapes = PathFinder(), list[torch.Size]()

    def note(activation: Tensor) -> Tensor:
        finder.at_layer()
        shapes.append(activation.shape)
        return activation

    with watching(finder):
        outputs = full_forward(forward_func, site, batch, note)
    return Probe(batch, finder.path, shapes[0], outputs)
