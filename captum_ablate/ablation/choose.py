"""Choose how masks run: by full passes, or by which way of the graph. Seconds that were measured decide.

Whether to capture is decided from the seconds of the first plain pass and the work that is left. After that, ways are
tried one after the other on masks that are needed anyway, as long as what is left repays a trial.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation.checks import CLOSE, Differs, is_precise
from captum_ablate.ablation.graph import name_of
from captum_ablate.ablation.hooked import Look, now
from captum_ablate.ablation.metric_table import own_rows
from captum_ablate.ablation.opened import Opened
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.suffix import Suffix, Way

FORCED: str | None = None
"""For tests: "hook loop", "graph" (operators of a full pass), or "update", "stacked", "folded",
"narrowed", joined by ", "."""

RECORDED, PASSED = 0.0019, 0.0008
"""Seconds that a capture takes for each module that is recorded, and for each before the site of a tail."""
FIXED = 0.02
"""Seconds of a capture and its checks beside those of modules."""
MARGIN = 0.9
"""A capture must be expected to take at most this share of the hook loop's time."""
FASTER = 0.95
"""Largest share of the time that a way on trial may take to be chosen."""
TRIAL = 20
"""Stacks that must be left for another way to be tried: a trial costs about two, and saves perhaps a tenth."""
STACK = 4
"""Masks that are stacked at first, where reading weights outweighs computing."""
LARGEST_STACK = 64
SMALL = 2**21
"""Numbers that one mask touches, below which nothing is timed: masks are stacked up to this size instead. So small
networks always run the same way."""
STACK_BYTES = 2**28
"""Largest memory of one tensor in a stacked run."""
ZERO = -1
"""The number of the mask that ablates no unit: its outputs are known, and checked."""


Judge = Callable[[int, Any, float], bool]
Found = tuple[int, Any]
"""A mask's number and its outputs."""


def modules_around(model: nn.Module, site: Site) -> tuple[int, int]:
    """Return how many modules without children lie before a site's layer, and from it on, in the order of names."""
    modules = list(model.modules())
    place = next((k for k, module in enumerate(modules) if module is site.layer), 0)
    leaves = [k for k, module in enumerate(modules) if not any(module.children())]
    before = sum(k < place for k in leaves)
    return before, len(leaves) - before


def repays(look: Look, modules: tuple[int, int], masks: int, batches: float) -> bool:
    """Tell whether capturing is cheaper than full passes for ``masks`` masks in each of so many batches.

    The first mask of a capture runs by a full pass too, as a check; and each batch runs the suffix once more.
    """
    if FORCED is not None:
        return FORCED != "hook loop"
    before, after = modules
    passes = batches * masks * (look.before + look.after)
    capture = FIXED + PASSED * before + RECORDED * after
    return capture + look.before + look.after + batches * masks * look.after < MARGIN * passes


