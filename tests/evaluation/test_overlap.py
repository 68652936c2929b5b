"""Which evaluated samples were ranked on: told by digests, said, and p withheld where it would flatter."""

from __future__ import annotations

import json
from collections import UserDict

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import Batch, Comparison, CumulativeAblationEvaluator, LayerMeanActivity, combine
from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.fingerprint import DataDigest


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def samples(net):
    x = torch.randn(400, 5)
    with torch.no_grad():
        return x, net(x + 0.3 * torch.randn(400, 5)).argmax(1)


def compared(net, samples, ranked, evaluated, **options):
    x, y = samples
    methods = {"activity": LayerMeanActivity(net, "1"), "given": torch.arange(8.0)}
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=4, metric=options.pop("metric", "accuracy"))
    return evaluator.compare(methods, (x[evaluated], y[evaluated]), ranking_data=(x[ranked], y[ranked]), **options)


def digest(samples, some):
    found = DataDigest()
    for batch in as_batches((samples[0][some], samples[1][some])):
        found.add(batch)
    return found.hexdigest()


def shown(comparison, folder):
    """Return every text that a reader may see first."""
    page = comparison.report(folder / "page.html").read_text(encoding="utf-8")
    above = " ".join(comparison.plot(Figure().subplots()).texts[0].get_text().split())
    return [str(comparison), comparison._repr_html_(), page, above, str(comparison["activity"])]


def test_data_apart_are_apart_and_have_digests(net, samples):
    about = compared(net, samples, slice(0, 200), slice(200, 400)).provenance
    assert (about.overlap, about.ranking_n, about.n, about.in_sample, about.overlaps) == (0, 200, 200, False, False)
    assert about.ranking_digest == digest(samples, slice(0, 200))
    assert about.evaluation_digest == digest(samples, slice(200, 400))
    assert Provenance.of_dict(json.loads(json.dumps(about.to_dict()))) == about


def test_digests_are_the_same_in_other_batches_and_another_order(net, samples):
    first = compared(net, samples, slice(0, 200), slice(200, 400)).provenance
    order = torch.randperm(200)
    other = compared(net, samples, order, slice(200, 400), batch_size=7).provenance
    assert (other.ranking_digest, other.evaluation_digest) == (first.ranking_digest, first.evaluation_digest)


def test_an_overlap_is_counted_said_and_withholds_p(net, samples, tmp_path):
    comparison = compared(net, samples, slice(0, 200), slice(150, 350))
    about = comparison.provenance
    assert (about.overlap, about.in_sample, about.overlaps) == (50, False, True)
    sentence = "overlap: 50 of 200 evaluated samples were ranked on too; no p against random orders holds"
    assert [sentence in text for text in shown(comparison, tmp_path)] == [True] * 5
    curve = comparison["activity"]
    assert np.isnan([curve.p, curve.p_raw, curve.p_exact]).all()
    assert np.isfinite([curve.z, comparison["given"].p]).all()  # what a Tensor was ranked on is not known
    assert "ranked on too" in comparison.verdict
    loaded = Comparison.load(comparison.save(tmp_path))
    assert (loaded.notes, loaded.verdict) == (comparison.notes, comparison.verdict)
    across = combine({"one": comparison, "other": compared(net, samples, slice(0, 200), slice(200, 400))})
    assert "overlap: 1 of 2 comparisons ranked on some of the evaluated samples" in across.notes


def test_a_repeated_sample_is_said_and_p_stays(net, samples):
    comparison = compared(net, samples, slice(0, 200), slice(199, 399))
    assert comparison.provenance.overlap == 1
    assert comparison.notes == ["overlap: 1 of 200 evaluated samples was ranked on too"]
    assert np.isfinite(comparison["activity"].p)


def test_ranking_on_more_than_the_evaluated_samples_is_in_sample(net, samples):
    comparison = compared(net, samples, slice(0, 300), slice(0, 200))
    assert comparison.provenance.in_sample
    assert (comparison.provenance.overlap, comparison.notes) == (200, [])
    assert np.isnan(comparison["activity"].p)


def test_other_labels_make_other_samples(net, samples):
    x, y = samples
    other = CumulativeAblationEvaluator(net, "1", n_random=2).compare(
        {"activity": LayerMeanActivity(net, "1")}, (x, y), ranking_data=(x.clone(), (y + 1) % 3)
    )
    assert other.provenance.overlap == 0


def test_a_loader_that_draws_other_samples_at_each_pass_is_in_sample(net):
    class Noisy(TensorDataset):
        def __getitem__(self, k):
            x, y = super().__getitem__(k)
            return x + 1e-3 * torch.randn(5), y

    loader = DataLoader(Noisy(torch.randn(30, 5), torch.arange(30) % 3), batch_size=10)
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=2)
    about = evaluator.evaluate(LayerMeanActivity(net, "1"), loader, ranking_data=loader).provenance
    assert (about.in_sample, about.overlap) == (True, 30)


def test_scores_alone_say_that_their_data_are_unknown(net, samples):
    x, y = samples
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=4)
    curve = evaluator.evaluate(torch.arange(8.0), (x, y))
    about = curve.provenance
    assert (about.in_sample, about.overlap, about.ranking_n, about.given) == (False, None, None, ["scores"])
    assert about.evaluation_digest == digest(samples, slice(None))
    assert curve.setting.endswith("; ranked on unknown data: scores")
    assert np.isfinite(curve.p)
    assert curve.notes == []


class Boxed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, box):
        return self.net(box["x"])


def test_samples_that_cannot_be_told_apart_are_unknown(net, samples):
    x, y = samples
    model = Boxed(net).eval()
    parts = [Batch((UserDict(x=x[k : k + 50]),), y[k : k + 50]) for k in (0, 50, 100, 150)]
    evaluator = CumulativeAblationEvaluator(model, "net.1", n_random=2)
    comparison = evaluator.compare({"a": LayerMeanActivity(model, "net.1")}, parts[:2], ranking_data=parts[2:])
    about = comparison.provenance
    assert (about.overlap, about.ranking_digest, about.evaluation_digest, about.ranking_n) == (None, None, None, 100)
    assert comparison.notes == ["overlap unknown: it cannot be told whether evaluated samples were ranked on too"]


def test_samples_drawn_until_a_precision_are_those_that_count(net, samples):
    comparison = compared(net, samples, slice(0, 100), slice(50, 400), until=0.5)
    about = comparison.provenance
    drawn = 50 + torch.randperm(350, generator=torch.Generator().manual_seed(0))[: about.n]
    assert about.n == 256  # few are enough for this precision
    assert about.overlap == int((drawn < 100).sum()) > 0
    assert about.evaluation_digest == digest(samples, drawn)


def test_what_each_method_is_and_its_seconds_are_kept(net, samples):
    comparison = compared(net, samples, slice(0, 200), slice(200, 400))
    about = comparison.provenance
    assert dict(about.methods) == {"activity": "LayerMeanActivity", "given": "scores"}
    assert about.ranking_seconds["given"] == 0.0 < about.ranking_seconds["activity"] < about.seconds
    board = comparison.leaderboard.set_index("method")["seconds"]
    assert board.to_dict() == dict(about.ranking_seconds)
