"""Capture what a network computes as one ``fx.Graph`` without in-place operators, and cut pieces out of it.

``make_fx`` runs the model once on fake tensors, which have shapes and no numbers. At each site a hook hands on a
placeholder in the place of the activation. So the graph computes ``(*sites, *inputs) -> (*activations, *results)``:
``sites`` are the values after an ablation, ``activations`` what came to each site. All else is a cut: which values are
given, which are asked for (``piece``).

A capture is of the *tail* or *whole*. In a tail nothing before the first site is recorded, which halves the time; its
graph has no first activation. It is not possible where the tail reads what the prefix made (``ReadsPrefix``).

Fake batches have ``ROWS`` samples, a prime that is no size of a network. Whatever size or argument is a multiple of it
counts samples. So one capture serves every batch size and every number of stacked masks (``resized``).

``make_fx`` and ``FakeTensorMode`` are imported in this file alone. The latter is not public: PyTorch has no public way
to make a fake tensor of a size that no real batch has.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch, has_rows

aten = torch.ops.aten
ROWS = 10007
"""Samples of a fake batch."""
VIEWS = (aten.view.default, aten._unsafe_view.default, aten.view_copy.default)
ON_FAKES = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError, ArithmeticError)
"""What a model raises where it reads numbers of a fake tensor, or expects another number of samples."""


_TENSOR = object()
"""Stands for a tensor among the leaves of outputs."""


class CannotCapture(Exception):
    """The network has no graph, or one that cannot serve. The message is the reason."""


class ReadsPrefix(CannotCapture):
    """What follows the sites reads more of the prefix than their activations."""


@dataclass(frozen=True)
class Graph:
    """One capture: its ``nodes``, and which of them are what; ``root`` holds the constants.

    ``sites`` and ``inputs`` are placeholders, an input for each tensor among the model's arguments. ``activations[k]``
    is what comes to site k before an ablation; it is None for the first site of a tail. ``results`` are the tensors of
    the outputs; ``rebuilt(tensors)`` makes the outputs of them. ``node.meta["val"]`` is a node's fake value.
    """

    root: fx.GraphModule
    sites: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    activations: tuple[fx.Node | None, ...]
    results: tuple[fx.Node, ...]
    rebuilt: Callable[[Sequence[Tensor]], Any]

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes, in running order."""
        return list(self.root.graph.nodes)

    @property
    def is_tail(self) -> bool:
        """Tell whether nothing before the first site was recorded."""
        return self.activations[0] is None


