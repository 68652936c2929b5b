"""The same curve, both ways, by every rival, as a ratio to the plain hook loop (``make bench-rivals``).

Network, layer, order, steps and the one batch are the same, and every rival must reach the accuracies of the hook loop.
The layers are batch norms inside a block, where all rivals can ablate: Torch-Pruning removes channels, which equals
zeroing them only there. Rivals that are not installed are named and left out.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.utils.prune
from captum.attr import LayerFeatureAblation
from torch import Tensor, nn

from benchmarks.cases import Case, hook_loop
from benchmarks.side_by_side import Options, in_turns, run_cases
from captum_ablate import CumulativeAblationEvaluator

STEPS, SIDE = 8, 64

CASES = (
    Case("resnet18", "layer1.0.bn1", SIDE),
    Case("resnet18", "layer3.0.bn1", SIDE),
    Case("resnet18", "layer4.1.bn1", SIDE),
    Case("resnet50", "layer3.2.bn2", SIDE),
    Case("vgg11_bn", "features.19", SIDE),
    Case("densenet121", "features.denseblock3.denselayer12.norm2", SIDE),
)


class Question:
    """One curve to measure: accuracy of ``model`` on ``x, y``, with the first ``counts`` units of ``order`` at zero."""

    def __init__(self, model: nn.Module, layer: str, order: Tensor, counts: list[int], x: Tensor, y: Tensor) -> None:
        self.model, self.name, self.layer = model, layer, model.get_submodule(layer)
        self.order, self.counts, self.x, self.y = order, counts, x, y

    def reverse(self) -> Question:
        """Return the same question of the reverse order."""
        return Question(self.model, self.name, self.order.flip(0), self.counts, self.x, self.y)

    def accuracy(self, outputs: Tensor) -> float:
        """Return the fraction of outputs whose largest logit is the label's."""
        return float((outputs.argmax(1) == self.y).float().mean())

    def mask(self, count: int) -> Tensor:
        """Return 1 for a unit that is kept, 0 for one that is ablated, ``[units]``."""
        mask = torch.ones(len(self.order))
        mask[self.order[:count]] = 0
        return mask


def ours(q: Question) -> list[float]:
    steps = [count for count in q.counts if count]
    evaluator = CumulativeAblationEvaluator(q.model, q.layer, steps=steps, n_random=0)
    scores = torch.empty(len(q.order))
    scores[q.order] = torch.arange(len(q.order), 0, -1.0)
    curve = evaluator.evaluate(scores, (q.x, q.y))
    return [*curve.score.tolist(), *curve.ascending_score.tolist()]


def both_ways(run: Callable[[Question], list[float]]) -> Callable[[Question], list[float]]:
    """Return the function that runs an order and its reverse, as our curve does."""
    return lambda q: [*run(q), *run(q.reverse())]


def one_hooked(q: Question) -> list[float]:
    return hook_loop(q.model, q.layer, q.order, torch.tensor(q.counts), [(q.x, q.y)], 1)[0].tolist()


def captum_mask(q: Question) -> list[float]:
    """Captum, with kept and ablated units as two features; only the drop of the latter is used."""
    right = lambda x: (q.model(x).argmax(1) == q.y).float()  # noqa: E731
    ablation, intact = LayerFeatureAblation(right, q.layer), float(right(q.x).mean())
    found = [intact]
    for count in q.counts[1:]:
        mask = (1 - q.mask(count)).long()[None, :, None, None]
        drop = ablation.attribute(q.x, layer_mask=mask)[:, q.order[0], 0, 0]
        found.append(intact - float(drop.mean()))
    return found


def captum_baseline(q: Question) -> list[float]:
    """Captum, with the whole layer as one feature and the ablated activation as its baseline."""
    right = lambda x: (q.model(x).argmax(1) == q.y).float()  # noqa: E731
    kept: list[Tensor] = []
    handle = q.layer.register_forward_hook(lambda _module, _args, output: kept.append(output))
    intact = float(right(q.x).mean())
    handle.remove()
    ablation = LayerFeatureAblation(right, q.layer)
    one = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    found = [intact]
    for count in q.counts[1:]:
        baseline = kept[0] * q.mask(count)[None, :, None, None]
        drop = ablation.attribute(q.x, layer_baselines=baseline, layer_mask=one)[:, 0, 0, 0]
        found.append(intact - float(drop.mean()))
    return found


def prune(q: Question) -> list[float]:
    """torch.nn.utils.prune: a mask over weight and bias of the batch norm, which are restored by hand."""
    found = []
    kept = {name: getattr(q.layer, name).clone() for name in ("weight", "bias")}
    for count in q.counts:
        for name in kept:
            torch.nn.utils.prune.custom_from_mask(q.layer, name, q.mask(count))
        found.append(q.accuracy(q.model(q.x)))
        for name, values in kept.items():
            torch.nn.utils.prune.remove(q.layer, name)  # makes the mask permanent
            getattr(q.layer, name).data.copy_(values)
    return found


