"""Unit scores over a data set from any per-sample layer attribution of Captum."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from captum.attr import (
    GradientAttribution,
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LayerLRP,
)
from torch import Tensor, nn

from captum_ablate.ablation import Site
from captum_ablate.ablation.metrics import check_binary, check_indices, is_one_logit
from captum_ablate.attr.bound import bound, left_of
from captum_ablate.attr.captum_errors import explained
from captum_ablate.attr.embedded import embedded, refuse_ids
from captum_ablate.attr.inner import check_attribution, inner, name_of, needs_baselines, parameters, takes_any
from captum_ablate.attr.one_tensor import captum_sees, on_one_tensor
from captum_ablate.attr.pieces import Pieces
from captum_ablate.inputs.batch import Batch, as_tuple
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import (
    Layer,
    as_model,
    borrowed,
    find_layer,
    layer_name,
    refuse_scripted,
    refuse_training_mode,
)
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.quantised import refuse_gradients_of_quantised
from captum_ablate.inputs.real import refuse_complex
from captum_ablate.inputs.repeats import warn_of_randomness
from captum_ablate.inputs.targets import classes_of, classes_or_zeros
from captum_ablate.inputs.threads import drawing, hooks_of_own_pass
from captum_ablate.inputs.unchanged import has_drawn, random_states
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import output_shapes
from captum_ablate.statistics.moments import ClassMoments

SAMPLES_AT_A_TIME = 64
"""Path methods run every sample some 50 times at once: batches of tensors are smaller than for a forward pass."""


DRAWING_NOTHING = (
    *(InternalInfluence, LayerActivation, LayerConductance, LayerDeepLift, LayerFeatureAblation, LayerGradCam),
    *(LayerGradientXActivation, LayerIntegratedGradients, LayerLRP),
)
"""Attributions without random numbers: those of two models may run at the same time."""


def unit_scores(
    attribution: Any,
    data: Any,
    *,
    target: str | int | None = "label",
    positions: str = "sum",
    samples: str = "mean",
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    per_class: bool = False,
    show_progress: bool = False,
    additional_forward_args: Any = None,
    embedding: Layer | None = None,
    baseline_ids: int | Tensor = 0,
    **attribute_kwargs: Any,
) -> Any:
    """Return one float64 score per unit, ``[units]``, from a per-sample layer attribution such as conductance.

    The attribution of each sample is summed over positions, then averaged over samples. In a comparison,
    ``functools.partial(unit_scores, LayerGradientShap(model, layer), baselines=b)`` stands for an attribution with
    arguments of its own.

    Args:
        attribution: any object with Captum's ``attribute``, such as ``LayerConductance(model, layer)``, or a wrapper
            of one, such as ``NoiseTunnel``. ``LayerFeatureAblation`` gets a ``layer_mask`` of units.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        target: the output that is attributed: "label" (each sample's class), "prediction" (the largest output), an
            index for all samples, or None for a ``forward_func`` with one output. Of a model with one logit, ``[n]`` or
            ``[n, 1]``, "label" and "prediction" attribute their side: the logit for 1, minus the logit for 0; an index
            or None attributes the logit itself.
        positions: "sum", or "mean": the deficit itself for ``LayerFeatureAblation``, because Captum writes a unit's
            deficit into each of its positions.
        samples: "mean" (signed), or "mean_abs": the mean of the absolute value of each sample.
        unit_dim: axis of the units, as in ``LayerDatasetAttribution``; so is ``layer_mask``.
        batch_size: samples to run at a time if the data are tensors.
        unpack_batch: turns a batch of another form (a dict, say) into ``Batch(inputs, target)``.
        per_class: return ``[classes, units]``, the mean over the samples of each class.
        show_progress: show a progress bar.
        additional_forward_args: further arguments of the model, as in Captum.
        embedding: for models of token ids, which have nothing between them: the module, or its name, whose output
            ``[n, tokens, features]`` path methods interpolate. Ids, masks and all other inputs stay what they are.
        baseline_ids: the ids whose embedding is the baseline then: one for all tokens, or ``[tokens]``.
        attribute_kwargs: further arguments of ``attribute``, such as ``baselines=`` or ``n_steps=``.

    Returns:
        The scores; a tuple of them for a layer with a tuple of tensors. Tensors without the samples first, such as the
        last state of a GRU, are left out with a warning.

    Raises:
        TypeError: if ``attribution`` is no attribution of one layer, or its ``attribute`` lacks an argument.
        ValueError: if an option is unknown, or Captum fails on the layer; the message says what to change.

    Example:
        >>> import torch
        >>> from captum.attr import LayerGradientXActivation
        >>> from captum_ablate import unit_scores
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
        >>> unit_scores(LayerGradientXActivation(model, model[0]), (x, [0, 0, 1, 1])).tolist()
        [1.5, 1.0]
    """
    if additional_forward_args is not None:
        attribute_kwargs["additional_forward_args"] = additional_forward_args
        if isinstance(data, tuple) and not isinstance(data, Batch) and len(data) == 2:
            data = Batch(*data, attribute_kwargs.pop("additional_forward_args"))
    classes = target == "label" or per_class
    forward_func = getattr(inner(attribution), "forward_func", None)
    batches = batches_of_samples(data, forward_func, batch_size, unpack_batch, classes=classes)
    scoring = PerSampleScores(
        attribution,
        UnitAxis.of(unit_dim, layer_mask),
        target=target,
        positions=positions,
        samples=samples,
        attribute_kwargs={"embedding": embedding, "baseline_ids": baseline_ids, **attribute_kwargs},
    )
    with borrowed(inner(attribution).forward_func, scoring.forward_func, scoring.layer, batches.owner):
        for batch in with_progress(batches, scoring.name, show_progress):
            scoring.add(batch)
    return scoring.scores(per_class=per_class)


def batches_of_samples(
    data: Any,
    forward_func: Any,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    *,
    classes: bool = True,
) -> Batches:
    """Return the batches of ``data``; tensors come in batches that per-sample methods can hold."""
    size = SAMPLES_AT_A_TIME if batch_size is None else batch_size
    return as_batches(data, forward_func=forward_func, batch_size=size, unpack_batch=unpack_batch, classes=classes)


class PerSampleScores:
    """Sum the unit scores of one per-sample attribution: ``add`` each batch, then ask for ``scores``."""

    def __init__(
        self,
        attribution: Any,
        axis: UnitAxis,
        *,
        target: str | int | None = "label",
        positions: str = "sum",
        samples: str = "mean",
        element: int | None = None,
        attribute_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Take the arguments of ``unit_scores``; ``element`` scores that tensor of the layer alone.

        ``embedding`` and ``baseline_ids`` are among ``attribute_kwargs``.
        """
        check_attribution(attribution)
        if positions not in ("sum", "mean"):
            raise ValueError(f'positions must be "sum" or "mean"; got {positions!r}')
        if samples not in ("mean", "mean_abs"):
            raise ValueError(f'samples must be "mean" or "mean_abs"; got {samples!r}')
        if isinstance(target, str) and target not in ("label", "prediction"):
            raise ValueError(f'target must be "label", "prediction", an output index or None; got {target!r}')
        self.attribution, self.axis, self.target = attribution, axis, target
        self.positions, self.samples, self.kwargs = positions, samples, dict(attribute_kwargs or {})
        self.extra = self.kwargs.pop("additional_forward_args", None)
        self._inner = inner(attribution)
        self.forward_func = as_model(self._inner.forward_func)
        self.layer: nn.Module = self._inner.layer
        refuse_scripted(self.layer)
        self.name = name_of(attribution)
        self._takes = parameters(attribution)
        embedding, self._baseline_ids = self.kwargs.pop("embedding", None), self.kwargs.pop("baseline_ids", 0)
        self._embedding = None if embedding is None else find_layer(self.forward_func, embedding)
        self._pieces = Pieces(attribution, self.forward_func, self.layer)
        self._element, self._alone = element, False
        self._shapes: dict[int, torch.Size] = {}
        self._sizes: list[torch.Size] = []
        self._one_logit: bool | None = None
        self._columns: int | None = None
        self._moments: list[ClassMoments] = []
        self._check_arguments()

    def add(self, batch: Batch) -> None:
        """Attribute one batch, and add its unit scores."""
        classes = classes_or_zeros(batch.target.cpu())
        new = [ClassMoments.of(values, classes) for values in self.per_sample(batch)]
        self._moments = [a + b for a, b in zip(self._moments, new, strict=True)] if self._moments else new

    def per_sample(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the unit scores of each sample of one batch, ``[n, units]`` for every tensor of the layer."""
        if self.extra is not None:
            batch = batch._replace(additional_forward_args=as_tuple(self.extra))
        sizes = [x.shape[1:] for x in batch.inputs if isinstance(x, Tensor)]
        if self._shapes and sizes != self._sizes:  # tokens of another number
            self._shapes = self._layer_shapes(batch)
        self._sizes = sizes
        if not self._shapes:
            refuse_training_mode(self.forward_func, self.layer)
            if isinstance(self._inner, GradientAttribution):
                refuse_gradients_of_quantised(self.forward_func, self.name)
            states = random_states()
            self._shapes = self._layer_shapes(batch)
            if has_drawn(states):
                warn_of_randomness(self.forward_func, batch)
        if self._embedding is None:
            refuse_ids(self.attribution, batch)
        pieces = [self._attribute(piece, own) for piece, own in self._pieces(batch, self.kwargs, self._attribute)]
        parts = pieces[0] if len(pieces) == 1 else [torch.cat(part) for part in zip(*pieces, strict=True)]
        shapes = self._shapes.values()
        return tuple(self._per_unit(part, shape, batch) for part, shape in zip(parts, shapes, strict=True))

    @property
    def draws(self) -> bool:
        """Whether the attribution may draw random numbers."""
        return type(self.attribution) not in DRAWING_NOTHING

    def scores(self, per_class: bool = False) -> Any:
        """Return the scores of all batches so far, ``[units]`` or ``[classes, units]``; a tuple of them if need be."""
        absolute = self.samples == "mean_abs"
        results = tuple(
            (m.absolute_means if absolute else m.means) if per_class else (m.absolute_mean if absolute else m.mean)
            for m in self._moments
        )
        return results[0] if len(results) == 1 else results

    def _check_arguments(self) -> None:
        unknown = [k for k in self.kwargs if k not in self._takes and not takes_any(self._takes)]
        if unknown:
            raise TypeError(f"{self.name}.attribute has no argument {unknown[0]!r}; it takes {', '.join(self._takes)}")
        if self.kwargs.get("return_convergence_delta"):
            raise ValueError("return_convergence_delta returns no unit scores; leave it out")
        if self._embedding is not None and "additional_forward_args" not in self._takes:
            raise ValueError(
                f"{self.name}.attribute takes no additional_forward_args, in which token ids go along where embedding= "
                "is given"
            )
        if needs_baselines(self._takes) and "baselines" not in self.kwargs:
            raise ValueError(
                f"{self.name} needs baselines, a distribution of inputs: "
                f"functools.partial(unit_scores, {self.name}(model, layer), baselines=inputs)"
            )

    @property
    def _at_input(self) -> bool:
        return bool(self.kwargs.get("attribute_to_layer_input", False))

    def _layer_shapes(self, batch: Batch) -> dict[int, torch.Size]:
        """Run the model; return the shape that the attribution of each tensor must have, by its number.

        If Captum's hooks see more than one tensor that is wanted, the attribution is of that tensor ``_alone``.
        """
        at_input = self._at_input
        (shapes,) = output_shapes(self.forward_func, [self.layer], [batch], at_input=at_input)
        if self._element is not None:
            shapes = {self._element: shapes[self._element]}
        if len(shapes) == 1:
            self._alone = not captum_sees(self.forward_func, self.layer, batch, 1, at_input=at_input)
        return shapes

    def _attribute(self, batch: Batch, kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
        target, side = self._targets(batch)
        kwargs = dict(kwargs)
        if isinstance(self._inner, LayerFeatureAblation) and "layer_mask" not in kwargs:
            kwargs["layer_mask"] = self._unit_mask(batch)
        relu = side is not None and bool(kwargs.pop("relu_attributions", False))  # of the label's side, so at the end
        try:
            with drawing if self.draws else nullcontext(), hooks_of_own_pass(), torch.enable_grad():
                result = self._call_alone(batch, target, kwargs)
        except Exception as error:
            name = layer_name(self.forward_func, self.layer)
            raise ValueError(explained(error, self._inner, name)) from error
        parts = result if isinstance(result, tuple) else (result,)
        if len(parts) != len(self._shapes) or not all(isinstance(part, Tensor) for part in parts):
            wanted = ", ".join(str(tuple(shape)) for shape in self._shapes.values())
            raise ValueError(
                f"{self.name}.attribute must return a Tensor of the shape of the layer's output, {wanted}; got "
                + ", ".join(type(part).__name__ for part in parts)
            )
        if side is None:
            return tuple(part.detach() for part in parts)
        sided = [part.detach() * side.to(part).reshape(-1, *[1] * (part.ndim - 1)) for part in parts]
        return tuple(part.relu() if relu else part for part in sided)

    def _call_alone(self, batch: Batch, target: Any, kwargs: dict[str, Any]) -> Any:
        """Call the attribution; if need be, of the layer's one tensor that is wanted."""
        if not self._alone:
            return self._call(self.attribution, batch, target, kwargs)
        name, (element,) = layer_name(self.forward_func, self.layer), self._shapes
        site = Site(self.layer, name, self.axis, self._at_input, element)
        own = {k: value for k, value in kwargs.items() if k != "attribute_to_layer_input"}
        with on_one_tensor(self.attribution, site) as alone:
            return self._call(alone, batch, target, own)

    def _call(self, attribution: Any, batch: Batch, target: Any, kwargs: dict[str, Any]) -> Any:
        """Attribute ``target``; Captum gets only what has a row for each sample, the rest is bound to the model."""
        found = bound(attribution, batch)
        if self._embedding is not None:
            found, baseline = embedded(found, self._embedding, self._baseline_ids)
            if "baselines" in self._takes and not needs_baselines(self._takes):
                kwargs.setdefault("baselines", baseline)
        elif "baselines" in kwargs:
            kwargs["baselines"] = left_of(kwargs["baselines"], found, len(batch.inputs))
        attribute: Callable[..., Any] = found.attribution.attribute

        def attributed(own: Batch, target: Any) -> Any:
            inputs = tuple(_dense(x) if isinstance(x, Tensor) else x for x in own.inputs)
            options = dict(kwargs)
            if "additional_forward_args" in self._takes and own.additional_forward_args:
                options.setdefault("additional_forward_args", own.additional_forward_args)
            if "target" in self._takes and target is not None:
                options["target"] = target
            return attribute(inputs[0] if len(inputs) == 1 else inputs, **options)

        if not isinstance(target, Tensor) or kwargs.get("perturbations_per_eval", 1) == 1:
            return attributed(found.batch, target)
        result: Tensor | None = None
        for c in torch.unique(target).tolist():  # Captum repeats inputs, not targets, for several perturbations
            rows = (target == c).nonzero().flatten()
            part = attributed(found.batch.take(rows), c)
            result = part.new_zeros(len(target), *part.shape[1:]) if result is None else result
            result[rows] = part.detach()
        return result

    def _targets(self, batch: Batch) -> tuple[Any, Tensor | None]:
        """Return Captum's target, and for a model with one logit the sign of each sample's side, ``[n]``."""
        if "target" not in self._takes or self.target not in ("label", "prediction"):
            return self.target if "target" in self._takes else None, None
        is_label = self.target == "label"
        if is_label:
            batch = batch._replace(target=self._labels(batch.target))
        if self._one_logit is not None and is_label and not self._one_logit:
            self._check_indices(batch.target)
            return batch.target, None
        outputs, n = self._outputs(batch, few=is_label)
        self._one_logit = is_one_logit(outputs, n)
        if not self._one_logit:
            if is_label:
                self._columns = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.ndim == 2 else None
                self._check_indices(batch.target)
            return (batch.target if is_label else outputs.argmax(dim=1)), None
        labels = batch.target if is_label else (outputs.reshape(-1) > 0).to(torch.int64)
        check_binary(labels)
        return (0 if outputs.ndim == 2 else None), 2 * labels - 1

    def _outputs(self, batch: Batch, few: bool) -> tuple[Any, int]:
        """Return the model's outputs for the batch, or if ``few`` for some of it that it takes, and their number."""
        with torch.no_grad():
            if few:
                try:
                    return call(self.forward_func, batch.take(slice(2))), min(2, len(batch.target))
                except Exception:  # a model made for one size of batch, or that needs all its samples, such as a graph
                    pass
            return call(self.forward_func, batch), len(batch.target)

    def _check_indices(self, labels: Tensor) -> None:
        if self._columns is not None:
            check_indices(labels, self._columns)

    def _labels(self, target: Tensor) -> Tensor:
        labels = classes_of(target)
        if labels is None:
            raise ValueError(
                f"{self.name} attributes one output per sample, and the targets {target.dtype} {tuple(target.shape)} "
                "are no classes; say which output: functools.partial(unit_scores, "
                f"{self.name}(model, layer), target=0), an index for all samples, or None for a model with one output"
            )
        return labels

    def _unit_mask(self, batch: Batch) -> Any:
        """Return the mask that makes each unit one feature; without it Captum ablates each element alone."""
        masks = []
        for shape in self._shapes.values():
            units = self.axis.count(shape)
            mask = self.axis.spread(torch.arange(units, device=batch.target.device)[None], shape)
            masks.append(mask.expand(1, *shape[1:]))
        return masks[0] if len(masks) == 1 else tuple(masks)

    def _per_unit(self, part: Tensor, shape: torch.Size, batch: Batch) -> Tensor:
        n = len(batch.target)
        expected, got = self.axis.shape(shape), part.shape
        same = part.ndim == len(shape) and len(part) == n and self.axis.shape(got) == expected
        if not same:
            hint = (
                "; pass attr_dim_summation=False to keep its channels apart: "
                "functools.partial(unit_scores, LayerGradCam(model, layer), attr_dim_summation=False)"
                if isinstance(self._inner, LayerGradCam)
                else ""
            )
            raise ValueError(
                f"{self.name} returned attributions of shape {tuple(got)} for a layer output {tuple(shape)} and {n} "
                f"samples, so units have no scores{hint}"
            )
        refuse_complex(part, f"attributions ({self.name})")
        pooled = self.axis.total if self.positions == "sum" else self.axis.pool
        values = pooled(part, batch.position_mask)
        values = values.cpu().to(torch.float64)
        if not bool(torch.isfinite(values).all()):
            unit = int((~torch.isfinite(values)).any(0).nonzero()[0])
            raise ValueError(f"{self.name} returned NaN or infinite attributions, first for unit {unit}")
        return values


def _dense(tensor: Tensor) -> Tensor:
    """Return a copy for Captum, which interpolates and repeats dense inputs alone."""
    tensor = tensor.detach().clone()
    return tensor if tensor.layout is torch.strided else tensor.to_dense()