class _QuickFake(FakeTensorMode):
    """Fake tensors with a rule for batch norm in evaluation mode, whose own is Python that takes most of a capture."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.native_batch_norm.default and not args[5]:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        return super().dispatch(func, types, args, kwargs)


def capture(
    forward_func: Callable[..., Any], sites: Sequence[Site], activations: Sequence[Tensor], batch: Batch, *, whole: bool
) -> Graph:
    """Return the graph of a forward pass of ``batch`` with ``sites``, in running order.

    Of ``activations`` only shape, type and device count. The caller gives back what the pass changes in the model.

    Raises:
        CannotCapture: if the model reads numbers, or does what no graph repeats.
        ReadsPrefix: if ``whole`` is False and the tail reads what the prefix made.
    """
    _refuse_activations(activations)
    with _QuickFake(allow_non_fake_inputs=True) as mode:
        given = [torch.empty((ROWS, *a.shape[1:]), dtype=a.dtype, device=a.device) for a in activations]
        arguments = _Arguments(mode, batch)
    one = _Pass(forward_func, sites, arguments, whole)
    run = torch.func.functionalize(one.run, remove="mutations")
    try:
        with torch.no_grad():
            root = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(*given, *arguments.fakes)
    except ON_FAKES as error:
        raise CannotCapture(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    _drop_writes_to_inputs(root)
    root.graph.eliminate_dead_code()
    _refuse(root, whole)
    _forget_memory(root)
    _compute_constants(root)
    places = [node for node in root.graph.nodes if node.op == "placeholder"]
    k = len(sites)
    found = next(node for node in root.graph.nodes if node.op == "output").args[0]
    came = [found[j] if whole else found[j - 1] if j else None for j in range(k)]
    results = tuple(found[k if whole else k - 1 :])
    return Graph(root, tuple(places[:k]), tuple(places[k:]), tuple(came), results, one.rebuilt)


class _Arguments:
    """The arguments of a model with fake tensors in the place of its tensors, and the way back."""

    def __init__(self, mode: FakeTensorMode, batch: Batch) -> None:
        rows: set[int] = set()
        batch.mapped(lambda value: rows.add(id(value)) if has_rows(value, len(batch.target)) else None)
        leaves, self._spec = tree_flatten(batch.arguments)
        self._leaves = leaves
        self.fakes = [_fake(mode, leaf, id(leaf) in rows) for leaf in leaves if isinstance(leaf, Tensor)]

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """Return the arguments with ``tensors`` in the place of their tensors."""
        left = iter(tensors)
        return tree_unflatten([next(left) if isinstance(x, Tensor) else x for x in self._leaves], self._spec)


def _fake(mode: FakeTensorMode, tensor: Tensor, by_sample: bool) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or type(tensor) is not Tensor:
        raise CannotCapture(f"an input is no plain tensor ({type(tensor).__name__}, {tensor.layout})")
    size = (ROWS, *tensor.shape[1:]) if by_sample else tuple(tensor.shape)
    return torch.empty(size, dtype=tensor.dtype, device=tensor.device)


class _Pass:
    """The forward pass that is captured: placeholders replace the activations, and outputs become a list."""

    def __init__(
        self, forward_func: Callable[..., Any], sites: Sequence[Site], arguments: _Arguments, whole: bool
    ) -> None:
        self._forward_func, self._sites, self._arguments, self._whole = forward_func, sites, arguments, whole
        self._spec: TreeSpec | None = None
        self._leaves: list[Any] = []

    def run(self, *tensors: Tensor) -> list[Tensor]:
        """Return what came to the sites (of a tail, all but the first), followed by the tensors of the outputs.

        ``tensors`` are the placeholders of the sites, followed by the inputs.
        """
        given, inputs = tensors[: len(self._sites)], tensors[len(self._sites) :]
        came: list[Tensor] = []

        def at(number: int, output: Any) -> Any:
            if number != len(came):
                raise CannotCapture("the layers run in another order, or more than once")
            if number == 0:
                prefix.close()
            came.append(self._sites[number].part(output))
            if came[-1].shape != given[number].shape:
                raise CannotCapture("the shape of the activations does not follow the number of samples")
            return self._sites[number].with_part(output, given[number])

        with ExitStack() as stack, ExitStack() as prefix:
            for number, site in enumerate(self._sites):
                stack.enter_context(site.hooked(partial(at, number)))
            if not self._whole:
                prefix.enter_context(disable_proxy_modes_tracing())
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


def _refuse_activations(activations: Sequence[Tensor]) -> None:
    for activation in activations:
        if activation.layout != torch.strided or activation.is_quantized or type(activation) is not Tensor:
            raise CannotCapture("the activation is no plain tensor")


def _drop_writes_to_inputs(root: fx.GraphModule) -> None:
    """Take out the copies back into placeholders: each run has its own."""
    for node in reversed(list(root.graph.nodes)):
        if node.target is aten.copy_.default and node.args[0].op == "placeholder":
            node.replace_all_uses_with(node.args[1])
            root.graph.erase_node(node)


def _refuse(root: fx.GraphModule, whole: bool) -> None:
    """Raise unless a graph repeats what the model does."""
    for node in root.graph.nodes:
        if node.op == "get_attr" and isinstance(attribute(root, node.target), FakeTensor):
            raise CannotCapture("a tensor of the pass was left elsewhere") if whole else ReadsPrefix(node.name)
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace not in ("aten", "prims"):
            raise CannotCapture(f"{node.target} is not an operator of PyTorch")
        if node.target._schema.is_mutable:
            raise CannotCapture(f"{node.target} writes to what the model keeps")
        if torch.Tag.nondeterministic_seeded in node.target.tags and argument(node, "dropout_p", 1.0) != 0:
            raise CannotCapture(f"{node.target} is random")


def _forget_memory(root: fx.GraphModule) -> None:
    """Make operators independent of how values lie in memory: at run time they may lie otherwise."""
    for node in root.graph.nodes:
        if node.target in VIEWS:  # a value in another memory format cannot be viewed, but can be reshaped
            node.target = aten.reshape.default
        elif node.target is aten.as_strided.default:
            source, new = node.args[0].meta["val"], node.meta["val"]
            axes = zip(new.shape, source.stride(), new.stride(), strict=False)
            if source.shape != new.shape or any(size > 1 and a != b for size, a, b in axes) or new.storage_offset():
                raise CannotCapture("as_strided reads memory as it lies")
            node.replace_all_uses_with(node.args[0])
    root.graph.eliminate_dead_code()


def _compute_constants(root: fx.GraphModule) -> None:
    """Put the value of every operator that no input reaches (the transpose of a weight, say) in its place."""
    known: dict[fx.Node, Any] = {}
    for node in list(root.graph.nodes):
        if node.op == "get_attr":
            known[node] = attribute(root, node.target)
        elif node.op == "call_function" and all(a in known for a in node.all_input_nodes):
            if resized(node.args, 1) != node.args:
                continue  # made for each sample
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            with torch.no_grad():
                known[node] = value = node.target(*args, **kwargs)
            if isinstance(value, Tensor):
                root.register_buffer(f"constant_{node.name}", value)
                with root.graph.inserting_before(node):
                    new = root.graph.get_attr(f"constant_{node.name}")
                new.meta, known[new] = node.meta, value
                node.replace_all_uses_with(new)
    root.graph.eliminate_dead_code()


def name_of(node: fx.Node) -> str:
    """Return an operator's name without its overload: "convolution", "getitem"; "" if the node is none."""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[1]
    return "getitem" if node.target is operator.getitem else ""


