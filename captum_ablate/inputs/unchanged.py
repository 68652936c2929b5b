"""Leave the user's model, and every random state, as they came."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def unchanged(*owners: Any) -> Iterator[None]:
    """Give back hooks, modes, attributes, buffers and gradients of every module of ``owners``, and all random states.

    An attribute gets its value back; a list, dict, set, deque or tensor its content, but not what lies deeper, such as
    a list in a list.

    An owner is a module, a bound method of one, or anything else: a plain function owns no module, a data loader may
    own a random generator. Captum's methods leave hooks and attributes on a model that raises inside them; these go
    too.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_states(owners))
        for module in _modules(owners):
            stack.callback(_remember(module))
        yield


def _modules(owners: Iterable[Any]) -> list[nn.Module]:
    roots = (getattr(owner, "__self__", owner) for owner in owners)
    found = {id(m): m for root in roots if isinstance(root, nn.Module) for m in root.modules()}
    return list(found.values())


@contextmanager
def _random_states(owners: Iterable[Any]) -> Iterator[None]:
    samplers = [sampler for owner in owners for sampler in _with_samplers(owner)]
    generators = [g for s in samplers if isinstance(g := getattr(s, "generator", None), torch.Generator)]
    states = [g.get_state() for g in generators]
    python, legacy_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the user's state, not ours
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy_numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _with_samplers(owner: Any) -> Iterator[Any]:
    """Yield a data loader and the samplers inside it."""
    yield owner
    for name in ("sampler", "batch_sampler"):
        inner = getattr(owner, name, None)
        if inner is not None:
            yield from _with_samplers(inner)


class _remember:
    """Remember one module's own state; write it back when called."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attributes = dict(module.__dict__)
        self.containers = {
            name: (value, value.copy())
            for name, value in module.__dict__.items()
            if isinstance(value, (dict, list, set, deque))
        }
        tensors = [*module._buffers.values(), *module.__dict__.values()]
        self.tensors = [(t, t.detach().clone()) for t in tensors if isinstance(t, torch.Tensor)]
        self.parameters = [
            (p, p.detach(), p.requires_grad, p.grad, None if p.grad is None else p.grad.detach().clone())
            for p in module._parameters.values()
            if p is not None
        ]

    def __call__(self) -> None:
        own = self.module.__dict__
        for name in own.keys() - self.attributes.keys():
            del own[name]
        own.update(self.attributes)
        for value, copy in self.containers.values():
            _refill(value, copy)
        for tensor, saved in self.tensors:
            if not _same(tensor, saved):
                with torch.no_grad():
                    tensor.copy_(saved)
        for parameter, data, requires_grad, grad, saved_grad in self.parameters:
            if parameter.data_ptr() != data.data_ptr():
                parameter.data = data
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
            if grad is not None and saved_grad is not None and not _same(grad, saved_grad):
                grad.detach().copy_(saved_grad)


def _refill(container: Any, copy: Any) -> None:
    """Put the old content back into the same container: hook handles and users hold on to the object."""
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(copy)
    else:
        container.update(copy)


def _same(now: torch.Tensor, saved: torch.Tensor) -> bool:
    return now.shape == saved.shape and bool(torch.equal(now, saved))
