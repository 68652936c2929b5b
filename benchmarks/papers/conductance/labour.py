"""Do filters of a sentiment network take sides, and what does "not" do to them? C1.7."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.papers.common.claims import Claim, judged_over, reported, with_interval
from benchmarks.papers.common.page import Section
from benchmarks.papers.conductance.readings import BAD, GOOD, NEGATED, PLAIN, TOLERANCE, Reading
from benchmarks.papers.conductance.sentiment import HIDDEN
from captum_ablate.statistics.intervals import mean_interval
from captum_ablate.studies import DivisionOfLabour, plot_labour

USES = 20
"""A filter counts if it is used in so many sentences: with few uses, its share of one sign is large by chance."""

ONE_SIDED = 0.8
"""A filter takes a side if this share of its conductances has one sign."""


def section(deep: Sequence[Reading], linear: Sequence[Reading]) -> Section:
    """Return the section on the sentiment networks."""
    return Section(
        "Division of labour in a sentiment network",
        f"""
A convolutional network after Kim (2014) reads movie reviews: learned embeddings of 50, 100 filters each over 3, 4 and 5
words, the maximum over words, and (ours) a hidden layer of {HIDDEN} units before the two logits. Conductances are of
the positive logit, along the path from padding (embeddings of zero) to the sentence, for {len(deep[0].scores)} test
sentences. For every filter that is used (non-zero) in {USES} or more of them: how often does its conductance have the
sign that it mostly has?

Without the hidden layer, as Kim has it, the question answers itself: the logit is linear in the filters, a filter
only grows along the path, so its conductance is weight times growth and its sign that of the weight, **always**. The
share is 1 before anything is learned ({_share(linear)} in our networks of that kind). With the hidden layer it could
be otherwise; there the control is the same network with the learned words and an untrained reader.

{{labour}}

{{labour-table}}

**Negation**, a demonstration and no test: "{PLAIN.format("good")}" against "{NEGATED.format("good")}", for
{len(GOOD)} good and {len(BAD)} bad words. The table has, for each network, the filter whose conductance "not" moves
most before the good words, with the groups of words in the test sentences that it responds to most.