def argument(node: fx.Node, name: str, default: Any = None) -> Any:
    """Return an argument by its name in the operator's schema, given or by the schema's default."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for place, known in enumerate(node.target._schema.arguments):
        if known.name == name:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(name, known.default_value)
            return default if given is None else given
    return default


def resized(arguments: Any, rows: int) -> Any:
    """Return arguments of an operator, or a shape, with ``rows`` samples in the place of ``ROWS``."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)([resized(a, rows) for a in arguments])
    is_size = isinstance(arguments, int) and not isinstance(arguments, bool) and arguments % ROWS == 0
    return arguments // ROWS * rows if is_size else arguments


def attribute(root: nn.Module, path: str) -> Any:
    """Return an attribute of an attribute: ``"a.b"`` is ``root.a.b``."""
    found: Any = root
    for name in path.split("."):
        found = getattr(found, name)
    return found


def reached_by(start: Collection[fx.Node], nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Return ``start`` and every node that reads it, however indirectly."""
    reached = set(start)
    for node in nodes:
        if any(a in reached for a in node.all_input_nodes):
            reached.add(node)
    return reached


def needed(results: Any, given: Collection[fx.Node] = ()) -> set[fx.Node]:
    """Return the nodes that must run, or be given, for ``results``."""
    found: set[fx.Node] = set()
    stack: list[fx.Node] = []
    fx.node.map_arg(results, stack.append)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [] if node in given else node.all_input_nodes
    return found


def piece(
    root: nn.Module, nodes: Sequence[fx.Node], given: Sequence[fx.Node], results: Any, rows: int
) -> fx.GraphModule:
    """Return the graph of ``(*given) -> results`` for so many samples: whatever of ``nodes`` lies between them."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    inside = needed(results, given)
    for node in given:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = node.meta
    for node in nodes:
        if node in inside and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].args = resized(copies[node].args, rows)
            copies[node].kwargs = {k: resized(v, rows) for k, v in copies[node].kwargs.items()}
    graph.output(fx.node.map_arg(results, copies.__getitem__))
    return fx.GraphModule(root, graph)


def shape_of(node: fx.Node, rows: int = 1) -> torch.Size:
    """Return the shape of a node's value (of several values, the first) for so many samples."""
    return torch.Size(resized(tuple(first_value(node).shape), rows))


def samples_first(node: fx.Node) -> bool:
    """Tell whether samples lie along the first axis of a node's value, and no other."""
    return [size % ROWS == 0 for size in first_value(node).shape] == [k == 0 for k in range(first_value(node).ndim)]


def first_value(node: fx.Node) -> Tensor:
    """Return a node's fake value; of several values, the first."""
    value = node.meta["val"]
    return value if isinstance(value, Tensor) else value[0]