class Chooser:
    """The way of one captured graph: chosen on its first batch, and kept."""

    def __init__(self, suffix: Suffix, plan: Plan, n: int, masks: float, full: float) -> None:
        self._suffix, self._plan, self._left, self._full = suffix, plan, masks, full
        self.best, self._rest = self._start(n)
        self._seconds: float | None = None
        self.is_slow = False
        """True if a full pass turned out faster; then ``outputs`` ends early."""

    def _start(self, n: int) -> tuple[Way, list[dict[str, Any]]]:
        """Return the way to begin with, and the changes of it to try."""
        suffix, most = self._suffix, self._most_masks(n)
        if FORCED is not None:
            stack = min(STACK, most) if "stacked" in FORCED else 1
            folds, narrows = "folded" in FORCED and suffix.has("convolution"), "narrowed" in FORCED and suffix.narrows
            return Way(update="update" in FORCED and self._updates, fold=folds, narrow=narrows, stack=stack), []
        if not is_precise(suffix.nodes):
            return Way(), []
        size = suffix.made * n + suffix.read
        if size <= SMALL:
            return Way(stack=min(LARGEST_STACK, most, len(self._plan) + 1, max(1, SMALL // size))), []
        shares = 2 * suffix.read > suffix.made * n or suffix.device.type != "cpu"
        stack = min(STACK, most) if shares else 1
        trials: list[dict[str, Any]] = [{"stack": 1}] if stack > 1 else []
        trials += [{"fold": True}] if suffix.has("convolution") else []
        trials += [{"stack": min(20, most)}] if stack > 1 else []
        return Way(self._updates, stack=stack, narrow=suffix.narrows), trials

    @property
    def _updates(self) -> bool:
        """Tell whether updates pay: a matrix must be transposed first, which takes more than few masks."""
        affine = self._suffix.segments[-1].affine
        few = FORCED is None and self._left <= TRIAL
        return bool(affine) and not (few and any(name_of(one.node) != "convolution" for one in affine))

    def _most_masks(self, n: int) -> int:
        if not self._suffix.keeps_samples:
            return 1
        return int(max(1, min(LARGEST_STACK, STACK_BYTES // max(1, self._suffix.largest * n))))

    def wants_closed_form(self, classes: int, n: int) -> bool:
        """Tell whether the backward passes of a closed form cost less than the masks of the plan."""
        return "closed form" in FORCED if FORCED is not None else len(self._plan) >= 4 + 3 * (classes / n)

    @property
    def description(self) -> str:
        """The way in words, as far as this network has what it does."""
        words = str(self.best)
        folds = any("batch_norm" in name_of(node) for node in self._suffix.nodes)
        return words if folds else words.replace("folded batch norm, ", "")

    def demote(self) -> bool:
        """Go back to the operators of a full pass; tell whether that is a change."""
        changes = not self.best.is_exact
        self.best, self._rest = Way(), []
        return changes

    def outputs(
        self, opened: Callable[[Way], Opened], known: Sequence[int], agrees: Judge, within: float = CLOSE
    ) -> Iterator[tuple[list[int], Any]]:
        """Yield ``(numbers, outputs)`` for all masks of the plan.

        The outputs of the ``known`` masks, ``ZERO`` among them, are checked: ``agrees(number, outputs, within)``.

        Raises:
            Differs: if the way returns other outputs.
        """
        queue = [*known, *(number for number in self._plan.walk() if number not in known)]
        is_warm = False
        while queue:
            if self._rest and self._seconds and self._left > TRIAL * replace(self.best, **self._rest[0]).stack:
                yield from self._tried(opened, queue, known, agrees)
                continue
            some = self._next(queue, self.best, opened)
            seconds, found = self._run(opened, self.best, some)
            if not _all_agree(found, known, agrees, within):
                raise Differs(
                    f"the graph{f' ({self.best})' * (not self.best.is_exact)} differs from a full forward pass"
                )
            yield from self._wanted(found)
            if is_warm and len(some) == self.best.stack:
                self._seconds = min(seconds, self._seconds or seconds)
                self.is_slow = FORCED is None and self._seconds > self._full
                if self.is_slow:
                    return
            is_warm = True

    def _tried(
        self, opened: Callable[[Way], Opened], queue: list[int], known: Sequence[int], agrees: Judge
    ) -> Iterator[tuple[list[int], Any]]:
        """Try the next way: run it once to check it and warm it up, and once with a clock."""
        way = replace(self.best, **self._rest.pop(0))
        again = [*known][: way.stack]
        try:
            first = [*again, *self._next(queue, replace(way, stack=way.stack - len(again)), opened)]
            _, found = self._run(opened, way, first)
            ok = _all_agree(found, known, agrees, CLOSE)
        except Differs:
            ok = False
        if not ok:
            queue[:0] = first[len(again) :]
            return
        yield from self._wanted([one for one in found if one[0] not in known])
        some = self._next(queue, way, opened)
        if not some:
            return
        seconds, found = self._run(opened, way, some)
        assert self._seconds is not None
        if seconds <= FASTER * self._seconds and len(some) == way.stack:
            self.best, self._seconds = way, seconds
        yield from self._wanted(found)

    def _next(self, queue: list[int], way: Way, opened: Callable[[Way], Opened]) -> list[int]:
        """Take the next masks out of the queue: as many as the way stacks and as share what runs before them."""
        some = queue[: way.stack]
        masks = [self._mask(number) for number in some]
        while len(some) > 1 and not opened(self.best).can_stack(torch.stack(masks[: len(some)])):
            some.pop()
        del queue[: len(some)]
        return some

    def _run(self, opened: Callable[[Way], Opened], way: Way, numbers: list[int]) -> tuple[float, list[Found]]:
        """Return the seconds for each mask, and the outputs; masks are repeated to fill a stack."""
        device = self._suffix.device
        start = now(device)
        masks = [self._mask(number) for number in numbers]
        own = opened(way)
        if len(masks) > 1:
            masks += [masks[-1]] * (way.stack - len(masks))
        outputs = own.outputs(torch.stack(masks))
        seconds = (now(device) - start) / len(masks)
        n = own.n
        self._left -= len(numbers)
        return seconds, [(number, own_rows(outputs, k, n, len(masks))) for k, number in enumerate(numbers)]

    def _mask(self, number: int) -> Tensor:
        cpu = torch.device("cpu")
        return torch.zeros(self._plan.units, dtype=torch.bool) if number == ZERO else self._plan.mask(number, cpu)

    def _wanted(self, found: list[Found]) -> Iterator[tuple[list[int], Any]]:
        yield from (([number], outputs) for number, outputs in found if number != ZERO)


def _all_agree(found: Sequence[Found], known: Collection[int], agrees: Judge, within: float) -> bool:
    return all(agrees(number, outputs, within) for number, outputs in found if number in known)
