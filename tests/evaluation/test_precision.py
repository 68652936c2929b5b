"""Precision on demand: only as many samples as are needed, the right mean in the interval, and said so everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from captum_ablate import Comparison, CumulativeAblationEvaluator
from captum_ablate.ablation import Engine
from captum_ablate.inputs.sampling import RandomOrder
from captum_ablate.statistics.confidence_sequence import ConfidenceSequence

N = 400


@pytest.fixture(scope="module")
def setting():
    """A net of 8 hidden units that is its own labeller but for a tenth of the labels, and N samples."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        x = torch.randn(N, 6)
        with torch.no_grad():
            y = net(x).argmax(1)
        y[::10] = (y[::10] + 1) % 3
        scores = {"good": net[2].weight.detach().norm(dim=0), "random": torch.rand(8)}
    return net, scores, (x, y)


def evaluator_of(net, **options):
    return CumulativeAblationEvaluator(net, "1", **{"steps": 4, "n_random": 3, **options})


@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_with_all_samples_the_result_is_that_of_all_samples(setting, reference):
    net, scores, data = setting
    evaluator = evaluator_of(net, reference=reference)
    whole, drawn = evaluator.compare(scores, data), evaluator.compare(scores, data, until=1e-9, batch_size=40)
    order = RandomOrder.of(data, forward_func=net, batch_size=40, unpack_batch=None, seed=0).order
    assert sorted(order.tolist()) == list(range(N))
    for name in scores:
        one, other = whole[name], drawn[name]
        assert torch.equal(one.values[:, order], other.values)
        assert torch.equal(one.target[order], other.target)
        assert other.deletion == pytest.approx(one.deletion, abs=1e-12)
        assert other.deletion_interval == pytest.approx((one.deletion, one.deletion), abs=1e-9)
        assert other.gap_interval == pytest.approx((one.gap, one.gap), abs=1e-9)
        assert other.insertion_interval == pytest.approx((one.insertion, one.insertion), abs=1e-9)
        assert other.z == pytest.approx(one.z, abs=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_it_stops_as_soon_as_every_deletion_is_known(setting, seed):
    net, scores, data = setting
    evaluator = evaluator_of(net, seed=seed)
    drawn = evaluator.compare(scores, data, until=0.1, batch_size=40)
    n = drawn.provenance.n
    assert 40 <= n < N
    whole = evaluator.compare(scores, data)
    for name in scores:
        low, high = drawn[name].deletion_interval
        assert (high - low) / 2 <= 0.1
        assert low <= whole[name].deletion <= high
    finer = evaluator.compare(scores, data, until=0.05, batch_size=40)
    assert finer.provenance.n > n
    assert torch.equal(finer["good"].values[:, :n], drawn["good"].values)  # the same samples come first


def test_the_true_area_is_covered_where_one_stops(setting):
    """At the size where the rule stops, over many orders of real deletion areas: the point of the whole."""
    net, scores, data = setting
    areas = np.stack([c.areas.numpy() for c in evaluator_of(net).compare(scores, data).curves.values()], axis=1)
    rng, missed, used = np.random.default_rng(0), 0, []
    for _ in range(150):
        values = (areas[rng.permutation(N)] + 1) / 2
        sequence = ConfidenceSequence.start(2, N)
        while sequence.n < N and 2 * sequence.half_width.max() > 0.1:
            sequence = sequence.extended(values[sequence.n : sequence.n + 60])
        missed += bool(((values.mean(0) < sequence.low) | (values.mean(0) > sequence.high)).any())
        used.append(sequence.n)
    assert missed <= 15  # of 150 at 5 %: more has a probability of 0.003
    assert np.median(used) < N / 2


class Collated(TensorDataset):
    """A data set of dicts."""

    def __getitem__(self, k):
        x, y = super().__getitem__(k)
        return {"x": x, "y": y}


def test_data_sets_loaders_and_tensors_are_drawn_alike(setting):
    net, scores, data = setting
    expected = evaluator_of(net).compare(scores, data, until=0.1, batch_size=40)["good"]
    from_dicts = {"batch_size": 40, "unpack_batch": lambda batch: ((batch["x"],), batch["y"])}
    for call, form in (
        ({"batch_size": 40}, TensorDataset(*data)),
        ({"batch_size": 40}, DataLoader(TensorDataset(*data), batch_size=7, shuffle=True)),
        ({}, DataLoader(TensorDataset(*data), batch_size=40)),
        (from_dicts, Collated(*data)),
        (from_dicts, DataLoader(Collated(*data), batch_size=40)),
    ):
        ranking_data = form if call is from_dicts else data
        found = evaluator_of(net).compare(scores, form, ranking_data=ranking_data, until=0.1, **call)
        assert torch.equal(found["good"].values, expected.values)


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(6), 0


def refused_data(x, y):
    data = TensorDataset(x, y)
    return {
        "list": ([(x, y)], "a map-style data set or a DataLoader over one; got list"),
        "generator": (((x, y) for _ in range(1)), "got generator, whose samples have no positions"),
        "iterable data set": (Endless(), "got Endless"),
        "loader of it": (DataLoader(Endless(), batch_size=2), "pass a map-style data set, with __getitem__"),
        "sampler": (
            DataLoader(data, batch_size=4, sampler=SubsetRandomSampler([1, 2])),
            r"a SubsetRandomSampler or batches of its own; pass a DataLoader over torch.utils.data.Subset",
        ),
        "no batches": (DataLoader(data, batch_size=None), "batches of its own"),
        "some of them": (
            DataLoader(data, batch_size=4, sampler=torch.utils.data.RandomSampler(data, num_samples=9)),
            "draws another number than the data set has",
        ),
    }


@pytest.mark.parametrize("kind", refused_data(torch.zeros(3, 6), torch.zeros(3)))
def test_samples_without_positions_are_refused(setting, kind):
    net, scores, data = setting
    refused, message = refused_data(*data)[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        evaluator_of(net).compare(scores, refused, ranking_data=data, until=0.1)


def test_a_subset_is_a_population_of_its_own(setting):
    net, scores, data = setting
    loader = DataLoader(Subset(TensorDataset(*data), range(100)), batch_size=20)
    assert evaluator_of(net).compare(scores, loader, until=0.3).provenance.sampled.population == 100


@pytest.mark.parametrize("metric", ["log_likelihood", "logit", "margin", lambda outputs, target: outputs[:, 0]])
def test_a_metric_without_bounds_is_refused(setting, metric):
    net, scores, data = setting
    with pytest.raises(ValueError, match=r"until needs a metric between known bounds.*f.bounds = \(0.0, 1.0\)"):
        evaluator_of(net, metric=metric).compare(scores, data, until=0.1, batch_size=40)


def percent_of_label(outputs, target):
    return 100 * outputs.softmax(1).gather(1, target[:, None])[:, 0]


def test_a_metric_may_declare_its_bounds(setting, monkeypatch):
    net, scores, data = setting
    monkeypatch.setattr(percent_of_label, "bounds", (0, 100), raising=False)
    evaluator = evaluator_of(net, metric=percent_of_label)
    drawn = evaluator.compare(scores, data, until=8, batch_size=40)
    assert drawn.provenance.n < N
    low, high = drawn["good"].deletion_interval
    assert 4 < high - low <= 16
    assert low <= evaluator.compare(scores, data)["good"].deletion <= high
    monkeypatch.setattr(percent_of_label, "bounds", (0, 1))
    with pytest.raises(ValueError, match="the metric leaves the bounds that it declares, 0 to 1"):
        evaluator.compare(scores, data, until=0.1, batch_size=40)


@pytest.mark.parametrize("bounds", [(1, 0), (0, float("inf")), 3, (0, 1, 2), ("a", "b")])
def test_bounds_that_are_none_are_refused(setting, monkeypatch, bounds):
    net, scores, data = setting
    monkeypatch.setattr(percent_of_label, "bounds", bounds, raising=False)
    with pytest.raises(ValueError, match="bounds of a metric must be"):
        evaluator_of(net, metric=percent_of_label).compare(scores, data, until=0.1, batch_size=40)


@pytest.mark.parametrize("precision", [0, -0.1, True, "0.02", float("nan")])
def test_a_precision_that_is_no_half_width_is_refused(setting, precision):
    net, scores, data = setting
    with pytest.raises(ValueError, match="until must be a half-width above 0"):
        evaluator_of(net).compare(scores, data, until=precision, batch_size=40)


def test_samples_used_and_the_kind_of_interval_are_said_wherever_results_are_shown(setting, tmp_path):
    net, scores, data = setting
    drawn = evaluator_of(net).compare(scores, data, until=0.1, batch_size=40)
    n = drawn.provenance.n
    used, kind = f"on {n} of 400 samples", "intervals: 95 % confidence sequences, for all methods together"
    page = drawn.report(tmp_path / "page.html").read_text(encoding="utf-8")
    title = drawn.plot(Figure().subplots()).get_title(loc="left").replace("\n", " ")
    one = drawn["good"].plot(Figure().subplots()).get_title(loc="left").replace("\n", " ")
    for text in (str(drawn), drawn._repr_html_(), page, title, one, repr(drawn["good"])):
        assert used in text
        assert kind in text
    assert "known to ±0.1" in str(drawn)
    assert "gap [95 % sequence for these rankings]" in str(drawn)
    assert "deletion [95 %]" in str(drawn)
    assert " p\n" not in str(drawn)
    low, high = drawn["good"].deletion_interval
    assert f"[{low:.3f}, {high:.3f}]" in str(drawn)
    board = drawn.leaderboard.set_index("method").loc["good"]
    assert (board["deletion_low"], board["deletion_high"]) == (low, high)
    assert np.isnan(board["p"])


def test_bands_of_the_curve_are_confidence_sequences_too(setting):
    net, scores, data = setting
    whole, drawn = (evaluator_of(net).compare(scores, data, until=p, batch_size=40) for p in (None, 0.1))
    frame = drawn["good"].to_frame()
    mean = whole["good"].to_frame()["score"]
    assert ((frame["low"] <= mean) & (mean <= frame["high"])).all()
    assert (frame["low"] >= 0).all()
    assert (frame["high"] <= 1).all()
    exact = evaluator_of(net).compare(scores, data, until=1e-9, batch_size=40)["good"].to_frame()
    np.testing.assert_allclose(exact["low"], mean, atol=1e-9)


def test_methods_share_a_rank_where_their_sequences_overlap(setting):
    net, scores, data = setting
    evaluator = evaluator_of(net)
    best = {"good": scores["good"], "bad": -scores["good"]}
    assert list(evaluator.compare(best, data, until=0.5, batch_size=40).leaderboard["rank"]) == ["1-2", "1-2"]
    exact = evaluator.compare(best, data, until=1e-9, batch_size=40).leaderboard
    assert list(exact["rank"]) == ["1", "2"]
    assert list(exact["method"]) == ["good", "bad"]


def test_a_saved_comparison_shows_the_same(setting, tmp_path):
    net, scores, data = setting
    drawn = evaluator_of(net).compare(scores, data, until=0.1, batch_size=40)
    loaded = Comparison.load(drawn.save(tmp_path))
    assert str(loaded) == str(drawn)
    assert loaded.provenance.sampled == drawn.provenance.sampled
    for name in scores:
        assert loaded[name].gap_interval == drawn[name].gap_interval
        assert loaded[name].z == drawn[name].z
    assert Comparison.load(evaluator_of(net).compare(scores, data).save(tmp_path / "b")).provenance.sampled is None


def test_the_bar_counts_samples(setting, capsys):
    net, scores, data = setting
    n = evaluator_of(net).compare(scores, data, until=0.1, batch_size=40, show_progress=True).provenance.n
    assert f"{n}/400" in capsys.readouterr().err


def test_the_users_random_state_and_model_are_given_back(setting):
    net, scores, data = setting
    torch.manual_seed(5)
    state = torch.get_rng_state()
    hooks = [len(m._forward_hooks) for m in net.modules()]
    evaluator_of(net).compare(scores, DataLoader(TensorDataset(*data), batch_size=40, shuffle=True), until=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(m._forward_hooks) for m in net.modules()] == hooks


def test_evaluate_takes_a_precision_too(setting):
    net, scores, data = setting
    curve = evaluator_of(net, n_random=0).evaluate(scores["good"], data, until=0.1, batch_size=40)
    assert curve.sampled.population == N
    assert curve.values.shape[1] == curve.provenance.n < N
    assert np.isnan(curve.z)


def test_samples_drawn_before_a_retraction_are_measured_again(setting, monkeypatch):
    net, scores, data = setting
    expected = evaluator_of(net).compare(scores, data, until=1e-9, batch_size=40)["good"]
    run, runs = Engine.run, []

    def spoilt(self, batches, seen=None):
        runs.append(measured := run(self, batches, seen))
        if len(runs) == 2:
            self.restarts += 1
        return replace(measured, values=measured.values * 0) if len(runs) == 1 else measured

    monkeypatch.setattr(Engine, "run", spoilt)
    found = evaluator_of(net).compare(scores, data, until=1e-9, batch_size=40)["good"]
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.target, expected.target)


def test_single_values_beyond_the_bounds_are_refused_though_the_areas_are_within(setting):
    net, scores, data = setting

    def shifted(outputs, target):
        return outputs.softmax(1).gather(1, target[:, None])[:, 0] + 1

    shifted.bounds = (0.0, 1.0)
    with pytest.raises(ValueError, match=r"leaves the bounds that it declares, 0 to 1: it takes values from 1\."):
        evaluator_of(net, metric=shifted).compare(scores, data, until=0.1, batch_size=40)


def test_a_rounding_error_beyond_the_bounds_is_none(setting):
    net, scores, data = setting

    def rounded(outputs, target):
        values = outputs.softmax(1).gather(1, target[:, None])[:, 0]
        return torch.where(values == values.max(), 1 + 1e-7, values)

    rounded.bounds = (0.0, 1.0)
    assert evaluator_of(net, metric=rounded).compare(scores, data, until=0.2, batch_size=40).provenance.n > 0
