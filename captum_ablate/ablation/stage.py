"""The path of module calls that leads to the layer, followed alike in a recording and in a replay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import nn

from captum_ablate.ablation.site import Site

Path = tuple[int, ...]
"""Place where the layer is called: the number of the call in each frame, from the outermost frame to the layer's."""


class CannotReplay(Exception):
    """A replay is not possible, or differs from the recording. The message is the reason."""


class PathFinder:
    """Watch a forward pass for the path of calls that leads to the layer."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._counts = [0]

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Count the call in its frame, and open a new frame for it."""
        self._counts[-1] += 1
        self._counts.append(0)
        try:
            return original(module, *args, **kwargs)
        finally:
            self._counts.pop()

    def at_layer(self) -> None:
        """Note the path while the layer runs."""
        self.path = tuple(count - 1 for count in self._counts[:-1])


class Stage(ABC):
    """Follow the frames of the layer's ancestors, alike in a recording and in a replay."""

    def __init__(self, site: Site, path: Path) -> None:
        self.site, self.path = site, path
        self.calls = [0]
        self.past_layer = False

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.past_layer and module is self.site.layer:
            raise CannotReplay("the layer runs more than once")
        if self.past_layer or self.is_inside():
            return original(module, *args, **kwargs)
        depth, index = len(self.calls) - 1, self.calls[-1]
        self.calls[-1] += 1
        if index < self.path[depth]:
            return self.before_layer((depth, index), original, module, args, kwargs)
        is_layer = depth == len(self.path) - 1
        if index > self.path[depth] or is_layer != (module is self.site.layer):
            raise CannotReplay("the calls before the layer differ from one forward pass to the next")
        if is_layer and not self.site.at_input:
            return self.at_layer(original, module, args, kwargs)
        self.calls.append(0)
        try:
            output = original(module, *args, **kwargs)
        finally:
            self.calls.pop()
        if not self.past_layer:
            raise CannotReplay("the calls before the layer differ from one forward pass to the next")
        return output

    @abstractmethod
    def is_inside(self) -> bool:
        """Tell whether a call from an ancestor is running; the calls inside it are not followed."""

    @abstractmethod
    def before_layer(
        self, place: tuple[int, int], original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        """Return the result of an ancestor's call before the layer; ``place`` is its frame and number."""

    @abstractmethod
    def at_layer(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Return the result of the layer's call."""
