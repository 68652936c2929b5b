"""Every classification network of torchvision against full forward passes with a hook (``python -m benchmarks.zoo``).

Weights are random. Images are noise of the smallest size that the network takes, from 64 px on. Four inner layers of
each network are ablated in a random order. For each sample the evaluator's logit of the label is compared with that of
an independent hook, ``torch.where(mask, reference, activation)``. The cache folder keeps the results of each network,
so a stopped sweep resumes where it was. The smallest network comes first.
"""

from __future__ import annotations

import argparse
import gc
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from benchmarks.tables import markdown
from captum_ablate import CumulativeAblationEvaluator

CACHE = Path.home() / ".cache" / "captum_ablate" / "torchvision.csv"
SIDES = (64, 70, 75, 96, 128, 160, 192, 224, 256)
LAYERS, CLASSES = 4, 10
IMAGES, BATCH = 11, 4
"""The first batch is recorded, in the next one the prefix tape may run, and the last one is smaller."""
IMAGES_OF_LARGE, LARGE = 2, 30_000_000
"""Networks with more parameters than this get fewer images, in one batch."""
STEPS, STEPS_AT_END, CHECKED = 4, 20, 4
"""The last layer has enough steps for the closed form to pay. ``CHECKED`` of the steps are checked."""
TOLERANCE = 1e-5
"""Largest difference of an inexact execution (closed form, folded batch norm, ...), as a share of the largest logit."""
VISIBLE = 1e-4
"""Share of the largest intact logit below which an ablation proves nothing, since it could hide an error."""
OPERATIONS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)
COUNTED = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Layer:
    """An inner layer: its name and type, and the axis of its units."""

    name: str
    type: str
    unit_dim: int


@dataclass(frozen=True)
class Row:
    """The result of one layer.

    ``difference`` is the largest one of the label's logit over steps and samples, as a share of the largest logit, of
    the step or intact. ``effect`` is the largest change by ablation, as a share of the largest intact logit.
    """

    network: str
    parameters: int
    side: int
    layer: str
    type: str = ""
    unit_dim: int = 1
    units: int = 0
    reference: str = ""
    result: str = ""
    execution: str = ""
    difference: float = np.nan
    effect: float = np.nan
    hooks_left: int = 0
    seconds: float = np.nan
    seconds_of_hooks: float = np.nan


def names() -> list[str]:
    """Return the names of all classification networks of ``torchvision.models``."""
    return torchvision.models.list_models(module=torchvision.models)


def size_of(name: str) -> tuple[int, int]:
    """Return the number of parameters, and the smallest side of an image that the network takes, found by trial."""
    for side in SIDES:
        try:
            with _without_memory(), torch.no_grad():
                model = _build(name, side).eval()
                model(torch.empty(IMAGES_OF_LARGE, 3, side, side, device="meta"))
        except Exception:  # this trial asks whether the size fits, whatever the network says
            continue
        return sum(p.numel() for p in model.parameters()), side
    raise ValueError(f"{name} takes none of the sides {SIDES}")


def network(name: str, side: int, seed: int = 0, images: int = IMAGES) -> tuple[nn.Module, Tensor]:
    """Return a network of random weights in which every unit affects the logits, and noise images.

    Parameters that torchvision sets to a constant (a head of zeros, layer scales of 1e-6, biases) are drawn at random.
    Batch norm takes its statistics from the images. Otherwise ablations would not show in the logits.
    """
    torch.manual_seed(seed)
    model = _build(name, side).eval()
    x = torch.randn(images, 3, side, side)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                scale = parameter[0].numel() ** -0.5 if parameter.ndim == 2 else 0.2
                kept = 0.0 if parameter.ndim == 2 or parameter.flatten()[0] == 0 else 1.0
                parameter.normal_(kept, scale)
        for norm in norms:
            norm.train().momentum = 1.0
        model(x)
        for norm in norms:
            norm.eval()
    return model, x


