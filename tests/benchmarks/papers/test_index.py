"""The index page regrows from what the papers' commands wrote, and marks the attributions that no other beats."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.papers import attributions, claims
from benchmarks.papers.index import PAPERS, order_of, write_index
from benchmarks.papers.index_figures import share_heatmap
from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.statistics.intervals import Interval, better_than


def measured() -> pd.DataFrame:
    rows = [
        ("net", "act1", 10, 0.9, reference, method, gap, gap - 0.1, gap + 0.1, gap, p, best, 1.0)
        for reference in ("zero", "mean")
        for method, gap, p, best in (("good", 0.5, 0.05, True), ("poor", 0.1, 0.6, False))
    ]
    return pd.DataFrame(rows, columns=list(attributions.COLUMNS))


def test_the_page_grows_with_the_papers(tmp_path):
    page = write_index(tmp_path, tmp_path).read_text()
    assert page.count("Not run yet") == len(PAPERS)
    assert "Which attribution" not in page
    found = [
        claims.judged("C1.1", "is complete", "c", mean=0.5, interval=Interval(0.4, 0.6), threshold=0.0),
        claims.judged("C1.2", "is quick", "c", mean=0.5, interval=Interval(0.4, 0.6), threshold=1.0),
    ]
    claims.to_frame(found).to_csv(tmp_path / "dhamdhere.csv", index=False)
    (tmp_path / "index").mkdir(exist_ok=True)
    measured().to_csv(tmp_path / "index" / "attributions.csv", index=False)
    (tmp_path / "index" / "joined.md").write_text("## Joined\n\nA figure.\n")
    page = write_index(tmp_path, tmp_path).read_text()
    assert page.count("Not run yet") == len(PAPERS) - 1
    assert "| [dhamdhere](dhamdhere.md) | 2 | 1 | 1 | 0 | 0 |" in page
    held, failed = page.index("**What held.**"), page.index("**What did not.**")
    assert held < page.index("C1.1: is complete (0.500 [0.400, 0.600])") < failed < page.index("C1.2: is quick")
    assert "| good | **0.500** [0.400, 0.600] |" in page
    assert "| poor | 0.100 [0.000, 0.200] |" in page
    assert "| good | 2 | 0.500 | 0.500 | 2 | 1.0 |" in page
    assert page.rstrip().endswith("A figure.")
    assert (tmp_path / "index" / "attributions.png").stat().st_size > 0


def test_the_heatmap_shows_every_cell_and_a_dot_where_unbeaten():
    frame = measured()
    panels = share_heatmap(frame).axes[:2]
    assert [t.get_text() for t in panels[0].get_yticklabels()] == order_of(frame) == ["good", "poor"]
    for ax in panels:
        assert np.asarray(ax.images[0].get_array()).tolist() == [[0.5], [0.1]]
        assert [tuple(line.get_xydata()[0]) for line in ax.get_lines()] == [(0, 0)]


def test_unbeaten_methods_are_those_that_no_test_rejects(digits_net, small_digits):
    generator = torch.Generator().manual_seed(0)
    scores = {str(k): torch.rand(24, generator=generator) for k in range(6)}
    scores["0"] = digits_net.fc2.weight.detach().norm(dim=0)
    comparison = CumulativeAblationEvaluator(digits_net, "relu3", n_random=0).compare(scores, small_digits)
    better = better_than(np.stack([curve.gap_areas.numpy() for curve in comparison.curves.values()]))
    expected = {name for k, name in enumerate(comparison.curves) if not better[:, k].any()}
    assert attributions.unbeaten_methods(comparison) == expected
    assert 0 < len(expected) < 6


def test_every_method_gives_one_score_per_unit(digits_net, small_digits):
    from captum_ablate.commands.demo import attributions as methods

    scores, seconds = attributions.ranked(methods(digits_net, "relu3", 24, 0), small_digits)
    assert {name: tuple(score.shape) for name, score in scores.items()} == dict.fromkeys(scores, (24,))
    assert seconds.keys() == scores.keys()
    assert min(seconds.values()) >= 0


@pytest.mark.slow
def test_the_table_is_measured_at_quick_scale(data_folder, capsys):
    from benchmarks.papers.scale import Scale

    attributions.run(Scale.QUICK)
    frame = pd.read_csv(capsys.readouterr().out.split("wrote ")[-1].strip())
    assert set(frame["reference"]) == set(attributions.REFERENCES)
    assert frame.groupby(["network", "reference"])["unbeaten"].sum().min() >= 1
