"""Every method ranks channels; random scores rank every unit first as often."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.papers.conductance.methods import CONTROL, METHODS
from captum_ablate.studies import sample_scores, units_to_flip


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
