"""The sweep in a few lines, and as a page with every layer."""

from __future__ import annotations

import pandas as pd

from benchmarks.tables import markdown
from benchmarks.zoo.check import STEPS, STEPS_AT_END, VISIBLE
from benchmarks.zoo.networks import BATCH, IMAGES, IMAGES_OF_LARGE, LARGE


def table_of(rows: pd.DataFrame) -> str:
    """Return a summary of the sweep: the number of layers by result, and each exception with its reason."""
    done = rows[rows.result != "not run"]
    executions = done.execution.str.replace(r" \(.*", "", regex=True).where(done.result != "refused", "refused")
    counts = pd.crosstab(executions, done.result)
    by_graph = executions == "graph"
    engine = (by_graph | (executions == "closed form")) & (done.result != "wrong")
    detailed = done.execution[by_graph].str.replace(r"\d+ masks", "masks", regex=True).value_counts()
    lines = [
        f"{done.network.nunique()} networks, {len(done)} layers, {done.type.nunique()} types of module; "
        f"{100 * engine.mean():.1f} % right by graph or closed form",
        "",
        markdown(counts.reset_index()),
        "",
        "Graphs: " + "; ".join(f"{execution}: {count}" for execution, count in detailed.items()) + ".",
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
    """Return the sweep as a page: its summary, and one line for each network."""
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
