"""A unit's activation cut into levels: the classes and attributes of the samples at each level."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_ablate.diagnostics import pictures
from captum_ablate.diagnostics.labelled import labels, rows, same_length
from captum_ablate.inputs.values import tensor_of


@dataclass(frozen=True, eq=False)
class LevelSlices:
    """The samples at each level of one unit, lowest level first.

    ``edges [bins + 1]`` are in units of ``values [n]``. ``members`` are index arrays, lowest value first.
    ``classes [k]`` and ``attributes [s]`` are the labels that occur, ``counts [bins, k, s]`` their samples.
    ``embedding [bins, d]`` is the mean of the features, NaN in an empty bin. Without attributes s is 1 and their
    quantities are NaN.
    """

    values: Tensor
    edges: Tensor
    members: tuple[Tensor, ...]
    classes: Tensor
    attributes: Tensor
    counts: Tensor
    has_attributes: bool
    embedding: Tensor | None

    @classmethod
    def of(
        cls, values: Tensor, target: Tensor, attribute: Tensor | None, edges: Tensor, features: Tensor | None
    ) -> LevelSlices:
        """Cut the samples of checked ``values [n]`` at ``edges [bins + 1]``."""
        kinds = torch.zeros_like(target) if attribute is None else attribute
        level = torch.bucketize(values.contiguous(), edges[1:-1], right=True)  # [n]; on an edge means above it
        classes, class_index = torch.unique(target, return_inverse=True)
        attributes, attribute_index = torch.unique(kinds, return_inverse=True)
        shape = (len(edges) - 1, len(classes), len(attributes))
        cell = (level * shape[1] + class_index) * shape[2] + attribute_index
        counts = torch.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
        ascending = torch.argsort(values, stable=True)
        members = tuple(ascending[level[ascending] == b] for b in range(shape[0]))
        embedding = None if features is None else torch.stack([features[index].mean(dim=0) for index in members])
        return cls(values, edges, members, classes, attributes, counts, attribute is not None, embedding)

    @property
    def n(self) -> Tensor:
        """Samples per bin, ``[bins]``."""
        return self.counts.sum(dim=(1, 2))

    @property
    def class_composition(self) -> Tensor:
        """P(y given bin), ``[bins, k]``; NaN in an empty bin."""
        return self.counts.sum(dim=2).double() / self.n[:, None]

    @property
    def attribute_composition(self) -> Tensor:
        """P(s given bin), ``[bins, s]``; NaN in an empty bin."""
        return self._of_attributes(self.counts.sum(dim=1).double() / self.n[:, None])

    @property
    def lift(self) -> Tensor:
        """P(s given bin) - P(s), ``[bins, s]``: above 0 for attributes more frequent at a level than overall."""
        overall = self.counts.sum(dim=(0, 1)).double() / self.n.sum()
        return self.attribute_composition - overall

    @property
    def association(self) -> Tensor:
        """I(S; Y given bin) in bits, plug-in estimate, ``[bins]``: information of the attribute about the class."""
        joint = self.counts.double() / self.n[:, None, None]
        product = joint.sum(dim=2, keepdim=True) * joint.sum(dim=1, keepdim=True)
        ratio = torch.where(joint > 0, joint / product, 1.0)
        bits = (joint * ratio.log2()).sum(dim=(1, 2))
        return self._of_attributes(bits)

    @property
    def association_bias(self) -> Tensor:
        """Miller-Madow bias of ``association``: (C' - 1)(S' - 1) / (2 n ln 2) bits, with C', S' the labels in a bin."""
        used_classes = (self.counts.sum(dim=2) > 0).sum(dim=1)
        used_attributes = (self.counts.sum(dim=1) > 0).sum(dim=1)
        return self._of_attributes((used_classes - 1) * (used_attributes - 1) / (2 * self.n.double() * log(2)))

    def to_frame(self) -> pd.DataFrame:
        """Return a row per bin: bin, low, high, n, shares class_C and attribute_S, lift_S, association and its bias."""
        frame = pd.DataFrame(
            {
                "bin": range(len(self.n)),
                "low": self.edges[:-1].numpy(),
                "high": self.edges[1:].numpy(),
                "n": self.n.numpy(),
            }
        )
        for k, c in enumerate(self.classes.tolist()):
            frame[f"class_{c}"] = self.class_composition[:, k].numpy()
        if self.has_attributes:
            for k, s in enumerate(self.attributes.tolist()):
                frame[f"attribute_{s}"] = self.attribute_composition[:, k].numpy()
                frame[f"lift_{s}"] = self.lift[:, k].numpy()
            frame["association"] = self.association.numpy()
            frame["association_bias"] = self.association_bias.numpy()
        return frame

    def plot(self, class_names: Any = None, attribute_names: Any = None) -> Any:
        """Draw the composition and the association of each level; return the figure."""
        classes = pictures.Composition(self.class_composition, self.classes, class_names)
        attributes = pictures.Composition(self.attribute_composition, self.attributes, attribute_names)
        return pictures.levels(self.to_frame(), classes, attributes if self.has_attributes else None)

    def plot_images(self, images: Any, *, per_level: int = 10, seed: int = 0) -> Any:
        """Draw random ``images [n, channels, height, width]`` of each level, highest on top; return the figure."""
        if len(images) != len(self.values):
            raise ValueError(f"images must be those of the {len(self.values)} sliced samples; got {len(images)}")
        chosen = [_some(index, per_level, seed) for index in self.members]
        names = [
            f"{low:.3g} to {high:.3g}\n(n = {n:,})"
            for low, high, n in zip(self.edges[:-1].tolist(), self.edges[1:].tolist(), self.n.tolist(), strict=True)
        ]
        return pictures.image_grid(images, chosen[::-1], names[::-1], "Images at each level of the unit")

    def _of_attributes(self, quantity: Tensor) -> Tensor:
        return quantity if self.has_attributes else torch.full_like(quantity.double(), torch.nan)


def level_slices(
    values: Any,
    target: Any,
    attribute: Any = None,
    *,
    bins: int = 10,
    edges: Literal["width", "quantile"] = "width",
    features: Any = None,
) -> LevelSlices:
    """Cut the samples by the values of one unit, such as a logit, and return the composition of each level.

    The levels are those of O'Mahony et al. (arXiv 2411.10019); their number and the association measures are ours.

    Args:
        values: ``[n]``, one value of the unit per sample.
        target: ``[n]`` integer classes.
        attribute: ``[n]``, any other integer label, such as a background.
        bins: number of levels.
        edges: "width" for levels of equal width over the range of ``values``. "quantile" for equally many samples;
            equal edges are merged, so there may be fewer levels.
        features: ``[n, d]``, such as penultimate activations; averaged per level.

    Raises:
        ValueError: if the shapes do not fit each other, a value is not finite, or ``bins`` or ``edges`` is wrong.

    Example:
        >>> from captum_ablate import level_slices
        >>> slices = level_slices([0.0, 0.1, 0.9, 1.0], [0, 0, 0, 1], bins=2)
        >>> slices.class_composition.tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    unit = tensor_of(values)
    if unit.ndim != 1:
        raise ValueError(
            f"values must be those of one unit, [n]; got shape {tuple(unit.shape)}. "
            "For one class of logits: logits[:, c]"
        )
    unit, target = rows(unit[:, None], "values", "[n]")[:, 0], labels(target, "target")
    kinds = None if attribute is None else labels(attribute, "attribute")
    same_length(values=unit, target=target, attribute=target if kinds is None else kinds)
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    cut = _edges(unit.numpy(), bins, edges)
    matrix = None
    if features is not None:
        matrix = rows(features, "features", "[n, d]")
        same_length(values=unit, features=matrix)
    return LevelSlices.of(unit, target, kinds, cut, matrix)


def _edges(values: NDArray[Any], bins: int, edges: str) -> Tensor:
    if edges not in ("width", "quantile"):
        raise ValueError(f'edges must be "width" or "quantile"; got {edges!r}')
    if edges == "width":
        cut = np.linspace(values.min(), values.max(), bins + 1)
    else:
        cut = np.quantile(values, np.linspace(0, 1, bins + 1))
    distinct = np.unique(cut)
    return torch.from_numpy(distinct if len(distinct) > 1 else np.repeat(distinct, 2))


def _some(index: Tensor, most: int, seed: int) -> Tensor:
    """Return at most ``most`` of ``index``, drawn at random, in their order."""
    drawn = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))[:most]
    return index[drawn.sort().values]