{{negation}}
""",
        tables={"labour-table": table([*deep, *linear]), "negation": negation(deep)},
        figures={"labour": figure(deep)},
        captions={
            "labour": "Filters by the share of their non-zero conductances that is positive: with what was learned "
            f"(left) and with an untrained reader (right), {len(deep)} networks each."
        },
    )


def table(found: Sequence[Reading]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": f"{f'hidden {one.hidden}' if one.hidden else 'linear'}, seed {one.seed}",
                "accuracy": one.accuracy,
                "filters used": int((one.labour.uses >= USES).sum()),
                "median share": one.labour.median(USES),
                "mean share": _mean_share(one.labour),
                f"filters with {ONE_SIDED:.0%} or more": _one_sided(one.labour),
                "for the positive": int((one.labour.sign[one.labour.uses >= USES] > 0).sum()),
                "untrained: mean share": _mean_share(one.untrained),
                "filters that make half of a sentence's sum": float(_half(one.scores).median()),
            }
            for one in found
        ]
    )


def negation(found: Sequence[Reading]) -> pd.DataFrame:
    rows = []
    for one in found:
        change = (one.negated - one.plain)[: len(GOOD)].mean(dim=0)
        most = int(change.abs().argmax())
        rows.append(
            {
                "network": f"seed {one.seed}",
                **{
                    f"{side} words turned": f"{int((turned > 0).sum())} of {len(turned)}"
                    for side, turned in (("good", one.turned[: len(GOOD)]), ("bad", one.turned[len(GOOD) :]))
                },
                "filters with another sign": int(_turned_filters(one).sum()),
                "filter": most,
                "conductance, good words": float(one.plain[: len(GOOD), most].mean()),
                "with not": float(one.negated[: len(GOOD), most].mean()),
                "responds to": "; ".join(f"*{group}*" for group in one.ngrams),
            }
        )
    return pd.DataFrame(rows)


def figure(found: Sequence[Reading]) -> Figure:
    drawn, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", sharey=True)
    for ax, which, title in ((left, "labour", "trained"), (right, "untrained", "untrained reader, learned words")):
        joined = DivisionOfLabour(
            title,
            torch.cat([getattr(one, which).positive for one in found]),
            torch.cat([getattr(one, which).negative for one in found]),
            found[0].labour.n,
        )
        plot_labour({"filters": joined}, ax)
        ax.set_title(title, loc="left", fontweight="bold", fontsize=11)
        ax.set_ylabel("filters" if ax is left else "")
        ax.set_xlabel("share of non-zero conductances that is positive")
    return drawn


def claims(deep: Sequence[Reading], linear: Sequence[Reading]) -> list[Claim]:
    """Return C1.7, judged over networks, with its control and the demonstration of negation."""
    halves = np.array([float(_half(one.scores).median()) for one in deep])
    return [
        judged_over(
            "C1.7a",
            "Most filters support either positive or negative sentiment",
            f"median over filters (used {USES} times or more) of the share of the majority sign above {ONE_SIDED:.0%}; "
            f"interval over {len(deep)} networks with a hidden layer",
            [one.labour.median(USES) for one in deep],
            threshold=ONE_SIDED,
        ),
        judged_over(
            "C1.7b",
            "Training, not the architecture, divides the labour",
            "mean (not median) over filters of that share, minus that with an untrained reader, above 0; interval over "
            "networks",
            [_mean_share(one.labour) - _mean_share(one.untrained) for one in deep],
            threshold=0.0,
            note="our control, not the paper's. Without a hidden layer the share is 1 by construction "
            f"({_share(linear)} in our networks)",
        ),
        reported(
            "C1.7c",
            "Many filters influence a single input",
            "filters that make up half of the sum of absolute conductances of a sentence, median",
            figure=with_interval(
                float(halves.mean()),
                mean_interval(halves),
                unit=f"of {deep[0].scores.shape[1]} filters",
                digits=1,
            ),
        ),
        _captures_negation(deep),
    ]


def _captures_negation(deep: Sequence[Reading]) -> Claim:
    """Return C1.7d, which has no threshold."""
    turned = torch.stack([one.turned for one in deep])  # [networks, words]
    good, bad = turned[:, : len(GOOD)], turned[:, len(GOOD) :]
    flipping = [int(_turned_filters(one).sum()) for one in deep]
    return reported(
        "C1.7d",
        "Some filters capture negation",
        f'"is not ..." against "is ...", {len(GOOD)} good and {len(BAD)} bad words, {len(deep)} networks: how far '
        "the margin of the logits moves to the other side, interval over networks; filters whose sum of "
        "conductances over the good words changes sign",
        figure=f"good words {_moved(good)}; bad words {_moved(bad)}; {min(flipping)} to {max(flipping)} filters "
        "change sign",
        note="a demonstration with made-up sentences, not a gate. Negation would turn good and bad words alike; a "
        'network for which "not" is one more bad word turns the good ones only',
    )


def _moved(turned: Tensor) -> str:
    per_network = turned.mean(dim=1).double().numpy()
    moved = with_interval(float(per_network.mean()), mean_interval(per_network), digits=2)
    return f"{moved}, {int((turned > 0).sum())} of {turned.numel()} in the right direction"


def _turned_filters(one: Reading) -> Tensor:
    """Return which filters change the sign of their sum of conductances over the good words, ``[filters]``."""
    plain, negated = one.plain[: len(GOOD)].sum(dim=0), one.negated[: len(GOOD)].sum(dim=0)
    return (plain * negated < 0) & (torch.minimum(plain.abs(), negated.abs()) > TOLERANCE * len(GOOD))


def _mean_share(labour: DivisionOfLabour) -> float:
    return float(labour.shares(USES).double().mean())


def _one_sided(labour: DivisionOfLabour) -> str:
    shares = labour.shares(USES)
    return f"{float((shares >= ONE_SIDED).double().mean()):.0%}" if len(shares) else ""


def _half(scores: Tensor) -> Tensor:
    """Return how many filters make up half of each sentence's sum of absolute conductances, ``[n]``."""
    ordered = scores.abs().sort(dim=1, descending=True).values.cumsum(dim=1)
    return (ordered < ordered[:, -1:] / 2).sum(dim=1) + 1


def _share(found: Sequence[Reading]) -> str:
    return f"{float(torch.cat([one.labour.shares(1) for one in found]).double().mean()):.4f}"
