"""Any text may name a method, a metric or a layer: results are printed, drawn, reported, saved and loaded."""

from __future__ import annotations

import html
import warnings
from functools import cache

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

from captum_ablate import Comparison, CumulativeAblationEvaluator
from captum_ablate.evaluation import plots
from captum_ablate.evaluation.labels import label, name_labels, plain
from captum_ablate.evaluation.notes import chance_notes
from captum_ablate.inputs.wording import columns, distinct, visible

STRANGE = [
    "$",
    "costs $5 or $6",
    "$x^2$",
    r"$\frac{1}{0$",
    r"a\$b$",
    r"\textbf{x} % ~^",
    "",
    "   ",
    "_hidden",
    "<b>bold</b> & <script>",
    "two\nlines\tand a tab\r",
    "\x00\x1b[31m",
    "\u202eevil",
    "שלום",
    "👩‍🔬 emoji",
    "層の活性",
    "{brace} {{ jinja }} {% raw %}",
    "tensor",
    "mapping",
    "x" * 300,
    "LayerMutualInformation(bins=16, edges='mass', bias_correction=True), seed 1",
    "LayerMutualInformation(bins=16, edges='mass', bias_correction=True), seed 2",
]


class Net(nn.Module):
    """Two linear layers, the hidden one under any name that a module may have."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.add_module(name, nn.ReLU())
        self.first, self.last, self.name = nn.Linear(4, 6), nn.Linear(6, 3), name

    def forward(self, x):
        return self.last(getattr(self.inner, self.name)(self.first(x)))


@cache
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 4, generator=generator), torch.arange(12) % 3


def compared(names, metric="accuracy", layer="relu", n_random=2):
    torch.manual_seed(0)

    def negated(outputs, target):
        return -nn.functional.cross_entropy(outputs, target, reduction="none")

    negated.__name__ = metric
    evaluator = CumulativeAblationEvaluator(
        Net(layer).eval(), f"inner.{layer}", metric=negated, steps=2, n_random=n_random
    )
    scores = {name: torch.rand(6, generator=torch.Generator().manual_seed(k)) for k, name in enumerate(names)}
    return evaluator.compare({**scores, f"{names[0]} fails": torch.rand(5)}, data())


def drawn(ax):
    ax.figure.savefig("/dev/null", format="png", dpi=30)
    plt.close(ax.figure)


def survives(comparison, folder):
    """Print, draw, report, save and load; return the page."""
    names = list(comparison)
    assert sorted(comparison.leaderboard["method"]) == sorted(names)
    printed = str(comparison)
    assert all(one in printed for one in distinct(comparison.leaderboard["method"], 40))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        drawn(comparison.plot(Figure().subplots()))
        drawn(comparison[names[0]].plot(Figure().subplots()))
        page = comparison.report(folder / "report.html").read_text(encoding="utf-8")
    shown = html.unescape(page)
    assert "could not be drawn" not in page
    assert all(visible(name) in shown for name in [*names, *comparison.failed])
    loaded = Comparison.load(comparison.save(folder / "saved"))
    assert list(loaded) == names
    assert str(loaded) == printed
    return page


ANY_NAME = st.text(st.characters(), max_size=60) | st.sampled_from(STRANGE)


@settings(max_examples=8, deadline=None)
@given(names=st.lists(ANY_NAME, min_size=1, max_size=3, unique=True), metric=ANY_NAME, layer=ANY_NAME)
@example(names=["$a", "b$"], metric="100 $ %", layer="a$b")
@example(names=["", " "], metric="", layer="$$")
@example(names=["tensor"], metric="tensor", layer="tensor")
@example(names=["\ud800"], metric="\ud800", layer="\ud800")
def test_any_text_names_a_method_a_metric_or_a_layer(names, metric, layer, tmp_path_factory):
    layer = layer.replace(".", "") or "relu"  # what PyTorch allows as the name of a module
    survives(
        compared(names, metric, layer if not hasattr(nn.Module(), layer) else "relu"), tmp_path_factory.mktemp("x")
    )


def test_strange_names_stand_together(tmp_path):
    page = survives(compared(STRANGE), tmp_path)
    assert "<b>bold" not in page
    assert "{{ jinja }}" in page


def test_the_printed_table_stays_aligned_and_tells_long_names_apart():
    comparison = compared(STRANGE)
    lines = str(comparison).splitlines()
    start = 1 + len(comparison.notes)
    table = lines[start : start + 1 + len(comparison)]
    assert table[0].startswith("rank")
    ends = {columns(line[: line.index(" [")].replace("\u2068", "").replace("\u2069", "")) for line in table[1:]}
    assert len(ends) == 1
    assert max(map(columns, table)) < 140
    assert len(set(table)) == len(table)


@given(ANY_NAME)
def test_a_label_shows_its_text_and_is_never_mathematics(text):
    from matplotlib.cbook import is_math_text

    drawn_text = label(text)
    assert not is_math_text(drawn_text)
    assert not drawn_text.startswith("_")
    if visible(text) == text:
        assert plain(drawn_text).removeprefix(" " if text.startswith("_") else "") == text


def test_long_names_are_wrapped_in_the_legend_and_stay_apart():
    names = [f"{'a' * 70} {k} {'b' * 70}" for k in range(3)]
    labels = name_labels(names)
    assert len(set(labels)) == 3
    assert max(len(line) for one in labels for line in one.split("\n")) <= 28
    assert name_labels(["", "_x", "a$b"]) == ["''", " _x", r"a\$b"]


def test_tex_reads_no_commands_in_names():
    import matplotlib as mpl

    with mpl.rc_context({"text.usetex": True}):
        assert label("a_b 5% $x$") == r"a\_b 5\% \$x\$"
        assert label("\\") == r"\textbackslash{}"


def test_a_picture_that_fails_leaves_the_table_and_names_the_error(tmp_path, monkeypatch):
    comparison = compared(["one method"])

    def broken(*args, **kwargs):
        raise RuntimeError("no ink")

    monkeypatch.setattr(plots, "leaderboard_bars", broken)
    with pytest.warns(UserWarning, match="picture of the leaderboard could not be drawn: RuntimeError: no ink"):
        page = comparison.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "one method" in page
    assert "could not be drawn: RuntimeError: no ink" in page
    assert page.count("<figure>") == 1


def test_an_interval_that_does_not_exist_is_left_out():
    comparison = compared(["a", "b"], n_random=1)
    assert "1 random order)" in str(comparison)
    assert "nan" not in str(comparison)
    assert "[, ]" not in comparison._repr_html_()
    one = CumulativeAblationEvaluator(Net("relu").eval(), "inner.relu", metric="logit", n_random=0)
    curve = one.evaluate(torch.rand(6), (data()[0][:2], data()[1][:2]))
    assert "2 samples" in repr(curve)


def test_a_network_at_chance_is_named_in_print_plot_and_report(tmp_path):
    torch.manual_seed(0)
    net = Net("relu").eval()
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    x, y = data()
    comparison = CumulativeAblationEvaluator(net, "inner.relu", steps=2).compare({"a": torch.rand(6)}, (x, y))
    sentence = "at chance: the intact network's accuracy 0.333 is not above 0.333, the share of the most frequent class"
    assert sentence in str(comparison)
    assert sentence in repr(comparison["a"])
    assert comparison.verdict.endswith("The intact network is at chance, so this says nothing about what its units do.")
    assert sentence in html.unescape(comparison.report(tmp_path / "r.html").read_text())
    for ax in (comparison.plot(Figure().subplots()), comparison["a"].plot(Figure().subplots())):
        assert sentence in " ".join(ax.texts[0].get_text().split())
    other = CumulativeAblationEvaluator(net, "inner.relu", steps=2, metric="logit")
    assert "at chance" not in str(other.compare({"a": torch.rand(6)}, (x, y)))
    assert "at chance" not in other.compare({"a": torch.rand(6)}, (x, y)).verdict


def test_chance_is_of_accuracies_over_several_classes():
    right = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert chance_notes(right, torch.tensor([0, 1, 0, 1]), "accuracy")
    assert not chance_notes(right, torch.tensor([0, 1, 2, 3]), "accuracy")
    assert not chance_notes(right, torch.zeros(4, dtype=torch.int64), "accuracy")
    assert not chance_notes(right - 2, torch.tensor([0, 1, 0, 1]), "accuracy")  # a user's function of this name
    assert not chance_notes(right, torch.tensor([0.0, 1.0, 0.0, 1.0]), "accuracy")
    assert not chance_notes(right, torch.tensor([0, 1, 0, 1]), "margin")
