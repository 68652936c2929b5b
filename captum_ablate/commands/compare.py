"""``captum-ablate compare``: which attribution finds the units that your own network needs."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn

from captum_ablate.commands import Commands, chosen_methods, compare_data, data_source, images, model_source, user_code
from captum_ablate.commands.compare_run import Run, saying_how_to_go_on
from captum_ablate.commands.run_folder import REPORT, RunFolder
from captum_ablate.commands.summary import printed, summary
from captum_ablate.evaluation.combined import combine
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.evaluation.ranked_again import checked_resamples
from captum_ablate.inputs.fingerprint import weights_digest

DESCRIPTION = """\
Compare attributions on layers of your own model: which one finds the units that
it needs? Units are ranked on one half of the data, and the rankings evaluated on
the other. Each layer with each reference is a comparison of its own.
"""

EPILOG = """\
examples:
  captum-ablate compare --model my_code:make --layer layer3 --data my_code:load \\
      --out run
  captum-ablate compare --model torchvision:resnet18:weights.pt \\
      --layer layer3.1 --layer layer4.1 --reference zero --reference mean \\
      --data imagefolder:photos --methods default,my_code:Mine --out run
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compare",
        help="compare attributions on layers of your own model",
        usage="captum-ablate compare --model MODEL --layer NAME --data DATA --out DIR [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_subject(parser)
    _add_protocol(parser)
    images.add_arguments(parser)
    parser.set_defaults(run=_run)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    """Declare what is compared on what, and where the results go."""
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help=model_source.HELP)
    layer = "layer whose units are ranked and ablated; repeat for several. captum-ablate layers lists them"
    add("--layer", required=True, action="append", metavar="NAME", help=layer)
    add("--data", required=True, metavar="DATA", help=data_source.HELP)
    add("--ranking-data", metavar="DATA", help="other data to rank on; then all of --data is evaluated")
    add("--samples", type=int, metavar="N", help="use at most N samples of the data, drawn at random")
    add("--methods", action="append", metavar="NAME,...", help=chosen_methods.HELP)
    add("--out", required=True, metavar="DIR", help="folder for results, reports and the settings")
    add("--resume", action="store_true", help="go on with the run in --out: what is finished stays")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    """Declare what a curve means, and how it is computed."""
    add = parser.add_argument
    reference = (
        "what replaces an ablated unit: zero (the default), mean, resample, or MODULE:NAME, your "
        "f(activation, target); repeat for several"
    )
    add("--reference", action="append", metavar="NAME", help=reference)
    metric = "accuracy (the default), log_likelihood, logit, margin, or MODULE:NAME, your f(outputs, target) -> [n]"
    add("--metric", default="accuracy", metavar="NAME", help=metric)
    add("--steps", type=_steps, default=20, metavar="N|all", help="steps of a curve (20); all: one unit each")
    add("--random", type=int, default=20, metavar="N", help="random orders to hold methods against (20)")
    resamples = "rank every method again on B resamples of the ranking data, so that intervals are of the method"
    add("--resamples", type=int, metavar="B", help=resamples)
    add("--unit-dim", type=int, default=1, metavar="AXIS", help="axis of the units (1); -1 for layers of tokens")
    add("--batch-size", type=int, default=64, metavar="N", help="samples at a time, of tensors and images (64)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto (the default): a GPU if there is one")
    add("--seed", type=int, default=0, help="seed of halves, random orders and ties (0)")
    add("--quiet", action="store_true", help="no progress bars, and no estimate of the time")


def _run(options: argparse.Namespace) -> None:
    checked_resamples(options.resamples or 0, None)  # before anything is read or written
    methods = chosen_methods.chosen(options.methods or ["default"])
    model = model_source.read(options.model)
    module = model.module.to(_device(options.device))
    metric = _named_or_own(options.metric)
    evaluators = {
        (layer, str(reference)): CumulativeAblationEvaluator(
            module,
            layer,
            unit_dim=options.unit_dim,
            reference=_named_or_own(reference),
            metric=metric,
            steps=options.steps,
            n_random=options.random,
            seed=options.seed,
        )
        for layer in dict.fromkeys(options.layer)
        for reference in dict.fromkeys(options.reference or ["zero"])
    }
    data = compare_data.read(options, model.prepare)
    compare_data.check_classes(module, data, options)
    folder = RunFolder.opened(
        options.out, _settings(options, module, methods, data), resume=options.resume, command=options.command_line
    )
    run = Run(options, module, methods, data, evaluators, folder)
    with saying_how_to_go_on(options):
        run.finish()
    _summarise(run)


def _summarise(run: Run) -> None:
    """Print the comparison, or what several say together, and where everything is."""
    done = {at: run.done[at] for at in run.evaluators}
    if len(done) == 1:
        ((at, only),) = done.items()
        print(f"\n{printed(only)}\n\n{only.verdict}\n\nreport: {run.folder.of(*at) / REPORT}")
        return
    report = combine({run.options.model: list(done.values())}).report(run.folder.path / REPORT)
    print(f"\n{summary(done)}\n\nreport: {report}, and one in each folder beside it")


def _settings(
    options: argparse.Namespace, model: nn.Module, methods: chosen_methods.Makers, data: compare_data.Parts
) -> dict[str, Any]:
    """Return what must be the same for a run to go on; layers and references may be added."""
    return {
        "model": options.model,
        "weights": weights_digest(model),
        **data.settings,
        "methods": list(methods),
        "own code": {name: user_code.digest(name) for name in _own_names(options)},
        "metric": options.metric,
        "steps": options.steps,
        "random orders": options.random,
        "resamples": options.resamples,
        "unit axis": options.unit_dim,
        "seed": options.seed,
    }


def _own_names(options: argparse.Namespace) -> list[str]:
    """Return what the options name of the user's own code that decides results."""
    texts = [part.strip() for option in options.methods or () for part in option.split(",")]
    return [name for name in (*texts, options.metric, *(options.reference or ())) if ":" in name]


def _named_or_own(text: str) -> Any:
    return user_code.find_object(text) if ":" in text else text


def _steps(text: str) -> int | None:
    return None if text == "all" else int(text)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
