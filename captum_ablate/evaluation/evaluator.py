"""Score an attribution by ablating units in its order: the deficit curve, on data that did not make the ranking."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation import (
    Engine,
    Located,
    Plan,
    ReferenceOption,
    fit_of,
    locate,
    reference_name,
)
from captum_ablate.ablation.metrics import Metric, as_metric, bounds_of, is_named, metric_name
from captum_ablate.ablation.plan import checked_steps, counts_of
from captum_ablate.attr import LayerShapleyValue
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.estimate import Estimate, extrapolated, length_of
from captum_ablate.evaluation.joint_ranking import JointRanking, one_per_layer
from captum_ablate.evaluation.methods import check_names, shown_name
from captum_ablate.evaluation.overlap import Overlap
from captum_ablate.evaluation.precision import DeletionAreas, Precision
from captum_ablate.evaluation.provenance import Frozen, Provenance, is_same
from captum_ablate.evaluation.ranked_again import EvaluatedSamples, RankedAgain, ablate_again, checked_resamples
from captum_ablate.evaluation.ranking_time import ablation_seconds, few_of, without_ablation
from captum_ablate.evaluation.within_layers import orders_within
from captum_ablate.evaluation.yardstick import NAME, ShapleyRanking, check_yardstick, refuse_name, refuse_until
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.fingerprint import weights_digest
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, find_layers
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.values import whole_number


class CumulativeAblationEvaluator:
    r"""Ablate the units of a layer in the order of a ranking and score the ranking by its deficit curve.

    Implements the idea of information-ordered cumulative ablation (Amjad, Liu and Geiger, IEEE TNNLS 2022,
    arXiv 1804.06679) for any attribution. The constructor says what a curve means. ``compare`` and ``evaluate`` get the
    data. With :math:`v_{ik}` the metric of sample i at step k and :math:`f_k` the fraction of units ablated,
    :math:`D_i = v_{i0} - \sum_k (f_{k+1} - f_k)(v_{ik} + v_{i,k+1}) / 2`. ``deletion`` is the mean :math:`D_i` of the
    descending order, ``insertion`` minus that of the ascending order. ``gap``, the headline, is their sum: the
    symmetric relevance gain (Bluecher, Vielhaben and Strodthoff 2024, arXiv 2401.06654), of units in the place of
    pixels. With zero reference the reverse of a good order also beats random orders, so deletion alone flatters. Where
    units interact at most in pairs, gap is :math:`\sum_u \phi_u (1 - (2 pos_u + 1) / U)`, with :math:`\phi_u` the
    Shapley values: it rewards orders that sort by them (see ``LayerShapleyValue`` and docs/gap.md).

    Args:
        forward_func: an ``nn.Module`` runs again from the layer on; any other function runs whole each time.
        layer: the module whose units are ablated, or its dotted name. Of a tuple output, the first tensor. A list of
            layers is ranked and ablated together: scores are one tensor per layer, units count on from layer to layer.
            ``reference``, ``unit_dim`` and ``layer_mask`` may be lists with one value for each layer.
        unit_dim: axis of the units, as in the attributions.
        layer_mask: groups of units, as in the attributions.
        attribute_to_layer_input: rank and ablate the units of what the layer receives, the first tensor of it. Heads
            are groups of the channels at the input of the attention's output projection, without surgery.
        reference: what stands in an ablated unit's place: "zero"; "mean" (one number per unit, or per group of
            ``layer_mask``, over samples and positions of the ranking data); "resample" (the activation of one other
            ranking sample); a Tensor that broadcasts to one sample's output; or ``f(activation [n, ...], target [n])``,
            of the activation's shape.
        metric: "accuracy" (fraction of 1), "log_likelihood" (nats), "logit", "margin", or
            ``f(outputs, target) -> [n]``, higher is better, with a target ``[n, ...]`` of any type. The named ones need
            one class per sample; of a model with one logit, ``[n]`` or ``[n, 1]``, they are those of 0 against 1.
        steps: a number of evenly spaced counts, a sequence of counts, or None for one unit at a time.
        n_random: random orders to hold every ranking against.
        live_units_only: leave out of all orders, the random ones too, the units that equal their reference wherever the
            ranking data look: they cannot matter, and to know only them would earn a gap. They are counted in the
            result. Of several layers, those of the first that runs.
        seed: seed of random orders, ties and donors.

    Raises:
        TypeError, ValueError: if an option is of the wrong kind, or the model has no such layer.

    >>> import torch
    >>> from captum_ablate import CumulativeAblationEvaluator
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
    >>> evaluator = CumulativeAblationEvaluator(model, "1", reference="zero", steps=None)
    >>> curve = evaluator.evaluate(torch.rand(6), (torch.randn(20, 4), torch.arange(20) % 2))
    >>> curve.score.shape
    torch.Size([7])
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        *,
        unit_dim: int | Sequence[int | None] | None = 1,
        layer_mask: Tensor | Sequence[Tensor | None] | None = None,
        attribute_to_layer_input: bool = False,
        reference: ReferenceOption | Sequence[ReferenceOption] = "zero",
        metric: str | Metric = "accuracy",
        steps: int | Sequence[int] | None = 20,
        n_random: int = 20,
        live_units_only: bool = True,
        seed: int = 0,
    ) -> None:
        self.forward_func = as_model(forward_func)
        self.layers = find_layers(self.forward_func, layer)
        self.layer = self.layers if isinstance(layer, (list, tuple)) else self.layers[0]
        k = len(self.layers)
        axes = zip(one_per_layer(unit_dim, k, "unit_dim"), one_per_layer(layer_mask, k, "layer_mask"), strict=True)
        self.axes = [UnitAxis.of(*one) for one in axes]
        if not isinstance(attribute_to_layer_input, bool):
            raise TypeError(f"attribute_to_layer_input must be True or False; got {attribute_to_layer_input!r}")
        if not isinstance(live_units_only, bool):
            raise TypeError(f"live_units_only must be True or False; got {live_units_only!r}")
        self.attribute_to_layer_input, self.live_units_only = attribute_to_layer_input, live_units_only
        self.references = one_per_layer(reference, k, "reference")
        for one, axis in zip(self.references, self.axes, strict=True):
            fit_of(one, axis, seed)  # an unknown reference is refused here
        self.metric, self._metric = metric, as_metric(metric)
        self.steps = checked_steps(steps)
        self.n_random, self.seed = whole_number(n_random, "n_random", 0), whole_number(seed, "seed", 0)

    def compare(
        self,
        attributions: Mapping[str, Any],
        data: Any,
        *,
        ranking_data: Any = None,
        ranking_resamples: int = 0,
        yardstick: LayerShapleyValue | None = None,
        until: float | None = None,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        show_progress: bool = False,
    ) -> Comparison:
        """Return the deficit curves of several attributions on the same data, as a leaderboard.

        Args:
            attributions: by name: a Captum layer attribution (also in a ``NoiseTunnel``), one of ours,
                ``functools.partial(unit_scores, ...)``, a Tensor ``[units]``, or a function of your own
                ``f(forward_func, layer, data) -> Tensor [units]``: ``data`` are the ranking data, ``Batch`` es that can
                be iterated again and again; of several layers it gets one after the other. One that fails is reported
                as not applicable, with its reason; the others go on.
            data: what to evaluate on, ``(inputs, target)`` or a re-iterable of batches ``(*inputs, labels)``.
            ranking_data: what to rank on (and to take the mean or donors from). Without it the ranking is made on
                ``data`` itself, and the result says in-sample.
            ranking_resamples: how often every method is ranked again on a Poisson-bootstrap resample of the ranking
                data, in the same pass. Intervals and ranks are then of the method; without, of the orders that these
                ranking data gave. Bin edges, a probe's strength, references, live units and Monte-Carlo seeds stay
                those of all ranking data. Tensors and functions keep their order, and are named. The resampled orders
                are ablated on few samples and steps (``evaluation.ranked_again``).
            yardstick: a ``LayerShapleyValue`` with the evaluator's layer, units, reference and metric. Its order, made
                on the ranking data, is the last row, without a rank, and ``share`` tells how much of its gap a method
                earns. Over several layers its values are of all their units together.
            until: a half-width, such as 0.02: samples are drawn from ``data`` in random order until the deletion area
                of each method is known to it, at 95 % for all methods together, and all intervals are confidence
                sequences. For metrics with bounds, and data whose samples have positions (not a plain iterable).
            batch_size: how many samples to run at a time where data are tensors.
            unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
            show_progress: show a progress bar over forward passes.

        Raises:
            ValueError: if no attribution is applicable, the data are empty or can be iterated once only, or the model
                is in training mode or does not repeat itself.
            TypeError: if ``attributions`` is no mapping of names, or data come in a form that is not known.
        """
        start = time.perf_counter()
        check_names(attributions)
        options: dict[str, Any] = {"batch_size": batch_size, "unpack_batch": unpack_batch}
        drawn = {"forward_func": self.forward_func, "seed": self.seed, "classes": is_named(self._metric), **options}
        resamples = checked_resamples(ranking_resamples, until)
        precision = None if until is None else Precision.of(until, self.metric, data, **drawn)
        if yardstick is not None:
            check_yardstick(yardstick, self.layers, self.axes, self.references, self.metric)
            refuse_until(until)
            refuse_name(attributions)
        batches = self._batches(data, options)
        is_one = ranking_data is None or ranking_data is data
        ranking_batches = batches if is_one else self._batches(ranking_data, options)
        batches.keep_digest()
        ranking_batches.keep_digest()
        if resamples:
            ranking_batches = ResampledBatches(ranking_batches, resamples, self.seed)
        with self._borrowed(batches, ranking_batches):
            located = self._locate(batches)
            wanted: dict[str, Any] = {"live_units_only": self.live_units_only, "show_progress": show_progress}
            ranking = self._rank(attributions, located, ranking_batches, options, **wanted)
            shapley = None if yardstick is None else self._shapley(yardstick, located, ranking, ranking_batches)
            within = len(self.layers) > 1 and self.n_random > 0 and precision is None
            plan = self._plan(ranking, located, shapley, within)
            name = f"ablating {' + '.join(located.units_by_layer)}"
            again: dict[str, RankedAgain] = {}
            if precision is None:
                with ticking(name, show_progress, batches.samples) as tick:
                    engine = Engine(self.forward_func, located.sites, ranking.references, self._metric, plan, tick)
                    samples = EvaluatedSamples(batches, self.seed) if ranking.resampled else batches
                    measured = engine.run(samples, located.seen)
                if isinstance(samples, EvaluatedSamples):
                    own = (self.forward_func, located.sites, ranking.references, self._metric)
                    again = ablate_again(*own, ranking.resampled_orders(self.seed), plan, samples, show_progress)
                evaluated = batches.digest
            else:
                references = precision.by_place(ranking.references, self.references)
                engine = Engine(self.forward_func, located.sites, references, self._metric, plan)
                areas = DeletionAreas(plan, len(ranking.scores))
                measured, evaluated = precision.measure(engine, areas, name, show_progress, located.seen)
            is_apart = precision is None and ranking_data is not None
            woken = ranking.woken(self.forward_func, located, batches) if is_apart else 0
        is_one = is_same(ranking_data, data)
        uses_data = ranking.uses_data or shapley is not None
        ranked = ranking_batches.digest if uses_data else None
        overlap = Overlap.of(ranked, evaluated, is_same=is_one)
        if all(name in ranking.order_only for name in ranking.scores):
            resamples = 0
        provenance = Provenance(
            layers=Frozen(located.units_by_layer),
            reference=" + ".join(dict.fromkeys(map(reference_name, self.references))),
            metric=metric_name(self.metric),
            intact=float(measured.intact.to(torch.float64).mean()),
            n=len(measured.intact),
            n_random=self.n_random,
            seed=self.seed,
            in_sample=uses_data and (is_one or overlap.overlap == len(measured.intact)),
            engine=measured.engine,
            dead=int((~ranking.live).sum()),
            live_units_only=self.live_units_only,
            woken=woken,
            sampled=None if precision is None else precision.sampled(len(ranking.scores)),
            bounds=bounds_of(self.metric),
            methods=Frozen(ranking.kinds if shapley is None else {**ranking.kinds, NAME: shapley.kind}),
            weights=weights_digest(self.forward_func),
            own_references=Frozen(ranking.own_references),
            **overlap._asdict(),
            ranking_seconds=Frozen(ranking.seconds if shapley is None else {**ranking.seconds, NAME: shapley.seconds}),
            seconds=time.perf_counter() - start,
            ranking_resamples=resamples,
            order_only=Frozen(ranking.order_only if resamples else {}),
        )
        return Comparison.of(ranking.scores, ranking.failed, plan, measured, provenance, again, shapley)

    def evaluate(self, attribution: Any, data: Any, **options: Any) -> DeficitCurve:
        """Return the deficit curve of one attribution, or of ``scores [units]``: ``compare`` of one."""
        name = shown_name(attribution)
        return self.compare({name: attribution}, data, **options)[name]

    def estimate(
        self,
        attributions: Mapping[str, Any],
        data: Any,
        *,
        ranking_data: Any = None,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
    ) -> Estimate:
        """Return what ``compare`` with these arguments will cost, in seconds and bytes, from one batch of each data.

        The data are walked through once where they do not tell their length.
        """
        check_names(attributions)
        options: dict[str, Any] = {"batch_size": batch_size, "unpack_batch": unpack_batch}
        batches = self._batches(data, options)
        ranking_batches = batches if ranking_data is None else self._batches(ranking_data, options)
        with self._borrowed(batches, ranking_batches):
            one, one_ranking = next(iter(batches)), next(iter(ranking_batches))
            located = self._locate([one])
            times = length_of(ranking_batches)
            ranking, own, seconds = self._timed_ranking(attributions, located, one_ranking, times, options)
            plan = self._plan(ranking, located, within=len(self.layers) > 1 and self.n_random > 0)

            def run(masks: int) -> None:
                few = plan.cut(masks)
                Engine(self.forward_func, located.sites, ranking.references, self._metric, few).run([one], located.seen)

            ablating, peak = extrapolated(run, len(plan), length_of(batches))
        return Estimate(seconds + ablating, seconds, peak, length_of(batches), len(plan), own)

    def _timed_ranking(
        self, attributions: Mapping[str, Any], located: Located, batch: Batch, times: int, options: Mapping[str, Any]
    ) -> tuple[JointRanking, Frozen[float], float]:
        """Return a ranking on a few samples, and what ``times`` such batches take: by method, and in all."""
        quick, measured = without_ablation(attributions, located.units)
        few = few_of(batch)
        start = time.perf_counter()
        own: dict[str, Any] = {
            "live_units_only": False
        }  # few samples do not tell which units are dead: all are counted
        try:
            ranking = self._rank(quick, located, self._batches([few], {}), options, **own)
        except Exception:  # no method can rank on so few, or the model takes no batch of them
            few = batch
            ranking = self._rank(quick, located, self._batches([few], {}), options, **own)
        ratio = times * len(batch.target) / len(few.target) if ranking.uses_data else 1.0
        seconds = (time.perf_counter() - start) * ratio
        found = {name: one * ratio for name, one in ranking.seconds.items()}
        for name, method in measured.items():
            work = (self.forward_func, located, ranking.references, batch, times)
            found[name] = ablation_seconds(method, *work)
            seconds += found[name]
        return ranking, Frozen(found), seconds

    def _batches(self, data: Any, options: Mapping[str, Any]) -> Batches:
        return as_batches(data, forward_func=self.forward_func, classes=is_named(self._metric), **options)

    @contextmanager
    def _borrowed(self, batches: Batches, ranking_batches: Batches) -> Iterator[None]:
        """Use model and data for one call; both are looked at first, so neither may be a one-shot generator."""
        batches.refuse_one_shot("the evaluator looks at the layer first, then ablates")
        layers = () if isinstance(self.forward_func, nn.Module) else tuple(self.layers)
        with borrowed(self.forward_func, *layers, batches.owner, ranking_batches.owner):
            yield

    def _locate(self, batches: Iterable[Batch]) -> Located:
        at_input = self.attribute_to_layer_input
        return locate(self.forward_func, self.layers, self.axes, batches, at_input=at_input)

    def _rank(
        self,
        attributions: Mapping[str, Any],
        located: Located,
        batches: Batches,
        options: Mapping[str, Any],
        **wanted: bool,
    ) -> JointRanking:
        own: dict[str, Any] = {"seed": self.seed, "call_options": options, **wanted}
        own["is_joint"] = isinstance(self.layer, list)
        return JointRanking.of(attributions, self.forward_func, located, self.references, batches, **own)

    def _shapley(
        self, yardstick: LayerShapleyValue, located: Located, ranking: JointRanking, batches: Batches
    ) -> ShapleyRanking:
        own = (self.forward_func, located, ranking.references, self._metric, ranking.live)
        return ShapleyRanking.of(yardstick, *own, batches)

    def _plan(
        self, ranking: JointRanking, located: Located, shapley: ShapleyRanking | None = None, within: bool = False
    ) -> Plan:
        """Return the plan, each order both ways: methods', random ones, the yardstick's, and those within layers."""
        counts = counts_of(self.steps, int(ranking.live.sum()))
        orders = ranking.orders(self.n_random, self.seed)
        if shapley is not None:
            orders += [ranking.sorted_by(one, self.seed) for one in (shapley.scores, *shapley.resampled)]
        if within:
            units = located.units_by_layer.values()
            orders += orders_within(orders[: len(ranking.scores)], units, self.n_random, self.seed)
        return Plan.both_ways(orders, counts, located.units)
