"""The order by Shapley values as a yardstick: its values, its noise, the shares of its gap, and what is refused."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerMeanActivity, LayerShapleyValue
from captum_ablate.evaluation.yardstick import NAME, resampled_means, share_of
from captum_ablate.statistics.intervals import mean_interval
from captum_ablate.statistics.ranking_noise import RankingNoise
from captum_ablate.statistics.ratio import fieller_interval

METHODS = {
    "rising": torch.arange(8.0),
    "falling": -torch.arange(8.0),
    "mixed": torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6]),
}


@pytest.fixture(scope="module")
def setting():
    """A ReLU net, and labels that it finds, so that its units are worth something."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(120, 5)
    with torch.no_grad():
        y = model(x + 0.4 * torch.randn(120, 5)).argmax(1)
    return model, (x[:70], y[:70]), (x[70:], y[70:])


def compared(setting, *, permutations=6, seed=0, methods=METHODS, layer="1", **options):
    model, data, rank = setting
    options = {"metric": "log_likelihood", "n_random": 5, **options}
    yardstick = LayerShapleyValue(
        model, layer, metric=options["metric"], reference=options.get("reference", "zero"),
        permutations=permutations, seed=seed,
    )  # fmt: skip
    evaluator = CumulativeAblationEvaluator(model, layer, **options)
    return evaluator.compare(methods, data, ranking_data=rank, yardstick=yardstick)


