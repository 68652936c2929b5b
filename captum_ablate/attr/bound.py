"""The model as a function of its per-sample tensors alone: all else that it takes is bound to it.

Captum repeats every tensor among a model's arguments (once a step, or once a perturbation), interpolates every input,
and does not look into containers. So what is shared by all samples must not reach it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from captum.attr import Attribution
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from captum_ablate.attr.inner import inner, name_of
from captum_ablate.inputs.batch import Batch, has_rows
from captum_ablate.inputs.model import as_model


class Bound(NamedTuple):
    """An attribution of the bound model, its ``batch``, and the ``inputs`` of the model that are left, by number."""

    attribution: Any
    batch: Batch
    inputs: tuple[int, ...]


class BoundModel(nn.Module):
    """Call ``forward_func`` with ``rows`` at their ``places`` among the leaves of all arguments."""

    def __init__(
        self, forward_func: Callable[..., Any], leaves: Sequence[Any], spec: TreeSpec, places: Sequence[int]
    ) -> None:
        super().__init__()
        self.forward_func = forward_func  # a module becomes a part of this one, where Captum's hooks look for it
        self._leaves, self._spec, self._places = list(leaves), spec, list(places)
        self.training = getattr(forward_func, "training", False)

    def forward(self, *rows: Tensor) -> Any:
        """Return the model's outputs."""
        leaves = list(self._leaves)
        for place, own in zip(self._places, rows, strict=True):
            leaves[place] = own
        inputs, extra = tree_unflatten(leaves, self._spec)
        return self.forward_func(*inputs, *extra)


def bound(attribution: Any, batch: Batch) -> Bound:
    """Return the attribution with all that is not per sample bound to its model; as it is if nothing is.

    The batch holds what Captum may repeat: the tensors with a row for each sample, of the inputs and of the
    additional arguments, out of their containers. Additional arguments that are no tensors stay where they are.

    Raises:
        ValueError: if no input has a tensor with a row for each sample, or the attribution hides its model.
    """
    n = len(batch.target)
    everything = tuple(range(len(batch.inputs)))
    if not batch.shared and all(
        has_rows(value, n) if isinstance(value, Tensor) and value.ndim else not _may_hold_tensors(value)
        for value in batch.arguments
    ):
        return Bound(attribution, batch, everything)
    why = batch.why_whole()
    if why is not None:
        raise ValueError(f"Captum's attributions take tensors with one row per sample: {why}")
    marked = batch.mapped(lambda value: _Row(value) if isinstance(value, Tensor) and has_rows(value, n) else value)
    k = len(batch.inputs)
    leaves, spec = tree_flatten((marked[:k], marked[k:]))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, _Row)]
    own = sum(isinstance(leaf, _Row) for leaf in tree_flatten(marked[:k])[0])
    if not own:
        raise ValueError("Captum's attributions need an input that is a tensor with one row per sample; all are shared")
    rows = tuple(leaves[place].tensor for place in places)
    fixed = [None if isinstance(leaf, _Row) else leaf for leaf in leaves]
    model = BoundModel(as_model(inner(attribution).forward_func), fixed, spec, places)
    left = tuple(number for number, value in enumerate(marked[:k]) if isinstance(value, _Row))
    return Bound(of_model(attribution, model), Batch(rows[:own], batch.target, rows[own:]), left)


def left_of(values: Any, found: Bound, inputs: int) -> Any:
    """Return those of ``values``, one for each of so many inputs (such as baselines), whose inputs are left."""
    if not isinstance(values, tuple) or len(values) != inputs or len(found.inputs) == inputs:
        return values
    own = tuple(values[number] for number in found.inputs)
    return own[0] if len(own) == 1 else own


class _Row:
    """A tensor with a row for each sample, marked, so that containers around it can be taken apart."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _may_hold_tensors(value: Any) -> bool:
    return (isinstance(value, Tensor) and value.ndim > 0) or (isinstance(value, (dict, list, tuple)) and len(value) > 0)


def of_model(attribution: Any, model: Any) -> Any:
    """Return a copy of the attribution, and of those inside it, for ``model``, which calls ``model.forward_func``."""
    old = (inner(attribution).forward_func, model.forward_func)
    own = copy.copy(attribution)
    for name, value in list(vars(own).items()):
        if any(value is one for one in old):
            own.__dict__.pop(name, None)
            setattr(own, name, model)
        elif isinstance(value, Attribution):
            setattr(own, name, of_model(value, model) if hasattr(inner(value), "forward_func") else value)
    if inner(own).forward_func is not model:
        raise ValueError(
            f"{name_of(attribution)} keeps its model out of reach, so arguments that samples share cannot be "
            "bound to it; wrap the model in one that holds them"
        )
    return own
