"""Run batches by the prefix tape. Each is checked against the model before it is used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from captum_ablate.ablation.agreement import TOLERANCE, equal
from captum_ablate.ablation.choice import Choice
from captum_ablate.ablation.clock import timed
from captum_ablate.ablation.full_passes import FullPasses
from captum_ablate.ablation.metric_table import sample_rows
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.prefix import FEWEST, Prefix
from captum_ablate.ablation.ready import Ready, casts_as_recorded
from captum_ablate.ablation.recording import Recording
from captum_ablate.ablation.search import CLOSE
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch

Record = Callable[[Batch, int], Ready]


class BeforeLayer:
    """Run the prefix tape on a batch when that is faster than recording it.

    ``needs_restart`` is set when the prefix tape failed a check by more than rounding after its results were used.
    """

    def __init__(self, passes: FullPasses, choice: Choice, weights: Weights) -> None:
        self._passes, self._choice, self._weights = passes, choice, weights
        self.prefix: Prefix | None = None
        self.is_wanted = len(passes.sites) == 1
        """True if the next recording must trace the prefix."""
        self.needs_restart = False

    @property
    def description(self) -> str:
        """Name of the prefix's execution, if that was not bit-identical to the model."""
        return "" if self.prefix is None else self.prefix.description

    def begin(self, ready: Ready, seconds: float) -> None:
        """Build the prefix from the first recorded batch; recording it took ``seconds``."""
        recording, batch = ready.taken, ready.taken.batch
        if not self.is_wanted or len(batch.target) < FEWEST:
            return
        assert isinstance(recording, Recording)
        self.is_wanted = False
        if isinstance(recording.before, Tape):
            self.prefix = Prefix(recording, batch, seconds, rewritable=self._choice.is_rewritable(ready))

    def request_restart(self) -> None:
        """Note that a later check failed: earlier results of the prefix tape may be wrong."""
        self.needs_restart = self.prefix is not None and self.prefix.batches > 0

    def forget(self) -> None:
        """Use no prefix tape from now on."""
        self.prefix, self.needs_restart = None, False

    def from_prefix(self, batch: Batch, first: int, record: Record) -> Ready | None:
        """Return the batch run by the prefix tape, or None if it must be recorded.

        ``record(batch, first)`` records it. It is not kept: an engine that its parts refer to would hold weights and
        activations until Python collects garbage.
        """
        prefix = self.prefix
        if prefix is None or not prefix.fits(batch):
            return None
        if not prefix.is_proven:
            return self._proven(prefix, batch, first, record)
        exact = None if prefix.strategy == Strategy() else partial(record, batch, first)
        try:
            seconds, ready = self._run(prefix, batch, first, exact)
        except (RuntimeError, ValueError, IndexError):  # for example no kernel for this memory format
            prefix.reject()
            return None
        more, same = timed(partial(self._is_intact, prefix, ready), batch.target.device)
        if not same:
            prefix.reject()
            return None
        prefix.accept(seconds + more)
        return ready

    def _proven(self, prefix: Prefix, batch: Batch, first: int, record: Record) -> Ready:
        """Return the batch recorded, and accept the prefix tape if the whole batch agrees."""
        ready = record(batch, first)
        try:
            seconds, other = self._run(prefix, batch, first, None)
            same = equal(other.taken.activation, ready.taken.activation)
            within = TOLERANCE if prefix.strategy == Strategy() else 2 * CLOSE
            same = same and equal(other.taken.outputs, ready.taken.outputs, within)
            if same:
                more, same = timed(partial(self._is_intact, prefix, other), batch.target.device)
        except Exception:  # for example no kernel for this memory format
            same = False
        if same:
            prefix.accept(seconds + more)
        else:
            prefix.reject()
        return ready

    def _run(self, prefix: Prefix, batch: Batch, first: int, exact: Callable[[], Ready] | None) -> tuple[float, Ready]:
        """Return the seconds that the prefix took, and the batch with its intact outputs."""
        with casts_as_recorded(batch):
            seconds, taken = timed(partial(prefix.run, batch, self._weights), batch.target.device)
            ready = Ready(taken, self._passes.references, first, self._weights, exact)
            nothing = torch.zeros(self._choice.plan.units, dtype=torch.bool, device=ready.device)
            taken.outputs = ready.program(self._choice.strategy or Strategy()).one(nothing)
        return seconds, ready

    def _is_intact(self, prefix: Prefix, ready: Ready) -> bool:
        """Tell whether the intact outputs equal the model's, for one sample, another one in each batch.

        A sample alone may round differently, or depend on the rest of its batch. Then the whole batch is compared.
        """
        batch, is_exact = ready.taken.batch, prefix.strategy == Strategy()
        within, outputs = TOLERANCE if is_exact else CLOSE, class_outputs(ready.taken.outputs)
        if not prefix.checks_all:
            some = prefix.sample(len(batch.target))
            found = sample_rows(outputs, some, len(batch.target))
            try:
                own = self._passes.unablated(batch.take(some))
                if equal(found, own, within):
                    return True
                if not is_exact and equal(found, own, 10 * TOLERANCE):
                    return False  # it rounds too much
            except Exception:  # for example a model made for one batch size
                pass
        own = self._passes.unablated(batch)
        prefix.checks_all = equal(outputs, own, within)
        if prefix.batches and not equal(outputs, own, 10 * TOLERANCE):  # by more than rounding
            self.needs_restart = True
        return prefix.checks_all
