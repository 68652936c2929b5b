"""The attributions that a command compares by name: ours, Captum's and a random ranking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from captum import attr as captum
from torch import Tensor, nn

from captum_ablate.ablation import ReferenceOption
from captum_ablate.ablation.metrics import Metric
from captum_ablate.attr.activity import LayerMeanActivity
from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.attr.information import LayerEntropy, LayerKLSelectivity, LayerMutualInformation
from captum_ablate.attr.per_sample import unit_scores
from captum_ablate.attr.probe import LayerLinearProbe
from captum_ablate.attr.selectivity import LayerClassSelectivity, LayerSelectivityActivity
from captum_ablate.attr.shapley import LayerShapleyValue
from captum_ablate.attr.taylor import LayerTaylor
from captum_ablate.attr.unit_ablation import LayerUnitAblation
from captum_ablate.attr.weight_norm import LayerActivationNorm, LayerWeightNorm
from captum_ablate.statistics.moments import ClassMoments

NO_PASS, ONE_PASS = "weights only", "one pass"
GRADIENTS, PATH = "one pass, gradients", "50 passes, gradients"
FEW_PATH = "5 to 20 passes, gradients"
EACH_UNIT, WHOLE, PERMUTATIONS = "one short pass a unit", "one pass a unit", "200 short passes a unit"
"""Cost classes, from cheap to dear. A pass is over the ranking data; a short one runs from the layer on only."""


@dataclass(frozen=True)
class Target:
    """What a method is made for: a layer of a model, and the evaluation that its ranking is for.

    ``baselines`` is a distribution of inputs, for the methods that need one: a tensor or a tuple of them, some rows of
    the ranking data.
    """

    model: nn.Module
    layer: nn.Module
    unit_dim: int | None = 1
    reference: ReferenceOption = "zero"
    metric: str | Metric = "accuracy"
    baselines: Any = None
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """A method of the catalogue: its name, what it scores, its cost class and source, and how to make it.

    ``is_default`` puts it among those that a command compares if none is named.
    """

    name: str
    what: str
    cost: str
    source: str
    make: Callable[[Target], Any]
    is_default: bool = True


class _LayerRandom(LayerDatasetAttribution):
    """A random ranking: what every method should beat."""

    needs_two_classes = False
    seed: int = 0

    def score(self, moments: ClassMoments) -> Tensor:
        return torch.rand(len(moments.mean), generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)


def find(name: str) -> Entry:
    """Return the method of this name; dashes and underscores count as spaces, capitals do not matter.

    Raises:
        ValueError: if there is none; the text has the nearest names.

    Example:
        >>> from captum_ablate.attr.catalogue import find
        >>> find("mutual-information").cost
        'one pass'
    """
    wanted = _plain(name)
    names = {_plain(entry.name): entry for entry in CATALOGUE}
    if wanted in names:
        return names[wanted]
    near = get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(names[one].name for one in near)}" if near else f"there are {', '.join(names)}"
    raise ValueError(f"there is no method {name!r}; {hint}")


def _plain(name: str) -> str:
    return " ".join(name.replace("-", " ").replace("_", " ").lower().split())


def _ours(cls: type[LayerDatasetAttribution]) -> Callable[[Target], Any]:
    return lambda at: cls(at.model, at.layer, unit_dim=at.unit_dim)


def _unit_ablation(at: Target) -> LayerUnitAblation:
    """Return unit ablation by the evaluator's metric; for accuracy, by log-likelihood, which one unit moves."""
    metric = "log_likelihood" if at.metric == "accuracy" else at.metric
    return LayerUnitAblation(at.model, at.layer, unit_dim=at.unit_dim, reference=at.reference, metric=metric)


def _shapley(at: Target) -> LayerShapleyValue:
    options: dict[str, Any] = {"reference": at.reference, "metric": at.metric, "seed": at.seed}
    return LayerShapleyValue(at.model, at.layer, unit_dim=at.unit_dim, **options)


