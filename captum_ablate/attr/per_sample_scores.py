"""Score the units of a layer sample by sample with a Captum attribution, and average the scores."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from captum.attr import GradientAttribution, LayerFeatureAblation, LayerGradCam
from torch import Tensor, nn

from captum_ablate.ablation import Site
from captum_ablate.attr.captum_call import CaptumCall
from captum_ablate.attr.captum_errors import explained
from captum_ablate.attr.embedded import refuse_ids
from captum_ablate.attr.inner import (
    check_attribution,
    inner,
    made_of,
    may_draw,
    name_of,
    needs_baselines,
    parameters,
    takes_any,
)
from captum_ablate.attr.one_tensor import captum_sees, on_one_tensor
from captum_ablate.attr.pieces import Pieces
from captum_ablate.attr.targets import Targets
from captum_ablate.inputs.batch import Batch, as_tuple
from captum_ablate.inputs.borrowed import refuse_training_mode
from captum_ablate.inputs.model import as_model, find_layer, layer_name, refuse_scripted
from captum_ablate.inputs.quantised import refuse_gradients_of_quantised
from captum_ablate.inputs.repeats import warn_of_randomness
from captum_ablate.inputs.targets import classes_or_zeros
from captum_ablate.inputs.threads import drawing, hooks_of_own_pass
from captum_ablate.inputs.unchanged import has_drawn, random_states
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.values import refuse_complex
from captum_ablate.statistics.activations import output_shapes
from captum_ablate.statistics.moments import ClassMoments


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
        """Check the arguments, those of ``unit_scores``; ``element`` scores that tensor of the layer alone.

        ``embedding`` and ``baseline_ids`` are among ``attribute_kwargs``.
        """
        check_attribution(attribution)
        if positions not in ("sum", "mean"):
            raise ValueError(f'positions must be "sum" or "mean"; got {positions!r}')
        if samples not in ("mean", "mean_abs"):
            raise ValueError(f'samples must be "mean" or "mean_abs"; got {samples!r}')
        self.attribution, self.axis = attribution, axis
        self.positions, self.samples, self.kwargs = positions, samples, dict(attribute_kwargs or {})
        self.extra = self.kwargs.pop("additional_forward_args", None)
        self._inner = inner(attribution)
        self.forward_func = as_model(self._inner.forward_func)
        self.layer: nn.Module = self._inner.layer
        refuse_scripted(self.layer)
        self.name = name_of(attribution)
        self._takes = parameters(attribution)
        self._targets = Targets(target, self.forward_func, self.name, takes_target="target" in self._takes)
        embedding, baseline_ids = self.kwargs.pop("embedding", None), self.kwargs.pop("baseline_ids", 0)
        embedding = None if embedding is None else find_layer(self.forward_func, embedding)
        self._call = CaptumCall(self._takes, embedding, baseline_ids)
        self._pieces = Pieces(attribution, self.forward_func, self.layer)
        self._element, self._alone = element, False
        self._shapes: dict[int, torch.Size] = {}
        self._sizes: list[torch.Size] = []
        self._moments: list[ClassMoments] = []
        self._resampled: list[Tensor] = []
        self._weight = torch.zeros(1, 1, dtype=torch.float64)
        self._check_arguments()

    def add(self, batch: Batch, weights: Tensor | None = None) -> None:
        """Attribute one batch, and add its unit scores; also to each resample, by ``weights [n, resamples]``."""
        classes, values = classes_or_zeros(batch.target.cpu()), self.per_sample(batch)
        new = [ClassMoments.of(part, classes) for part in values]
        self._moments = [a + b for a, b in zip(self._moments, new, strict=True)] if self._moments else new
        if weights is not None:
            own = weights.T.to(torch.float64)  # [resamples, n]
            sums = [own @ (part.abs() if self.samples == "mean_abs" else part) for part in values]
            self._resampled = [a + b for a, b in zip(self._resampled, sums, strict=True)] if self._resampled else sums
            self._weight = self._weight + own.sum(1, keepdim=True)

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
        if self._call.embedding is None:
            refuse_ids(self.attribution, batch)
        pieces = [self._attribute(piece, own) for piece, own in self._pieces(batch, self.kwargs, self._attribute)]
        parts = pieces[0] if len(pieces) == 1 else [torch.cat(part) for part in zip(*pieces, strict=True)]
        shapes = self._shapes.values()
        return tuple(self._per_unit(part, shape, batch) for part, shape in zip(parts, shapes, strict=True))

    @property
    def draws(self) -> bool:
        """Tell whether the attribution may draw random numbers."""
        return may_draw(self.attribution)

    def scores(self, per_class: bool = False) -> Any:
        """Return the scores of all batches so far, ``[units]`` or ``[classes, units]``; a tuple of them if need be."""
        absolute = self.samples == "mean_abs"
        results = tuple(
            (m.absolute_means if absolute else m.means) if per_class else (m.absolute_mean if absolute else m.mean)
            for m in self._moments
        )
        return results[0] if len(results) == 1 else results

    @property
    def resampled_scores(self) -> Tensor:
        """The scores of each resample, ``[resamples, units]``, of the first tensor of the layer."""
        return self._resampled[0] / self._weight

    def forget(self) -> None:
        """Begin again, without the batches so far."""
        self._moments, self._resampled, self._weight = [], [], torch.zeros_like(self._weight[:1])

    def _check_arguments(self) -> None:
        unknown = [k for k in self.kwargs if k not in self._takes and not takes_any(self._takes)]
        if unknown:
            raise TypeError(f"{self.name}.attribute has no argument {unknown[0]!r}; it takes {', '.join(self._takes)}")
        if self.kwargs.get("return_convergence_delta"):
            raise ValueError("return_convergence_delta returns no unit scores; leave it out")
        if self._call.embedding is not None and "additional_forward_args" not in self._takes:
            raise ValueError(
                f"{self.name}.attribute takes no additional_forward_args, in which token ids go along where embedding= "
                "is given"
            )
        if needs_baselines(self._takes) and "baselines" not in self.kwargs:
            raise ValueError(
                f"{self.name} needs baselines, a distribution of inputs: "
                f"functools.partial(unit_scores, {made_of(self.name)}, baselines=inputs)"
            )

    @property
    def _at_input(self) -> bool:
        return bool(self.kwargs.get("attribute_to_layer_input", False))

    def _layer_shapes(self, batch: Batch) -> dict[int, torch.Size]:
        """Run the model; return the shape that the attribution of each tensor must have, by its number.

        If Captum's hooks see more than one tensor that is wanted, the attribution is of that tensor ``_alone``.
        """
        at_input = self._at_input
        where: dict[str, Any] = {"at_input": at_input, "element": self._element}
        (shapes,) = output_shapes(self.forward_func, [self.layer], [batch], self.axis, **where)
        if len(shapes) == 1:
            self._alone = not captum_sees(self.forward_func, self.layer, batch, 1, at_input=at_input)
        return shapes

    def _attribute(self, batch: Batch, kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
        target, side = self._targets.of(batch)
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
