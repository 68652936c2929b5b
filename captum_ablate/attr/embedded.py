"""A model from its embedding on: what a path method can interpolate where the inputs are token ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import InternalInfluence, LayerConductance, LayerDeepLiftShap, LayerGradientShap, NoiseTunnel
from torch import Tensor, nn

from captum_ablate.attr.bound import Bound, of_model
from captum_ablate.attr.inner import inner, name_of
from captum_ablate.inputs.batch import Batch, leaves
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.threads import of_own_pass

INTERPOLATING = (LayerConductance, InternalInfluence, LayerGradientShap, LayerDeepLiftShap)
"""Attributions that make inputs of the model between a sample and its baseline."""


def refuse_ids(attribution: Any, batch: Batch) -> None:
    """Raise if a method would interpolate inputs that are token ids."""
    if not (isinstance(inner(attribution), INTERPOLATING) or isinstance(attribution, NoiseTunnel)):
        return
    for name, value in batch._replace(additional_forward_args=()).named():
        for leaf in leaves(value, len(batch.target)):
            if isinstance(leaf, Tensor) and _is_ids(leaf):
                raise ValueError(
                    f"{name_of(attribution)} interpolates the inputs of the model, and input {name!r} holds integers "
                    f"({leaf.dtype}), such as token ids, which have nothing between them; pass embedding=, the module "
                    "whose output is to be interpolated instead: functools.partial(unit_scores, attribution, "
                    "embedding='...'). Integers that are no ids go into additional_forward_args; numbers that are to "
                    "be interpolated must be floats"
                )


def embedded(found: Bound, embedding: nn.Module, baseline_ids: int | Tensor) -> tuple[Bound, Tensor]:
    """Return the attribution with the output of ``embedding`` for its one input, and the baseline ``[n, ...]`` of it.

    All inputs of the model go along as additional arguments, which Captum repeats and does not interpolate.
    """
    model = inner(found.attribution).forward_func
    own, baseline = (_embed(model, embedding, found.batch, ids) for ids in (None, baseline_ids))
    batch = found.batch._replace(inputs=(own,), additional_forward_args=found.batch.arguments)
    return found._replace(attribution=of_model(found.attribution, _Embedded(model, embedding)), batch=batch), baseline


class _Embedded(nn.Module):
    """The model with the output of its embedding as its first input, and its own inputs after it."""

    _embedding: nn.Module

    def __init__(self, forward_func: ForwardFunc, embedding: nn.Module) -> None:
        super().__init__()
        self.forward_func = forward_func  # a module becomes a part of this one, where Captum's hooks look for it
        self.__dict__["_embedding"] = embedding
        self.training = getattr(forward_func, "training", False)

    def forward(self, own: Tensor, *arguments: Any) -> Any:
        """Run the model on its arguments, with ``own`` in the place of what its embedding returns."""
        with _hooked(self._embedding, lambda _module, _args, _output: own):
            return self.forward_func(*arguments)


def _embed(model: ForwardFunc, embedding: nn.Module, batch: Batch, ids: int | Tensor | None) -> Tensor:
    """Return what the embedding returns for the batch, or for ``ids`` in the place of those that it receives."""
    seen: list[Any] = []
    name = layer_name(model, embedding).removeprefix("forward_func.")

    def put(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        return None if ids is None else _with_ids(ids, args, kwargs, name)

    before = embedding.register_forward_pre_hook(of_own_pass(put), with_kwargs=True)
    try:
        with torch.no_grad(), _hooked(embedding, lambda _module, _args, output: seen.append(output)):
            call(model, batch)
    finally:
        before.remove()
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or not seen[0].is_floating_point():
        what = f"runs {len(seen)} times" if len(seen) != 1 else f"returns {type(seen[0]).__name__}"
        raise ValueError(
            f"embedding {name!r} must run once in a forward pass and return a Tensor of floats, "
            f"[n, tokens, features]; it {what}"
        )
    return seen[0].detach().clone()


def _with_ids(
    given: int | Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of an embedding with other ids in the place of the first integers among them."""
    named: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    for key, value in named.items():
        if isinstance(value, Tensor) and _is_ids(value):
            ids = torch.as_tensor(given, device=value.device, dtype=value.dtype)
            try:
                named[key] = ids.expand(value.shape).clone()
            except RuntimeError as error:
                raise ValueError(
                    f"baseline_ids must be one id, or ids that broadcast to {tuple(value.shape)}; got "
                    f"{tuple(ids.shape)}"
                ) from error
            return tuple(named[k] for k in range(len(args))), {k: named[k] for k in kwargs}
    raise ValueError(f"embedding {name!r} receives no integers, so it embeds no token ids")


@contextmanager
def _hooked(embedding: nn.Module, hook: Any) -> Iterator[None]:
    """Hook the embedding before all hooks that are there, such as Captum's, so that these see what it returns."""
    handle = embedding.register_forward_hook(of_own_pass(hook), prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _is_ids(value: Tensor) -> bool:
    return not value.is_floating_point() and not value.is_complex() and value.dtype not in (torch.bool, torch.uint8)