def _random(at: Target) -> _LayerRandom:
    return _LayerRandom(at.model, at.layer, unit_dim=at.unit_dim, seed=at.seed)


def _captum(cls: Any) -> Callable[[Target], Any]:
    return lambda at: cls(at.model, at.layer)


def _with_baselines(cls: Any) -> Callable[[Target], Any]:
    return lambda at: partial(unit_scores, cls(at.model, at.layer), baselines=at.baselines)


CATALOGUE = (
    Entry("mean activity", "mean activation", ONE_PASS, "Hayne et al. 2022", _ours(LayerMeanActivity)),
    Entry(
        "class selectivity", "contrast of the best class", ONE_PASS, "Morcos et al. 2018", _ours(LayerClassSelectivity)
    ),
    Entry(
        "selectivity x activity",
        "both, multiplied",
        ONE_PASS,
        "after Hayne et al. 2022",
        _ours(LayerSelectivityActivity),
    ),
    Entry("entropy", "entropy of the quantised unit", ONE_PASS, "Amjad et al. 2022", _ours(LayerEntropy)),
    Entry("mutual information", "bits about the class", ONE_PASS, "Amjad et al. 2022", _ours(LayerMutualInformation)),
    Entry("KL selectivity", "bits about the best class", ONE_PASS, "Amjad et al. 2022", _ours(LayerKLSelectivity)),
    Entry("linear probe", "weight in a linear probe", ONE_PASS, "after Hayne et al. 2022", _ours(LayerLinearProbe)),
    Entry("weight norm", "norm of outgoing weights", NO_PASS, "after Li et al. 2017", _ours(LayerWeightNorm)),
    Entry("activation norm", "activation x weight norm", ONE_PASS, "after Sun et al. 2023", _ours(LayerActivationNorm)),
    Entry("Taylor", "first-order loss if ablated", GRADIENTS, "Molchanov et al. 2019", _ours(LayerTaylor)),
    Entry("unit ablation", "measured loss if ablated", EACH_UNIT, "this package", _unit_ablation),
    Entry("Shapley value", "that loss, over random orders", PERMUTATIONS, "Ghorbani and Zou 2020", _shapley, False),
    Entry("activation", "mean activation", ONE_PASS, "Captum", _captum(captum.LayerActivation), False),
    Entry(
        "gradient x activation",
        "first-order logit if ablated",
        GRADIENTS,
        "Captum",
        _captum(captum.LayerGradientXActivation),
    ),
    Entry("conductance", "flow of the path integral", PATH, "Captum; Dhamdhere 2018", _captum(captum.LayerConductance)),
    Entry(
        "internal influence",
        "mean gradient on the path",
        PATH,
        "Captum; Leino et al. 2018",
        _captum(captum.InternalInfluence),
    ),
    Entry(
        "integrated gradients",
        "path integral at the layer",
        PATH,
        "Captum; Sundararajan 2017",
        _captum(captum.LayerIntegratedGradients),
    ),
    Entry("DeepLift", "difference from a baseline", GRADIENTS, "Captum; Shrikumar 2017", _captum(captum.LayerDeepLift)),
    Entry(
        "DeepLiftSHAP",
        "DeepLift, mean over baselines",
        FEW_PATH,
        "Captum; Lundberg 2017",
        _with_baselines(captum.LayerDeepLiftShap),
        False,
    ),
    Entry(
        "GradientSHAP",
        "gradient at random points",
        FEW_PATH,
        "Captum; Lundberg 2017",
        _with_baselines(captum.LayerGradientShap),
    ),
    Entry("LRP", "relevance propagated back", GRADIENTS, "Captum; Bach et al. 2015", _captum(captum.LayerLRP), False),
    Entry("feature ablation", "logit lost if set to 0", WHOLE, "Captum", _captum(captum.LayerFeatureAblation), False),
    Entry("random ranking", "what all others should beat", NO_PASS, "this package", _random),
)
"""In the order of reading, as in ``captum_ablate.attr``; then Captum's."""
