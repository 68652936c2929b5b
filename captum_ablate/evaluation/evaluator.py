"""Score an attribution by ablating units in its order: the deficit curve, on data that did not make the ranking."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import captum
import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.ablation import (
    Chain,
    Engine,
    Measured,
    Plan,
    Probe,
    ReferenceOption,
    Site,
    fit_of,
    locate,
    plain_reference,
    reference_name,
)
from captum_ablate.ablation.metrics import Metric, as_metric, metric_name
from captum_ablate.ablation.steps import checked_steps, counts_of
from captum_ablate.evaluation.assembly import comparison_of, curves_of
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.curve import DeficitCurve, Frozen, deficit_areas
from captum_ablate.evaluation.estimate import Estimate, extrapolated
from captum_ablate.evaluation.per_layer import by_layer, one_per_layer
from captum_ablate.evaluation.precision import Precision
from captum_ablate.evaluation.ranking import Ranker
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches, check_classes
from captum_ablate.inputs.model import (
    ForwardFunc,
    Layer,
    as_model,
    find_layer,
    layer_name,
    refuse_training_mode,
)
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.sampling import RandomOrder
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.confidence_sequence import Sampled


class CumulativeAblationEvaluator:
    r"""Ablates the units of a layer in the order of a ranking and scores the ranking by its deficit curve.

    Implements the idea of information-ordered cumulative ablation (Amjad, Liu and Geiger, IEEE TNNLS 2022,
    arXiv 1804.06679) for any attribution. With :math:`v_{ik}` the metric of sample i at step k and :math:`f_k` the
    fraction of units ablated, :math:`D_i = v_{i0} - \sum_k (f_{k+1} - f_k)(v_{ik} + v_{i,k+1}) / 2`; ``deletion`` is
    the mean :math:`D_i` of the descending order, ``insertion`` minus that of the ascending order, and ``gap`` their sum
    (symmetric relevance gain), the headline: with zero reference the reverse of a good order also beats random orders,
    so deletion alone flatters.

    Args:
        forward_func: an ``nn.Module`` is replayed from the layer on; any other function runs whole each time.
        layer: the module whose units are ablated, or its dotted name. Of a tuple output, the first tensor. A list of
            layers is ranked and ablated together: scores are one tensor per layer, units count on from layer to layer;
            ``reference``, ``unit_dim`` and ``layer_mask`` may be lists with one value for each layer.
        reference: what stands in an ablated unit's place: "zero"; "mean" (one number per unit, or per group of
            ``layer_mask``, over samples and positions of the ranking data); "resample" (the activation of one other
            ranking sample); a Tensor that broadcasts to one sample's output; or ``f(activation [n, ...], target [n])``,
            of the activation's shape.
        metric: "accuracy", "log_likelihood" (nats), "logit", "margin", or ``f(outputs, target) -> [n]``, higher is
            better.
        steps: a number of evenly spaced counts, a sequence of counts, or None for one unit at a time.
        ascending: whether to run the reverse order too, which ``insertion`` and ``gap`` need.
        n_random: random orders to hold every ranking against.
        unit_dim: axis of the units, as in the attributions.
        layer_mask: groups of units, as in the attributions.
        seed: of random orders, ties and donors.
        batch_size: how many samples to run at a time where data are tensors.
        unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
        show_progress: show a progress bar over forward passes.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        *,
        reference: ReferenceOption | Sequence[ReferenceOption] = "zero",
        metric: str | Metric = "accuracy",
        steps: int | Sequence[int] | None = 20,
        ascending: bool = True,
        n_random: int = 20,
        unit_dim: int | Sequence[int | None] | None = 1,
        layer_mask: Tensor | Sequence[Tensor | None] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        show_progress: bool = False,
    ) -> None:
        self.forward_func = as_model(forward_func)
        self.layers = _found_layers(self.forward_func, layer)
        self.layer = self.layers[0] if not isinstance(layer, (list, tuple)) else self.layers
        k = len(self.layers)
        unit_dims, masks = one_per_layer(unit_dim, k, "unit_dim"), one_per_layer(layer_mask, k, "layer_mask")
        self.axes = [UnitAxis.of(d, m) for d, m in zip(unit_dims, masks, strict=True)]
        self.axis, self.references = self.axes[0], one_per_layer(reference, k, "reference")
        for one, axis in zip(self.references, self.axes, strict=True):
            fit_of(one, axis, seed)  # an unknown reference is refused here
        self.reference, self.metric, self._metric = reference, metric, as_metric(metric)
        self.steps = checked_steps(steps)
        if isinstance(n_random, bool) or not isinstance(n_random, int) or n_random < 0:
            raise ValueError(f"n_random must be an int of at least 0; got {n_random!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an int of at least 0; got {seed!r}")
        self.ascending, self.n_random, self.seed = ascending, n_random, seed
        self.batch_size, self.unpack_batch, self.show_progress = batch_size, unpack_batch, show_progress

    def evaluate(
        self, attribution: Any, data: Any, *, ranking_data: Any = None, precision: float | None = None
    ) -> DeficitCurve:
        """Return the deficit curve of one attribution, or of ``scores [units]``; ``compare`` says more."""
        name = _name_of(attribution)
        return self.compare({name: attribution}, data, ranking_data=ranking_data, precision=precision)[name]

    def compare(
        self,
        attributions: Mapping[str, Any],
        data: Any,
        *,
        ranking_data: Any = None,
        precision: float | None = None,
    ) -> Comparison:
        """Return the deficit curves of several attributions on the same data, as a leaderboard.

        Args:
            attributions: by name: a Captum layer attribution, one of ours, ``functools.partial(unit_scores, ...)``, or
                a Tensor ``[units]``. One that fails is reported as not applicable, with its reason; the others go on.
            data: what to evaluate on, ``(inputs, target)`` or a re-iterable of batches ``(*inputs, labels)``.
            ranking_data: what to rank on (and to take the mean or donors from). Without it the ranking is made on
                ``data`` itself, and the result says in-sample.
            precision: a half-width, such as 0.02: images are drawn from ``data`` in random order until the deletion
                area of each method is known to it, at 95 % for all methods together, and all intervals are confidence
                sequences. For metrics with bounds, and data whose images have positions (not a plain iterable).
        """
        _check_names(attributions)
        wanted = None if precision is None else Precision.of(precision, self.metric, lambda: self._draw(data))
        batches = self._batches(data)
        batches.refuse_one_shot("the evaluator looks at the layer first, then ablates")
        ranking_batches = batches if ranking_data is None else self._batches(ranking_data)
        layer_owner = () if isinstance(self.forward_func, nn.Module) else tuple(self.layers)
        with unchanged(self.forward_func, *layer_owner, batches.owner, ranking_batches.owner):
            refuse_training_mode(self.forward_func, *layer_owner)
            located = locate(self.forward_func, self.layers, self.axes, batches)
            sites, seen, units = located.sites, located.seen, list(located.units_by_layer.values())
            scores, failed, references, in_sample = self._rank(attributions, ranking_batches, units)
            in_sample &= _is_same(ranking_data, data)
            plan = self._plan(scores, sum(units))
            if wanted is None:
                with ticking(f"ablating {self._name}", self.show_progress, batches.images) as tick:
                    engine = Engine(self.forward_func, sites, references, self._metric, plan, tick)
                    measured = engine.run(batches, seen)
            else:
                measured = self._measure(wanted, sites, references, plan, len(scores), seen)
        check_classes(torch.unique(measured.target))
        sampled = None if wanted is None else wanted.sampled(len(scores))
        provenance = self._provenance(plan, measured, units, in_sample, sampled)
        return comparison_of(scores, failed, plan, measured, provenance, sampled)

    def _draw(self, data: Any) -> RandomOrder:
        return RandomOrder.of(
            data,
            forward_func=self.forward_func,
            batch_size=self.batch_size,
            unpack_batch=self.unpack_batch,
            seed=self.seed,
        )

    def _measure(
        self, wanted: Precision, sites: list[Site], references: list[Any], plan: Plan, methods: int, seen: Probe
    ) -> Measured:
        """Return the metric of as many images as the wanted precision needs."""
        own = [wanted.by_place(r) if o == "resample" else r for r, o in zip(references, self.references, strict=True)]
        engine = Engine(self.forward_func, sites, own, self._metric, plan)
        fraction = torch.tensor([0, *plan.chains[0].counts], dtype=torch.float64) / plan.units
        step = 2 if self.ascending else 1

        def areas(measured: Measured) -> list[Tensor]:
            return [deficit_areas(c, fraction) for c in curves_of(plan, measured)[: step * methods : step]]

        return wanted.measure(engine, areas, f"ablating {self._name}", self.show_progress, seen)

    def estimate(self, attributions: Mapping[str, Any], data: Any, *, ranking_data: Any = None) -> Estimate:
        """Return what ``compare`` with these arguments will cost, in seconds and memory, from one batch of each data.

        The data are walked through once where they do not tell their length.
        """
        _check_names(attributions)
        batches = self._batches(data)
        batches.refuse_one_shot("the estimate looks at one batch, the evaluation then at all")
        ranking_batches = batches if ranking_data is None else self._batches(ranking_data)
        layer_owner = () if isinstance(self.forward_func, nn.Module) else tuple(self.layers)
        with unchanged(self.forward_func, *layer_owner, batches.owner, ranking_batches.owner):
            refuse_training_mode(self.forward_func, *layer_owner)
            one, one_ranking = next(iter(batches)), next(iter(ranking_batches))
            located = locate(self.forward_func, self.layers, self.axes, batches)
            sites, seen, units = located.sites, located.seen, list(located.units_by_layer.values())
            start = time.perf_counter()
            scores, _, references, uses_data = self._rank(attributions, self._batches([one_ranking]), units)
            ranking = (time.perf_counter() - start) * (_length(ranking_batches) if uses_data else 1)
            plan = self._plan(scores, sum(units))

            def run(masks: int) -> None:
                Engine(self.forward_func, sites, references, self._metric, plan.cut(masks)).run([one], seen)

            seconds, peak = extrapolated(run, len(plan), _length(batches))
        return Estimate(ranking + seconds, ranking, peak, _length(batches), len(plan))

    def _batches(self, data: Any) -> Batches:
        return as_batches(
            data, forward_func=self.forward_func, batch_size=self.batch_size, unpack_batch=self.unpack_batch
        )

    @property
    def _names(self) -> list[str]:
        return [layer_name(self.forward_func, layer) for layer in self.layers]

    @property
    def _name(self) -> str:
        return " + ".join(self._names)

    def _rank(
        self, attributions: Mapping[str, Any], batches: Batches, units: Sequence[int]
    ) -> tuple[dict[str, Tensor], dict[str, str], list[Any], bool]:
        """Return the scores by method, the reasons of those that failed, the references, and whether data were used."""
        failed: dict[str, str] = {}
        parts: dict[str, list[Tensor]] = {name: [] for name in attributions}
        references, uses_data = [], False
        for k, methods in enumerate(self._by_layer(attributions, units, failed)):
            ranker = Ranker(self.forward_func, self.layers[k], self.axes[k], methods, self.seed)
            fit = fit_of(self.references[k], self.axes[k], self.seed)
            uses_data |= ranker.needs_data or fit is not None
            if k > 0 and (ranker.needs_data or fit is not None):
                batches.refuse_one_shot("several layers are ranked one after the other")
            ranking = ranker.run(batches, fit)
            references.append(plain_reference(self.references[k]) if ranking.reference is None else ranking.reference)
            for name in methods:
                try:
                    if name in ranking.failed:
                        raise ValueError(ranking.failed[name])
                    found = ranking.scores[name].cpu().to(torch.float64)
                    parts[name].append(_checked_scores(found, units[k], self._names[k]))
                except ValueError as error:
                    of_layer = f"{self._names[k]}: " if len(self.layers) > 1 else ""
                    failed.setdefault(name, f"{of_layer}{error}")
        scores = {name: torch.cat(found) for name, found in parts.items() if name not in failed}
        if not scores:
            reasons = "; ".join(f"{method}: {reason}" for method, reason in failed.items())
            only = next(iter(failed.values()))
            raise ValueError(only if len(failed) == 1 else f"no attribution is applicable: {reasons}")
        failed = {method: failed[method] for method in attributions if method in failed}
        return scores, failed, references, uses_data

    def _by_layer(
        self, attributions: Mapping[str, Any], units: Sequence[int], failed: dict[str, str]
    ) -> list[dict[str, Any]]:
        """Return the methods of each layer; ``failed`` is filled with the reasons of those that have none."""
        if not isinstance(self.layer, list):
            return [dict(attributions)]
        per_layer: list[dict[str, Any]] = [{} for _ in self.layers]
        for name, method in attributions.items():
            try:
                own = by_layer(method, self.forward_func, self.layers, units)
            except (ValueError, TypeError) as error:
                failed[name] = str(error)
                continue
            for methods, one in zip(per_layer, own, strict=True):
                methods[name] = one
        return per_layer

    def _plan(self, scores: dict[str, Tensor], units: int) -> Plan:
        """Return the plan: for every method, then every random order, its chain and (``ascending``) the reverse."""
        counts = counts_of(self.steps, units)
        stream = torch.Generator().manual_seed(self.seed)
        ties = torch.randperm(units, generator=stream)
        orders = [ties[values[ties].argsort(descending=True, stable=True)] for values in scores.values()]
        orders += [torch.randperm(units, generator=stream) for _ in range(self.n_random)]
        directions = (False, True) if self.ascending else (False,)
        return Plan.of((Chain(o.flip(0) if up else o, counts) for o in orders for up in directions), units)

    def _provenance(
        self, plan: Plan, measured: Measured, units: Sequence[int], in_sample: bool, sampled: Sampled | None
    ) -> Frozen[Any]:
        """Return what a reader must know to repeat the evaluation."""
        return Frozen(
            {
                "layer": self._name,
                "layers": dict(zip(self._names, units, strict=True)),
                "units": plan.units,
                "reference": " + ".join(dict.fromkeys(map(reference_name, self.references))),
                "metric": metric_name(self.metric),
                "intact": float(measured.intact.to(torch.float64).mean()),
                "n": len(measured.intact),
                "ascending": self.ascending,
                "n_random": self.n_random,
                "seed": self.seed,
                "in_sample": in_sample,
                "sampled": None if sampled is None else {**asdict(sampled), "bounds": list(sampled.bounds)},
                "engine": measured.engine,
                "versions": {"torch": str(torch.__version__), "captum": str(captum.__version__)},
            }
        )


