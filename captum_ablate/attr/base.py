"""The base class of attributions over a labelled data set."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from captum_ablate.attr.gradients import gate_gradients
from captum_ablate.attr.options import AttributionWithOptions, argument
from captum_ablate.inputs.batches import Batches, UnpackBatch, batches_of_call
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import (
    ForwardFunc,
    Layer,
    as_model,
    device_of,
    find_layer,
)
from captum_ablate.inputs.progress import ticking, with_progress
from captum_ablate.inputs.targets import check_classes
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.collect import LayerRequest, LayerStatistics, collect
from captum_ablate.statistics.requests import MomentsRequest, Request, Statistic
from captum_ablate.statistics.weight_norms import WeightNorms


class LayerDatasetAttribution(AttributionWithOptions):
    r"""One score per unit of a layer, from a labelled data set; higher means more important.

    Captum's per-sample layer attributions return the shape of the layer's output. Here the result has no axis of
    samples: ``attribute`` returns ``[units]``.

    Args:
        forward_func: the model, or a function that runs it.
        layer: a module, its dotted name, or a list of either (then ``attribute`` returns a list).
        device_ids: as in Captum; batches are moved to the device of the model's parameters.
        unit_dim: axis of the layer's output that holds the units: 1 for neurons and channels, -1 for token layers
            ``[n, tokens, units]`` and channels-last networks, None to make every element a unit. All other
            axes are positions, averaged before the statistic.
        layer_mask: ``[units]``, group numbers 0, 1, ... along ``unit_dim``: the indices of a group are one unit.
            Heads are groups at the input of attention's output projection (``attribute_to_layer_input``), whose output
            mixes them.

    A new attribution is a subclass with ``score``. ``requests`` names the statistics that it needs, if not
    ``ClassMoments``. An annotated field is an option, a keyword argument of the constructor:

        >>> import torch
        >>> from captum_ablate import LayerDatasetAttribution
        >>> class LayerMeanRange(LayerDatasetAttribution):
        ...     scale: float = 1.0
        ...
        ...     def score(self, moments):
        ...         return self.scale * (moments.means.amax(0) - moments.means.amin(0))
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
        >>> LayerMeanRange(torch.nn.Sequential(torch.nn.ReLU()), "0", scale=2.0).attribute(x, target=[0, 0, 1, 1])
        tensor([6., 0.], dtype=torch.float64)
    """

    requests: ClassVar[tuple[Request, ...]] = (MomentsRequest(),)
    """The statistics that ``score`` and ``score_per_class`` receive, in this order."""

    source: ClassVar[str] = "activations"
    """Source of the statistics: "activations" (one pass, which attributions can share), "gradients" (a
    pass of its own, with the ``ClassMoments`` of the loss's gradient with respect to a gate on each unit), or
    "ablation" (passes of its own)."""

    needs_two_classes: ClassVar[bool] = True
    """True if a score compares classes, and is refused for data of one class."""

    if TYPE_CHECKING:  # the constructor of subclasses, as type checkers are to see it
        forward_func: ForwardFunc = argument(kw_only=False)
        layer: Any = argument(kw_only=False)
        device_ids: list[int] | None = argument(kw_only=False, default=None)
        unit_dim: int | None = 1
        layer_mask: Tensor | None = None

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        device_ids: list[int] | None = None,
        *,
        unit_dim: int | None = 1,
        layer_mask: Tensor | None = None,
    ) -> None:
        model = as_model(forward_func)
        if isinstance(layer, (list, tuple)) and not layer:
            raise ValueError("the list of layers is empty; name at least one")
        found = (
            [find_layer(model, one) for one in layer] if isinstance(layer, (list, tuple)) else find_layer(model, layer)  # type: ignore[arg-type]  # not a sequence, by the line above
        )
        super().__init__(model, found, device_ids)
        self.axis = UnitAxis.of(unit_dim, layer_mask)
        self.__post_init__()

    @classmethod
    def get_name(cls) -> str:
        """Return the class name as words: "Layer KL Selectivity"."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", cls.__name__)

    @abstractmethod
    def score(self, *statistics: Any) -> Tensor:
        """Return one score per unit, ``[units]``, from the requested statistics."""

    def held(self, *statistics: Any) -> LayerDatasetAttribution:
        """Return the attribution with what it chooses by the data, such as a strength, held as these statistics say.

        So the score of a resample differs from that of the data by its samples alone.
        """
        return self

    def score_per_class(self, *statistics: Any) -> Tensor:
        """Return the scores per class, ``[classes, units]``, classes in ascending order of their labels."""
        raise ValueError(f"{self.get_name()} has no score per class; call attribute without per_class=True")

    @property
    def needs_classes(self) -> bool:
        """Tell whether ``attribute`` takes no target but one class per sample."""
        return True

    def check_classes(self, statistics: Sequence[Statistic]) -> None:
        """Raise if classes are compared, and the data of ``statistics`` hold one only."""
        if self.needs_two_classes:
            check_classes(next(s.classes for s in statistics if not isinstance(s, WeightNorms)))

    def check_per_class(self) -> None:
        """Raise if there is no score per class."""
        if type(self).score_per_class is LayerDatasetAttribution.score_per_class:
            self.score_per_class()

    def attribute(
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        *,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        per_class: bool = False,
        keepdim: bool = False,
        show_progress: bool = False,
    ) -> Any:
        """Return one float64 score per unit, ``[units]``.

        Args:
            inputs: a Tensor or tuple of Tensors, with ``target``; or a re-iterable of batches ``(*inputs, labels)``
                such as a DataLoader.
            target: the class of each sample, ``[n]`` integers (also ``[n, 1]``, a list, or numpy).
            additional_forward_args: further arguments of the model, as in Captum.
            attribute_to_layer_input: score the units of the layer's input instead.
            batch_size: samples to run at a time if ``inputs`` are tensors.
            unpack_batch: turns a batch of another form (a dict, say) into ``Batch(inputs, target)``.
            per_class: return ``[classes, units]``, classes in ascending order.
            keepdim: return ``[1, units, 1, 1]``, which broadcasts against the layer's output.
            show_progress: show a progress bar.

        Returns:
            The scores; a tuple of them for a layer with a tuple of tensors, a list for a list of layers. Tensors
            without the samples first, such as the last state of a GRU, are left out with a warning.

        Raises:
            ValueError: if the labels are no classes, or one class only where classes are compared; if the model is in
                training mode, the layer does not run exactly once, or its activations are not one finite row for each
                sample.
            TypeError: if the data are neither tensors nor an iterable of batches.
        """
        batches = batches_of_call(
            inputs,
            target,
            additional_forward_args,
            forward_func=self.forward_func,
            batch_size=batch_size,
            unpack_batch=unpack_batch,
            classes=self.needs_classes or per_class,
        )
        if per_class:
            self.check_per_class()
        with borrowed(self.forward_func, batches.owner, *self.layers):
            found = self._collect(batches, at_input=attribute_to_layer_input, show_progress=show_progress)
        return self.results(found, per_class=per_class, keepdim=keepdim)

    def _collect(self, batches: Batches, *, at_input: bool, show_progress: bool) -> list[LayerStatistics]:
        """Return the requested statistics of every layer, for each tensor of its output."""
        if self.source == "gradients":
            with ticking(self.get_name(), show_progress, batches.samples) as tick:
                return gate_gradients(self.forward_func, self.layers, self.axis, batches, tick, at_input=at_input)
        shown = with_progress(batches, self.get_name(), show_progress)
        return collect(self.forward_func, self.layer_requests(), shown, at_input=at_input)

    def statistics_of(self, batches: Batches, *, at_input: bool, show_progress: bool = False) -> list[LayerStatistics]:
        """Return the statistics of every layer that ``score`` takes, from passes over checked ``batches``."""
        return self._collect(batches, at_input=at_input, show_progress=show_progress)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, in a list also if there is one."""
        return list(self.layer) if isinstance(self.layer, list) else [self.layer]

    def layer_requests(self) -> list[LayerRequest]:
        """Return what is asked of a pass over the activations, for each layer."""
        return [LayerRequest(layer, self.axis, tuple(self.requests)) for layer in self.layers]

    def results(self, found: Sequence[LayerStatistics], *, per_class: bool = False, keepdim: bool = False) -> Any:
        """Return the scores: a tuple for a layer with a tuple of tensors, a list for a list of layers."""
        device = device_of(self.forward_func)

        def result(shape: torch.Size, statistics: tuple[Statistic, ...]) -> Tensor:
            self.check_classes(statistics)
            scores = self.score_per_class(*statistics) if per_class else self.score(*statistics)
            if keepdim:
                scores = self.axis.spread(scores if per_class else scores[None], shape)
            if device is not None and device.type == "mps":
                scores = scores.float()  # MPS has no float64
            return scores.to(scores.device if device is None else device, copy=True)  # statistics are shared

        results = [tuple(map(result, one.shapes, one.statistics)) for one in found]
        per_layer = [parts[0] if len(parts) == 1 else parts for parts in results]
        return per_layer if isinstance(self.layer, list) else per_layer[0]


SelectivityFactory = Callable[..., LayerDatasetAttribution]
