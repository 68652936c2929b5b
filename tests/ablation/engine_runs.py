"""One engine on one network, and the full forward passes with a hook that it must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation import BatchOutputs, Chain, Engine, Plan, Site, plain_reference
from captum_ablate.ablation.metrics import as_metric
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.units import UnitAxis

Reference = Tensor | Callable[[Tensor, Tensor], Tensor]


def nested(units: int) -> Plan:
    """Return chains that end with all units ablated, with all but one, and with an order that leaves one unit out."""
    order, most = torch.randperm(units), torch.randperm(units)[:-1]
    all_but_one = tuple(range(1, units))
    chains = [Chain(order, (*all_but_one, units)), Chain(order.flip(0), all_but_one), Chain(most, all_but_one)]
    return Plan.of(chains, units)


def all_outputs(outputs: Tensor, _target: Tensor) -> Tensor:
    """Return a metric that every output changes."""
    return (outputs.flatten(1) * torch.linspace(0.5, 1.5, outputs[0].numel()).to(outputs)).sum(1)


class Run:
    """An engine with one site at ``layer``, and its oracle; ``reference`` replaces the units."""

    def __init__(
        self, model: nn.Module, layer: str, x: Tensor, reference: Reference | None = None, *, unit_dim: int = 1
    ) -> None:
        self.model, self.unit_dim, self.x = model, unit_dim, x
        self.layer, self.reference = model.get_submodule(layer), torch.zeros(()) if reference is None else reference
        seen: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda _m, _a, out: seen.append(out))
        with torch.no_grad():
            model(x)
        handle.remove()
        self.units = seen[0].shape[unit_dim]
        self.site = Site(self.layer, layer, UnitAxis(unit_dim), units=slice(0, self.units))
        self.plan = nested(self.units)

    def engine(self, metric: Any = all_outputs) -> Engine:
        return Engine(self.model, [self.site], [plain_reference(self.reference)], as_metric(metric), self.plan)

    def batches(self, sizes: Sequence[int] = ()) -> list[Batch]:
        parts = self.x.split(list(sizes) or [len(self.x)])
        return [Batch((part,), torch.arange(len(part)) % 2) for part in parts]

    def by_hook(self, batch: Batch, mask: Tensor) -> Tensor:
        """Return the outputs of a full pass with the units of ``mask`` ablated, ``[units]`` or ``[n, units]``."""
        rows = mask if mask.ndim == 2 else mask[None]

        def ablate(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
            shape = [rows.shape[0], *([1] * (out.ndim - 1))]
            shape[self.unit_dim % out.ndim] = self.units
            given = self.reference
            value = given if isinstance(given, Tensor) else given(out.clone(), batch.target)
            return torch.where(rows.reshape(shape), value, out)

        handle = self.layer.register_forward_hook(ablate)
        try:
            with torch.no_grad():
                return self.model(*(part.clone() for part in batch.inputs))
        finally:
            handle.remove()

    def check(self, sizes: Sequence[int] = (), *, exact: bool = False) -> str:
        """Compare every mask of every batch with full passes, and return the engine's description."""
        engine, batches = self.engine(), self.batches(sizes)
        found = engine.run(batches).values
        for number in range(len(self.plan)):
            mask = self.plan.mask(number, torch.device("cpu"))
            expected = torch.cat([all_outputs(self.by_hook(batch, mask), batch.target) for batch in batches])
            assert_close(found[number], expected, exact=exact)
        return engine.description

    def outputs(self) -> BatchOutputs:
        """Return the outputs of one batch under any mask."""
        [batch] = self.batches()
        return self.engine().outputs_of(batch)


def assert_close(found: Tensor, expected: Tensor, *, exact: bool) -> None:
    """Compare to the bit, or to 1e-5 of the largest."""
    if exact:
        assert torch.equal(found, expected), float((found - expected).abs().max())
        return
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max())))
