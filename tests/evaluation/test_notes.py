"""What is said before the numbers: where it holds, and only there; in print, plot, notebook and report."""

from __future__ import annotations

import html

import pytest
import torch
from matplotlib.figure import Figure

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerShapleyValue, LayerUnitAblation
from captum_ablate.evaluation.notes import gap_notes, order_notes, step_notes, tie_notes

RISING = torch.arange(8.0)


def compared(setting, scores, **options):
    model, data, rank = setting
    options = {"metric": "logit", "n_random": 3, **options}
    return CumulativeAblationEvaluator(model, "1", **options).compare(scores, data, ranking_data=rank)


def shown(comparison, folder):
    """Return every text that a reader may see first."""
    page = html.unescape(comparison.report(folder / "page.html").read_text(encoding="utf-8"))
    above = " ".join(comparison.plot(Figure().subplots()).texts[0].get_text().split())
    loaded = Comparison.load(comparison.save(folder / "saved"))
    return [str(comparison), html.unescape(comparison._repr_html_()), page, above, str(loaded)]


@pytest.mark.parametrize(
    ("scores", "options", "sentence"),
    [
        ({"flat": torch.ones(8), "a": RISING}, {}, "all ties: flat gives all units one score; its order is random"),
        (
            {"x": torch.ones(8), "y": torch.zeros(8)},
            {},
            "all ties: x and y give all units one score; their orders are random",
        ),
        ({"a": RISING, "b": -RISING, "c": RISING**3}, {}, "same order: a and c; one curve for all of them"),
        (
            {"a": RISING, "b": -RISING},
            {"metric": lambda outputs, target: outputs.sum(1) * 0},
            "all gaps are 0: the metric does not tell an order from its reverse",
        ),
        ({"a": RISING}, {"steps": 3}, "3 steps only: with fewer than 5, areas and gaps are coarse"),
        ({"a": RISING}, {"steps": 1}, "1 step only: with fewer than 5, areas and gaps are coarse"),
    ],
)
def test_what_holds_is_said_wherever_a_comparison_is_shown(setting, tmp_path, scores, options, sentence):
    comparison = compared(setting, scores, **options)
    assert sentence in comparison.notes
    assert [sentence in text for text in shown(comparison, tmp_path)] == [True] * 5


def test_layers_whose_dead_units_nobody_looked_for_are_said(setting, tmp_path):
    model, data, rank = setting
    sentence = (
        "dead units: only the layer that runs first was looked at for them; later layers keep theirs, since an "
        "ablation before them can wake them"
    )

    def of(layer, **options):
        evaluator = CumulativeAblationEvaluator(model, layer, metric="logit", n_random=3, **options)
        return evaluator.compare({"a": torch.arange(16.0 if len(layer) == 2 else 8.0)}, data, ranking_data=rank)

    assert [sentence in text for text in shown(of(["0", "1"]), tmp_path)] == [True] * 5
    assert sentence not in of(["0", "1"], live_units_only=False).notes + of(["1"]).notes


def test_an_ordinary_comparison_has_no_notes(setting):
    comparison = compared(setting, {"a": RISING, "b": -RISING, "some ties": RISING // 2})
    assert comparison.notes == []
    assert comparison["a"].notes == []


def test_one_curve_says_what_holds_for_it(setting):
    comparison = compared(setting, {"flat": torch.ones(8), "a": RISING}, steps=4)
    coarse = "4 steps only: with fewer than 5, areas and gaps are coarse"
    ties = "all ties: flat gives all units one score; its order is random"
    assert comparison["a"].notes == [coarse]
    assert comparison["flat"].notes == [coarse, ties]
    assert ties in repr(comparison["flat"])
    above = " ".join(comparison["flat"].plot(Figure().subplots()).texts[0].get_text().split())
    assert ties in above


def test_one_unit_at_a_time_is_never_coarse():
    assert step_notes(torch.tensor([0, 1, 2, 3])) == []
    assert step_notes(torch.tensor([0, 2, 3])) != []
    assert step_notes(torch.arange(6) * 4) == []
    assert step_notes(torch.tensor([0, 1])) == []


def test_methods_that_are_all_ties_are_no_group_of_equal_orders():
    orders = dict.fromkeys("abc", RISING)
    assert order_notes(orders, {"a": 7, "b": 7, "c": 0}) == []
    assert order_notes(orders, {"a": 6, "b": 6, "c": 7}) == ["same order: a and b; one curve for all of them"]
    assert tie_notes({"a": 0}, 1) == []  # one unit ties with none


def test_many_names_are_counted():
    orders = {str(k): RISING for k in range(8)}
    assert order_notes(orders, dict.fromkeys(orders, 0)) == [
        "same order: 0, 1, 2, 3, 4 and 3 more; one curve for all of them"
    ]


def test_gaps_that_round_to_0_are_0_and_one_that_is_not_ends_the_sentence():
    assert gap_notes([1e-16, -1e-15]) != []
    assert gap_notes([0.0]) == ["the gap is 0: the metric does not tell an order from its reverse"]
    assert gap_notes([0.0, 1e-6]) == []


def test_a_method_that_ablates_by_another_reference_is_named(setting, tmp_path):
    model = setting[0]
    methods = {
        "by mean": LayerUnitAblation(model, "1", reference="mean"),
        "by zero": LayerUnitAblation(model, "1"),
        "by ones": LayerShapleyValue(model, "1", reference=torch.ones(8), permutations=2),
        "a": RISING,
    }
    comparison = compared(setting, methods)
    sentences = [
        "another reference: by mean ranks by what units do under the mean reference, not under zero",
        "another reference: by ones ranks by what units do under the tensor reference, not under zero",
    ]
    assert [note for note in comparison.notes if note.startswith("another")] == sentences
    for sentence in sentences:
        assert [sentence in text for text in shown(comparison, tmp_path)] == [True] * 5
    same = compared(setting, {"by ones": methods["by ones"]}, reference=torch.ones(8))
    assert same.notes == []
