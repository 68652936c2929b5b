"""``captum-ablate layers``: the layers of a model in a table, to choose from."""

from __future__ import annotations

import argparse

import pandas as pd
import torch

from captum_ablate.commands import Commands, data_source, images, model_source, user_code
from captum_ablate.commands.images import Images
from captum_ablate.diagnostics.unlabelled import unlabelled_batches
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.layer_table import list_layers

ROWS = 2
"""Samples that the model runs on: one alone upsets some layers, and more say no more."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "layers",
        help="list the layers of your own model, with shapes and numbers of units",
        description="List the layers of your own model in the order in which they run, with the shape of the output, "
        "the number of units, and the calls in a forward pass. A layer to compare attributions on has one call and at "
        "least two units. Without data or a shape of the input, only names and types are known.",
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help=model_source.HELP)
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument("--data", metavar="DATA", help=f"two samples of it are run; {data_source.HELP}")
    inputs.add_argument("--input-shape", metavar="3,224,224", type=_shape, help="shape of one sample: noise is run")
    parser.add_argument("--unit-dim", type=int, default=1, metavar="AXIS", help="axis of the units (1); -1 for tokens")
    images.add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    model = model_source.read(options.model)
    if options.data is None and options.input_shape is None:
        rows = [(name, type(module).__name__) for name, module in model.module.named_modules() if name]
        print(pd.DataFrame(rows, columns=["name", "type"]).to_string(index=False))
        print("shapes and units need --data, or --input-shape such as 3,224,224")
        return
    batch = Batch((torch.randn(ROWS, *(options.input_shape or ())),), torch.zeros(ROWS, dtype=torch.int64))
    if options.data is not None:
        batch = _first(options, model)
    with user_code.naming_errors(options):
        frame = list_layers(model.module, batch, unit_dim=options.unit_dim)
    frame["units"] = frame["units"].map(lambda n: "" if pd.isna(n) else str(n))
    print(frame.to_string(index=False))


def _first(options: argparse.Namespace, model: model_source.Model) -> Batch:
    """Return some samples of ``--data``."""
    data = data_source.read(options.data, "--data", options, own=model.prepare)
    if isinstance(data, Images):
        data = images.in_memory(data.take(range(min(ROWS, len(data)))), show_progress=False)
    with user_code.naming_errors(options):
        batch: Batch = next(iter(unlabelled_batches(data, forward_func=model.module)))
    return batch if batch.why_whole() is not None else batch.take(slice(ROWS))


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.replace("x", ",").split(","))
