"""Find the tensors that a layer returns or receives, and name them in messages."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from captum_ablate.inputs.quantised import dequantised


def in_words(name: str, at_input: bool = False) -> str:
    """Return what messages call a layer's output or input: "layer 'name'" or "the input of layer 'name'"."""
    return f"the input of layer {name!r}" if at_input else f"layer {name!r}"


def returns_in_words(name: str, at_input: bool) -> str:
    """Return how messages begin that tell what a layer returns or receives."""
    return f"layer {name!r} {'receives' if at_input else 'returns'}"


def tensor_parts(output: Any, layer: str, *, at_input: bool = False) -> tuple[Tensor, ...]:
    """Return the tensors of a layer's output: itself, or the tensor elements of a tuple or list.

    Quantised tensors count as the numbers that they stand for.
    """
    is_several = isinstance(output, (tuple, list)) and not isinstance(output, PackedSequence)
    parts = output if is_several else (output,)
    returns = returns_in_words(layer, at_input)
    if any(isinstance(part, PackedSequence) for part in parts):
        raise ValueError(
            f"{returns} a PackedSequence, whose rows are time steps of several samples; run the layer on padded "
            "sequences, or name a module after pad_packed_sequence(..., batch_first=True), such as an nn.Identity"
        )
    tensors = tuple(part for part in parts if isinstance(part, Tensor))
    if not tensors:
        kinds = ", ".join(dict.fromkeys(type(part).__name__ for part in parts)) if at_input else ""
        raise ValueError(
            f"{returns} {kinds or type(output).__name__}, which holds no tensor of units directly; name a layer "
            f"inside it whose {'input' if at_input else 'output'} is a Tensor or a tuple of Tensors"
        )
    if any(part.is_nested for part in tensors):
        raise ValueError(
            f"{returns} a nested tensor, whose samples differ in length; build the encoder with "
            "enable_nested_tensor=False"
        )
    return tuple(map(dequantised, tensors))


def layer_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a layer, positional first: they hold the tensors of ``attribute_to_layer_input``."""
    return (*args, *kwargs.values())
