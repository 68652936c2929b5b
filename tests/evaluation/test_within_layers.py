"""Several layers: orders with all layers in equal shares, and the null of orders within layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerMeanActivity, LayerShapleyValue
from captum_ablate.evaluation.within_layers import orders_within
from captum_ablate.statistics.null import against_chance, holm

UNITS = (8, 6, 7)


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    x = torch.randn(120, 5)
    with torch.no_grad():
        y = model(x + 0.3 * torch.randn(120, 5)).argmax(1)
    return model, (x[:60], y[:60]), (x[60:], y[60:])


METHODS = {"first layer first": torch.arange(14.0, 0, -1), "mixed": (torch.arange(14) * 5 % 14).double()}


def compared(setting, methods=METHODS, ranking=True, **options):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(
        model, ["1", "3"], **{"metric": "log_likelihood", "n_random": 6, "live_units_only": False, **options}
    )
    return evaluator, evaluator.compare(methods, data, ranking_data=rank if ranking else None)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_within_each_layer_stays_and_layers_come_in_equal_shares(seed):
    order = torch.randperm(21, generator=torch.Generator().manual_seed(seed))
    layer = torch.repeat_interleave(torch.tensor(UNITS))
    (found,) = orders_within([order], UNITS, 0, seed)
    for k, units in enumerate(UNITS):
        assert found[layer[found] == k].tolist() == order[layer[order] == k].tolist()
        taken = (layer[found] == k).cumsum(0)
        even = torch.arange(1, 22) * units / 21
        assert float((taken - even).abs().max()) <= 1.5


def test_units_left_out_stay_out():
    order = torch.tensor([20, 3, 9, 0, 15, 8, 14])
    (found,) = orders_within([order], UNITS, 0, 0)
    assert sorted(found.tolist()) == sorted(order.tolist())


def test_ties_between_layers_fall_either_way():
    found = [orders_within([torch.arange(4)], [2, 2], 0, seed)[0].tolist() for seed in range(40)]
    assert {tuple(one) for one in found} == {(0, 2, 1, 3), (0, 2, 3, 1), (2, 0, 1, 3), (2, 0, 3, 1)}


def test_the_reverse_of_a_random_order_is_one_too():
    """Count where each layer's units stand, forwards and backwards, over many random orders."""
    orders = orders_within([torch.arange(10)], [3, 7], 4000, 0)[1:]
    first = torch.stack([order < 3 for order in orders]).double().mean(0)
    torch.testing.assert_close(first, first.flip(0), rtol=0, atol=0.03)
    by_unit = torch.stack([order.argsort() for order in orders]).double().mean(0)
    torch.testing.assert_close(by_unit, torch.full((10,), 4.5, dtype=torch.float64), rtol=0, atol=0.25)


def test_a_method_that_knows_the_layer_alone_earns_nothing_within():
    """Additive units, all of whose worth is in one layer: the gap is a closed form of the places."""
    rng = np.random.default_rng(0)
    worth = np.concatenate([np.zeros(8), rng.exponential(size=12)])

    def gap(order):
        place = np.argsort(order)
        return float((worth * (1 - (2 * place + 1) / 20)).sum())

    hits = np.zeros(2)
    for seed in range(1500):
        known = torch.from_numpy(np.concatenate([8 + rng.permutation(12), rng.permutation(8)]))
        own, *null = (gap(one.numpy()) for one in orders_within([known], [8, 12], 10, seed))
        plain = np.array([gap(rng.permutation(20)) for _ in range(10)])
        hits += [
            against_chance(gap(known.numpy()), plain).p_raw <= 0.05,
            against_chance(own, np.array(null)).p_raw <= 0.05,
        ]
    assert hits[0] / 1500 > 0.4
    assert 0.035 < hits[1] / 1500 < 0.065


def test_gaps_within_are_those_of_the_remade_orders(setting):
    evaluator, comparison = compared(setting)
    remade = orders_within([comparison[name].order for name in METHODS], [8, 6], 6, 0)
    scores = {str(k): -order.argsort().double() for k, order in enumerate(remade)}
    direct = evaluator.compare(scores, setting[1], ranking_data=setting[2])
    gaps = np.array([direct[str(k)].gap for k in range(len(remade))])
    expected = [against_chance(gap, gaps[2:]) for gap in gaps[:2]]
    assert [comparison.within[name].gap for name in METHODS] == pytest.approx(gaps[:2].tolist(), abs=1e-6)
    for name, one in zip(METHODS, expected, strict=True):
        found = comparison.within[name]
        assert (found.z, found.p_raw, found.p_exact) == pytest.approx(one, abs=1e-4)
    p = holm(np.array([comparison.within[name].p_raw for name in METHODS]))
    assert [comparison.within[name].p for name in METHODS] == pytest.approx(p.tolist())


def test_it_stands_in_frame_print_and_file(setting, tmp_path):
    _, comparison = compared(setting)
    board = comparison.leaderboard.set_index("method")
    for name in METHODS:
        one = comparison.within[name]
        assert tuple(board.loc[name, ["gap_within", "z_within", "p_within"]]) == (one.gap, one.z, one.p)
    assert "p within" in str(comparison)
    loaded = Comparison.load(comparison.save(tmp_path))
    assert str(loaded) == str(comparison)
    pd.testing.assert_frame_equal(loaded.leaderboard, comparison.leaderboard, check_exact=True)


def test_it_stands_beside_a_yardstick(setting):
    model, data, rank = setting
    evaluator, plain = compared(setting)
    yardstick = LayerShapleyValue(model, ["1", "3"], metric="log_likelihood", permutations=3)
    both = evaluator.compare(METHODS, data, ranking_data=rank, yardstick=yardstick)
    for name in METHODS:
        assert both.within[name].gap == pytest.approx(plain.within[name].gap, abs=1e-6)
    assert np.isnan(both.leaderboard["p_within"].iloc[-1])


def test_there_is_none_of_one_layer_without_random_orders_or_of_drawn_samples(setting):
    model, data, _ = setting
    one = CumulativeAblationEvaluator(model, ["1"], n_random=3).compare({"a": torch.arange(8.0)}, data)
    assert (dict(one.within), "p_within" in one.leaderboard) == ({}, False)
    assert not compared(setting, n_random=0)[1].within
    evaluator = CumulativeAblationEvaluator(model, ["1", "3"], n_random=3)
    assert not evaluator.compare(METHODS, data, until=0.5).within


def test_p_within_is_withheld_in_sample(setting):
    methods = {"activity": LayerMeanActivity(setting[0], ["1", "3"]), **METHODS}
    _, comparison = compared(setting, methods, ranking=False)
    assert np.isnan([comparison.within["activity"].p, comparison.within["activity"].p_exact]).all()
    assert np.isfinite([comparison.within["activity"].z, comparison.within["mixed"].p]).all()