def choose_layers(model: nn.Module, x: Tensor, first: int = 0) -> list[Layer]:
    """Return layers from a tenth of the depth to its end, operations and whole blocks in turn (``first``: 0 or 1).

    A candidate runs once in a forward pass, returns ``[n, ...]``, and does not return the logits. Depth is its place
    among the calls. Units lie along the last axis of tokens and of channels-last maps, else along axis 1.
    """
    candidates = _candidates(model, x)
    kinds = [[c for c in candidates if c[1] == kind] for kind in (False, True)]
    end = max(depth for depth, *_ in candidates)
    chosen: dict[str, Layer] = {}
    for k in range(LAYERS):
        aim = end * (0.1 + 0.9 * k / (LAYERS - 1))
        pool = kinds[(k + first) % 2] or candidates
        free = [c for c in pool if c[2].name not in chosen] or [c for c in candidates if c[2].name not in chosen]
        layer = min(free, key=lambda c: abs(c[0] - aim))[2]
        chosen[layer.name] = layer
    return list(chosen.values())


def check(name: str, *, layers: int = LAYERS) -> Iterator[Row]:
    """Yield one row for each of (the first so many of) the layers chosen in the network of that name."""
    parameters, side = size_of(name)
    number = names().index(name)
    model, x = network(name, side, images=IMAGES if parameters < LARGE else IMAGES_OF_LARGE)
    for k, layer in enumerate(choose_layers(model, x, first=number % 2)[:layers]):
        reference = ("zero", "mean", "other sample")[(number + k) % 3]
        steps = STEPS_AT_END if k == LAYERS - 1 else STEPS
        found = _compare(model, x, layer, reference, steps)
        yield Row(name, parameters, side, layer.name, layer.type, layer.unit_dim, **found)


def _compare(model: nn.Module, x: Tensor, layer: Layer, reference: str, steps: int) -> dict[str, Any]:
    """Return the columns of a row: the comparison with full forward passes."""
    module = model.get_submodule(layer.name)
    with torch.no_grad():
        target = model(x).argmax(dim=1)
    target[0] = (target[1] + 1) % CLASSES  # two classes at least
    data = list(zip(x.split(BATCH), target.split(BATCH), strict=True))
    evaluator = CumulativeAblationEvaluator(
        model,
        module,
        reference=_other_sample if reference == "other sample" else reference,
        metric="logit",
        steps=steps,
        ascending=False,
        n_random=0,
        unit_dim=layer.unit_dim,
    )
    activation = _activation(model, module, x)
    units = activation.shape[layer.unit_dim]
    scores = torch.rand(units, generator=torch.Generator().manual_seed(0))
    before, start = _traces(model), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            curve = evaluator.evaluate(scores, data)
    except Exception as error:  # a refusal is a result of the sweep
        reason = f"{type(error).__name__}: {error}"
        left = _traces(model) - before
        return {"units": units, "reference": reference, "result": "refused", "execution": reason, "hooks_left": left}
    seconds, left = time.perf_counter() - start, _traces(model) - before
    start = time.perf_counter()
    checked = torch.linspace(0, len(curve.n_ablated) - 1, CHECKED + 1).round().long().unique()
    expected = _by_hooks(model, module, x, curve.order, curve.n_ablated[checked], reference, layer.unit_dim)
    per_pass = (time.perf_counter() - start) / len(checked)
    label = target[None, :, None].expand(len(expected), -1, 1)
    largest, values = expected.abs().amax(dim=(1, 2)), expected.gather(2, label)[:, :, 0]
    difference = float(((curve.values[checked] - values).abs().amax(dim=1) / largest.clamp(min=largest[0])).max())
    result = "to the bit" if difference == 0 else "to 1e-5" if difference <= TOLERANCE else "wrong"
    return {
        "units": units,
        "reference": reference,
        "result": result,
        "execution": curve.engine,
        "difference": difference,
        "effect": float((values[1:] - values[0]).abs().max() / largest[0]),
        "hooks_left": left,
        "seconds": seconds,
        "seconds_of_hooks": per_pass * len(curve.n_ablated),
    }


