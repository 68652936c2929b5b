"""Measure a layer: unit scores on one part of the images, deficits of units, groups and orders on another."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import captum_ablate
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import CACHE
from benchmarks.papers.hayne import efficientnet, subjects, superclasses
from benchmarks.papers.hayne.subjects import Material, Subject
from captum_ablate import (
    AblationGrid,
    Comparison,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerSelectivityActivity,
    class_deficits,
    class_planes,
)
from captum_ablate.ablation import Chain, Engine, Plan, Site, plain_reference
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.studies import ClassDeficits

METHODS = ("selectivity", "mean activity", "selectivity x activity", "probe")
TILES, MIN_UNITS = 4, 3
"""Tiles per side of a plane. With five, layers of 64 to 128 units would have hardly a tile of three units."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured of a layer."""

    n_random: int
    steps: int
    random_orders: int

    @classmethod
    def of(cls, scale: Scale) -> Sizes:
        """Return the sizes of this scale."""
        return scale.pick(cls(3, 4, 2), cls(20, 10, 5), cls(20, 20, 20))


@dataclass(frozen=True, eq=False)
class LayerStudy:
    """The measurements of one layer.

    ``units`` has a row per live unit that was ablated alone. Its columns ``selectivity``, ``mean activity``,
    ``selectivity x activity`` and ``probe`` are scores on the ranking part. ``margin`` and ``accuracy`` are mean drops;
    ``preferred`` is the drop of the margin on images of the unit's preferred class; ``first`` and ``second`` are drops
    of the margin on two halves of the images.

    ``groups`` has a row per class and tile, ``curves`` a row per method and step. ``deletion`` and ``gap`` hold areas
    by image, ``[n]``, for each method. ``deficits`` are the deficits of the groups, for their plot.
    """

    network: str
    family: str
    layer: str
    n_units: int
    dead: int
    n_rank: int
    n_evaluate: int
    intact: float
    units: pd.DataFrame
    groups: pd.DataFrame
    curves: pd.DataFrame
    deletion: dict[str, np.ndarray]
    gap: dict[str, np.ndarray]
    deficits: ClassDeficits


@dataclass(frozen=True, eq=False)
class NetworkStudy:
    """A network's layers, its accuracy, and the seconds of measuring and of training."""

    network: str
    family: str
    accuracy: float
    layers: tuple[LayerStudy, ...]
    seconds: float
    training: float


def study(subject: Subject, scale: Scale, *, keep: bool = True) -> NetworkStudy:
    """Measure every layer of ``subject``, or load what the same code measured before.

    With ``keep`` the measurements are read from the cache and written to it.
    """
    name = f"{subject.key.replace(', ', '-').replace(' ', '')}-{scale.value}"
    file = CACHE / "hayne" / f"{name}-{_code()}.pickle"
    if keep and file.is_file():
        with file.open("rb") as kept:
            found: NetworkStudy = pickle.load(kept)
        return found
    start = time.process_time()
    material = subject.make()
    if material.seconds:
        start = time.process_time()  # training has a figure of its own
    layers = []
    for layer in material.layers:
        layers.append(layer_study(subject, material, layer, Sizes.of(scale)))
        print(f"{subject.key}, {layer}: {time.process_time() - start:.0f} s so far", flush=True)
    done = NetworkStudy(
        subject.key,
        subject.family,
        material.accuracy,
        tuple(layers),
        time.process_time() - start,
        material.seconds,
    )
    if keep:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(done))
        for outdated in file.parent.glob(f"{name}-*.pickle"):
            outdated.unlink()
        partial.replace(file)
    return done


def _code() -> str:
    """Return a digest of the code that the measurements depend on: changed code invalidates the cache.

    Trained weights have a cache of their own, so the code of their networks does not count.
    """
    protocol = [__file__, *(str(module.__file__) for module in (subjects, superclasses, efficientnet))]
    library = sorted(Path(captum_ablate.__file__).parent.rglob("*.py"))
    parts = [Path(file).read_bytes() for file in (*protocol, *library)]
    return sha256(b"".join(parts)).hexdigest()[:12]


