"""Options of an attribution: annotated fields of its class, which its constructor takes as keyword arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from captum.attr import LayerAttribution

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    def argument(*, kw_only: bool, default: Any = ...) -> Any:
        """Declare to type checkers an argument that the constructor takes by position."""

else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Return the class as it is: type checkers alone read what this says."""
        return lambda cls: cls

    argument = None


CLASS_VARIABLE = re.compile(r"(\w+\.)?ClassVar\b")


@dataclass_transform(kw_only_default=True, field_specifiers=(argument,))
class AttributionWithOptions(LayerAttribution):
    """A layer attribution whose annotated fields are options.

    A class that declares fields gets a constructor with a real signature: that of its parent, and the fields,
    keyword-only, in their order. The constructor sets the fields, then calls the parent's. A class with an
    ``__init__`` of its own keeps it. What is declared ``ClassVar``, or is no option of a parent that has it, is no
    option.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            return
        taken = inspect.signature(cls.__init__).parameters
        fields = {
            name: annotation
            for name, annotation in inspect.get_annotations(cls).items()
            if not CLASS_VARIABLE.match(str(annotation)) and (name in taken or not hasattr(super(cls, cls), name))
        }
        if fields:
            cls.__init__ = _constructor(cls, fields)  # type: ignore[method-assign]  # as dataclasses do

    def __post_init__(self) -> None:
        """Check the options, and make of them what the class needs; called once all are set."""


def _constructor(cls: type[AttributionWithOptions], fields: Mapping[str, Any]) -> Callable[..., None]:
    """Return the constructor of ``cls``: its parent's, which also takes ``fields`` (annotation by name)."""
    inherited, nothing = inspect.signature(cls.__init__), inspect.Parameter.empty
    parameters = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=fields[name])
        for name, default in ((name, cls.__dict__.get(name, nothing)) for name in fields)
    }
    new = [name for name in fields if name not in inherited.parameters]  # the parent sets the others

    def __init__(self: AttributionWithOptions, *args: Any, **kwargs: Any) -> None:
        for name in new:
            if name not in kwargs and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs the option {name!r}; pass {name}=...")
            setattr(self, name, kwargs.pop(name) if name in kwargs else getattr(type(self), name))
        super(cls, self).__init__(*args, **kwargs)

    signature = inherited.replace(parameters=list({**inherited.parameters, **parameters}.values()))
    __init__.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature returns
    __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return __init__
