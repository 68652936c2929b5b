"""A ranking over one or several layers: taken apart by layer, ranked layer by layer, and joined again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.ablation import LiveUnits, Located, Reference, ReferenceOption, Site, fit_of, plain_reference
from captum_ablate.attr.inner import changed, inner
from captum_ablate.attr.per_sample import unit_scores
from captum_ablate.evaluation.methods import is_function, kind_of
from captum_ablate.evaluation.ranking import Ranker
from captum_ablate.evaluation.seconds import Seconds
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc, find_layer, layer_name
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.values import tensor_of


@dataclass(frozen=True)
class JointRanking:
    """``scores`` of each method over the units of all layers, ``[units]``; ``failed``, the reason by method.

    ``references``, one per layer, learned from the ranking data; ``uses_data`` tells whether anything was. ``watched``
    are the layers' live units as the ranking data show them, ``live [units]`` which units those are. ``kinds`` says
    what each method is (``kind_of``), ``seconds`` how long each took to rank; methods that share a pass share its time.
    ``own_references`` names the reference of methods that ablate by another one than the evaluator. ``resampled`` are
    the scores of each method on each resample of the ranking data, ``[resamples, units]``; ``order_only``, by method,
    says why it has none.
    """

    scores: dict[str, Tensor]
    failed: dict[str, str]
    references: list[Reference]
    uses_data: bool
    live: Tensor
    watched: list[LiveUnits | None]
    kinds: dict[str, str]
    seconds: dict[str, float]
    own_references: dict[str, str]
    resampled: dict[str, Tensor]
    order_only: dict[str, str]

    @classmethod
    def of(
        cls,
        attributions: Mapping[str, Any],
        forward_func: ForwardFunc,
        located: Located,
        references: Sequence[ReferenceOption],
        batches: Batches,
        *,
        seed: int,
        is_joint: bool,
        live_units_only: bool = True,
        call_options: Mapping[str, Any] | None = None,
        show_progress: bool = False,
    ) -> JointRanking:
        """Rank the units of all sites by each of ``attributions``; one that fails is reported, the others go on.

        ``is_joint`` says that attributions are of a list of layers, even of one; ``call_options`` are the
        ``batch_size`` and ``unpack_batch`` that ``batches`` were made with. With ``live_units_only``, units of the
        first layer that runs are left out where they never differ from their reference; after an ablated layer, a
        unit that is dead in the intact network can come alive, so later layers keep all.

        Raises:
            ValueError: if no attribution is applicable, or fewer than two units are live.
        """
        sites = located.sites
        names, units = [site.name for site in sites], [site.units.stop - site.units.start for site in sites]
        failed: dict[str, str] = {}
        parts: dict[str, list[Tensor]] = {name: [] for name in attributions}
        again: dict[str, list[Tensor]] = {name: [] for name in attributions}
        order_only: dict[str, str] = {}
        learned, uses_data, watched = [], False, list[LiveUnits | None]()
        kinds, seconds, own_references = dict[str, str](), Seconds(), dict[str, str]()
        layers = [site.layer for site in sites]
        methods_of = _split(attributions, forward_func, layers, units, failed) if is_joint else [dict(attributions)]
        for k, (site, methods) in enumerate(zip(sites, methods_of, strict=True)):
            ranker = Ranker(forward_func, site, methods, seed, call_options, seconds, show_progress)
            kinds |= {name: kind_of(method) for name, method in ranker.methods.items()}
            own_references |= ranker.other_references(references[k])
            fit = fit_of(references[k], site.axis, seed)
            needs_data = ranker.needs_data() or fit is not None
            uses_data |= needs_data
            if k > 0 and needs_data:
                batches.refuse_one_shot("several layers are ranked one after the other")
            live = LiveUnits(references[k], site) if live_units_only and located.seen.order[0] == k else None
            if live is not None and live.needs_target and needs_data:
                batches.refuse_one_shot("which units differ from a function's reference takes a pass of its own")
            ranking = ranker.rank(batches, fit, live)
            watched.append(live)
            learned.append(plain_reference(references[k]) if ranking.reference is None else ranking.reference)
            for name in methods:
                try:
                    if name in ranking.failed:
                        raise ValueError(ranking.failed[name])
                    found = ranking.scores[name].cpu().to(torch.float64)
                    parts[name].append(checked_scores(found, units[k], names[k]))
                    if name in ranking.resampled and bool(ranking.resampled[name].isfinite().all()):
                        again[name].append(ranking.resampled[name].cpu().to(torch.float64))
                    else:
                        order_only.setdefault(name, ranking.order_only.get(name, "a resample has no finite scores"))
                except ValueError as error:
                    failed.setdefault(name, f"{names[k]}: {error}" if len(sites) > 1 else str(error))
        scores = {name: torch.cat(found) for name, found in parts.items() if name not in failed}
        if not scores:
            reasons = "; ".join(f"{method}: {reason}" for method, reason in failed.items())
            only = next(iter(failed.values()))
            raise ValueError(only if len(failed) == 1 else f"no attribution is applicable: {reasons}")
        failed = {method: failed[method] for method in attributions if method in failed}
        took = {name: seconds.by_name.get(name, 0.0) for name in scores}
        kinds = {name: kinds[name] for name in scores}
        own = {name: reference for name, reference in own_references.items() if name in scores}
        if not isinstance(batches, ResampledBatches):
            order_only = dict.fromkeys(scores, "the ranking data were not resampled")
        resampled = {name: torch.cat(again[name], dim=1) for name in scores if name not in order_only}
        order_only = {name: order_only[name] for name in scores if name in order_only}
        alive = _live(watched, sites)
        return cls(scores, failed, learned, uses_data, alive, watched, kinds, took, own, resampled, order_only)

    def woken(self, forward_func: ForwardFunc, located: Located, batches: Batches) -> int:
        """Return how many units that were left out differ from their reference in ``batches``, in a pass of its own."""
        if bool(self.live.all()):
            return 0
        found = 0
        for watched, site in zip(self.watched, located.sites, strict=True):
            if watched is not None:
                watched.add_all(forward_func, batches)
                units = site.units.stop - site.units.start
                found += int((watched.mask(units) & ~self.live[site.units]).sum())
        return found

    def orders(self, n_random: int, seed: int) -> list[Tensor]:
        """Return the descending order ``[live]`` of each method's live units, then ``n_random`` random ones."""
        stream = torch.Generator().manual_seed(seed)
        ties = torch.randperm(len(self.live), generator=stream)
        random = [torch.randperm(len(self.live), generator=stream) for _ in range(n_random)]
        return [*(self._sorted(values, ties) for values in self.scores.values()), *(o[self.live[o]] for o in random)]

    def sorted_by(self, scores: Tensor, seed: int) -> Tensor:
        """Return the descending order ``[live]`` of the live units by ``scores [units]``.

        One permutation breaks the ties of all methods.
        """
        return self._sorted(scores, torch.randperm(len(self.live), generator=torch.Generator().manual_seed(seed)))

    def _sorted(self, scores: Tensor, ties: Tensor) -> Tensor:
        order = ties[scores[ties].argsort(descending=True, stable=True)]
        return order[self.live[order]]

    def resampled_orders(self, seed: int) -> dict[str, list[Tensor]]:
        """Return the descending order ``[live]`` of each resample, by method; ties are broken as in ``orders``."""
        ties = torch.randperm(len(self.live), generator=torch.Generator().manual_seed(seed))
        return {name: [self._sorted(values, ties) for values in own] for name, own in self.resampled.items()}


