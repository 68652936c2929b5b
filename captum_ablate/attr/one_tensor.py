"""Let Captum attribute to one tensor of a layer with several, or to what a layer receives by keyword."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation import Site
from captum_ablate.attr.inner import changed
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.threads import of_own_pass


def captum_sees(forward_func: ForwardFunc, layer: nn.Module, batch: Batch, tensors: int, *, at_input: bool) -> bool:
    """Tell whether Captum's own hooks see these ``tensors`` of the layer and nothing else, in one forward pass.

    They see a Tensor, or a tuple of nothing but tensors, and no keyword arguments.
    """
    seen: list[Any] = []

    def note(_module: nn.Module, received: Any, output: Any = None) -> None:
        seen.append(received if at_input else output)

    own = of_own_pass(note)
    handle = layer.register_forward_pre_hook(own) if at_input else layer.register_forward_hook(own)
    try:
        with torch.no_grad():
            call(forward_func, batch)
    finally:
        handle.remove()
    parts = seen[0] if isinstance(seen[0], (tuple, list)) else (seen[0],)
    return len(parts) == tensors and all(isinstance(part, Tensor) for part in parts)


@contextmanager
def on_one_tensor(attribution: Any, site: Site) -> Iterator[Any]:
    """Yield a copy of ``attribution`` whose layer is an ``nn.Identity`` that the tensor of ``site`` passes through."""
    identity = nn.Identity()
    alone = changed(attribution, layer=identity)
    with site.hooked(lambda given: site.with_part(given, identity(site.part(given)))):
        yield alone