def _check_names(attributions: Any) -> None:
    if not isinstance(attributions, Mapping) or not attributions:
        raise TypeError("attributions must be a mapping of at least one name to an attribution or a Tensor [units]")
    if not all(isinstance(name, str) for name in attributions):
        raise TypeError(f"the names of attributions must be strings; got {list(attributions)!r}")


def _length(batches: Batches) -> int:
    try:
        return len(batches)
    except TypeError:
        return sum(1 for _ in batches)


def _found_layers(forward_func: ForwardFunc, layer: Layer | Sequence[Layer]) -> list[nn.Module]:
    """Return the modules that ``layer``, or each of several, means."""
    if not isinstance(layer, (list, tuple)):
        return [find_layer(forward_func, layer)]  # type: ignore[arg-type]  # not a sequence
    if not layer:
        raise ValueError("the list of layers is empty; name at least one")
    found = [find_layer(forward_func, one) for one in layer]
    if len({id(one) for one in found}) < len(found):
        raise ValueError(
            f"a layer is named twice among {[str(getattr(x, '_get_name', lambda x=x: x)()) for x in layer]}"
        )
    return found


def _is_same(ranking_data: Any, data: Any) -> bool:
    """Tell whether a ranking is made on the very data that it is evaluated on."""
    if ranking_data is None or ranking_data is data:
        return True
    pair = isinstance(data, tuple) and isinstance(ranking_data, tuple) and bool(data) and bool(ranking_data)
    return pair and ranking_data[0] is data[0]


def _checked_scores(scores: Tensor, units: int, layer: str) -> Tensor:
    flat = scores.flatten() if scores.ndim and max(scores.shape) == scores.numel() else scores
    if flat.shape != (units,):
        raise ValueError(
            f"scores must have one value for each of the {units} units of {layer!r}; got shape {tuple(scores.shape)}"
            + ("; per-sample attributions become scores through unit_scores" if scores.ndim > 1 else "")
        )
    if not bool(torch.isfinite(flat).all()):
        bad = (~torch.isfinite(flat)).nonzero().flatten().tolist()
        raise ValueError(f"scores must be finite; unit {bad[0]} has {float(flat[bad[0]])} ({len(bad)} such units)")
    return flat


def _name_of(attribution: Any) -> str:
    inner = attribution.args[0] if getattr(attribution, "args", None) else attribution
    if isinstance(inner, (Tensor, np.ndarray, list)):
        return "scores"
    return inner.get_name() if hasattr(inner, "get_name") else type(inner).__name__