def _live(watched: Sequence[LiveUnits | None], sites: Sequence[Site]) -> Tensor:
    """Return which units of all sites are live, ``[units]``; those of a site that was not watched all are."""
    masks = []
    for one, site in zip(watched, sites, strict=True):
        units = site.units.stop - site.units.start
        masks.append(torch.ones(units, dtype=torch.bool) if one is None else one.mask(units))
    live = torch.cat(masks)
    if int(live.sum()) < min(2, len(live)):
        names = ", ".join(repr(site.name) for site in sites)
        raise ValueError(
            f"only {int(live.sum())} of {len(live)} units of {names} ever differ from their reference in the ranking "
            "data, and an order needs two; rank on other data, name another layer, or pass live_units_only=False"
        )
    return live


def _split(
    attributions: Mapping[str, Any],
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    units: Sequence[int],
    failed: dict[str, str],
) -> list[dict[str, Any]]:
    """Return the methods of each layer; ``failed`` is filled with the reasons of those that have none."""
    split: list[dict[str, Any]] = [{} for _ in layers]
    for name, method in attributions.items():
        try:
            own = by_layer(method, forward_func, layers, units)
        except (ValueError, TypeError) as error:
            failed[name] = str(error)
            continue
        for methods, one in zip(split, own, strict=True):
            methods[name] = one
    return split