def _by_hooks(
    model: nn.Module,
    module: nn.Module,
    x: Tensor,
    order: Tensor,
    counts: Tensor,
    reference: str,
    dim: int,
) -> Tensor:
    """Return the logits ``[steps + 1, n, classes]`` of one full forward pass with a hook for each step and batch."""
    whole = torch.cat([_activation(model, module, part) for part in x.split(BATCH)])
    others = [d for d in range(whole.ndim) if d != dim % whole.ndim]
    mean = whole.double().mean(others, keepdim=True).to(whole.dtype)
    rows = []
    for count in counts.tolist():

        def ablate(_module: nn.Module, _args: object, output: Any, count: int = count) -> Any:
            a = _tensor(output)
            index = torch.zeros(a.shape[dim], dtype=torch.bool)
            index[order[:count]] = True
            mask = index.reshape([-1 if d == dim % a.ndim else 1 for d in range(a.ndim)])
            new = torch.where(mask, {"zero": torch.zeros_like(a), "mean": mean}.get(reference, a.flip(0)), a)
            return new if isinstance(output, Tensor) else type(output)([new, *output[1:]])

        handle = module.register_forward_hook(ablate)
        try:
            with torch.no_grad():
                rows.append(torch.cat([model(part) for part in x.split(BATCH)]))
        finally:
            handle.remove()
    return torch.stack(rows).double()


def _other_sample(activation: Tensor, _target: Tensor) -> Tensor:
    return activation.flip(0)


