"""Scores of all methods on the ranking data, in one pass for all statistics and all per-sample attributions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.ablation import Reference, ReferenceFit
from captum_ablate.attr import LayerDatasetAttribution
from captum_ablate.attr.per_sample import SAMPLES_AT_A_TIME, PerSampleScores, unit_scores
from captum_ablate.inputs.batches import Batch, Batches, check_classes
from captum_ablate.inputs.model import ForwardFunc, Layer, find_layer, layer_name
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.collect import LayerRequest, collect


@dataclass(frozen=True)
class Ranking:
    """``scores`` by method, each ``[units]``; ``failed``, the reason by method; the fitted ``reference``, if any."""

    scores: dict[str, Tensor]
    failed: dict[str, str]
    reference: Reference | None


class Ranker:
    """The methods to rank the units of one layer with; what they need of the data is collected in one pass."""

    def __init__(
        self, forward_func: ForwardFunc, layer: nn.Module, axis: UnitAxis, methods: Mapping[str, Any], seed: int
    ) -> None:
        self.forward_func, self.layer, self.axis, self.seed = forward_func, layer, axis, seed
        self.name = layer_name(forward_func, layer)
        self.failed: dict[str, str] = {}
        self.given: dict[str, Tensor] = {}
        self.statistical: dict[str, LayerDatasetAttribution] = {}
        self.measured: dict[str, LayerDatasetAttribution] = {}
        self.by_sample: dict[str, PerSampleScores] = {}
        self.partials: dict[str, dict[str, Any]] = {}
        for name, method in methods.items():
            try:
                self._sort(name, method)
            except Exception as error:
                self._fail(name, error)

    def _sort(self, name: str, method: Any) -> None:
        options: dict[str, Any] = {}
        if isinstance(method, partial):
            if method.func is not unit_scores or len(method.args) != 1:
                raise TypeError("a functools.partial must be partial(unit_scores, attribution, ...)")
            (method,), options = method.args, dict(method.keywords)
        if isinstance(method, (Tensor, np.ndarray, list)):
            self.given[name] = _as_scores(method)
        elif isinstance(method, type):
            raise TypeError(f"{method.__name__} is a class; pass an attribution: {method.__name__}(model, layer)")
        elif not callable(getattr(method, "attribute", None)):
            raise TypeError(
                "a method must be a Captum layer attribution, one of captum_ablate's, "
                f"functools.partial(unit_scores, ...) or a Tensor [units]; got {type(method).__name__}"
            )
        else:
            self._check_layer(method)
            if isinstance(method, LayerDatasetAttribution):
                if method.axis != self.axis:
                    what = f"unit_dim={method.axis.unit_dim} and the evaluator unit_dim={self.axis.unit_dim}"
                    if method.axis.unit_dim == self.axis.unit_dim:
                        what = "another layer_mask than the evaluator"
                    raise ValueError(f"the attribution has {what}; give both the same")
                (self.statistical if method.source == "activations" else self.measured)[name] = method
            else:
                self.by_sample[name], self.partials[name] = self._sample_scoring(method, options)

    def _sample_scoring(self, method: Any, options: dict[str, Any]) -> tuple[PerSampleScores, dict[str, Any]]:
        own = {k: options.pop(k) for k in ("target", "positions", "samples") if k in options}
        for k in ("unit_dim", "layer_mask", "batch_size", "unpack_batch", "per_class", "show_progress"):
            if k in options:
                raise ValueError(f"{k} of unit_scores is the evaluator's here; give it to the evaluator")
        return PerSampleScores(method, self.axis, attribute_kwargs=options, **own), options

    def _check_layer(self, method: Any) -> None:
        layer: Layer | None = getattr(method, "layer", None)
        if layer is None:
            raise ValueError(
                f"{type(method).__name__} attributes inputs, not a layer; take Captum's Layer{type(method).__name__}"
            )
        if isinstance(layer, (list, tuple)):
            raise ValueError("the attribution has a list of layers; the evaluator ablates one layer")
        own = find_layer(method.forward_func, layer) if isinstance(layer, str) else layer
        if own is not self.layer:
            name = layer_name(method.forward_func, own)
            whose = f"{name!r} of another model" if name == self.name else repr(name)
            raise ValueError(
                f"the attribution belongs to another layer, {whose}, not to {self.name!r} that the evaluator ablates"
            )

    def _fail(self, name: str, error: Exception) -> None:
        self.failed[name] = str(error).splitlines()[0] if str(error) else type(error).__name__

    @property
    def needs_data(self) -> bool:
        """Whether any method looks at the ranking data."""
        return bool(self.statistical or self.measured or self.by_sample)

    def run(self, batches: Batches, fit: ReferenceFit | None) -> Ranking:
        """Return the scores of every method; ``fit`` is fed with the layer's outputs in the same pass."""
        scores = dict(self.given)
        if self.measured:
            batches.refuse_one_shot("measured unit ablation makes passes of its own")
        if self.statistical or self.by_sample or fit is not None:
            self._one_pass(batches, fit, scores)
        for name, method in self.measured.items():
            try:
                found = method.attribute(batches)
                scores[name] = found[0] if isinstance(found, tuple) else found
            except Exception as error:
                self._fail(name, error)
        return Ranking(scores, self.failed, None if fit is None else fit.finish())

    def _one_pass(self, batches: Batches, fit: ReferenceFit | None, scores: dict[str, Tensor]) -> None:
        """Fill ``scores`` from one pass: statistics, per-sample scorings and ``fit`` hear the same batches.

        Of a layer with a tuple of tensors only the first counts, the one that is ablated.
        """
        own = [method.requests for method in self.statistical.values()]
        requests = [LayerRequest(self.layer, self.axis, tuple(one)) for one in own or [()]]
        numbers = count()

        def score_samples(batch: Batch) -> None:
            number = next(numbers)
            for name in list(self.by_sample):
                try:
                    _seed_everything(self.seed, number)
                    for piece in _pieces(batch):
                        self.by_sample[name].add(piece)
                except Exception as error:
                    self._fail(name, error)
                    del self.by_sample[name]

        listeners = {} if fit is None else {self.layer: fit.add}
        answers = collect(self.forward_func, requests, batches, element=0, on_output=listeners, on_batch=score_samples)
        for (name, method), answer in zip(self.statistical.items(), answers, strict=False):
            try:
                (found,) = answer.statistics
                check_classes(found[0].classes)
                scores[name] = method.score(*found)
            except Exception as error:
                self._fail(name, error)
        for name, scoring in self.by_sample.items():
            found_scores = scoring.scores()
            scores[name] = found_scores[0] if isinstance(found_scores, tuple) else found_scores


def _seed_everything(*seed: int) -> None:
    """Seed all random states, so that what a method draws does not depend on the others; the caller gives them back."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  Captum draws from it
    torch.manual_seed(number)


def _pieces(batch: Batch) -> Iterator[Batch]:
    """Yield the batch in pieces that a path method can hold."""
    for start in range(0, len(batch.target), SAMPLES_AT_A_TIME):
        yield batch.take(slice(start, start + SAMPLES_AT_A_TIME))


def _as_scores(values: Any) -> Tensor:
    scores = torch.as_tensor(values).detach().cpu().clone()
    if scores.is_complex() or scores.dtype == torch.bool:
        raise TypeError(f"scores must be real numbers; got {scores.dtype}")
    return scores.to(torch.float64)