def torch_pruning(q: Question) -> list[float]:
    """Torch-Pruning: channels removed from a copy. It cannot remove all, so a hook does the last step."""
    import torch_pruning as tp

    found = []
    for count in q.counts:
        if count == len(q.order):
            found += hook_loop(q.model, q.layer, q.order, torch.tensor([count]), [(q.x, q.y)], 1)[0].tolist()
            continue
        model = copy.deepcopy(q.model).requires_grad_()
        if count:
            with torch.enable_grad():
                graph = tp.DependencyGraph().build_dependency(model, example_inputs=q.x[:1])
            units = sorted(q.order[:count].tolist())
            layer = model.get_submodule(q.name)
            graph.get_pruning_group(layer, tp.prune_batchnorm_out_channels, idxs=units).prune()
        found.append(q.accuracy(model(q.x)))
    return found


def nnsight(q: Question) -> list[float]:
    from nnsight import NNsight

    model, found = NNsight(q.model), []
    for count in q.counts:
        units = q.order[:count]
        layer = model.get(q.name)
        with model.trace(q.x):
            if count:
                layer.output[:, units] = 0.0
            outputs = model.output.save()
        found.append(q.accuracy(outputs))
    return found


def pyvene(q: Question) -> list[float]:
    """pyvene, which needs a configuration on the model; an empty one suffices."""
    import pyvene as pv

    name = list(inspect.signature(type(q.model).forward).parameters)[1]
    q.model.config = SimpleNamespace(to_dict=dict)
    found = []
    try:
        for count in q.counts:
            keep = q.mask(count)[None, :, None, None]
            place = {"component": f"{q.name}.output", "intervention": lambda base, _source, keep=keep: base * keep}
            model = pv.IntervenableModel(pv.IntervenableConfig([place]), model=q.model)
            found.append(q.accuracy(model({name: q.x}, unit_locations=None)[1]))
    finally:
        del q.model.config
    return found


RIVALS: dict[str, Callable[[Question], list[float]]] = {
    "ours": ours,
    "Captum, mask": both_ways(captum_mask),
    "Captum, baseline": both_ways(captum_baseline),
    "torch prune": both_ways(prune),
    "Torch-Pruning": both_ways(torch_pruning),
    "nnsight": both_ways(nnsight),
    "pyvene": both_ways(pyvene),
}
hooks = both_ways(one_hooked)
NEEDS = {"Torch-Pruning": "torch_pruning", "nnsight": "nnsight", "pyvene": "pyvene"}


def compare(case: Case, options: Options) -> dict[str, object]:
    """Return one row: the hook loop's seconds, and every rival's time over the hook loop's (less is faster)."""
    model, _layer, units, batches = case.build(options.images, options.images)
    model.requires_grad_(False)
    ((x, y),) = batches
    counts = [round(units * k / STEPS) for k in range(STEPS + 1)]
    order = torch.randperm(units)
    installed = {name: run for name, run in {"hook loop": hooks, **RIVALS}.items() if _installed(name)}
    runs = {}
    for name, run in installed.items():  # one copy each: some leave wrappers on the model
        runs[name] = partial(run, Question(copy.deepcopy(model), case.layer, order, counts, x, y))
    with torch.no_grad():
        for run in runs.values():
            run()  # warms up: rivals import and read sources in the first run
        times, results = in_turns(options.rounds, runs)
    for name, found in results.items():
        np.testing.assert_allclose(found, results["hook loop"], atol=1e-6, err_msg=f"{name} on {case}")
    loop = times["hook loop"]
    row: dict[str, object] = {"network": case.model, "layer": case.layer, "units": units}
    row["hook loop, s"] = float(np.median(loop))
    row |= {name: float(np.median(times[name] / loop)) for name in RIVALS if name in times}
    nearest = min((name for name in times if name != "ours"), key=lambda name: np.median(times[name]))
    return row | {"nearest": nearest, "ratio": float(np.median(times[nearest] / times["ours"]))}


def _installed(name: str) -> bool:
    return name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and the rivals that are not installed."""
    run_cases(CASES, compare, Options.parse("rivals", __doc__, arguments, images=64, batch=64))
    absent = [name for name in NEEDS if not _installed(name)]
    print(f"{STEPS} steps and the intact network, both ways, one batch. Rivals: time over the loop's, less is faster.")
    print("Ratio: the nearest other's time over ours.")
    print(f"not installed here: {', '.join(absent) or 'none'}. baukit is not on PyPI.")


if __name__ == "__main__":
    main()
