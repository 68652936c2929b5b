"""Weights of samples in resamples: a Poisson bootstrap that knows samples by their bytes alone."""

from __future__ import annotations

import numpy as np
import torch

from captum_ablate import Batch
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.resamples import ResampledBatches


def resampled(data, resamples=20, seed=0, **options):
    return ResampledBatches(as_batches(data, **options), resamples, seed)


def by_row(data, **options):
    """Return the weights in the order of the first input's value, which is different for each sample."""
    batches = resampled(data, **options)
    values = torch.cat([batch.inputs[0][:, 0] for batch in batches])
    return batches.weights[values.argsort()]


def test_neither_the_order_of_samples_nor_the_batch_size_matters():
    x, y = torch.randn(90, 3), torch.arange(90) % 3
    whole = by_row((x, y), batch_size=90)
    assert whole.shape == (90, 20)
    assert torch.equal(whole, by_row((x, y), batch_size=7))
    order = torch.randperm(90)
    assert torch.equal(whole, by_row((x[order], y[order]), batch_size=13))


def test_a_loader_that_shuffles_at_each_pass_gives_each_sample_its_weights():
    data = torch.utils.data.TensorDataset(torch.randn(50, 2), torch.arange(50) % 2)
    batches = resampled(torch.utils.data.DataLoader(data, batch_size=8, shuffle=True), resamples=6)
    passes = []
    for _ in range(2):
        values = torch.cat([batch.inputs[0][:, 0] for batch in batches])
        passes.append((values, batches.weights[values.argsort()]))
    assert not torch.equal(passes[0][0], passes[1][0])
    assert torch.equal(passes[0][1], passes[1][1])


def test_weights_are_poisson_numbers_of_mean_1_and_independent():
    x = torch.randn(4000, 2)
    weights = by_row((x, torch.arange(4000) % 2), resamples=10).double()
    assert abs(float(weights.mean()) - 1) < 0.02
    assert abs(float(weights.var()) - 1) < 0.05
    share = [float((weights == k).double().mean()) for k in range(4)]
    np.testing.assert_allclose(share, [0.3679, 0.3679, 0.1839, 0.0613], atol=0.01)
    between = torch.corrcoef(weights.T) - torch.eye(10)
    assert float(between.abs().max()) < 4.5 / 4000**0.5


def test_equal_samples_have_weights_of_their_own():
    weights = by_row((torch.ones(200, 2), torch.zeros(200).long()), resamples=1)
    assert len(weights.unique()) > 2


def test_more_resamples_leave_the_first_ones_as_they_are_and_another_seed_does_not():
    data = torch.randn(40, 2), torch.arange(40) % 2
    assert torch.equal(by_row(data, resamples=3), by_row(data, resamples=9)[:, :3])
    assert not torch.equal(by_row(data), by_row(data, seed=1))


def test_a_resample_without_two_classes_is_drawn_again():
    x, y = torch.randn(30, 2), (torch.arange(30) == 4).long()  # one sample of class 1
    batches = resampled((x, y), resamples=40, batch_size=11)
    list(batches)
    before = batches.weights
    lost = before[4] == 0
    assert 0 < int(lost.sum()) < 40
    assert batches.settle()
    assert bool((batches.weights[4] > 0).all())
    assert torch.equal(batches.weights[:, ~lost], before[:, ~lost])
    settled = batches.weights
    list(batches)  # a later pass has the same resamples
    assert torch.equal(batches.weights, settled)
    assert not batches.settle()


def test_data_of_one_class_need_one_sample_only():
    batches = resampled((torch.randn(2, 2), torch.zeros(2).long()), resamples=30)
    list(batches)
    batches.settle()
    assert bool((batches.weights.sum(0) > 0).all())


def test_samples_that_cannot_be_cut_go_by_their_place():
    graph = [Batch(([torch.randn(2, 2), torch.randn(3, 2)],), torch.tensor([0, 1])) for _ in range(30)]
    batches = resampled(graph, resamples=5)
    list(batches)
    assert batches.weights.shape == (60, 5)
    assert len(batches.weights[:, 0].unique()) > 2
