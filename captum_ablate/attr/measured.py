"""Attributions that ablate: what the metric loses under the masks of a plan, credited to the units."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from captum_ablate.ablation import Engine, Measured, Plan, ReferenceOption, Site, fit_of, learn
from captum_ablate.ablation.metrics import Metric, as_metric
from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import layer_name
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.targets import classes_or_zeros
from captum_ablate.statistics.activations import output_shapes
from captum_ablate.statistics.chunks import Chunk
from captum_ablate.statistics.collect import LayerStatistics
from captum_ablate.statistics.moments import ClassMoments, Labels


class MeasuredAttribution(LayerDatasetAttribution):
    """The mean over samples of what a unit takes from the metric, by ablations that a subclass plans and credits."""

    source = "ablation"
    needs_two_classes = False

    reference: ReferenceOption = "zero"
    metric: str | Metric = "log_likelihood"

    def __post_init__(self) -> None:
        fit_of(self.reference, self.axis, seed=0)  # an unknown reference is refused here
        as_metric(self.metric)

    @property
    def needs_classes(self) -> bool:
        """Tell whether the metric is one of ours, which need a class per sample."""
        return not callable(self.metric)

    @abstractmethod
    def plan(self, units: int) -> Plan:
        """Return the masks that are measured."""

    @abstractmethod
    def losses(self, plan: Plan, measured: Measured) -> Tensor:
        """Return what each unit takes from the metric of each sample, ``[units, n]`` float64."""

    def score(self, deficits: ClassMoments) -> Tensor:
        return deficits.mean

    def score_per_class(self, deficits: ClassMoments) -> Tensor:
        return deficits.means

    def _collect(self, batches: Batches, *, at_input: bool, show_progress: bool) -> list[LayerStatistics]:
        batches.refuse_one_shot(f"{self.get_name()} looks at the layer first, then ablates")
        shapes = output_shapes(self.forward_func, self.layers, batches, self.axis, at_input=at_input)
        found = []
        for layer, parts in zip(self.layers, shapes, strict=True):
            name = layer_name(self.forward_func, layer)
            sites = {k: Site(layer, name, self.axis, at_input, k) for k in parts}
            deficits = [self._deficits(sites[k], shape, batches, show_progress) for k, shape in parts.items()]
            statistics = tuple((ClassMoments.of(one.values, one.labels),) for one in deficits)
            of_resample = partial(_of_resample, deficits) if isinstance(batches, ResampledBatches) else None
            found.append(LayerStatistics(tuple(parts.values()), statistics, of_resample))
        return found

    def _deficits(self, site: Site, shape: torch.Size, batches: Batches, show_progress: bool) -> Chunk:
        """Return what each unit takes from the metric of each sample, ``[n, units]``."""
        reference = learn(self.reference, self.forward_func, site, batches)
        plan = self.plan(self.axis.count(shape))
        with ticking(f"{self.get_name()} of {site.name}", show_progress, batches.samples) as tick:
            measured = Engine(self.forward_func, [site], [reference], as_metric(self.metric), plan, tick).run(batches)
        losses = self.losses(plan, measured).T.contiguous()  # [n, units]
        weights = batches.weights if isinstance(batches, ResampledBatches) else None
        return Chunk(losses, Labels.of(classes_or_zeros(measured.target)), [len(losses)], weights)


def _of_resample(deficits: Sequence[Chunk], number: int) -> tuple[tuple[ClassMoments], ...]:
    return tuple((ClassMoments.of(*one.resampled(number)),) for one in deficits)