@pytest.fixture(scope="module")
def deep():
    """A network in which units interact, so that orders by few permutations differ."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.randn(160, 5)
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, (x[:100], y[:100]), (x[100:], y[100:])


def noise_of(yardstick):
    return RankingNoise.of(yardstick.resampled_gap_areas.numpy()).variance


@pytest.fixture(scope="module")
def measured(setting):
    torch.manual_seed(0)
    return compared(setting)


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_values_are_those_of_the_attribution_on_the_ranking_data(setting, reference):
    model, _, (x, y) = setting
    comparison = compared(setting, reference=reference, live_units_only=False)
    method = LayerShapleyValue(model, "1", metric="log_likelihood", reference=reference, permutations=6)
    expected = method.attribute(x, target=y)
    torch.testing.assert_close(comparison.yardstick.scores, expected, rtol=0, atol=1e-5)
    assert comparison.yardstick.order.tolist() == expected.argsort(descending=True).tolist()


def test_a_share_is_one_gap_over_the_other_with_fiellers_interval(measured):
    yardstick = measured.yardstick
    board = measured.leaderboard.set_index("method")
    noise = np.diag([0.0, noise_of(yardstick)])
    for name in METHODS:
        areas = measured[name].gap_areas.numpy()
        share, interval = fieller_interval(areas, yardstick.gap_areas.numpy(), noise, 19)
        assert board.loc[name, "share"] == pytest.approx(measured[name].gap / yardstick.gap)
        assert tuple(board.loc[name, ["share", "share_low", "share_high"]]) == pytest.approx((share, *interval))
        assert interval.low < share < interval.high


def test_the_yardstick_is_the_last_row_and_not_ranked(measured):
    last = measured.leaderboard.iloc[-1]
    curve = measured.yardstick
    assert (last["rank"], last["method"], last["gap"], last["share"]) == ("-", NAME, curve.gap, 1.0)
    assert np.isnan([last["p"], last["share_low"], last["share_high"]]).all()
    assert (last["gap_low"], last["gap_high"]) == curve.gap_interval
    of_samples = mean_interval(curve.gap_areas.numpy())
    assert last["gap_low"] <= of_samples.low < of_samples.high <= last["gap_high"]
    assert last["seconds"] > 0
    assert list(measured) == list(METHODS)
    assert measured.provenance.methods[NAME] == "LayerShapleyValue, 6 permutations, reverses on top"


def test_methods_are_ranked_and_tested_as_without_it(setting, measured):
    model, data, rank = setting
    evaluator = CumulativeAblationEvaluator(model, "1", metric="log_likelihood", n_random=5)
    plain = evaluator.compare(METHODS, data, ranking_data=rank)
    own = plain.leaderboard.drop(columns="seconds")
    assert "share" not in own
    pd.testing.assert_frame_equal(measured.leaderboard[: len(own)][list(own)], own, check_exact=False, atol=1e-6)
    assert measured.verdict == plain.verdict
    assert measured.pairwise()["p"].tolist() == pytest.approx(plain.pairwise()["p"].tolist())


def test_the_same_order_has_a_share_of_1(deep):
    first = compared(deep, methods={"a": torch.arange(12.0)}).yardstick
    comparison = compared(deep, methods={"same": first.scores})
    share, (low, high) = share_of(comparison["same"], comparison.yardstick)
    assert share == 1.0
    assert low < 1 < high  # another draw of permutations has another order


def test_where_units_add_up_permutations_have_no_noise():
    model = nn.Sequential(nn.ReLU(), nn.Linear(6, 3)).eval()
    x, y = torch.randn(60, 6), torch.arange(60) % 3
    setting = model, (x[:40], y[:40]), (x[40:], y[40:])
    comparison = compared(setting, layer="0", metric="logit", methods={"a": torch.arange(6.0)})
    yardstick = comparison.yardstick
    assert noise_of(yardstick) == pytest.approx(0, abs=1e-10)
    assert yardstick.gap_interval == pytest.approx(mean_interval(yardstick.gap_areas.numpy()))
    expected = fieller_interval(comparison["a"].gap_areas.numpy(), yardstick.gap_areas.numpy())
    assert np.hstack(share_of(comparison["a"], yardstick)) == pytest.approx(np.hstack(expected), nan_ok=True)


def test_the_noise_is_the_variance_over_seeds(deep):
    found = [compared(deep, permutations=4, seed=s, methods={"a": torch.arange(12.0)}).yardstick for s in range(40)]
    truth = np.var([one.gap for one in found], ddof=1)
    assert truth > 0
    assert 0.5 < np.mean([noise_of(one) for one in found]) / truth < 2


def test_resampled_means_vary_as_the_mean_of_permutations_does():
    values = torch.randn(7, 200, dtype=torch.float64)
    spread = torch.cat([resampled_means(values, seed) for seed in range(50)]).var(dim=0)
    assert float((spread / (values.var(dim=0) / 7)).mean()) == pytest.approx(1, abs=0.05)


def test_dead_units_are_worth_nothing_and_stay_out(setting):
    model, data, rank = setting
    with torch.no_grad():
        cut = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        cut.load_state_dict(model.state_dict())
        cut[0].bias[2] = -1e6
    comparison = compared((cut, data, rank))
    curve = comparison.yardstick
    assert comparison.provenance.dead >= 1
    assert curve.scores[2] == 0
    assert 2 not in curve.order.tolist()
    assert sorted(curve.order.tolist()) == sorted(comparison["rising"].order.tolist())


def test_over_several_layers_values_are_of_all_units_together(setting):
    _, data, rank = setting
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    comparison = compared(
        (model, data, rank), layer=["1", "3"], methods={"a": torch.arange(10.0)}, live_units_only=False, steps=None
    )
    curve = comparison.yardstick
    assert curve.scores.shape == (10,)
    everything = CumulativeAblationEvaluator(
        model, ["1", "3"], metric="log_likelihood", n_random=0, live_units_only=False
    )
    both = everything.evaluate(torch.arange(10.0), rank)
    assert float(curve.scores.sum()) == pytest.approx(float(both.score[0] - both.score[-1]), abs=1e-5)


def test_it_is_printed_saved_drawn_and_reported(measured, tmp_path):
    lines = str(measured).splitlines()
    heading = next(line for line in lines if line.startswith("rank"))
    assert heading.endswith("share [95 %]")
    assert re.search(rf"^- +{re.escape(NAME)} .* 1\.000$", str(measured), re.MULTILINE)
    assert rf"-- & {NAME} &" in measured.to_latex()
    assert "share" in measured.to_latex()
    page = html.unescape(measured.report(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert NAME in page
    assert "share" in page
    drawn = measured.plot(Figure().subplots())
    assert NAME in [text.get_text() for text in drawn.get_legend().get_texts()]
    loaded = Comparison.load(measured.save(tmp_path))
    assert str(loaded) == str(measured)
    pd.testing.assert_frame_equal(loaded.leaderboard, measured.leaderboard, check_exact=True)
    assert torch.equal(loaded.yardstick.resampled_areas, measured.yardstick.resampled_areas)


def test_no_share_where_the_yardsticks_gap_may_be_0(setting):
    comparison = compared(setting, metric=lambda outputs, target: outputs.sum(1) * 0)
    assert np.isnan(comparison.leaderboard["share"]).all()
    assert "no shares: the data cannot tell the gap of the yardstick from 0" in comparison.notes
    assert "no shares" in str(comparison)


def test_ready_scores_are_evaluated_on_what_the_yardstick_saw(setting):
    model, data, _ = setting
    yardstick = LayerShapleyValue(model, "1", permutations=3)
    comparison = CumulativeAblationEvaluator(model, "1", n_random=3).compare(METHODS, data, yardstick=yardstick)
    assert comparison.provenance.in_sample


def test_what_does_not_fit_is_refused(setting):
    model, data, _ = setting
    evaluator = CumulativeAblationEvaluator(model, "1", reference="mean", metric="logit")
    cases = [
        (LayerMeanActivity(model, "1"), TypeError, "must be a LayerShapleyValue.*got LayerMeanActivity"),
        (LayerShapleyValue, TypeError, "got LayerShapleyValue"),
        (LayerShapleyValue(model, "0", metric="logit", reference="mean"), ValueError, r"is of \['0'\]"),
        (LayerShapleyValue(model, "1", metric="logit", reference="mean", unit_dim=-1), ValueError, "other units"),
        (
            LayerShapleyValue(model, "1", metric="logit"),
            ValueError,
            r"reference='zero', metric='logit', and the evaluator reference='mean', metric='logit'; give both the same",
        ),
        (LayerShapleyValue(model, "1", reference="mean"), ValueError, "metric='accuracy', and the evaluator"),
        (
            LayerShapleyValue(model, "1", reference="mean", metric="logit", permutations=1),
            ValueError,
            "two permutations or more",
        ),
    ]
    for yardstick, error, message in cases:
        with pytest.raises(error, match=message):
            evaluator.compare(METHODS, data, yardstick=yardstick)


def test_drawn_samples_and_one_shot_data_are_refused(setting):
    model, data, rank = setting
    evaluator, yardstick = CumulativeAblationEvaluator(model, "1"), LayerShapleyValue(model, "1")
    with pytest.raises(ValueError, match=r"yardstick needs all samples, and until=0\.1 draws some"):
        evaluator.compare(METHODS, data, yardstick=yardstick, until=0.1)
    with pytest.raises(ValueError, match="the yardstick makes passes of its own"):
        evaluator.compare(METHODS, data, ranking_data=iter([rank]), yardstick=yardstick)


def test_equal_tensors_are_one_reference(setting):
    model, data, rank = setting
    own, same = torch.ones(8), torch.ones(8)
    evaluator = CumulativeAblationEvaluator(model, "1", reference=own, n_random=2)
    yardstick = LayerShapleyValue(model, "1", reference=same, permutations=2)
    assert evaluator.compare(METHODS, data, ranking_data=rank, yardstick=yardstick).yardstick is not None


def test_a_method_ranked_again_has_its_ranking_noise_in_the_share(deep):
    model, data, rank = deep
    evaluator = CumulativeAblationEvaluator(model, "1", metric="log_likelihood", n_random=3)
    yardstick = LayerShapleyValue(model, "1", metric="log_likelihood", permutations=20)
    methods = {"activity": LayerMeanActivity(model, "1")}
    again = evaluator.compare(methods, data, ranking_data=rank, yardstick=yardstick, ranking_resamples=8)
    curve, own = again["activity"], again.yardstick
    assert len(curve.resampled_areas) == 8
    noise = np.diag([noise_of(curve), noise_of(own)])
    assert noise[0, 0] > 0
    expected = fieller_interval(curve.gap_areas.numpy(), own.gap_areas.numpy(), noise, 12.0)  # about so many degrees
    share, interval = share_of(curve, own)
    assert share == pytest.approx(expected[0])
    assert interval == pytest.approx(expected[1], rel=0.1)
    plain = evaluator.compare(methods, data, ranking_data=rank, yardstick=yardstick)
    assert np.ptp(interval) > np.ptp(share_of(plain["activity"], plain.yardstick)[1])
    assert again.leaderboard["resamples"].tolist() == [8, 0]


def test_a_method_with_the_name_of_its_row_is_refused(setting):
    with pytest.raises(ValueError, match="is the name of the yardstick's row"):
        compared(setting, methods={NAME: torch.arange(8.0)})
