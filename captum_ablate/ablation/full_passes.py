"""Full forward passes of one model with its sites hooked: the fallback, and what all else is checked against."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.agreement import difference, equal
from captum_ablate.ablation.hook_loop import Probe, full_forward
from captum_ablate.ablation.metric_table import sample_rows
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.ready import ablating
from captum_ablate.ablation.recording import unablated
from captum_ablate.ablation.reference import Reference
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.statistics.activation_checks import check_activations


class FullPasses:
    """Run ``forward_func`` with the units of masks ablated; ``sites`` are in running order."""

    def __init__(self, forward_func: ForwardFunc, sites: Sequence[Site], references: Sequence[Reference]) -> None:
        self.forward_func, self.sites, self.references = forward_func, list(sites), list(references)

    @property
    def names(self) -> str:
        """Names of the layers, for messages."""
        return ", ".join(repr(site.label) for site in self.sites)

    def put_in_order(self, seen: Probe) -> Probe:
        """Sort the sites into the order in which they ran, and return the probe in that order."""
        order = tuple(range(len(self.sites)))
        if seen.order == order:
            return seen
        self.sites = [self.sites[k] for k in seen.order]
        self.references = [self.references[k] for k in seen.order]
        return seen._replace(order=order, shapes=tuple(seen.shapes[k] for k in seen.order))

    def intact(self, batch: Batch) -> Any:
        """Return the outputs of a pass that replaces nothing."""
        return full_forward(self.forward_func, self.sites, batch)

    def unablated(self, batch: Batch) -> Any:
        """Return the outputs of a hooked pass with no unit ablated."""
        return full_forward(self.forward_func, self.sites, batch, [partial(unablated, site) for site in self.sites])

    def ablated(self, batch: Batch, mask: Tensor, first: int) -> Any:
        """Return the outputs with the units of ``mask`` ablated; ``first`` is the position of sample 0."""
        replace = [
            ablating(site, mask, partial(reference, target=batch.target, first=first))
            for site, reference in zip(self.sites, self.references, strict=True)
        ]
        return full_forward(self.forward_func, self.sites, batch, replace)

    def check_repeats(self, intact: Any, again: Any) -> None:
        """Refuse the model if an intact pass differs from a hooked pass that ablates nothing."""
        if not equal(intact, again):
            raise ValueError(
                "the model does not repeat itself: two intact forward passes on the same batch differ (by "
                f"{difference(intact, again):.2g}), which cannot be told from an ablation. Possible causes are random "
                f"layers, state kept between calls, or code that needs the very tensor that {self.names} returned"
            )

    def check_finite(self, batch: Batch, number: int, table: Tensor) -> None:
        """Raise if a metric in ``table [1 + masks, n]`` is not finite; name the unit if its activation is the cause."""
        if bool(torch.isfinite(table).all()):
            return

        def check(site: Site, activation: Tensor) -> Tensor:
            check_activations(site.axis.pool(activation, batch.position_mask), len(batch.target), site.name, number)
            return activation

        full_forward(self.forward_func, self.sites, batch, [partial(check, site) for site in self.sites])
        raise ValueError(
            f"the metric is NaN or infinite for some samples with units of {self.names} ablated; "
            "check the model's outputs, the metric and the reference"
        )

    def is_right(self, batch: Batch, plan: Plan, number: int, first: int, found: Any, few: slice) -> bool:
        """Check the outputs ``found`` for a mask against a full forward pass.

        A few samples are enough, unless the network mixes samples: then the whole batch is compared.
        """
        mask = plan.mask(number, batch.target.device)
        try:
            if equal(self.ablated(batch.take(few), mask, first), sample_rows(found, few, len(batch.target))):
                return True
        except Exception:  # for example a model made for one batch size
            pass
        return equal(self.ablated(batch, mask, first), found)
