"""How to repeat a comparison, and how to cite it."""

from __future__ import annotations

from collections.abc import Sequence

from captum_ablate.ablation.metrics import as_metric
from captum_ablate.ablation.plan import counts_of
from captum_ablate.evaluation.methods import GIVEN
from captum_ablate.evaluation.provenance import Provenance

MOST_STEPS = 200
"""Numbers of steps that are tried, to find the one that a grid was made of."""

CITATIONS = """\
@software{{captum_ablate,
  title   = {{captum\\_ablate: unit scores over labelled data sets, and deficit curves for Captum attributions}},
  author  = {{{{The captum\\_ablate developers}}}},
  version = {{{version}}}
}}
@article{{kokhlikyan2020captum,
  title   = {{Captum: A unified and generic model interpretability library for {{PyTorch}}}},
  author  = {{Kokhlikyan, Narine and Miglani, Vivek and Martin, Miguel and Wang, Edward and
             Alsallakh, Bilal and Reynolds, Jonathan and Melnikov, Alexander and
             Kliushkina, Natalia and Araya, Carlos and Yan, Siqi and
             Reblitz-Richardson, Orion}},
  journal = {{arXiv preprint arXiv:2009.07896}},
  year    = {{2020}}
}}
@article{{bluecher2024decoupling,
  title   = {{Decoupling Pixel Flipping and Occlusion Strategy for Consistent {{XAI}} Benchmarks}},
  author  = {{Bl{{\\"u}}cher, Stefan and Vielhaben, Johanna and Strodthoff, Nils}},
  journal = {{Transactions on Machine Learning Research}},
  year    = {{2024}},
  note    = {{arXiv:2401.06654. The gap is its symmetric relevance gain}}
}}
"""


def citations(version: str) -> str:
    """Return BibTeX entries: of this package in its ``version``, of Captum, and of the paper of the gap."""
    return CITATIONS.format(version=version)


def python_lines(provenance: Provenance, n_ablated: Sequence[int], names: Sequence[str]) -> str:
    """Return the lines of Python that repeat a comparison of ``names``; ``n_ablated`` are its steps, with step 0.

    Options of which only a name is known, such as a function, stand as this name without quotes.
    """
    layers = list(provenance.layers)
    options = {
        "reference": _option(provenance.reference, is_ours=provenance.reference in ("zero", "mean", "resample")),
        "metric": _option(provenance.metric, is_ours=_is_metric(provenance.metric)),
        "steps": _steps(n_ablated),
        "n_random": str(provenance.n_random),
        "seed": str(provenance.seed),
    }
    call = [] if provenance.in_sample else ["ranking_data=ranking_data"]
    if provenance.ranking_resamples:
        call.append(f"ranking_resamples={provenance.ranking_resamples}")
    if provenance.sampled is not None:
        call.append(f"until={provenance.sampled.half_width!r}")
    lines = [
        "from captum_ablate import CumulativeAblationEvaluator",
        "",
        "evaluator = CumulativeAblationEvaluator(",
        f"    model, {(layers[0] if len(layers) == 1 else layers)!r},",
        *(f"    {name}={value}," for name, value in options.items()),
        ")",
        "methods = {",
        *(f"    {name!r}: {_made(provenance.methods.get(name))}" for name in names),
        "}",
        f"comparison = evaluator.compare({', '.join(['methods', 'data', *call])})",
        'comparison.report("report.html")',
    ]
    return "\n".join(lines)


def _option(name: str, *, is_ours: bool) -> str:
    """Return a name as an option: ours in quotes, those of functions and tensors as they are."""
    return name if name.isidentifier() and not is_ours else repr(name)


def _is_metric(name: str) -> bool:
    try:
        as_metric(name)
    except ValueError:
        return False
    return True


def _made(kind: str | None) -> str:
    """Return how a method of this kind comes into the mapping."""
    if kind is None:
        return "...,"
    if kind == GIVEN:
        return "...,  # ready scores [units]"
    if kind.startswith("function "):
        name = kind.removeprefix("function ")
        return f"{name}," if name.isidentifier() else f"...,  # {' '.join(kind.split())}"
    return f"...,  # {kind}"


def _steps(n_ablated: Sequence[int]) -> str:
    """Return the option ``steps`` of a grid: None, a number, or the counts themselves."""
    counts = tuple(n_ablated[1:])
    if counts == tuple(range(1, counts[-1] + 1)):
        return "None"
    for steps in range(len(counts), min(MOST_STEPS, counts[-1]) + 1):
        if counts_of(steps, counts[-1]) == counts:
            return str(steps)
    return repr(list(counts))