def _activation(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: kept.append(_tensor(output).clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


@contextmanager
def _without_memory() -> Iterator[None]:
    """Make modules whose parameters and buffers have a shape but no memory."""

    def bare(_module: nn.Module, _name: str, value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            return nn.Parameter(value.detach().to("meta"))
        return value.to("meta") if isinstance(value, Tensor) else value

    handles = [register_module_parameter_registration_hook(bare), register_module_buffer_registration_hook(bare)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _build(name: str, side: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet's and Inception's, on how long their initialisation takes
        more = {"image_size": side} if name.startswith("vit_") else {}
        return torchvision.models.get_model(name, num_classes=CLASSES, **more)


def _candidates(model: nn.Module, x: Tensor) -> list[tuple[int, bool, Layer]]:
    """Return depth, whether it is a block, and the layer, in the order of their ends in a forward pass."""
    named = {module: name for name, module in model.named_modules() if name}
    calls, ends = Counter[nn.Module](), {}

    def note(module: nn.Module, _args: object, output: Any) -> None:
        calls[module] += 1
        part = _tensor(output)
        ends[module] = (len(calls), tuple(part.shape) if isinstance(part, Tensor) else ())

    handles = [module.register_forward_hook(note) for module in named]
    with torch.no_grad():
        logits = model(x).shape
    for handle in handles:
        handle.remove()
    rows = []
    for module, (depth, shape) in ends.items():
        inner = calls[module] == 1 and 2 <= len(shape) <= 4 and shape[0] == len(x) and shape != tuple(logits)
        block = any(True for _ in module.children())
        if inner and (block or isinstance(module, OPERATIONS)):
            rows.append((depth, block, Layer(named[module], type(module).__name__, _unit_dim(shape))))
    return rows


def _unit_dim(shape: Sequence[int]) -> int:
    maps = len(shape) == 4 and shape[2] == shape[3]
    return 1 if len(shape) == 2 or maps else -1


def _tensor(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _traces(model: nn.Module) -> int:
    """Return how many hooks and replaced methods the modules carry."""
    hooks = sum(len(getattr(module, kind)) for module in model.modules() for kind in COUNTED)
    return hooks + sum("forward" in vars(module) or "__call__" in vars(module) for module in model.modules())


def table_of(rows: pd.DataFrame) -> str:
    """Return a summary of the sweep: the number of layers by result, and each exception with its reason."""
    done = rows[rows.result != "not run"]
    executions = done.execution.str.replace(r" \(.*", "", regex=True).where(done.result != "refused", "refused")
    counts = pd.crosstab(executions, done.result)
    engine = executions.isin(["replay", "closed form"]) & (done.result != "wrong")
    detailed = done.execution[executions == "replay"].str.replace(r"\d+ masks", "masks", regex=True).value_counts()
    lines = [
        f"{done.network.nunique()} networks, {len(done)} layers, {done.type.nunique()} types of module; "
        f"{100 * engine.mean():.1f} % right by replay or closed form",
        "",
        markdown(counts.reset_index()),
        "",
        "Replays: " + "; ".join(f"{execution}: {count}" for execution, count in detailed.items()) + ".",
        "",
        f"Hooks left: {int(done.hooks_left.sum())}. Layers whose ablation changes the logits by less than {VISIBLE:g} "
        f"of the largest: {int((done.effect < VISIBLE).sum())}. Largest difference: {done.difference.max():.1e} of the "
        "largest logit, of the step or intact.",
    ]
    odd = rows[
        rows.result.isin(["wrong", "refused", "not run"])
        | rows.execution.str.contains("hook loop")
        | (rows.effect < VISIBLE)
        | (rows.hooks_left > 0)
    ]
    if len(odd):
        lines += ["", "Exceptions:", ""]
    lines += [
        f"- {r.network} {r.layer} ({r.type}, {r.reference}): {r.result}, {r.execution}, difference {r.difference:.1e}, "
        f"effect {r.effect:.1e}, hooks left {r.hooks_left}"
        for r in odd.itertuples()
    ]
    return "\n".join(lines)


def page_of(rows: pd.DataFrame) -> str:
    """Return the whole sweep as a page: the summary, and one line for each network."""
    lines = []
    for (name, parameters, side), layers in rows.groupby(["network", "parameters", "side"]):
        found = [
            f"`{r.layer}` ({r.type}, {r.reference}): {r.result}, {r.execution}"
            if r.layer
            else f"{r.result}: {r.execution}"
            for r in layers.itertuples()
        ]
        lines.append({"network": name, "parameters, M": parameters / 1e6, "px": side, "layers": "<br>".join(found)})
    return (
        "# Torchvision's networks against plain hooks\n\n"
        "`python -m benchmarks.zoo` (`make zoo`) runs this sweep. Weights are random. Each network gets "
        f"{IMAGES} images in batches of {BATCH} ({IMAGES_OF_LARGE} images if it has more than {LARGE / 1e6:.0f} "
        "million parameters), of the smallest size that it takes. The units of four inner layers are ablated in a "
        f"random order, in {STEPS} steps ({STEPS_AT_END} at the last layer). For each sample, the label's logit of the "
        "intact network and of four steps is compared with that of full forward passes with an independent hook, "
        "`torch.where(mask, reference, activation)`.\n\n"
        f"{table_of(rows)}\n\n"
        "Each entry is a layer (its type, the reference): the result, and the execution.\n\n"
        f"{markdown(pd.DataFrame(lines))}\n"
    )


def sweep(chosen: Sequence[str], state: Path, budget_gb: float) -> pd.DataFrame:
    """Check the networks that ``state`` lacks, smallest first, and return all rows."""
    state.parent.mkdir(parents=True, exist_ok=True)
    sizes = {name: size_of(name) for name in set(chosen) - set(kept(state).network)}
    for name in sorted(sizes, key=lambda name: (sizes[name][0] * sizes[name][1] ** 2, name)):
        parameters, side = sizes[name]
        needed = 1 + 2.5 * parameters * 4 / 1e9  # weights, their start, and what the allocator keeps
        start = time.perf_counter()
        if needed > min(budget_gb, _available_gb()):
            new = [Row(name, parameters, side, "", result="not run", execution=f"needs {needed:.0f} GB")]
        else:
            new = list(check(name))
        pd.concat([kept(state), pd.DataFrame([asdict(row) for row in new])]).to_csv(state, index=False)
        results = ", ".join(f"{row.layer} {row.result} ({row.execution})" for row in new)
        print(
            f"{name} ({parameters / 1e6:.0f} M, {side} px, {time.perf_counter() - start:.0f} s): {results}", flush=True
        )
        gc.collect()
    rows = kept(state)
    return rows[rows.network.isin(chosen)]


def kept(state: Path) -> pd.DataFrame:
    """Return the rows of earlier sweeps in the file ``state``."""
    if not state.exists():
        return pd.DataFrame(columns=[field.name for field in fields(Row)])
    texts = [field.name for field in fields(Row) if field.type == "str"]
    rows = pd.read_csv(state, dtype=dict.fromkeys(texts, object))
    return rows.fillna(dict.fromkeys(texts, "")).drop_duplicates(["network", "layer"], keep="last")


def _available_gb() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")  # not Linux: the budget alone decides
    return next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or resume the sweep, and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="names of networks; all of them by default")
    parser.add_argument("--state", type=Path, default=CACHE, help="the CSV file of results")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--memory", type=float, default=10.0, help="GB that a network may take")
    options = parser.parse_args(arguments)
    if options.fresh:
        options.state.unlink(missing_ok=True)
    print("\n" + table_of(sweep(options.networks or names(), options.state, options.memory)))


if __name__ == "__main__":
    main()
