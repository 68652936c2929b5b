"""Capture what a network computes, by ``make_fx`` on fake tensors, which have shapes and no numbers.

At each site a hook hands on a placeholder in the place of the activation. A capture is of the *tail* or *whole*. For a
tail the prefix runs as usual, unrecorded, on real numbers: so it may do anything, and takes little time. That is not
possible where the tail reads more of the prefix than the activation. Then the whole pass is captured, on fake tensors
throughout.

``make_fx`` and ``FakeTensorMode`` are imported in this file alone. The latter is not public: PyTorch has no public way
to make a fake tensor of a size that no real batch has.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from captum_ablate.ablation.graph import ROWS, CannotCapture, Graph, aten, attribute, free, name_of
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.tidy import compute_constants, forget_memory, functional, refuse
from captum_ablate.inputs.batch import Batch, has_rows
from captum_ablate.inputs.unchanged import modules_of

ON_FAKES = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError, ArithmeticError)
"""What a model raises where it reads numbers of a fake tensor, or expects another number of samples."""


_TENSOR = object()
"""Stands for a tensor among the leaves of outputs."""


class _QuickFake(FakeTensorMode):
    """Fake tensors with rules for convolution and for batch norm in evaluation mode.

    PyTorch's own are Python that takes most of a capture, and makes a fake of each weight.
    """

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.native_batch_norm.default and not args[5]:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        if func is aten.convolution.default and (size := _size_of_convolution(*args)):
            return args[0].new_empty(size)
        return super().dispatch(func, types, args, kwargs)


def _size_of_convolution(x: Tensor, weight: Tensor, _bias: Any, *settings: Any) -> list[int] | None:
    """Return the size of an ordinary convolution's result, or None."""
    *steps, is_transposed, _, groups = settings
    is_ordinary = x.ndim == weight.ndim > 2 and not is_transposed and x.shape[1] == groups * weight.shape[1]
    if not is_ordinary or {len(s) for s in steps} != {x.ndim - 2} or not (x.is_contiguous() and weight.is_contiguous()):
        return None
    places = zip(x.shape[2:], weight.shape[2:], *steps, strict=True)
    return [len(x), len(weight), *((n + 2 * pad - wide * (k - 1) - 1) // step + 1 for n, k, step, pad, wide in places)]


def capture(
    forward_func: Callable[..., Any], sites: Sequence[Site], activations: Sequence[Tensor], batch: Batch, *, whole: bool
) -> Graph:
    """Return the graph of a forward pass of ``batch`` with ``sites``, in running order.

    Of ``activations`` only shape, type and device count. A tail runs all before the first site on ``batch`` itself, so
    a few samples do. The caller gives back what the pass changes in the model.

    Raises:
        CannotCapture: if the model reads numbers or does what no graph repeats, or a tail reads what the prefix made.
    """
    for activation in activations:
        _refuse_type(activation, "an activation")
    mode, held = _QuickFake(allow_non_fake_inputs=True), tensors_of(forward_func)
    mode._allow_unsafe_data_ptr_access = False  # a model that reads memory must fail here, not end the process
    with mode:
        given = [torch.empty((ROWS, *a.shape[1:]), dtype=a.dtype, device=a.device) for a in activations]
        arguments = _Arguments(batch, fake=whole)
    one = _Pass(forward_func, sites, arguments, mode, whole)
    reason = ""
    try:
        with torch.no_grad(), capturing, _quiet():
            root = _traced(one.run, "real", [*given, *arguments.tensors])
    except (*ON_FAKES, CannotCapture) as error:
        kind = "" if isinstance(error, CannotCapture) else f"{type(error).__name__}: "
        reason = f"{kind}{error}".splitlines()[0]
        error.__traceback__ = None  # frames that refer to each other would hold the weights
    if reason:
        raise CannotCapture(reason)
    try:
        root = _tidied(root, None if whole else held)
    except CannotCapture:
        free([root])
        raise
    places = [node for node in root.graph.nodes if node.op == "placeholder"]
    k = len(sites)
    found = next(node for node in root.graph.nodes if node.op == "output").args[0]
    came = [found[j] if whole else found[j - 1] if j else None for j in range(k)]
    results = tuple(found[k if whole else k - 1 :])
    return Graph(root, tuple(places[:k]), tuple(places[k:]), tuple(came), results, one.rebuilt)


def _tidied(root: fx.GraphModule, held: set[int] | None) -> fx.GraphModule:
    """Return a captured graph that can be cut, or refuse it; ``held`` are the tensors that a tail may read."""
    root.graph.eliminate_dead_code()
    if held is not None:
        _refuse_prefix(root, held)
    compute_constants(root)
    root = functional(root, _traced_away)
    if any(n.op == "get_attr" and isinstance(attribute(root, n.target), FakeTensor) for n in root.graph.nodes):
        raise CannotCapture("a tensor of the pass was left elsewhere")
    forget_memory(root)
    refuse(root)
    compute_constants(root)
    return root


def _traced(run: Callable[..., Any], tracing_mode: Literal["real", "fake"], inputs: Sequence[Tensor]) -> fx.GraphModule:
    """Return the graph of ``run``. What the tracer holds of the weights is let go: it would live until garbage is."""
    roots: list[nn.Module] = []

    def noted(*tensors: Tensor) -> Any:
        mode = get_proxy_mode()
        assert mode is not None
        roots.append(mode.tracer.root)  # type: ignore[union-attr]  # make_fx has this tracer
        return run(*tensors)

    try:
        return make_fx(noted, tracing_mode=tracing_mode, _allow_non_fake_inputs=True)(*inputs)
    finally:
        free(roots)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from logging that an operator failed on fake tensors: that is how a tail is found to read more."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    log.addFilter(_nothing)
    try:
        yield
    finally:
        log.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


capturing = threading.RLock()
"""``make_fx`` patches modules for the time being, so captures take turns."""


class _Arguments:
    """The arguments of a model: with ``fake`` tensors in the place of its own, or copies of its own.

    ``tensors`` are the fake ones.
    """

    def __init__(self, batch: Batch, *, fake: bool) -> None:
        rows: set[int] = set()
        batch.mapped(lambda value: rows.add(id(value)) if has_rows(value, len(batch.target)) else None)
        self._leaves, self._spec = tree_flatten(batch.arguments)
        self._own = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        self._is_fake = fake
        self.tensors = [_fake(one, id(one) in rows) for one in self._own] if fake else []

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """Return the arguments with ``tensors`` in the place of their tensors, or with copies of these."""
        left = iter(tensors if self._is_fake else [one.clone() for one in self._own])
        return tree_unflatten([next(left) if isinstance(x, Tensor) else x for x in self._leaves], self._spec)


def _fake(tensor: Tensor, by_sample: bool) -> Tensor:
    _refuse_type(tensor, "an input")
    size = (ROWS, *tensor.shape[1:]) if by_sample else tuple(tensor.shape)
    return torch.empty(size, dtype=tensor.dtype, device=tensor.device)


def _refuse_type(tensor: Tensor, what: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or type(tensor) is not Tensor:
        raise CannotCapture(f"{what} is no plain tensor ({type(tensor).__name__}, {tensor.layout})")


class _Pass:
    """The forward pass that is captured: placeholders replace the activations, and outputs become a list."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        sites: Sequence[Site],
        arguments: _Arguments,
        mode: FakeTensorMode,
        whole: bool,
    ) -> None:
        self._forward_func, self._sites, self._arguments, self._mode = forward_func, sites, arguments, mode
        self._whole, self._thread = whole, threading.get_ident()
        self._spec: TreeSpec | None = None
        self._leaves: list[Any] = []

    def run(self, *tensors: Tensor) -> list[Tensor]:
        """Return what came to the sites (of a tail, all but the first), followed by the tensors of the outputs.

        ``tensors`` are the placeholders of the sites, followed by the inputs.
        """
        given, inputs = tensors[: len(self._sites)], tensors[len(self._sites) :]
        came: list[Tensor] = []

        def at(number: int, output: Any) -> Any:
            if number != len(came) or threading.get_ident() != self._thread:
                raise CannotCapture("the layers run in another order, more than once, or in another thread")
            came.append(self._sites[number].part(output))
            if number == 0 and not self._whole:
                prefix.close()
                fake.enter_context(self._mode)
            elif came[-1].shape != given[number].shape:
                raise CannotCapture("the shape of the activations does not follow the number of samples")
            return self._sites[number].with_part(output, given[number])

        with ExitStack() as fake, ExitStack() as stack, ExitStack() as prefix:
            for number, site in enumerate(self._sites):
                stack.enter_context(site.hooked(partial(at, number)))
            (fake if self._whole else prefix).enter_context(
                self._mode if self._whole else disable_proxy_modes_tracing()
            )
            outputs = class_outputs(self._forward_func(*self._arguments.filled(inputs)))
        if len(came) < len(self._sites):
            raise CannotCapture("the layer did not run")
        leaves, self._spec = tree_flatten(outputs)
        self._leaves = [_TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return [*came[not self._whole :], *(leaf for leaf in leaves if isinstance(leaf, Tensor))]

    def rebuilt(self, tensors: Sequence[Tensor]) -> Any:
        """Return the outputs whose tensors are ``tensors``."""
        assert self._spec is not None
        left = iter(tensors)
        return tree_unflatten([next(left) if leaf is _TENSOR else leaf for leaf in self._leaves], self._spec)


def tensors_of(forward_func: Any) -> set[int]:
    """Return the identities of the tensors that modules hold: weights, buffers and attributes."""
    held: set[int] = set()
    for module in modules_of([forward_func]):
        for value in (module._parameters, module._buffers, *module.__dict__.values()):
            if isinstance(value, Tensor) or (value and isinstance(value, (dict, list, tuple))):
                held |= {id(leaf) for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}
    return held


def _refuse_prefix(root: fx.GraphModule, held: set[int]) -> None:
    """Raise if the graph of a tail reads a tensor of the prefix, or an input: one that no module held."""
    for node in root.graph.nodes:
        lifted = all(name_of(user) in ("lift_fresh", "lift_fresh_copy") for user in node.users)  # torch.tensor(...)
        if node.op == "get_attr" and not lifted and id(attribute(root, node.target)) not in held:
            raise CannotCapture("what follows the layer reads what was made before it")


def _traced_away(root: fx.GraphModule) -> fx.GraphModule:
    """Trace a graph once more, with PyTorch's functionalisation."""
    before, fakes = root, [node.meta["val"] for node in root.graph.nodes if node.op == "placeholder"]
    root.recompile()
    pure = torch.func.functionalize(root, remove="mutations")
    try:
        with torch.no_grad(), capturing:
            root = _traced(pure, "fake", fakes)
    except RuntimeError as error:
        raise CannotCapture(f"writes in place: {error}".splitlines()[0]) from error
    finally:
        free([before])
    for node in reversed(list(root.graph.nodes)):  # each run has its own inputs
        if node.target is aten.copy_.default and node.args[0].op == "placeholder":
            node.replace_all_uses_with(node.args[1])
            root.graph.erase_node(node)
    root.graph.eliminate_dead_code()
    return root
