"""The data of a comparison: read, limited, halved where no other data are named to rank on, and checked."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.commands import data_source, halves, image_folder, user_code
from captum_ablate.commands.images import Images, in_memory
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.fingerprint import DataDigest
from captum_ablate.inputs.targets import classes_of
from captum_ablate.inputs.wording import counted

BASELINES = 20
"""Ranking samples that SHAP methods take for their baselines."""


@dataclass(frozen=True)
class Parts:
    """Data to rank on, and to evaluate on; ``settings`` describe them, and must not change in a run."""

    ranking: Any
    evaluation: Any
    baselines: Any
    words: str
    settings: dict[str, Any]


def read(options: argparse.Namespace, own: Callable[[Any], Any] | None) -> Parts:
    """Return the data that ``--data``, ``--ranking-data`` and ``--samples`` name; ``own`` prepares images.

    Raises:
        ValueError, TypeError, ImportError, OSError: if one of them is unusable.
    """
    needs_labels = ":" not in options.metric
    named = {"--data": options.data}
    if options.ranking_data is not None:
        named["--ranking-data"] = options.ranking_data
    data = {o: data_source.read(name, o, options, needs_labels=needs_labels, own=own) for o, name in named.items()}
    if options.samples is not None:
        data = {o: halves.at_most(one, options.samples, options.seed, o) for o, one in data.items()}
    how = next((one.preparation.words for one in data.values() if isinstance(one, Images)), None)
    data = {o: _read_images(one, options) for o, one in data.items()}
    parts = (data["--ranking-data"], data["--data"]) if len(data) == 2 else halves.halves(data["--data"], options.seed)
    ranking, evaluation = parts
    settings = {
        "data": options.data,
        "ranking data": options.ranking_data,
        "samples": options.samples,
        "images": how,
        "digest of ranking data": _digest(ranking),
        "digest of evaluation data": _digest(evaluation),
    }
    words = f"{_size(ranking)} to rank on and {_size(evaluation)} to evaluate on" + (f", {how}" if how else "")
    return Parts(ranking, evaluation, _baselines(ranking, options.seed), words, settings)


def check_classes(model: nn.Module, data: Parts, options: argparse.Namespace) -> None:
    """Raise if the classes of the data cannot be those of the model's outputs.

    Of data that are not in memory, the first batch is looked at.

    The subfolders of a folder must be as many as the outputs, since they are numbered by their place.
    """
    if ":" in options.metric:  # of the user's own, which takes any target
        return
    with user_code.naming_errors(options):
        first = [
            next(iter(as_batches(part, forward_func=model, batch_size=2))) for part in (data.evaluation, data.ranking)
        ]
        with torch.no_grad():
            outputs = call(model, first[0])
    outputs = getattr(outputs, "logits", outputs)
    parts = zip((data.evaluation, data.ranking), first, strict=True)
    classes = classes_of(torch.cat([_targets(part, batch).flatten().cpu() for part, batch in parts]))
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2 or classes is None:
        return  # what one logit, or an output of another form, means is checked where it is scored
    k, largest = outputs.shape[1], int(classes.max())
    if largest >= k or int(classes.min()) < 0:
        raise ValueError(
            f"the model has {k} outputs, for the classes 0 to {k - 1}, and the labels of the data {options.data} go "
            f"from {int(classes.min())} to {largest}"
        )
    if options.data.startswith(image_folder.PREFIX) and largest + 1 != k:
        raise ValueError(
            f"the model has {k} outputs and --data {options.data} {largest + 1} subfolders, whose order numbers the "
            "classes; where it does not, name a function that returns (inputs, labels): --data my_code:load"
        )


def _targets(data: Any, batch: Batch) -> Tensor:
    """Return the labels of all samples where they are at hand, else of one batch."""
    if isinstance(data, Batch):
        return data.target
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor):
        return data[1]
    return batch.target


def _read_images(data: Any, options: argparse.Namespace) -> Any:
    return in_memory(data, not options.quiet) if isinstance(data, Images) else data


def _size(data: Any) -> str:
    samples = as_batches(data, classes=False).samples
    return "samples" if samples is None else counted(samples, "sample")


def _digest(data: Any) -> str | None:
    """Return the digest of data in memory; others are not read for it."""
    if not isinstance(data, (tuple, Batch)):
        return None
    found = DataDigest()
    for batch in as_batches(data, classes=False):
        found.add(batch)
    return found.hexdigest()


def _baselines(ranking: Any, seed: int) -> Any:
    """Return some inputs of the first ranking samples, at random; None where the inputs are no tensors."""
    batch = next(iter(as_batches(ranking, batch_size=2**40, classes=False)))
    rows = torch.randperm(len(batch.target), generator=torch.Generator().manual_seed(seed))[:BASELINES]
    if not all(isinstance(one, Tensor) for one in batch.inputs) or batch.why_whole() is not None:
        return None
    some = batch.take(rows).inputs
    return some[0] if len(some) == 1 else some
