"""Settings that a reader needs to repeat a result, and mappings that cannot be changed."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import captum
import numpy as np
import torch

from captum_ablate.evaluation.methods import GIVEN
from captum_ablate.evaluation.overlap import TOLERATED
from captum_ablate.inputs.wording import counted, listed, visible
from captum_ablate.statistics.confidence_sequence import Sampled

Value = TypeVar("Value")

SCHEMA_VERSION = 2
"""Version of the fields of ``Provenance``, kept with every saved result."""

MAPPINGS = ("layers", "versions", "methods", "own_references", "ranking_seconds", "order_only")
"""Fields of ``Provenance`` that are mappings by name."""

MOST_LAYERS = 4
"""Layers that the line of a setting names; of more, the first and the last."""


class Frozen(Mapping[str, Value]):
    """A mapping that cannot be changed, and can be pickled."""

    def __init__(self, items: Mapping[str, Value]) -> None:
        self._items = dict(items)

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


def versions() -> Frozen[str]:
    """Return the versions of what computes a result, by name."""
    try:
        own = version("captum-ablate")
    except PackageNotFoundError:  # run from a folder, not installed
        own = "not installed"
    return Frozen(
        {
            "captum_ablate": own,
            "torch": str(torch.__version__),
            "captum": str(captum.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
    )


@dataclass(frozen=True)
class Provenance:
    """The setting of a result: where units were ablated, how, and on how many samples.

    Args:
        layers: number of units by layer; the units of several layers count on from one to the next.
        dead: units that never differ from their reference in the ranking data, and are left out of all orders.
        live_units_only: whether dead units were looked for; of several layers, in the one that runs first.
        woken: those of them that differ in the evaluation data; not looked for if samples were drawn ``until``.
        reference: name of what stood in an ablated unit's place.
        metric: name of the metric.
        intact: mean metric of the intact model.
        n: number of samples that were evaluated.
        n_random: number of random orders.
        seed: seed of random orders, ties and donors.
        in_sample: whether units were ranked on all of the samples that were evaluated, told by their digests.
        engine: how the outputs were computed: "graph (...)", "closed form" or "hook loop (reason)".
        bounds: smallest and largest value of the metric, where it has them.
        sampled: how samples were drawn, where ``until`` was asked for; else all were evaluated.
        methods: what each method is, by name: its class, "function ...", or "scores" for a ready Tensor.
        own_references: the reference of methods that ablate by another one than the evaluator, by name.
        weights: digest of the network's weights (``inputs.fingerprint.weights_digest``); None of a plain function.
        ranking_n: number of samples that were ranked on, or that references were learned from; None if not known.
        ranking_digest: their digest (``inputs.fingerprint.DataDigest``), 32 hexadecimal digits.
        evaluation_digest: that of the samples that were evaluated.
        overlap: how many evaluated samples occur in the ranking data too; None if not known.
        ranking_seconds: wall-clock seconds that ranking took, by method. Statistics that share a pass over the data
            share its time in equal parts; what learns references alone is in ``seconds`` only.
        seconds: wall-clock seconds in all.
        ranking_resamples: resamples of the ranking data on which every method was ranked again; 0 without any.
        order_only: why a method was not ranked again, by name: its intervals are those of its one order.
        versions: versions of the packages and of Python, by name.
    """

    layers: Mapping[str, int]
    reference: str
    metric: str
    intact: float
    n: int
    n_random: int
    seed: int
    in_sample: bool
    engine: str
    dead: int = 0
    live_units_only: bool = True
    woken: int = 0
    sampled: Sampled | None = None
    bounds: tuple[float, float] | None = None
    versions: Mapping[str, str] = field(default_factory=versions)
    schema_version: int = SCHEMA_VERSION
    methods: Mapping[str, str] = field(default_factory=lambda: Frozen({}))
    own_references: Mapping[str, str] = field(default_factory=lambda: Frozen({}))
    weights: str | None = None
    ranking_n: int | None = None
    ranking_digest: str | None = None
    evaluation_digest: str | None = None
    overlap: int | None = None
    ranking_resamples: int = 0
    order_only: Mapping[str, str] = field(default_factory=lambda: Frozen({}))
    ranking_seconds: Mapping[str, float] = field(default_factory=lambda: Frozen({}), compare=False)
    seconds: float = field(default=float("nan"), compare=False)

    @property
    def layer(self) -> str:
        """Name of the layer, or the names of all, joined by plus signs."""
        return " + ".join(self.layers)

    @property
    def units(self) -> int:
        """Number of units of all layers."""
        return sum(self.layers.values())

    @property
    def metric_words(self) -> str:
        """The metric's name as words: "log likelihood"."""
        return visible(self.metric.replace("_", " "))

    @property
    def layer_words(self) -> str:
        """The layers on one line, the first and the last of many."""
        names = [visible(name) for name in self.layers]
        if len(names) > MOST_LAYERS:
            return f"{names[0]} + ... + {names[-1]} ({len(names)} layers)"
        return " + ".join(names)

    @property
    def setting(self) -> str:
        """Layer, reference, metric and data, in a line."""
        sampled = self.sampled
        samples = counted(self.n, "sample")
        if sampled is not None:
            samples = f"{self.n:,} of {counted(sampled.population, 'sample')}"
        text = (
            f"{self.layer_words} ({counted(self.units, 'unit')}{self._left_out}, {visible(self.reference)} reference, "
            f"{self.metric_words} {self.intact:.3f} on {samples}"
            + (f", {counted(self.n_random, 'random order')}" if self.n_random else "")
            + (f", {counted(self.ranking_resamples, 'resample')} of the ranking data" if self.ranking_resamples else "")
            + ")"
        )
        if sampled is not None:
            text += (
                f" drawn at random until each deletion is known to \N{PLUS-MINUS SIGN}{sampled.half_width:g}; "
                "intervals: 95 % confidence sequences, for all methods together"
            )
        if self.in_sample:
            text += "; in-sample: ranked on the data that it is evaluated on"
        return text + (f"; ranked on unknown data: {listed(self.given)}" if self.given else "")

    @property
    def given(self) -> list[str]:
        """Names of the methods that came as ready scores, so that nobody knows what they were ranked on."""
        return [name for name, kind in self.methods.items() if kind == GIVEN]

    @property
    def overlaps(self) -> bool:
        """Tell whether more evaluated samples were ranked on too than data sets repeat."""
        return self.overlap is not None and self.overlap > TOLERATED * self.n

    def withholds_p(self, method: str) -> bool:
        """Tell whether no p holds for a method: its ranking knew evaluated samples, or results chose their number."""
        return self.sampled is not None or (method not in self.given and (self.in_sample or self.overlaps))

    @property
    def _left_out(self) -> str:
        """The words for units that were left out, to follow the number of all."""
        if not self.dead:
            return ""
        woken = f" ({self.woken:,} of them live in the evaluation data)" if self.woken else ""
        return f", {self.dead:,} dead and left out{woken}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        sampled = None if self.sampled is None else {**asdict(self.sampled), "bounds": list(self.sampled.bounds)}
        bounds = None if self.bounds is None else list(self.bounds)
        plain = {name: dict(getattr(self, name)) for name in MAPPINGS}
        return {**vars(self), **plain, "sampled": sampled, "bounds": bounds}

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> Provenance:
        """Return the provenance whose ``to_dict`` this is."""
        found = fields["sampled"]
        sampled = None if found is None else Sampled(**{**found, "bounds": tuple(found["bounds"])})
        ends = fields.get("bounds")  # results saved before it was kept have none
        bounds = None if ends is None else (float(ends[0]), float(ends[1]))
        frozen = {name: Frozen(fields.get(name, {})) for name in MAPPINGS}
        return cls(**{**fields, **frozen, "sampled": sampled, "bounds": bounds})


def is_same(ranking_data: Any, data: Any) -> bool:
    """Tell whether a ranking is made on the very data that it is evaluated on."""
    if ranking_data is None or ranking_data is data:
        return True
    pair = isinstance(data, tuple) and isinstance(ranking_data, tuple) and bool(data) and bool(ranking_data)
    return pair and ranking_data[0] is data[0]
