"""A run of the command ``compare``: the comparisons of all settings, each saved once it is done."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from captum_ablate.attr.catalogue import Target
from captum_ablate.commands import chosen_methods, compare_data, user_code
from captum_ablate.commands.run_folder import REPORT, RunFolder
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.estimate import Estimate, duration
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.inputs.wording import counted

Setting = tuple[str, str]
"""A layer and a reference, by their names: a comparison of its own."""


@dataclass
class Run:
    """A run of the command: the comparisons of all settings, one after the other, each saved once it is done."""

    options: argparse.Namespace
    model: nn.Module
    methods: chosen_methods.Makers
    data: compare_data.Parts
    evaluators: dict[Setting, CumulativeAblationEvaluator]
    folder: RunFolder
    done: dict[Setting, Comparison] = field(default_factory=dict)

    def finish(self) -> None:
        """Compare in each setting that is not finished."""
        self.done |= {at: found for at in self.evaluators if (found := self.folder.finished(*at)) is not None}
        left = [at for at in self.evaluators if at not in self.done]
        print(f"{self.options.model}, {self.data.words}; {counted(len(self.methods), 'method')}, "
              f"{counted(len(self.evaluators), 'comparison')}" + self._kept())  # fmt: skip
        expected = {} if self.options.quiet else self._estimates(left)
        start, behind = time.perf_counter(), 0.0
        for number, at in enumerate(left):
            ahead = ""
            if expected:
                pace = (time.perf_counter() - start) / behind if behind else 1.0  # how far off estimates were so far
                remaining = pace * sum(expected[one].seconds for one in left[number:])
                ahead, behind = f", about {duration(remaining)} left", behind + expected[at].seconds
            place = list(self.evaluators).index(at) + 1
            print(f"[{place}/{len(self.evaluators)}] {at[0]}, {at[1]} reference{ahead}", flush=True)
            self.done[at] = self._compare(at)

    def _kept(self) -> str:
        return f", {len(self.done)} of them finished before" if self.done else ""

    def _compare(self, at: Setting) -> Comparison:
        start = time.perf_counter()
        again = {} if self.options.resamples is None else {"ranking_resamples": self.options.resamples}
        with user_code.naming_errors(self.options):
            comparison = self.evaluators[at].compare(
                self._made(at),
                self.data.evaluation,
                ranking_data=self.data.ranking,
                batch_size=self.options.batch_size,
                show_progress=not self.options.quiet,
                **again,
            )
        try:
            folder = self.folder.save(comparison, *at)
        except OSError as error:
            raise OSError(
                f"the comparison of {at[0]}, {at[1]} reference could not be saved: {error.strerror or error}; what was "
                f"finished before is in {self.folder.path}. {_how(self.options)}"
            ) from error
        if len(self.evaluators) > 1:
            print(f"  {comparison.verdict}")
            print(f"  {duration(time.perf_counter() - start)}, {folder / REPORT}", flush=True)
        return comparison

    def _made(self, at: Setting) -> dict[str, Any]:
        evaluator = self.evaluators[at]
        target = Target(
            self.model,
            evaluator.layers[0],
            unit_dim=self.options.unit_dim,
            reference=evaluator.references[0],
            metric=evaluator.metric,
            baselines=self.data.baselines,
            seed=self.options.seed,
        )
        return {name: make(target) for name, make in self.methods.items()}

    def _estimates(self, left: list[Setting]) -> dict[Setting, Estimate]:
        """Return the estimate of each setting, measured once for each layer, and print it."""
        by_layer: dict[str, Estimate] = {}
        for at in left:
            if at[0] not in by_layer:
                print(f"estimating {at[0]} ...", flush=True)
                with user_code.naming_errors(self.options):
                    by_layer[at[0]] = self.evaluators[at].estimate(
                        self._made(at),
                        self.data.evaluation,
                        ranking_data=self.data.ranking,
                        batch_size=self.options.batch_size,
                    )
                print(f"  {by_layer[at[0]]}\n  ranking: {by_layer[at[0]].by_method()}")
        return {at: by_layer[at[0]] for at in left}


@contextmanager
def saying_how_to_go_on(options: argparse.Namespace) -> Iterator[None]:
    """Let Ctrl-C say what is finished, and the command that goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted; what is finished is in {options.out}. {_how(options)}") from error


def _how(options: argparse.Namespace) -> str:
    again = options.command_line if options.resume else f"{options.command_line} --resume"
    return f"To go on: {again}"
