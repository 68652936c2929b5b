"""The index page grows again from what the papers' commands wrote."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.papers.common import claims
from benchmarks.papers.common.page import DOCS
from benchmarks.papers.index import attributions
from benchmarks.papers.index.attributions import share_heatmap
from benchmarks.papers.index.page import PAPERS, VERDICTS, order_of, write_index
from captum_ablate.statistics.intervals import Interval


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


def test_a_claim_counts_once_and_not_again_by_its_parts(tmp_path):
    parts = [claims.judged(f"C4.1{k}", "part", "c", mean=0.5, interval=Interval(0.4, 0.6), threshold=0.0) for k in "ab"]
    own = claims.reported("C4.1c", "another claim", "c", figure="1")
    joined = claims.with_parts(claims.all_of("C4.1", "joined", "a and b", parts), parts)
    claims.to_frame([*joined, own]).to_csv(tmp_path / "omahony.csv", index=False)
    page = write_index(tmp_path, tmp_path).read_text()
    assert "| [omahony](omahony.md) | 2 | 1 | 0 | 0 | 1 |" in page
    assert "C4.1: joined (of 2: 2 holds)" in page
    assert "part (" not in page
    assert "C4.1c: another claim" in page


def test_the_page_in_the_documentation_counts_what_the_tables_hold():
    for paper in PAPERS:
        frame = pd.read_csv(DOCS / f"{paper.name}.csv", keep_default_na=False)
        whole = frame[frame["part_of"] == ""]
        assert set(frame["part_of"]) <= {"", *whole["id"]}
        counts = [int((whole["verdict"] == verdict).sum()) for verdict in VERDICTS]
        row = f"| [{paper.name}]({paper.name}.md) | {len(whole)} | {' | '.join(map(str, counts))} |"
        assert row in (DOCS / "index.md").read_text()
