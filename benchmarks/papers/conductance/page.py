"""The page on Dhamdhere, Sundararajan and Yan: completeness, flips, correlation, features, division of labour."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.papers.common.page import Seconds, Section, write_page
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.conductance import completeness, correlation, features, flips, labour
from benchmarks.papers.conductance.methods import STEPS
from benchmarks.papers.conductance.readings import readings
from benchmarks.papers.conductance.sentiment import HIDDEN, trained_reader
from benchmarks.papers.conductance.subjects import Subject, subjects

TITLE = "How important is a neuron? Conductance and its rivals"


def run(scale: Scale) -> None:
    """Run every part and write the page."""
    networks = list(subjects(scale))
    readers = [trained_reader(hidden, seed, scale) for hidden in (HIDDEN, 0) for seed in range(scale.pick(1, 5, 10))]
    cases, more = completeness.networks(scale)
    training = more + sum(one.seconds for one in (*networks, *readers))
    start = time.process_time()  # CPU time of this process: a busy machine does not count
    checked = completeness.cases(cases, scale)
    flipped, correlated, selected = [], [], []
    for network in networks:
        flipped.append(flips.flips(network, scale))
        correlated += correlation.correlations(network, scale)
        selected += features.selections(network, scale)
        print(f"{network.name}: {time.process_time() - start:.0f} s so far", flush=True)
    deep, linear = (readings(hidden, scale) for hidden in (HIDDEN, 0))
    write_page(
        "dhamdhere",
        TITLE,
        command=f"python -m benchmarks.papers dhamdhere {scale.option}".strip(),
        seconds=Seconds(time.process_time() - start, training),
        scale=scale,
        introduction=_introduction(networks),
        sections=[
            completeness.section(checked),
            flips.section(flipped),
            correlation.section(correlated),
            features.section(selected),
            labour.section(deep, linear),
            limits(),
        ],
        claims=[
            *completeness.claims(checked),
            *features.claims(selected),
            *correlation.claims(correlated),
            *flips.claims(flipped),
            *labour.claims(deep, linear),
        ],
    )


def _introduction(networks: Sequence[Subject]) -> str:
    accuracies = ", ".join(f"{network.name} {network.accuracy:.1%}" for network in networks)
    return f"""
What the paper proposes: the *conductance* of a hidden unit, the part of the change of the output, from a baseline to
the input, that flows through it (Dhamdhere, Sundararajan and Yan, arXiv 1805.12233; Captum's `LayerConductance`). It is
held against activation, gradient x activation and internal influence. We had a summary of the paper with one table, not
its text: what is taken from it is said to be so, all protocols and thresholds are **our reading**.

Networks: small VGG-like and ResNet networks on 20,000 CIFAR-10 images (held-out accuracy {accuracies}), and the
sentiment networks below, on Pang and Lee's movie reviews (8,530 to train on, 2,132 to test). No image or sentence that
is evaluated was trained on. Paths have {STEPS} steps from a zero baseline (the mean colour; padding), but for
completeness. Networks that share their images are not independent: where it says "in every network" each is judged by
itself, over images."""


def limits() -> Section:
    return Section(
        "What this does not show",
        """
The networks are small and the images 32 x 32: no figure here is comparable in size with the paper's. The baseline is
one of many. In a ResNet a layer inside a block is no cut between input and output, so conductances there need not
add up to the output's change; they are compared as scores all the same. Intervals over images or splits say nothing
about other networks; the tables have every network by itself.""",
    )
