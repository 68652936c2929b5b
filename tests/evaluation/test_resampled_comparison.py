"""Comparisons of methods, not of orders: what resampled rankings change in intervals, ranks, words and files."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import oracles
import pytest
import torch
from captum.attr import LayerConductance
from pages import parsed
from torch import nn

from captum_ablate import (
    Comparison,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
)
from captum_ablate.ablation import Plan
from captum_ablate.evaluation import ranked_again
from captum_ablate.evaluation.ranked_again import EvaluatedSamples, Schedule
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.statistics.intervals import bounded_interval

OPTIONS = {"n_random": 4, "steps": 6, "seed": 1}


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    x = torch.randn(160, 5)
    with torch.no_grad():
        y = model(x + 0.4 * torch.randn(160, 5)).argmax(1)
    return model, (x[:100], y[:100]), (x[100:], y[100:])


def methods(model):
    return {
        "selectivity": LayerClassSelectivity(model, "1"),
        "information": LayerMutualInformation(model, "1", threshold=0.5),
        "ablation": LayerUnitAblation(model, "1"),
        "conductance": LayerConductance(model, model[1]),
        "norm": LayerWeightNorm(model, "1"),
    }


@pytest.fixture(scope="module")
def pair(setting):
    """The comparison without resamples and with 8 of them."""
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    own = {**methods(model), "given": torch.arange(12.0)}
    return [evaluator.compare(own, data, ranking_data=rank, ranking_resamples=k) for k in (0, 8)]


def test_curves_and_p_stay_those_of_the_original_orders(pair):
    plain, again = pair
    for name in plain:
        assert torch.equal(plain[name].order, again[name].order)
        assert torch.equal(plain[name].values, again[name].values)
        assert plain[name].p == again[name].p
    assert plain.leaderboard["method"].tolist() == again.leaderboard["method"].tolist()


def test_intervals_are_wider_by_the_noise_of_the_ranking(pair):
    plain, again = pair
    for name in ("selectivity", "information", "ablation", "conductance"):
        for which in ("gap_interval", "deletion_interval", "insertion_interval"):
            before, now = getattr(plain[name], which), getattr(again[name], which)
            assert now.low <= before.low
            assert now.high >= before.high
        curve, value = again[name], again[name].resampled_gap_areas.numpy()
        squares = oracles.mean_squares(value)
        variance = max(0.0, squares["rows"] - squares["rest"]) / value.shape[1]
        low, high = plain[name].gap_interval
        t = oracles.stats.t.ppf(0.975, 99)
        half = max(high - plain[name].gap, plain[name].gap - low)
        assert (curve.gap_interval.high - curve.gap) / 1.96 >= np.sqrt((half / t) ** 2 + variance) * 0.999


@pytest.mark.parametrize("name", ["norm", "given"])
def test_an_order_that_no_resample_moves_has_the_interval_of_its_samples(pair, name):
    plain, again = pair
    assert plain[name].gap_interval == again[name].gap_interval
    assert plain[name].deletion_interval == again[name].deletion_interval
    difference = pair[1].versus("norm", "given"), pair[0].versus("norm", "given")
    assert difference[0].interval == difference[1].interval
    assert difference[0].p_raw == difference[1].p_raw


def test_what_the_resampled_orders_take_is_what_a_hook_loop_takes(setting):
    """One resample, its order by repeated samples, on the samples that were chosen."""
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=40, steps=3)  # few beside the random orders
    own = {"a": LayerMeanActivity(model, "1")}
    found = evaluator.compare(own, data, ranking_data=rank, ranking_resamples=2, batch_size=17)["a"]
    assert found.resampled_areas.shape == (2, 100)  # few orders: all samples
    full = evaluator.compare(own, data, ranking_data=rank, ranking_resamples=2)["a"]
    totals = [torch.sort(one.resampled_gap_areas, dim=1).values for one in (found, full)]
    torch.testing.assert_close(totals[0], totals[1])  # samples in any order
    scores = _scores_of_resamples(model, rank, 2)
    for b in range(2):
        alone = evaluator.evaluate(scores[b], data)
        torch.testing.assert_close(alone.gap_areas, full.resampled_gap_areas[b], rtol=1e-5, atol=1e-6)


def _scores_of_resamples(model, rank, number):
    batches = ResampledBatches(as_batches(rank), number, seed=0)
    list(batches)
    weights = batches.weights
    rows = [torch.repeat_interleave(weights[:, b]) for b in range(number)]
    return [LayerMeanActivity(model, "1").attribute(rank[0][row], target=rank[1][row]) for row in rows]


def test_pairs_are_paired_by_resample(pair):
    again = pair[1]
    a, b = (again[name].resampled_gap_areas.numpy() for name in ("selectivity", "information"))
    squares = oracles.mean_squares(a - b)
    variance = max(0.0, squares["rows"] - squares["rest"]) / a.shape[1]
    apart = (again["selectivity"].gap_areas - again["information"].gap_areas).numpy()
    found = again.versus("selectivity", "information")
    own = apart.var(ddof=1) / len(apart)
    assert (found.interval.high - found.value) >= 1.96 * np.sqrt(own + variance)
    row = again.pairwise().query("method in ['selectivity', 'information'] and other in ['selectivity', 'information']")
    assert row["p_raw"].item() == pytest.approx(found.p_raw)


def test_words_are_of_the_methods_only_where_they_were_ranked_again(pair):
    plain, again = pair
    assert "rank of these orders" in str(plain)
    assert "gap [95 % interval for these rankings]" in str(plain)
    assert "in these rankings" in plain.verdict
    assert r"gap [95\,\% for these rankings]" in plain.to_latex()
    assert "rank of these orders" in plain._repr_html_()
    assert "[95 % for these rankings]" in plain._repr_html_()
    for text in (str(again), again.verdict, again.to_latex(), again._repr_html_()):
        assert "these orders" not in text
        assert "these rankings" not in text
    assert "gap [95 % interval]" in str(again)
    assert "8 resamples of the ranking data" in again.setting
    assert "held fixed: the network, references, live units, bin edges" in str(again)
    assert "held fixed" in again._repr_html_()
    assert "held fixed: the network, these orders, references and which units are live" in str(plain)


def test_bars_say_what_their_intervals_are(pair, tmp_path):
    gaps = [parsed(one.report(tmp_path / "page.html").read_text(encoding="utf-8")).by_id("gaps") for one in pair]
    titles = [one.all("figcaption")[0].text for one in gaps]
    assert "95 % intervals for these rankings" in titles[0]
    assert "95 % intervals" in titles[1]
    labels = [[label.text.split(" ", 1)[-1] for label in one.all("text")] for one in gaps]
    assert "given" in labels[0]
    assert "given *" in labels[1]
    assert "these rankings" not in titles[1]


def test_curves_say_that_their_bands_are_of_orders(pair):
    words = [" ".join(ax.get_title(loc="left") for ax in one.picture().axes) for one in pair]
    drawn = [" ".join(text.get_text() for text in one.picture().findobj(plt.Text)) for one in pair]
    assert "bands: 95 % over samples" not in words[0] + drawn[0]
    assert "bands: 95 % over samples, for the orders" in " ".join(drawn[1].split())


def test_a_method_that_keeps_its_order_is_marked_and_named(pair):
    plain, again = pair
    note = "*order only: given, with intervals of its order alone (its scores are given)"
    assert note in again.notes
    assert "given *" in str(again)
    assert "given *" in again.to_latex()
    assert f"% {note}\n" in again.to_latex()
    assert again["given"].notes == [note]
    assert "given" not in " ".join([again["norm"].setting, *again["norm"].notes])
    assert "given *" in again._repr_html_()
    assert "given *" not in str(plain)
    assert again.provenance.order_only == {"given": "its scores are given"}
    frame = again.leaderboard.set_index("method")["resamples"]
    assert frame["given"] == 0
    assert frame["norm"] == 8
    assert set(plain.leaderboard["resamples"]) == {0}


def test_nothing_but_given_orders_is_a_comparison_of_orders(setting):
    model, data, _ = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    found = evaluator.compare({"a": torch.arange(12.0), "b": torch.rand(12)}, data, ranking_resamples=5)
    assert found.provenance.ranking_resamples == 0
    assert "rank of these orders" in str(found)
    assert found.notes == evaluator.compare({"a": torch.arange(12.0), "b": torch.rand(12)}, data).notes


def test_neither_batches_nor_the_order_of_samples_change_the_noise(setting):
    model, (x, y), (rank_x, rank_y) = setting
    evaluator = CumulativeAblationEvaluator(model, "1", metric="log_likelihood", **OPTIONS)
    own = {"s": LayerClassSelectivity(model, "1"), "a": LayerUnitAblation(model, "1")}
    order, rank_order = torch.randperm(len(y)), torch.randperm(len(rank_y))
    whole = evaluator.compare(own, (x, y), ranking_data=(rank_x, rank_y), ranking_resamples=5)
    shuffled = evaluator.compare(
        own,
        (x[order], y[order]),
        ranking_data=(rank_x[rank_order], rank_y[rank_order]),
        ranking_resamples=5,
        batch_size=9,
    )
    for name in own:
        np.testing.assert_allclose(whole[name].gap_interval, shuffled[name].gap_interval, rtol=1e-5)


def test_a_shuffling_loader_is_ranked_on_the_same_resamples(setting):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rank), batch_size=7, shuffle=True)
    own = methods(model)
    found, whole = (evaluator.compare(own, data, ranking_data=one, ranking_resamples=5) for one in (loader, rank))
    for name in own:
        np.testing.assert_allclose(found[name].gap_interval, whole[name].gap_interval, rtol=1e-5)


def test_several_layers_are_ranked_again_together(setting):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    _, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, ["1", "3"], **OPTIONS)
    found = evaluator.compare({"a": LayerMeanActivity(model, ["1", "3"])}, data, ranking_data=rank, ranking_resamples=4)
    assert len(found["a"].resampled_areas) == 4
    assert found.leaderboard["resamples"].tolist() == [4]


def test_a_comparison_is_saved_with_its_resamples(pair, tmp_path):
    again = pair[1]
    loaded = Comparison.load(again.save(tmp_path))
    assert str(loaded) == str(again)
    assert loaded.provenance == again.provenance
    assert torch.equal(loaded["ablation"].resampled_areas, again["ablation"].resampled_areas)
    assert loaded.versus("selectivity", "ablation") == again.versus("selectivity", "ablation")


def test_until_is_refused_with_resamples(setting):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    with pytest.raises(
        ValueError, match=r"until draws samples.*pass ranking_resamples=0 \(got 20\), or leave out until"
    ):
        evaluator.compare(methods(model), data, ranking_data=rank, until=0.1, ranking_resamples=20)
    with pytest.raises(ValueError, match="ranking_resamples must be"):
        evaluator.compare(methods(model), data, ranking_resamples=-1)
    with pytest.raises((ValueError, TypeError), match="ranking_resamples must be"):
        evaluator.compare(methods(model), data, ranking_resamples=2.5)


def test_a_fallback_is_warned_of_once(setting):
    model, data, rank = setting

    def run(x):
        return model(x)

    evaluator = CumulativeAblationEvaluator(run, model[1], **OPTIONS)
    own = {"a": LayerMeanActivity(run, model[1])}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluator.compare(own, data, ranking_data=rank)
        once = len(caught)
        found = evaluator.compare(own, data, ranking_data=rank, ranking_resamples=3)
    assert len(caught) == 2 * once
    whole = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    again = whole.compare({"a": LayerMeanActivity(model, "1")}, data, ranking_data=rank, ranking_resamples=3)
    torch.testing.assert_close(found["a"].resampled_areas, again["a"].resampled_areas)


def test_progress_of_the_resampled_orders_is_shown(setting, capsys):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    own = {"a": LayerMeanActivity(model, "1")}
    evaluator.compare(own, data, ranking_data=rank, ranking_resamples=3, show_progress=True)
    assert "ablating the resampled orders" in capsys.readouterr().err


def test_one_method_can_be_ranked_again(setting):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **{**OPTIONS, "n_random": 40})
    curve = evaluator.evaluate(LayerMeanActivity(model, "1"), data, ranking_data=rank, ranking_resamples=6)
    assert curve.resampled_areas.shape == (6, 100)


def test_rankings_on_two_data_sets_compare_on_the_same_samples(setting, pair):
    model, data, _ = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    other_rank = torch.randn(50, 5), torch.arange(50) % 3
    other = evaluator.compare(methods(model), data, ranking_data=other_rank, ranking_resamples=8)
    found = pair[1].versus("ablation", "ablation", of=other)
    apart = (pair[1]["ablation"].gap_areas - other["ablation"].gap_areas).numpy()
    assert found.value == pytest.approx(apart.mean())
    variance = 0.0
    for one in (pair[1], other):
        value = one["ablation"].resampled_gap_areas.numpy()
        squares = oracles.mean_squares(value)
        variance += max(0.0, squares["rows"] - squares["rest"]) / value.shape[1]
    t = found.value / np.sqrt(apart.var(ddof=1) / len(apart) + variance)
    assert 2 * oracles.stats.norm.sf(abs(t)) <= found.p_raw <= 2 * oracles.stats.t.sf(abs(t), 7)
    assert found.p == found.p_raw


def test_the_same_ranking_data_are_paired_between_comparisons(setting, pair):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    own = {**methods(model), "given": torch.arange(12.0)}
    same = evaluator.compare(own, data, ranking_data=rank, ranking_resamples=8)
    found = same.versus("ablation", "ablation", of=pair[1])
    assert found.value == 0
    assert found.interval == bounded_interval(np.zeros(100), 2.0)
    across, within = same.versus("ablation", "selectivity", of=pair[1]), pair[1].versus("ablation", "selectivity")
    assert across.interval == pytest.approx(within.interval)
    assert across.p_raw == pytest.approx(within.p_raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "mean"}, r"within one setting; the reference are zero here and mean in the other"),
        ({"metric": "margin"}, r"within one setting; the metric are"),
        ({"steps": 3}, r"on one grid of steps; the curves have 6 and 3 steps"),
    ],
)
def test_another_setting_is_refused(setting, pair, change, message):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **{**OPTIONS, **change})
    other = evaluator.compare({"a": LayerMeanActivity(model, "1")}, data, ranking_data=rank)
    with pytest.raises(ValueError, match=message):
        pair[1].versus("ablation", "a", of=other)


def test_other_samples_are_refused(setting, pair):
    model, (x, y), rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    own = {"a": LayerMeanActivity(model, "1")}
    other = evaluator.compare(own, (x + 1, y), ranking_data=rank)
    with pytest.raises(ValueError, match="the two comparisons are on other samples; evaluate on the same"):
        pair[1].versus("ablation", "a", of=other)
    order = torch.randperm(len(y))
    shuffled = evaluator.compare(own, (x[order], y[order]), ranking_data=rank)
    with pytest.raises(ValueError, match="or the same in another order; evaluate both on the same data, not shuffled"):
        pair[1].versus("ablation", "a", of=shuffled)


@pytest.mark.parametrize("orders", [20, 200, 2000])
@pytest.mark.parametrize("n", [10, 200, 100_000])
def test_the_schedule_keeps_to_its_budget(orders, n):
    chains = [torch.randperm(40) for _ in range(30)]
    plan = Plan.both_ways(chains, tuple(range(2, 41, 2)), 40)
    found = Schedule.of(plan, orders, n)
    assert min(n, ranked_again.FEWEST) <= found.samples <= min(n, ranked_again.MOST)
    work = orders * len(found.counts) * found.samples
    if found.samples > ranked_again.FEWEST:
        assert work <= ranked_again.SHARE * 30 * 20 * n
    assert found.counts[-1] == 40


def test_the_schedule_takes_few_steps_as_they_are():
    plan = Plan.both_ways([torch.randperm(5)], (2, 5), 5)
    assert Schedule.of(plan, 20, 50).counts == (2, 5)


def test_chosen_samples_are_the_same_in_any_order():
    x, y = torch.randn(60, 3), torch.arange(60) % 2

    def chosen(order, batch_size):
        samples = EvaluatedSamples(as_batches((x[order], y[order]), batch_size=batch_size), seed=2)
        list(samples)
        few = samples.few(13)
        values = torch.cat([batch.inputs[0][:, 0] for batch in few])
        assert few.columns.tolist() == list(range(13))
        return values.sort().values

    assert torch.equal(chosen(torch.arange(60), 60), chosen(torch.randperm(60), 7))


def test_a_bar_of_progress_changes_no_resample(setting, capsys):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    own = {**methods(model), "taylor": LayerTaylor(model, "1")}
    plain, shown = (
        evaluator.compare(own, data, ranking_data=rank, ranking_resamples=4, show_progress=show)
        for show in (False, True)
    )
    assert "Layer Taylor" in capsys.readouterr().err
    assert shown.failed == {}
    for name in own:
        assert torch.equal(plain[name].resampled_areas, shown[name].resampled_areas)


@pytest.mark.may_fall_back
def test_a_model_made_for_one_size_of_batch_is_ranked_again_too(setting):
    """The few samples come in their whole batches then."""
    model, data, rank = setting

    class ForTwenty(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return self.net(x.view(20, 5))

    fixed = ForTwenty()
    own, same = ({"a": LayerClassSelectivity(one, name)} for one, name in ((fixed, "net.1"), (model, "1")))
    options = {"ranking_data": rank, "ranking_resamples": 40, "batch_size": 20}
    found = CumulativeAblationEvaluator(fixed, "net.1", **OPTIONS).compare(own, data, **options)
    free = CumulativeAblationEvaluator(model, "1", **OPTIONS).compare(same, data, **options)
    assert found["a"].resampled_areas.shape == free["a"].resampled_areas.shape
    assert found["a"].resampled_areas.shape[1] < len(data[1])
    torch.testing.assert_close(found["a"].resampled_areas, free["a"].resampled_areas)


def test_one_resample_has_no_spread_and_is_refused(setting):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", **OPTIONS)
    with pytest.raises(ValueError, match="ranking_resamples must be 0, or 2 or more"):
        evaluator.compare(methods(model), data, ranking_data=rank, ranking_resamples=1)


def test_another_grid_with_as_many_steps_is_refused(setting):
    model, data, rank = setting
    own = {"a": LayerMeanActivity(model, "1")}
    one, other = (
        CumulativeAblationEvaluator(model, "1", steps=steps).compare(own, data, ranking_data=rank)
        for steps in ([1, 2, 12], [6, 9, 12])
    )
    with pytest.raises(ValueError, match=r"one grid of steps; the curves have the steps \[1, 2, 12\] of 12 units"):
        one.versus("a", "a", of=other)


def test_another_reference_of_the_same_name_is_refused(setting):
    model, data, rank = setting
    own = {"a": LayerMeanActivity(model, "1")}
    one, other = (
        CumulativeAblationEvaluator(model, "1", reference=torch.full((12,), value), metric="logit").compare(
            own, data, ranking_data=rank
        )
        for value in (0.0, 5.0)
    )
    with pytest.raises(ValueError, match="references are both called 'tensor'"):
        one.versus("a", "a", of=other)
    assert one.versus("a", "a", of=one).value == 0
