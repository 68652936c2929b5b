"""Conductances of test sentences in the sentiment networks, and of sentences with and without "not"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import LayerConductance
from torch import Tensor

from benchmarks.papers.common.data import Labelled
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.conductance.methods import STEPS
from benchmarks.papers.conductance.sentiment import (
    PAD,
    WIDTHS,
    Sentences,
    SentimentNetwork,
    sentences,
    sentiment_network,
    trained_reader,
)
from captum_ablate.studies import DivisionOfLabour, labour_of, sample_scores

POSITIVE = 1
"""The output whose conductances are computed."""

TOLERANCE = 1e-6
"""A conductance of at most this, in units of the logit, is rounding: the filter is not used."""

GOOD = ("good", "great", "funny", "entertaining", "enjoyable", "clever", "moving", "interesting", "fun", "smart")
BAD = ("bad", "boring", "dull", "stupid", "predictable", "tedious", "awful", "flat", "silly", "lame")
PLAIN, NEGATED = "this movie is {} .", "this movie is not {} ."


@dataclass(frozen=True)
class Reading:
    """One network: its division of labour, and the effect of "not" on its output and its filters.

    ``scores [n, filters]`` are conductances of test sentences. ``plain`` and ``negated``, ``[words, filters]``, are
    those of the pairs "is ..." and "is not ...". ``turned [words]`` is how far "not" moved the margin to the other
    side.
    """

    seed: int
    hidden: int
    accuracy: float
    seconds: float
    scores: Tensor
    labour: DivisionOfLabour
    untrained: DivisionOfLabour
    plain: Tensor
    negated: Tensor
    turned: Tensor
    ngrams: tuple[str, ...]


def readings(hidden: int, scale: Scale) -> list[Reading]:
    """Return one reading per seed of the networks with ``hidden`` units between filters and output."""
    data = sentences(scale)
    return [_reading(data, hidden, seed, scale) for seed in range(scale.pick(1, 5, 10))]


def _reading(data: Sentences, hidden: int, seed: int, scale: Scale) -> Reading:
    found = trained_reader(hidden, seed, scale)
    network = found.network
    assert isinstance(network, SentimentNetwork)
    n = scale.pick(30, 200, 2_132)
    some = Labelled(data.test.images[:n], data.test.labels[:n])
    scores = conductances(network, some)
    fresh = sentiment_network(len(data.vocabulary), hidden, seed=seed).eval()
    fresh.embedding.load_state_dict(network.embedding.state_dict())  # the words as learned, the reader as it began
    labels = torch.tensor([1] * len(GOOD) + [0] * len(BAD))
    pairs = [
        Labelled(data.vocabulary.encode([form.format(word) for word in (*GOOD, *BAD)]), labels)
        for form in (PLAIN, NEGATED)
    ]
    with torch.no_grad():
        plain_margin, negated_margin = (_margin(network, pair.images) for pair in pairs)
    plain, negated = (conductances(network, pair) for pair in pairs)
    most = int((negated - plain)[: len(GOOD)].mean(dim=0).abs().argmax())
    return Reading(
        seed=seed,
        hidden=hidden,
        accuracy=found.accuracy,
        seconds=found.seconds,
        scores=scores,
        labour=labour_of(scores, tolerance=TOLERANCE, name=f"seed {seed}"),
        untrained=labour_of(conductances(fresh, some), tolerance=TOLERANCE, name="untrained"),
        plain=plain,
        negated=negated,
        turned=torch.where(labels == 1, plain_margin - negated_margin, negated_margin - plain_margin),
        ngrams=top_ngrams(network, data, most),
    )


def _margin(network: SentimentNetwork, words: Tensor) -> Tensor:
    """Return the positive logit minus the negative one, ``[n]``."""
    logits = network(words)
    return logits[:, 1] - logits[:, 0]


def conductances(network: SentimentNetwork, data: Labelled) -> Tensor:
    """Return the conductance of every filter for the positive logit, ``[n, filters]``, in the order of the data.

    The path goes from padding (embeddings of zero) to the sentence. Sentences are read in batches of like length.
    """
    order = (data.images != PAD).sum(dim=1).argsort()
    batches = []
    for rows in order.split(25):
        words = data.images[rows]
        words = words[:, : int((words != PAD).any(dim=0).nonzero().max()) + 1 + max(WIDTHS)]
        batches.append((network.embed(words), data.labels[rows]))
    found = sample_scores(
        LayerConductance(network.reader, network.reader.pooled), batches, target=POSITIVE, n_steps=STEPS
    )
    return found[order.argsort()]


def top_ngrams(network: SentimentNetwork, data: Sentences, filter_: int, most: int = 6) -> tuple[str, ...]:
    """Return the groups of words in test sentences with the largest response of one filter, the strongest first."""
    sizes = [c.out_channels for c in network.reader.convolutions]
    which = int(np.searchsorted(np.cumsum(sizes), filter_, side="right"))
    convolution, own = network.reader.convolutions[which], filter_ - sum(sizes[:which])
    best: dict[str, float] = {}
    with torch.no_grad():
        for start in range(0, len(data.test.images), 200):
            words = data.test.images[start : start + 200]
            response = convolution(network.embed(words).transpose(1, 2))[:, own]
            for value, place, sentence in zip(*response.max(dim=1), data.test_text[start : start + 200], strict=True):
                tokens = ["_"] * (max(WIDTHS) - 1) + sentence.split() + ["_"] * max(WIDTHS)
                group = " ".join(tokens[int(place) : int(place) + convolution.kernel_size[0]])
                best[group] = max(best.get(group, -np.inf), float(value))
    return tuple(sorted(best, key=lambda group: -best[group])[:most])