def checked_scores(scores: Tensor, units: int, layer: str) -> Tensor:
    """Return ``scores`` as ``[units]``, finite; axes of size 1 are dropped.

    Raises:
        ValueError: if there is not one finite value for each unit.
    """
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


def one_per_layer(option: Any, layers: int, name: str) -> list[Any]:
    """Return an option for each layer: a list or tuple gives one per layer, anything else is the same for all."""
    if not isinstance(option, (list, tuple)):
        return [option] * layers
    if len(option) != layers:
        raise ValueError(f"{name} must be one value, or one for each of the {layers} layers; got {len(option)}")
    return list(option)


def by_layer(method: Any, forward_func: ForwardFunc, layers: Sequence[nn.Module], units: Sequence[int]) -> list[Any]:
    """Return the method of each layer, for a method over all ``layers``, which have so many ``units``.

    It may be a list with a tensor or an attribution for each layer, an attribution of a list of layers (also inside
    ``functools.partial(unit_scores, ...)``), a mapping from layer names, or one Tensor over the units of all layers.
    A function of the user's is called for each layer.
    """
    if isinstance(method, partial) and method.func is unit_scores and len(method.args) == 1:
        own = by_layer(method.args[0], forward_func, layers, units)
        return [partial(method.func, one, **method.keywords) for one in own]
    names = [layer_name(forward_func, layer) for layer in layers]
    if isinstance(method, Mapping):
        missing = [name for name in names if name not in method]
        if missing or len(method) != len(names):
            raise ValueError(f"a mapping must have the layers {names} for its keys; got {list(method)}")
        return [method[name] for name in names]
    if isinstance(method, (list, tuple)) and not all(isinstance(one, (int, float, np.number)) for one in method):
        if len(method) != len(layers):
            raise ValueError(
                f"one tensor or attribution is needed for each of the {len(layers)} layers; got {len(method)}"
            )
        return list(method)
    if isinstance(method, (Tensor, np.ndarray, list, tuple)):
        whole = tensor_of(method, "scores")
        if whole.shape != (sum(units),):
            raise ValueError(
                f"scores over {len(layers)} layers are one tensor per layer, of {', '.join(map(str, units))} units, or "
                f"one Tensor [{sum(units)}]; got shape {tuple(whole.shape)}"
            )
        return list(whole.split(list(units)))
    return _of_each_layer(method, layers, names)


def _of_each_layer(method: Any, layers: Sequence[nn.Module], names: Sequence[str]) -> list[Any]:
    if is_function(method):
        return [method] * len(layers)
    inside = inner(method)
    own = getattr(inside, "layer", None)
    if not isinstance(own, (list, tuple)):
        raise ValueError(
            f"{type(method).__name__} belongs to one layer, and the evaluator ablates {len(layers)}; pass a list, an "
            "attribution for each layer, or one attribution of a list of layers"
        )
    found = [find_layer(inside.forward_func, one) if isinstance(one, str) else one for one in own]
    if len(found) != len(layers) or any(not any(one is layer for one in found) for layer in layers):
        others = [layer_name(inside.forward_func, one) for one in found]
        raise ValueError(f"the attribution belongs to the layers {others}, and the evaluator ablates {list(names)}")
    return [changed(method, layer=layer) for layer in layers]
