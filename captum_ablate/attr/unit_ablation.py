"""What the network loses when a unit alone is ablated: measured, not estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.ablation import Engine, Plan, ReferenceOption, Site, fit_of, learn
from captum_ablate.ablation.metrics import Metric, as_metric
from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import layer_name
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.targets import classes_or_zeros
from captum_ablate.statistics.activations import output_shapes
from captum_ablate.statistics.collect import LayerStatistics
from captum_ablate.statistics.moments import ClassMoments


class LayerUnitAblation(LayerDatasetAttribution):
    r"""Deficit if the unit alone is ablated: the mean over samples of :math:`v_i - v_{i \setminus u}`.

    ``per_class`` returns the mean over the samples of each class, ``[classes, units]``. Captum's
    ``LayerFeatureAblation`` with a mask of channels measures the same for ``metric="logit"``, at one full forward pass
    per unit.

    Args:
        reference: what replaces the unit: "zero", "mean", "resample", a Tensor, or ``f(activation, target)``. "mean"
            and "resample" learn from the same data, in a pass of their own.
        metric: :math:`v_i`, higher is better: "log_likelihood" (in nats; it moves where accuracy does not), "accuracy",
            "logit", "margin", or ``f(outputs, target) -> [n]``, which takes any target ``[n, ...]``.

    Raises:
        ValueError: if the reference or the metric is unknown, or the data can be iterated only once.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerUnitAblation
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
        >>> LayerUnitAblation(model, "0", metric="logit").attribute(x, target=[0, 0, 1, 1]).tolist()
        [1.5, 1.0]
    """

    source = "ablation"
    needs_two_classes = False

    reference: ReferenceOption = "zero"
    metric: str | Metric = "log_likelihood"

    def __post_init__(self) -> None:
        fit_of(self.reference, self.axis, seed=0)  # an unknown reference is refused here
        as_metric(self.metric)

    @property
    def needs_classes(self) -> bool:
        """Whether the metric is one of ours, which need a class per sample."""
        return not callable(self.metric)

    def score(self, deficits: ClassMoments) -> Tensor:
        return deficits.mean

    def score_per_class(self, deficits: ClassMoments) -> Tensor:
        return deficits.means

    def _collect(self, batches: Batches, *, at_input: bool, show_progress: bool) -> list[LayerStatistics]:
        batches.refuse_one_shot("unit ablation looks at the layer first, then ablates")
        shapes = output_shapes(self.forward_func, self.layers, batches, at_input=at_input)
        found = []
        for layer, parts in zip(self.layers, shapes, strict=True):
            name = layer_name(self.forward_func, layer)
            sites = {k: Site(layer, name, self.axis, at_input, k) for k in parts}
            deficits = [self._deficits(sites[k], shape, batches, show_progress) for k, shape in parts.items()]
            found.append(LayerStatistics(tuple(parts.values()), tuple((one,) for one in deficits)))
        return found

    def _deficits(self, site: Site, shape: torch.Size, batches: Batches, show_progress: bool) -> ClassMoments:
        reference = learn(self.reference, self.forward_func, site, batches)
        plan = Plan.singles(self.axis.count(shape))
        engine = Engine(self.forward_func, [site], [reference], as_metric(self.metric), plan)
        measured = engine.run(with_progress(batches, self.get_name(), show_progress))
        deficits = (measured.intact - measured.values).to(torch.float64)  # [units, n]
        return ClassMoments.of(deficits.T.contiguous(), classes_or_zeros(measured.target))
