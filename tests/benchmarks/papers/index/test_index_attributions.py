"""Every method gives one score per unit; the unbeaten ones are those that no test rejects."""

from __future__ import annotations

import oracles
import pandas as pd
import pytest
import torch

from benchmarks.papers.index import attributions
from captum_ablate import CumulativeAblationEvaluator


def test_unbeaten_methods_are_those_that_no_test_rejects(digits_net, small_digits):
    generator = torch.Generator().manual_seed(0)
    scores = {str(k): torch.rand(24, generator=generator) for k in range(6)}
    scores["0"] = digits_net.fc2.weight.detach().norm(dim=0)
    comparison = CumulativeAblationEvaluator(digits_net, "relu3", n_random=0, live_units_only=False).compare(
        scores, small_digits
    )
    ranges = oracles.rank_ranges([curve.gap_areas.tolist() for curve in comparison.curves.values()])
    expected = {name for name, (first, _) in zip(comparison.curves, ranges, strict=True) if first == 1}
    assert attributions.unbeaten_methods(comparison) == expected
    assert 0 < len(expected) < 6


def test_every_method_gives_one_score_per_unit(digits_net, small_digits):
    from captum_ablate.commands.demo import attributions as methods

    scores, seconds = attributions.ranked(methods(digits_net, "relu3", 0), small_digits)
    assert {name: tuple(score.shape) for name, score in scores.items()} == dict.fromkeys(scores, (24,))
    assert seconds.keys() == scores.keys()
    assert min(seconds.values()) >= 0


@pytest.mark.slow
def test_the_table_is_measured_at_quick_scale(data_folder, capsys):
    from benchmarks.papers.common.scale import Scale

    attributions.run(Scale.QUICK)
    frame = pd.read_csv(capsys.readouterr().out.split("wrote ")[-1].strip())
    assert set(frame["reference"]) == set(attributions.REFERENCES)
    assert frame.groupby(["network", "reference"])["unbeaten"].sum().min() >= 1
