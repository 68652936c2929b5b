"""The study of conductance: its sentences, its networks, and the closed forms that its verdicts stand on."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerConductance
from torch import nn

from benchmarks.papers.conductance import completeness, labour
from benchmarks.papers.conductance.features import PUBLISHED
from benchmarks.papers.conductance.methods import CONTROL, METHODS
from benchmarks.papers.data import Labelled
from benchmarks.papers.sentiment import (
    LENGTH,
    PAD,
    UNKNOWN,
    WIDTHS,
    Sentences,
    Vocabulary,
    fit_sentiment,
    sentiment_network,
)
from captum_ablate.studies import sample_scores, units_to_flip

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
    found = labour.conductances(network, some)
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
    divided = labour.labour_of(labour.conductances(net, some), tolerance=labour.TOLERANCE)
    assert set(divided.shares().tolist()) == {1.0}


def test_the_words_that_a_filter_responds_to_are_those_with_the_largest_response(network, reviews):
    for filter_ in (0, 150, 299):
        groups = labour.top_ngrams(network, reviews, filter_, most=3)
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


def test_closed_forms_hold_on_a_linear_network():
    assert completeness.linear_deviation() < 1e-6


def test_slopes_of_an_error_of_one_over_n_are_minus_one():
    change = torch.ones(4, dtype=torch.float64)
    by_steps = {n: completeness.Completeness("x", change + torch.arange(1, 5) / n, change) for n in (10, 20, 40)}
    assert completeness._slopes(completeness.Case("x", by_steps, {})) == pytest.approx([-1] * 4)


def test_every_method_and_the_control_rank_channels(digits_net, small_digits):
    x, y = small_digits[0][:6], small_digits[1][:6]
    for method in {**METHODS, **CONTROL}.values():
        scores = sample_scores(
            method.make(digits_net, digits_net.relu2), (x, y), positions=method.positions, **method.options
        )
        assert scores.shape == (6, 16)
        layers = [digits_net.relu1, digits_net.relu2]
        counts = units_to_flip(
            [method.make(digits_net, layer) for layer in layers], (x, y), positions=method.positions, **method.options
        )
        assert counts.units == 24


def test_random_scores_rank_every_unit_first_as_often():
    net = nn.Sequential(nn.Identity(), nn.Linear(4, 2)).eval()
    scores = sample_scores(CONTROL["random"].make(net, net[0]), (torch.zeros(2000, 4), torch.zeros(2000).long()))
    firsts = scores.argmax(dim=1).bincount(minlength=4)
    assert (firsts - 500).abs().max() < 80  # four standard deviations


def test_the_published_table_has_the_order_that_the_claim_states():
    means = PUBLISHED.set_index(["task", "method"]).mean(axis=1)
    for task in ("water vessels", "random labels"):
        own = means[task]
        assert own["conductance"] > own["gradient x activation"] > own["internal influence"] > own["activation"]


@pytest.mark.slow
def test_the_whole_study_runs_at_quick_scale(data_folder, capsys):
    from benchmarks.papers.__main__ import main

    main(["dhamdhere", "--quick"])
    assert "dhamdhere.md" in capsys.readouterr().out
