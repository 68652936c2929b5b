"""The fallback: a full forward pass with a hook on every site, for anything that cannot be replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_ablate.ablation.intercept import watching
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.stage import Path, PathFinder
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.statistics.activation_checks import check_calls

Replace = Callable[[Tensor], Tensor]


def full_forward(
    forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch, replace: Sequence[Replace] | None = None
) -> Any:
    """Return the model's outputs with ``replace[k](activation)`` in the place of site k's activation."""

    def new_output(number: int, output: Any) -> Any:
        part = sites[number].part(output)
        return output if replace is None else sites[number].with_part(output, replace[number](part))

    with ExitStack() as stack, torch.no_grad():
        runs = [stack.enter_context(site.hooked(partial(new_output, k))) for k, site in enumerate(sites)]
        outputs = call(forward_func, batch)
    for site, seen in zip(sites, runs, strict=True):
        check_calls(forward_func, site.layer, site.name, len(seen), lambda: call(forward_func, batch))
    return outputs


class Probe(NamedTuple):
    """An intact forward pass of ``batch``: the path of calls to the first site, and the ``outputs``.

    ``shapes`` are those of the sites' activations, ``order`` the sites' numbers in running order.
    """

    batch: Batch
    path: Path | None
    shapes: tuple[torch.Size, ...]
    order: tuple[int, ...]
    outputs: Any


def probe(forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch) -> Probe:
    """Run one intact forward pass; find the sites and the shapes of their activations."""
    finder, shapes = PathFinder(), dict[int, torch.Size]()

    def note(number: int, activation: Tensor) -> Tensor:
        if not shapes:
            finder.at_layer()
        shapes.setdefault(number, activation.shape)
        return activation

    with watching(finder):
        outputs = full_forward(forward_func, sites, batch, [partial(note, k) for k in range(len(sites))])
    return Probe(batch, finder.path, tuple(shapes[k] for k in range(len(sites))), tuple(shapes), outputs)
