"""The plain way: a full forward pass with a hook on the layer, for anything that cannot be replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def find_path(forward_func: ForwardFunc, site: Site, batch: Batch) -> tuple[Path | None, Any]:
    """Run one intact forward pass and return the path of calls to the layer, and the outputs."""
    finder = PathFinder()

    def note(activation: Tensor) -> Tensor:
        finder.at_layer()
        return activation

    with watching(finder):
        outputs = full_forward(forward_func, site, batch, note)
    return finder.path, outputs
