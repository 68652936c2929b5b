"""A small network captured as a graph, for the tests of the passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from captum_ablate.ablation.capture import capture
from captum_ablate.ablation.graph import Graph, piece
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.units import UnitAxis


@dataclass
class Captured:
    """The graph of a network with one site, and one batch of it."""

    graph: Graph
    activation: Tensor
    owner: Tensor
    x: Tensor

    @classmethod
    def of(cls, model: nn.Module, layer: str, x: Tensor, axis: UnitAxis) -> Captured:
        found: list[Tensor] = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, out: found.append(out.clone()))
        with torch.no_grad():
            model(x)
        handle.remove()
        [activation] = found
        owner = axis.spread(torch.arange(axis.count(activation.shape))[None], activation.shape)
        batch = Batch((x,), torch.zeros(len(x), dtype=torch.int64))
        sites = [Site(model.get_submodule(layer), layer, axis)]
        return cls(capture(model, sites, [activation], batch, whole=True), activation, owner, x)

    @property
    def start(self) -> fx.Node:
        return self.graph.sites[0]

    @property
    def result(self) -> fx.Node:
        return self.graph.results[0]

    @property
    def units(self) -> int:
        return int(self.owner.max()) + 1

    def replaced(self, reference: Tensor) -> Tensor:
        """Return the site's value with all units ablated."""
        return torch.empty_like(self.activation).copy_(reference.expand_as(self.activation))

    def ablated(self, mask: Tensor, replaced: Tensor) -> Tensor:
        """Return the site's value under ``mask [units]`` or ``[n, units]``."""
        rows = mask if mask.ndim == 2 else mask[None]
        return torch.where(rows[:, self.owner[0]], replaced, self.activation)

    def values(self, results: Sequence[fx.Node], site: Tensor) -> tuple[Tensor, ...]:
        """Return the values of nodes by all operators of the graph if the site's is ``site``."""
        graph = self.graph
        whole = piece(graph.root, graph.nodes, [*graph.sites, *graph.inputs], tuple(results), len(self.x))
        with torch.set_grad_enabled(site.requires_grad):
            return whole(site, self.x)  # type: ignore[no-any-return]


class Net(nn.Module):
    """A convolution, the layer ``site``, and ``tail(net, activation, prefix)``; with weights that tails may use."""

    def __init__(self, tail: Callable[[Net, Tensor, Tensor], Tensor], channels: int = 8) -> None:
        super().__init__()
        self.stem, self.site, self.tail = nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), tail
        self.norm, self.depthwise = nn.BatchNorm2d(channels), nn.Conv2d(channels, 2 * channels, 3, 1, 1, 1, channels)
        self.conv, self.conv2 = (
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.prelu, self.linear = nn.PReLU(channels), nn.Linear(channels, channels)
        for norm in (self.norm,):
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.tail(self, self.site(h), h)


def built(tail: Callable[[Net, Tensor, Tensor], Tensor]) -> Net:
    torch.manual_seed(0)
    return Net(tail).eval()
