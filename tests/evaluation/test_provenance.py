"""What a result says of how it came about."""

from __future__ import annotations

import json

import torch
from captum.attr import LayerConductance
from curve_checks import SCORES

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity
from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.inputs.fingerprint import weights_digest


def test_results_say_how_they_came_about(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", reference="mean", metric="logit", n_random=3, seed=8)
    about = evaluator.evaluate(SCORES, dense_data).provenance
    expected = {
        "layer": "2", "units": 6, "reference": "mean", "metric": "logit", "n": 60, "n_random": 3, "seed": 8,
    }  # fmt: skip
    assert {key: getattr(about, key) for key in expected} == expected
    assert set(about.versions) == {"captum_ablate", "torch", "captum", "numpy", "python"}
    assert about.versions["torch"] == torch.__version__
    assert Provenance.of_dict(json.loads(json.dumps(about.to_dict()))) == about
    assert about.bounds is None
    assert about.weights == weights_digest(dense)
    bounded = CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(SCORES, dense_data).provenance
    assert bounded.bounds == (0, 1)
    assert Provenance.of_dict(json.loads(json.dumps(bounded.to_dict()))) == bounded
    new = (
        "bounds",
        "weights",
        "methods",
        "overlap",
        "ranking_digest",
        "evaluation_digest",
        "ranking_seconds",
        "seconds",
    )
    older = Provenance.of_dict({name: value for name, value in bounded.to_dict().items() if name not in new})
    assert (older.bounds, older.overlap, dict(older.methods)) == (None, None, {})


def test_in_sample_is_what_ranks_on_the_data_it_is_evaluated_on(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    method = LayerMeanActivity(dense, "2")
    assert evaluator.evaluate(method, dense_data).in_sample
    assert evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data).in_sample
    assert not evaluator.evaluate(method, dense_data, ranking_data=(torch.randn(9, 5), torch.arange(9) % 3)).in_sample


def test_the_very_same_data_for_both_is_in_sample(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    attribution = LayerMeanActivity(dense, "2")
    assert evaluator.evaluate(attribution, dense_data, ranking_data=dense_data).in_sample
    assert evaluator.evaluate(attribution, dense_data, ranking_data=tuple(dense_data)).in_sample
    copies = tuple(part.clone() for part in dense_data)
    copied = evaluator.evaluate(attribution, dense_data, ranking_data=copies)
    assert copied.in_sample  # the bytes tell
    assert copied.provenance.overlap == 60
