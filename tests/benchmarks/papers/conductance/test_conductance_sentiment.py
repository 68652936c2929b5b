"""Sentences are numbered, and the network that reads them repeats by seed."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerConductance

from benchmarks.papers.common.data import Labelled
from benchmarks.papers.conductance import readings
from benchmarks.papers.conductance.sentiment import (
    LENGTH,
    PAD,
    UNKNOWN,
    WIDTHS,
    Sentences,
    Vocabulary,
    fit_sentiment,
    sentiment_network,
)
from captum_ablate.studies import labour_of

REVIEWS = ["a good film", "a bad film", "good good fun", "bad bad and long", "a fun film", "a long film"] * 4

LABELS = torch.tensor([1, 0, 1, 0, 1, 0] * 4)


@pytest.fixture(scope="module")
def reviews():
    vocabulary = Vocabulary.of(REVIEWS)
    words = Labelled(vocabulary.encode(REVIEWS), LABELS)
    return Sentences(vocabulary, words, words, tuple(REVIEWS))


@pytest.fixture(scope="module", params=[0, 6])
def network(request, reviews):
    net = sentiment_network(len(reviews.vocabulary), request.param, seed=0)
    fit_sentiment(net, *reviews.train, seed=0, epochs=1)
    return net.eval()


def test_words_are_numbered_by_frequency_and_rare_ones_are_unknown():
    vocabulary = Vocabulary.of(["b b b a a", "c"])
    (row,) = vocabulary.encode(["a b c d"])
    before = max(WIDTHS) - 1
    assert row.shape == (LENGTH,)
    assert row.tolist() == [PAD] * before + [3, 2, UNKNOWN, UNKNOWN] + [PAD] * (LENGTH - before - 4)


def test_padding_is_no_word_and_stays_so_in_training(network):
    assert (network.embedding.weight[PAD] == 0).all()
    assert (network.embed(torch.zeros(1, 3, dtype=torch.int64)) == 0).all()


def test_the_same_seed_trains_the_same_network(reviews):
    one, other = (sentiment_network(len(reviews.vocabulary), 6, seed=1) for _ in range(2))
    for net in (one, other):
        fit_sentiment(net, *reviews.train, seed=2, epochs=1)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_conductances_stand_in_the_order_of_the_sentences_whatever_their_length(network, reviews):
    some = Labelled(reviews.test.images[:8], reviews.test.labels[:8])
    found = readings.conductances(network, some)
    whole = LayerConductance(network.reader, network.reader.pooled).attribute(
        network.embed(some.images), target=1, n_steps=20
    )
    torch.testing.assert_close(found, whole.double(), atol=1e-6, rtol=1e-4)


def test_before_linear_logits_conductance_is_weight_times_growth_so_every_filter_takes_one_side(reviews):
    net = sentiment_network(len(reviews.vocabulary), 0, seed=3).eval()
    some = Labelled(reviews.test.images, reviews.test.labels)
    reader = net.reader
    embedded = net.embed(some.images)
    found = LayerConductance(reader, reader.pooled).attribute(
        embedded, target=1, n_steps=20, method="riemann_trapezoid"
    )
    seen = []
    handle = reader.pooled.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        reader(embedded), reader(torch.zeros_like(embedded))
    handle.remove()
    growth = seen[0] - seen[1]
    torch.testing.assert_close(found, reader.classifier.weight[1] * growth, atol=1e-5, rtol=1e-4)
    assert (growth >= 0).all()
    divided = labour_of(readings.conductances(net, some), tolerance=readings.TOLERANCE)
    assert set(divided.shares().tolist()) == {1.0}


def test_the_words_that_a_filter_responds_to_are_those_with_the_largest_response(network, reviews):
    for filter_ in (0, 150, 299):
        groups = readings.top_ngrams(network, reviews, filter_, most=3)
        width = WIDTHS[filter_ // 100]
        assert all(len(group.split()) == width for group in groups)
        convolution = network.reader.convolutions[filter_ // 100]
        numbers = [
            [PAD if word == "_" else reviews.vocabulary.numbers.get(word, UNKNOWN) for word in group.split()]
            for group in groups
        ]
        with torch.no_grad():
            alone = convolution(network.embed(torch.tensor(numbers)).transpose(1, 2))[:, filter_ % 100, 0]
            most = convolution(network.embed(reviews.test.images).transpose(1, 2))[:, filter_ % 100].max()
        assert alone[0] == pytest.approx(float(most), abs=1e-5)
        assert (alone.diff() <= 1e-6).all()
