"""The simulations of coverage, made short: each fails where a formula of ours is broken."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="the benchmarks are not beside the tests")

from benchmarks.coverage import __main__ as command
from benchmarks.coverage import agreement, chance, pairs, rankings, share, until, within
from benchmarks.coverage.rare import areas


def test_the_tables_are_filled_into_the_page(tmp_path):
    where = tmp_path / "statistics.md"
    where.write_text(command.PAGE.read_text())
    command.main(["--only", "means", "regression", "--repeats", "2", "--page", str(where)])
    text = where.read_text()
    assert text.count("2 repeats of each row") == 2
    assert "| samples and 20 random groups | 200 |" in text


def test_the_page_has_a_place_for_every_table():
    page = command.PAGE.read_text()
    assert [name for name in command.TABLES if f"<!-- {name} -->" not in page] == []


def test_the_areas_drawn_have_the_moments_that_coverage_says():
    rng = np.random.default_rng(0)
    for kind, mean, square in (("part", 0.5, 1 / 3), ("all", 1.0, 1.0), ("either sign", 0.0, 1 / 3)):
        drawn = areas(rng, 200_000, 0.2, kind)
        assert drawn.mean() == pytest.approx(0.2 * mean, abs=0.003)
        assert (drawn**2).mean() == pytest.approx(0.2 * square, abs=0.003)


@pytest.mark.parametrize(("hidden", "reference"), [((16,), "mean"), ((32, 32), "zero")])
def test_a_random_order_of_a_trained_network_is_significant_no_more_often_than_p_says(hidden, reference):
    gaps = chance.trained_gaps("digits", hidden, reference, 600)
    assert gaps.std() > 0.01
    for random in (5, 20):
        found = chance.errors(gaps, random, 3000, np.random.default_rng(0))
        assert 0.03 < found["p_raw at 5.0%"] <= 0.07  # 0.05 with the noise of 600 orders
        assert found["p_raw at 0.5%"] <= 0.0125
        assert found["p_exact at 5.0%"] <= 0.06


def test_an_order_by_layer_is_significant_within_layers_no_more_often_than_p_says():
    gaps = within.pools("digits", (8, 16), "mean", 150)
    found = within.errors(*gaps, 20, 2000, np.random.default_rng(0))
    assert found["within: 5.0%"] <= 0.1  # 0.05 with the noise of 150 orders
    assert found["within: 0.5%"] <= 0.03


def test_the_interval_of_a_share_covers_and_needs_the_noise_of_permutations(monkeypatch):
    monkeypatch.setattr(share, "POOL", 100)
    monkeypatch.setattr(share, "YARDSTICKS", 15)
    monkeypatch.setattr(share, "PERMUTATIONS", (20,))
    monkeypatch.setattr(share, "METRICS", {"accuracy": share.accuracy})
    found = share.share(100)
    often = found[found["has interval"] > 0.8]
    assert len(often) >= 3
    assert often["now"].between(0.86, 1.0).all()
    assert (often["samples alone"] < often["now"]).all()


def test_intervals_of_methods_hold_where_those_of_orders_do_not(monkeypatch):
    monkeypatch.setattr(rankings, "DATA", ("digits",))
    monkeypatch.setattr(rankings, "RANKED", (100,))
    found = rankings.rankings(8)
    mean = found[found["method"] == "mean"].iloc[0]
    assert mean["now"] > max(mean["before"], 0.85)
    assert mean["differs from itself, now"] < min(mean["differs from itself, before"], 0.15)
    assert mean["now: width"] < 1.5


def test_planted_gaps_are_those_of_their_closed_form():
    """One needed unit at place k of U: the order's area is 1 - (k + 1/2) / U, that of its reverse (k + 1/2) / U."""
    units = 20
    found = chance.planted_gaps(lambda gone: 1.0 - gone[:, 0], units, 2000, np.random.default_rng(0))
    assert set(found.round(9)) == {round(1 - (2 * k + 1) / units, 9) for k in range(units)}


def test_samples_drawn_until_a_precision_hold_all_means_and_ranks():
    rng = np.random.default_rng(0)
    values = until.areas("all or nothing", 300, rng)
    means, held = values.mean(axis=0), []
    for _ in range(40):
        drawn = until.stopped(values, 0.2, rng)
        sampled = until.Sampled(0.2, 300, until.METHODS, (0.0, 1.0))
        ends = np.array([sampled.interval(one) for one in drawn.T])
        held.append(((ends[:, 0] <= means) & (means <= ends[:, 1])).all())
        assert len(drawn) < 300
    assert np.mean(held) >= 0.9


def test_differences_on_few_samples_are_held_where_t_misses_them():
    table = pairs.differences(150).set_index(["difference", "samples"])
    for name in ("5 % change, one sign", "1 % change, one sign"):
        for n in (50, 200):
            assert table.loc[(name, n), "coverage, now"] > 0.91
            assert table.loc[(name, n), "coverage, before (t)"] < 0.95
    assert table.loc[("normal", 200), "coverage, now"] == pytest.approx(0.95, abs=0.04)


def test_ranks_and_means_over_networks_hold():
    found = pairs.combined(40)
    for column in ("mean gap", "mean rank", "difference"):
        assert found[column].min() > 0.8  # of 40 repeats
        assert found[column].mean() > 0.92
    rng = np.random.default_rng(0)
    for over, n in (("samples", 50), ("networks", 8)):
        held = [pairs.ranked(pairs.better_of(rng.normal(size=(4, n)), over), np.zeros(4)) for _ in range(150)]
        assert np.mean([wrong for _, wrong in held]) <= 0.1
    assert pairs.ranked(np.zeros((3, 3), dtype=bool), np.arange(3.0)) == (True, False)
    reversed_order = np.arange(3)[:, None] < np.arange(3)
    assert pairs.ranked(reversed_order, np.arange(3.0)) == (False, True)


def test_the_true_rank_correlation_is_that_of_many_units():
    rho = agreement.true_rho(agreement.KINDS["normal, 0.5"])
    assert rho == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.005)  # of a normal pair