def layer_study(subject: Subject, material: Material, layer: str, sizes: Sizes) -> LayerStudy:
    """Measure one layer: scores on ``material.rank``, deficits on ``material.evaluate``."""
    rank, evaluate = tuple(material.rank), tuple(material.evaluate)
    evaluator = CumulativeAblationEvaluator(
        material.network,
        layer,
        metric=material.right,
        steps=sizes.steps,
        n_random=sizes.random_orders,
        live_units_only=False,
    )
    comparison = _comparison(evaluator, material, layer)
    if comparison.failed:
        raise ValueError(f"{subject.key}, {layer}: {dict(comparison.failed)}")
    scores = {name: comparison[name].scores for name in METHODS}
    planes = class_planes(evaluator, rank, tiles=TILES, min_units=MIN_UNITS, batch_size=material.batch)
    deficits = class_deficits(planes, evaluator, evaluate, n_random=sizes.n_random, batch_size=material.batch)
    alive = next(iter(planes.values())).inside
    where = {"network": subject.key, "layer": layer}
    return LayerStudy(
        **where,
        family=subject.family,
        n_units=len(alive),
        dead=int((~alive).sum()),
        n_rank=len(material.rank.labels),
        n_evaluate=len(material.evaluate.labels),
        intact=float(comparison["selectivity"].score[0]),
        units=_units(material, layer, planes, scores),
        groups=_groups(deficits, planes, scores["mean activity"]).assign(**where),
        curves=comparison.to_frame().assign(**where),
        deletion={name: comparison[name].areas.numpy() for name in METHODS},
        gap={name: comparison[name].gap_areas.numpy() for name in METHODS},
        deficits=deficits,
    )


def _comparison(evaluator: CumulativeAblationEvaluator, material: Material, layer: str) -> Comparison:
    """Return the curves of the four scores, ranked on one part of the data and evaluated on the other."""
    network = material.network
    methods = {
        "selectivity": LayerClassSelectivity(network, layer),
        "mean activity": LayerMeanActivity(network, layer),
        "selectivity x activity": LayerSelectivityActivity(network, layer),
        "probe": LayerLinearProbe(network, layer),
    }
    evaluate, rank = tuple(material.evaluate), tuple(material.rank)
    return evaluator.compare(methods, evaluate, ranking_data=rank, batch_size=material.batch)


def _groups(deficits: ClassDeficits, planes: Mapping[int, AblationGrid], activity: Tensor) -> pd.DataFrame:
    """Return a row per class and tile, with the mean of ``activity [units]`` over the units of the tile."""
    frame = deficits.to_frame()
    frame["overall_activity"] = [
        float(activity[planes[label].groups[group].units].mean())
        for label, group in zip(frame["class"], frame["group"], strict=True)
    ]
    return frame


def _units(
    material: Material, layer: str, planes: Mapping[int, AblationGrid], scores: Mapping[str, Tensor]
) -> pd.DataFrame:
    """Return a row per live unit: the deficits of ablating it alone, and its scores."""
    alive = next(iter(planes.values())).inside
    activity = torch.stack([plane.y for plane in planes.values()])  # [classes, units]
    preferred = torch.tensor(list(planes))[activity.nan_to_num(-torch.inf).argmax(dim=0)]
    units = _single_units(material, layer, alive, preferred)
    for name, values in scores.items():
        units[name] = values.numpy()[units["unit"]]
    return units


def _single_units(material: Material, layer: str, alive: Tensor, preferred: Tensor) -> pd.DataFrame:
    """Ablate live units one at a time; return a row per unit with the drops of margin and accuracy."""
    candidates = alive.nonzero().flatten()
    drawn = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0))[: material.singles]
    units = candidates[drawn].sort().values
    plan = Plan.of((Chain(unit[None], (1,)) for unit in units), len(alive))
    site = Site(material.network.get_submodule(layer), layer, UnitAxis.of(1))
    batches = as_batches(tuple(material.evaluate), forward_func=material.network, batch_size=material.batch)
    measured = Engine(material.network, [site], [plain_reference("zero")], material.margin, plan).run(batches)
    margins = measured.values.to(torch.float64)  # [units, n]
    intact = measured.intact.to(torch.float64)
    drop = (intact - margins).numpy()
    lost = ((intact > 0).double() - (margins > 0).double()).numpy()
    label, own = measured.target.numpy(), preferred[units].numpy()
    half = np.arange(len(label)) % 2 == 0  # images stand in random order, or by class: every other one of each
    return pd.DataFrame(
        {
            "unit": units.numpy(),
            "margin": drop.mean(axis=1),
            "accuracy": lost.mean(axis=1),
            "preferred": [
                row[label == c].mean() if (label == c).any() else np.nan for row, c in zip(drop, own, strict=True)
            ],
            "first": drop[:, half].mean(axis=1),
            "second": drop[:, ~half].mean(axis=1),
        }
    )
