"""Leave the user's model, and every random state, as they came."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

from captum_ablate.inputs.eager import run_eagerly, without_inference_tensors
from captum_ablate.inputs.layouts import dense_parts
from captum_ablate.inputs.threads import drawing, one_at_a_time


@contextmanager
def unchanged(*owners: Any) -> Iterator[None]:
    """Restore hooks, modes, attributes, buffers and gradients of every module of ``owners``, and all random states.

    An attribute gets back its value, and a list, dict, set, deque or tensor its content; what lies deeper (a list in a
    list) is not looked at.

    An owner is a module, a bound method of one, a function (it owns the modules that it closes over, or names as
    globals), or anything else (a data loader may own a random generator). Captum's methods leave hooks and attributes
    behind when the model raises inside them; this takes those back too.

    Meanwhile other threads wait that want to use the same modules, compiled modules run their Python code, and
    inference mode is left: neither hooks nor gradients would work.
    """
    modules = modules_of(owners)
    with ExitStack() as stack:
        stack.enter_context(one_at_a_time(modules))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.enter_context(_random_states(owners))
        for module in modules:
            stack.callback(_remember(module))
        run_eagerly(modules)
        without_inference_tensors(modules)
        yield


def modules_of(owners: Iterable[Any]) -> list[nn.Module]:
    """Return the modules of ``owners``, as ``unchanged`` explains, each before those inside it."""
    roots = [root for owner in owners for root in _roots(owner)]
    found = {id(m): m for root in roots for m in root.modules()}
    return list(found.values())


def _roots(owner: Any) -> list[nn.Module]:
    owner = getattr(owner, "__self__", owner)
    if isinstance(owner, nn.Module):
        return [owner]
    if isinstance(owner, partial):
        parts = [owner.func, *owner.args, *owner.keywords.values()]
        return [root for part in parts for root in _roots(part) if isinstance(part, (nn.Module, FunctionType))]
    if not isinstance(owner, FunctionType):
        return []
    held = [_content(cell) for cell in owner.__closure__ or ()]
    named = [owner.__globals__.get(name) for name in owner.__code__.co_names]
    return [value for value in (*held, *named) if isinstance(value, nn.Module)]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


class _RandomStates:
    """The process's random states: the first call that uses models finds them, the last one gives them back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: list[int] = []
        self.found: Any = None


_states = _RandomStates()


@contextmanager
def _random_states(owners: Iterable[Any]) -> Iterator[None]:
    samplers = [sampler for owner in owners for sampler in _with_samplers(owner)]
    generators = [g for s in samplers if isinstance(g := getattr(s, "generator", None), torch.Generator)]
    states = [g.get_state() for g in generators]
    me, found = threading.get_ident(), random_states()
    with _states.lock:
        if not _states.threads:
            _states.found = found
        _states.threads.append(me)
    try:
        yield
    finally:
        with _states.lock:
            _states.threads.remove(me)
            if not _states.threads:
                _give_back(_states.found)
            elif set(_states.threads) == {me}:
                _give_back(found)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def random_states() -> tuple[Any, ...]:
    """Return the random states of Python, NumPy and PyTorch."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda  # noqa: NPY002  the user's state


def _give_back(states: tuple[Any, ...]) -> None:
    python, legacy_numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(legacy_numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    for device, state in cuda:
        torch.cuda.set_rng_state(state, device)


@contextmanager
def draws_restored() -> Iterator[None]:
    """Restore the random states afterwards, also while other threads use models; none of them draws meanwhile."""
    with drawing:
        states = random_states()
        try:
            yield
        finally:
            _give_back(states)


def has_drawn(states: tuple[Any, ...]) -> bool:
    """Tell whether random numbers were drawn since ``random_states()`` returned ``states``."""
    return bool(_flat(states) != _flat(random_states()))


def _flat(states: tuple[Any, ...]) -> list[Any]:
    python, (kind, keys, *rest), cpu, cuda = states
    return [python, kind, keys.tobytes(), rest, cpu.numpy().tobytes(), [s.numpy().tobytes() for _, s in cuda]]


def _with_samplers(owner: Any) -> Iterator[Any]:
    """Yield a data loader and the samplers inside it."""
    yield owner
    for name in ("sampler", "batch_sampler"):
        inner = getattr(owner, name, None)
        if inner is not None:
            yield from _with_samplers(inner)


class _remember:
    """One module's own state: called, it writes that state back."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.attributes = dict(module.__dict__)
        containers = [v for v in module.__dict__.values() if isinstance(v, (dict, list, set, deque))]
        self.empty = [value for value in containers if not value]  # most are, and there are many
        self.containers = [(value, value.copy()) for value in containers if value]
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
        for value in self.empty:
            if value:
                value.clear()
        for value, copy in self.containers:
            _refill(value, copy)
        for tensor, saved in self.tensors:
            if not _same(tensor, saved):
                with torch.no_grad():
                    tensor.copy_(saved)
        for parameter, data, requires_grad, grad, saved_grad in self.parameters:
            if parameter.is_inference():  # a copy stood in its place
                continue
            if parameter.layout != torch.strided or parameter.data_ptr() != data.data_ptr():
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
    parts, old = dense_parts(now), dense_parts(saved)
    return [p.shape for p in parts] == [p.shape for p in old] and all(map(torch.equal, parts, old))
