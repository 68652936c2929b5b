"""Scores of all methods on the ranking data, in one pass for all statistics and all per-sample attributions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_ablate.ablation import (
    LiveUnits,
    Reference,
    ReferenceFit,
    ReferenceOption,
    Site,
    is_same_reference,
    reference_name,
)
from captum_ablate.attr import LayerDatasetAttribution
from captum_ablate.attr.inner import takes
from captum_ablate.attr.measured import MeasuredAttribution
from captum_ablate.attr.per_sample_scores import PerSampleScores
from captum_ablate.attr.pieces import SAMPLES_AT_A_TIME
from captum_ablate.evaluation.methods import Method, RankingFunction, as_method
from captum_ablate.evaluation.seconds import Seconds
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.targets import as_target, classes_of
from captum_ablate.inputs.threads import drawing
from captum_ablate.inputs.warnings import ignoring
from captum_ablate.statistics.collect import LayerRequest, LayerStatistics, collect


@dataclass(frozen=True)
class Ranking:
    """``scores`` by method, each ``[units]``; ``failed``, the reason by method; the learned ``reference``, if any.

    ``resampled`` are the scores on each resample of the ranking data, ``[resamples, units]``; ``order_only`` says by
    method why there are none.
    """

    scores: dict[str, Tensor]
    failed: dict[str, str]
    reference: Reference | None
    resampled: dict[str, Tensor]
    order_only: dict[str, str]


class Ranker:
    """The methods that rank the units of one layer; one that fails is reported, the others go on."""

    def __init__(
        self,
        forward_func: ForwardFunc,
        site: Site,
        methods: Mapping[str, Any],
        seed: int,
        call_options: Mapping[str, Any] | None = None,
        seconds: Seconds | None = None,
        show_progress: bool = False,
    ) -> None:
        self.forward_func, self.site, self.seed = forward_func, site, seed
        self.show_progress = show_progress
        self.seconds = seconds or Seconds()
        self.failed: dict[str, str] = {}
        self.resampled: dict[str, Tensor] = {}
        self.order_only: dict[str, str] = {}
        self.methods: dict[str, Method] = {}
        for name, method in methods.items():
            try:
                self.methods[name] = as_method(method, site, call_options)
            except Exception as error:
                self._fail(name, error)

    def needs_data(self) -> bool:
        """Tell whether any method looks at the ranking data."""
        return not all(isinstance(method, Tensor) for method in self.methods.values())

    def other_references(self, reference: ReferenceOption) -> dict[str, str]:
        """Return the name of each method's own reference where it ablates by another one than ``reference``."""
        own = {
            name: method.reference for name, method in self.methods.items() if isinstance(method, MeasuredAttribution)
        }
        return {name: reference_name(one) for name, one in own.items() if not is_same_reference(one, reference)}

    def rank(self, batches: Batches, fit: ReferenceFit | None, live: LiveUnits | None = None) -> Ranking:
        """Return the scores of every method; ``fit`` is fed with the layer's outputs in the same pass.

        So is ``live``, if there is such a pass; else it makes its own, which ends once all units are known to be live.
        ``ResampledBatches`` are ranked on each resample, too.
        """
        given = {name: method for name, method in self.methods.items() if isinstance(method, Tensor)}
        ours = {n: method for n, method in self.methods.items() if isinstance(method, LayerDatasetAttribution)}
        statistical = {name: method for name, method in ours.items() if method.source == "activations"}
        measured = {name: method for name, method in ours.items() if method.source != "activations"}
        by_sample = {name: method for name, method in self.methods.items() if isinstance(method, PerSampleScores)}
        functions = {name: method for name, method in self.methods.items() if isinstance(method, RankingFunction)}
        if measured or functions:
            batches.refuse_one_shot(f"{next(iter(measured | functions))!r} makes passes of its own")
        scores = dict(given)
        passes = bool(statistical or by_sample or fit is not None)
        if passes:
            listening = [fit, live if live is not None and not live.needs_target else None]
            listeners = [one.add for one in listening if one is not None]
            scores |= self._in_one_pass(statistical, by_sample, batches, listeners)
            if isinstance(batches, ResampledBatches) and batches.settle():  # some resamples were drawn again
                scores |= self._in_one_pass(statistical, by_sample, batches, [])
        if live is not None and (live.needs_target or not passes):
            live.add_all(self.forward_func, batches)
        scores |= self._measured(measured, batches)
        scores |= self._called(functions, batches)
        self.order_only |= dict.fromkeys(given, "its scores are given") | dict.fromkeys(
            functions, "a function is not ranked again"
        )
        reference = None if fit is None else fit.finish()
        return Ranking(scores, self.failed, reference, self.resampled, self.order_only)

    def _in_one_pass(
        self,
        statistical: Mapping[str, LayerDatasetAttribution],
        by_sample: Mapping[str, PerSampleScores],
        batches: Batches,
        listeners: Sequence[Callable[..., None]],
    ) -> dict[str, Tensor]:
        """Return the scores from one pass: statistics, per-sample attributions and listeners hear the same batches.

        Of a layer with a tuple of tensors only the first counts, the one that is ablated.
        """
        site, no_classes = self.site, list[Tensor]()
        left = {name: scoring for name, scoring in by_sample.items() if name not in self.failed}
        for scoring in left.values():
            scoring.forget()
        own = [tuple(method.requests) for method in statistical.values()]
        requests = [LayerRequest(site.layer, site.axis, one) for one in own or [()]]
        numbers = count()

        def score_samples(batch: Batch) -> None:
            if classes_of(batch.target) is None:
                no_classes[:] = [batch.target]
            weights = batches.batch_weights if isinstance(batches, ResampledBatches) else None
            self._add_batch(left, batch, weights, next(numbers), tick)

        def hear(*heard: Tensor) -> None:
            for listener in listeners:
                listener(*heard)

        name = f"ranking {site.name}"
        with ticking(name, self.show_progress, batches.samples) as tick, self.seconds.of(*statistical):
            answers = collect(
                self.forward_func,
                requests,
                batches,
                at_input=site.at_input,
                element=0,
                on_output={site.layer: hear} if listeners else {},
                on_batch=score_samples,
            )
        scores = {name: _first(scoring.scores()) for name, scoring in left.items()}
        if isinstance(batches, ResampledBatches):
            self.resampled |= {name: scoring.resampled_scores for name, scoring in left.items()}
        answered = dict(zip(statistical.items(), answers, strict=False))
        return scores | self._scored(answered, batches, no_classes)

    def _scored(
        self,
        answered: Mapping[tuple[str, LayerDatasetAttribution], LayerStatistics],
        batches: Batches,
        no_classes: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Return the scores of attributions from their statistics, and keep those of the resamples."""
        scores, fixed = {}, {}
        for (name, method), answer in answered.items():
            try:
                (found,) = answer.statistics
                if method.needs_two_classes and no_classes:
                    as_target(no_classes[0])
                method.check_classes(found)
                own = method.held(*found) if isinstance(batches, ResampledBatches) else method
                with self.seconds.of(name):
                    scores[name] = own.score(*found)
                fixed[name] = own, answer
            except Exception as error:
                self._fail(name, error)
        if isinstance(batches, ResampledBatches):
            self._score_resamples(fixed, batches.resamples)
        return scores

    def _score_resamples(
        self, fixed: dict[str, tuple[LayerDatasetAttribution, LayerStatistics]], resamples: int
    ) -> None:
        """Keep the scores of each resample; a method that fails on one keeps its order alone, with the reason."""
        found: dict[str, list[Tensor]] = {name: [] for name in fixed}
        for number in range(resamples):
            for name in list(found):
                method, answer = fixed[name]
                assert answer.of_resample is not None
                try:
                    with ignoring(UserWarning), self.seconds.of(name):  # the full data have given the warnings
                        found[name].append(method.score(*answer.of_resample(number)[0]))
                except Exception as error:
                    self.order_only[name] = f"a resample cannot be scored: {_reason(error)}"
                    del found[name]
        self.resampled |= {name: torch.stack(own) for name, own in found.items()}

    def _add_batch(
        self,
        scorings: dict[str, PerSampleScores],
        batch: Batch,
        weights: Tensor | None,
        number: int,
        tick: Callable[[float], None],
    ) -> None:
        """Let each of ``scorings`` attribute a batch; one that fails is taken out and reported.

        Each of them ticks its part of the batch, so that progress shows within a batch of a slow method.
        """
        left, share = float(len(batch.target)), 1 / max(1, len(scorings))

        def done(samples: int) -> None:
            nonlocal left
            left -= samples * share
            tick(samples * share)

        for name in list(scorings):
            try:
                if not scorings[name].draws:
                    with self.seconds.of(name):
                        _add(scorings[name], batch, weights, done)
                    continue
                with drawing, self.seconds.of(name):
                    _seed_everything(self.seed, number)
                    _add(scorings[name], batch, weights, done)
            except Exception as error:
                self._fail(name, error)
                del scorings[name]
        tick(left)

    def _measured(self, measured: Mapping[str, LayerDatasetAttribution], batches: Batches) -> dict[str, Tensor]:
        """Return the scores of the methods that make passes of their own."""
        scores = {}
        for name, method in measured.items():
            try:
                with self.seconds.of(name):
                    scores[name] = self._measured_alone(name, method, batches)
            except Exception as error:
                self._fail(name, error)
        return scores

    def _measured_alone(self, name: str, method: LayerDatasetAttribution, batches: Batches) -> Tensor:
        """Return the scores of a method that makes passes of its own, and keep those of the resamples."""
        if not isinstance(batches, ResampledBatches) or _has_own_attribute(method):
            self.order_only[name] = "its class has an attribute of its own"
            shown: dict[str, Any] = {"show_progress": self.show_progress} if takes(method, "show_progress") else {}
            return _first(method.attribute(batches, attribute_to_layer_input=self.site.at_input, **shown))
        (answer,) = method.statistics_of(batches, at_input=self.site.at_input, show_progress=self.show_progress)
        if batches.settle():
            (answer,) = method.statistics_of(batches, at_input=self.site.at_input, show_progress=self.show_progress)
        scores = _first(method.results([answer]))
        self._score_resamples({name: (method.held(*answer.statistics[0]), answer)}, batches.resamples)
        return scores

    def _called(self, functions: Mapping[str, RankingFunction], batches: Batches) -> dict[str, Tensor]:
        """Return the scores of functions of the user's."""
        scores = {}
        for name, function in functions.items():
            try:
                with drawing, self.seconds.of(name):
                    _seed_everything(self.seed)
                    scores[name] = function.scores(self.forward_func, self.site, batches)
            except Exception as error:
                self._fail(name, error)
        return scores

    def _fail(self, name: str, error: Exception) -> None:
        self.failed[name] = _reason(error)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _has_own_attribute(method: LayerDatasetAttribution) -> bool:
    return type(method).attribute is not LayerDatasetAttribution.attribute


def _first(scores: Any) -> Tensor:
    """Return the scores of a layer's first tensor, the one that is ablated."""
    found: Tensor = scores[0] if isinstance(scores, tuple) else scores
    return found


def _seed_everything(*seed: int) -> None:
    """Seed all random states, so that what a method draws does not depend on the others; the caller gives them back."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  Captum draws from it
    torch.manual_seed(number)


def _add(scoring: PerSampleScores, batch: Batch, weights: Tensor | None, done: Callable[[int], None]) -> None:
    """Add the batch in pieces that a path method can hold; ``done`` hears how many samples each has.

    It is added whole where it cannot be cut, or the model takes no smaller one.
    """
    n = len(batch.target)
    size = n if batch.why_whole() is not None else SAMPLES_AT_A_TIME
    for start in range(0, n, size):
        piece = slice(start, start + size)
        part = batch.take(piece)
        try:
            scoring.add(part, None if weights is None else weights[piece])
        except Exception:
            if start > 0 or len(part.target) == n:
                raise
            scoring.add(batch, weights)  # a model made for one size of batch; any other error comes again
            done(n)
            return
        done(len(part.target))
