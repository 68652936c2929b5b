"""The model that ``--model`` names: an object of the user's code, or one of torchvision's networks with weights."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import nn

from captum_ablate.commands import data_file, user_code, weights_file

TORCHVISION = "torchvision:"

HELP = (
    "your model: MODULE:NAME, an nn.Module or a function without arguments that returns one, where MODULE is a dotted "
    "name or a file (my_code.py); or torchvision:NAME[:WEIGHTS FILE], without a file with torchvision's own weights. "
    "It is set to evaluation mode"
)


class Model(NamedTuple):
    """A model in evaluation mode, and how its images are prepared, where its weights tell."""

    module: nn.Module
    prepare: Callable[[Any], Any] | None = None


def read(name: str, option: str = "--model") -> Model:
    """Return the model that ``name`` means; errors name ``option``.

    Raises:
        ValueError, TypeError, ImportError, OSError: if there is none, or its weights do not fit.
    """
    if name.startswith(TORCHVISION):
        return _of_torchvision(name, option)
    if data_file.is_file_name(name):
        raise ValueError(
            f"{option} {name} is a file of weights or a folder, not a model; name a function that builds the model and "
            f"loads them, such as my_code:make_model, or one of torchvision's networks, torchvision:resnet18:{name}"
        )
    model = user_code.find_object(name)
    if isinstance(model, type) or not isinstance(model, nn.Module):
        model = user_code.call(model, f"{option} {name}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"{option} {name} must be or return an nn.Module; got {type(model).__name__}")
    return Model(model.eval())


def _of_torchvision(name: str, option: str) -> Model:
    models = import_torchvision(f"{option} {name}").models
    network, _, file = name.removeprefix(TORCHVISION).partition(":")
    known = models.list_models(module=models)
    if network not in known:
        near = ", ".join(get_close_matches(network, known, n=3, cutoff=0.4)) or ", ".join(known[:5]) + ", ..."
        raise ValueError(f"torchvision has no classifier {network!r} ({option} {name}); nearest: {near}")
    if file:
        weights = weights_file.read(file)
        classes = weights_file.classes_of(weights)
        options = {"num_classes": classes} if classes else {}
        model = models.get_model(network, weights=None, **_without_fresh_numbers(network), **options)
        weights_file.load(model, weights, f"torchvision's {network} ({option} {name})")
        return Model(model.eval())
    trained = models.get_model_weights(network).DEFAULT
    try:
        model = models.get_model(network, weights=trained)
    except (OSError, RuntimeError) as error:  # no network, or a broken download
        raise OSError(
            f"torchvision's weights of {network} could not be downloaded ({str(error).splitlines()[0]}); name a file "
            f"of weights, {TORCHVISION}{network}:FILE"
        ) from error
    return Model(model.eval(), trained.transforms())


def _without_fresh_numbers(network: str) -> dict[str, Any]:
    """Return what keeps GoogLeNet and Inception from drawing weights for minutes, which are replaced anyway."""
    return {"init_weights": False} if network in ("googlenet", "inception_v3") else {}


def import_torchvision(what: str) -> Any:
    """Return torchvision.

    Raises:
        ImportError: if it is not installed; the text says that ``what`` needs it.
    """
    try:
        import torchvision  # imported late: only such models and data need it
    except ImportError as error:
        raise ImportError(f"{what} needs torchvision: pip install captum-ablate[demo]") from error
    return torchvision
