"""Retraining of the last layer: what it receives, and a new layer on these frozen features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor, nn

from captum_ablate.diagnostics.labelled import labels, rows, same_length
from captum_ablate.inputs.batches import UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import Layer, as_model, find_layer, layer_name
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.rounding import rounding
from captum_ablate.inputs.values import tensor_of
from captum_ablate.inputs.warnings import ignoring
from captum_ablate.statistics.activations import activations

STRENGTHS = tuple(10.0**k for k in (-4, -3, -2, -1, 0, 1))
"""Values of C among which cross-validation chooses."""
FOLDS = 3


class HeadTable(NamedTuple):
    """Input ``features [n, d]`` and output ``logits [n, classes]`` of the last layer, with ``target [n]``."""

    features: Tensor
    logits: Tensor
    target: Tensor


def head_table(
    forward_func: Any,
    head: Layer,
    data: Any,
    *,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> HeadTable:
    """Return what the model's last linear layer receives and returns for a data set, on the CPU.

    Args:
        head: the last linear layer, a module or its dotted name.
        data: ``(inputs, target)`` or an iterable of batches ``(*inputs, labels)``.

    Raises:
        TypeError: if ``head`` is no ``nn.Linear``.
        ValueError: if there is no such layer, the model is in training mode, or ``head`` does not receive one row of
            features per sample.

    Example:
        >>> import torch
        >>> from captum_ablate import head_table
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> table = head_table(net, "2", (torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1])))
        >>> tuple(table.features.shape), tuple(table.logits.shape)
        ((5, 8), (5, 2))
    """
    model = as_model(forward_func)
    layer = find_layer(model, head)
    name = layer_name(model, layer)
    if not isinstance(layer, nn.Linear):
        raise TypeError(
            "head must be the last linear layer, which turns features into logits; "
            f"{name!r} is a {type(layer).__name__}"
        )
    batches = as_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    features, logits, target = [], [], []
    with borrowed(model, batches.owner):
        shown = with_progress(batches, f"features of {name}", show_progress)
        inputs = activations(model, [layer], shown, _copy, at_input=True, element=0)
        for batch, ((received,),) in inputs:
            with torch.no_grad():
                output = layer(received)
            if received.ndim != 2 or len(received) != len(batch.target):
                raise ValueError(
                    f"the last layer {name!r} must receive one row of features per sample, [n, d]; "
                    f"got {tuple(received.shape)} for {len(batch.target)} samples"
                )
            features.append(received.cpu())
            logits.append(output.cpu())
            target.append(batch.target.cpu())
    return HeadTable(torch.cat(features), torch.cat(logits), torch.cat(target))


def last_linear(model: nn.Module) -> str:
    """Return the name of the model's last linear layer in the order of definition."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    if not names:
        raise ValueError(f"{type(model).__name__} has no linear layer, so no last one; it needs a linear classifier")
    return names[-1]


def retrain_last_layer(
    features: Any, target: Any, *, C: float | None = None, draws: int = 10, seed: int = 0
) -> nn.Linear:
    """Return a new last layer, fitted by logistic regression to features and classes.

    It is fitted to standardised features of ``draws`` random subsets with equally many samples of each class, and
    averaged. The standardisation is folded into weight and bias, so that the layer takes raw features. A feature that
    varies by rounding alone, in its own type or in the layer's, gets no weight. No group labels are used. After deep
    feature reweighting (Kirichenko et al. 2022), whose penalty is L1 where ours is L2.

    Args:
        features: ``[n, d]``, what the last layer receives.
        target: ``[n]``, classes 0..k-1.
        C: inverse strength of the penalty. None chooses it on the first draw by 3-fold cross-validated log-likelihood.

    Raises:
        ValueError: if shapes or labels do not fit, a class has no samples, or ``C`` or ``draws`` is out of range.

    Example:
        >>> import torch
        >>> from captum_ablate import retrain_last_layer
        >>> features = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> layer = retrain_last_layer(features, [0, 0, 1, 1], C=1.0)
        >>> layer(features).argmax(dim=1).tolist()
        [0, 0, 1, 1]
    """
    layer_dtype = torch.get_default_dtype()
    noise = max(rounding(tensor_of(features).dtype), rounding(layer_dtype))
    matrix, target = rows(features, "features", "[n, d]").numpy(), labels(target, "target")
    same_length(features=torch.from_numpy(matrix), target=target)
    counts = _class_counts(target)
    if C is not None and not C > 0:
        raise ValueError(f"C must be positive, or None for cross-validation; got {C!r}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1; got {draws}")
    if C is None and counts.min() < 2:
        raise ValueError(
            "cross-validation of C needs at least 2 samples of every class, and one class has 1; "
            "add samples, or choose C yourself: retrain_last_layer(..., C=1.0)"
        )
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    constant = spread <= noise * np.abs(matrix).max(axis=0)
    spread = np.where(constant, 1.0, spread)
    standardised = (matrix - centre) / spread
    standardised[:, constant] = 0.0  # so that a feature that never varies gets no weight
    y, rng = target.numpy(), np.random.default_rng(seed)
    balanced = bool((counts == counts[0]).all())
    subsets = [_draw(y, rng) for _ in range(1 if balanced else draws)]  # equal counts: every draw is the whole
    weight, bias = _averaged_fit(standardised, y, subsets, C, seed)
    layer = nn.utils.skip_init(nn.Linear, matrix.shape[1], len(counts))  # draws no random numbers
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight / spread))
        rounded = layer.weight.to(torch.float64).numpy()  # so that what the weight loses is not multiplied by the mean
        layer.bias.copy_(torch.from_numpy(bias - rounded @ centre))
    return layer.requires_grad_(True).eval()


def _class_counts(target: Tensor) -> NDArray[Any]:
    """Return the number of samples of each class 0..k-1; raise if one has none."""
    if int(target.min()) < 0:
        raise ValueError(f"labels must be 0..k-1, the rows of the new layer; got {int(target.min())}")
    counts = torch.bincount(target).numpy()
    if len(counts) < 2:
        raise ValueError("a last layer separates two or more classes; all samples have the label 0")
    if not counts.all():
        raise ValueError(
            f"every class 0..{len(counts) - 1} needs samples to retrain on; class {int(counts.argmin())} has none"
        )
    return counts


def _draw(y: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return the indices of a random subset with equally many samples of each class, as many as the rarest has."""
    counts = np.bincount(y)
    return np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(y == c))[: counts.min()] for c in range(len(counts))])
    )


def _averaged_fit(
    values: NDArray[Any], y: NDArray[Any], subsets: list[NDArray[Any]], C: float | None, seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the weight ``[classes, d]`` and the bias ``[classes]`` of the fits to ``subsets``, averaged."""
    classes = int(y.max()) + 1
    weight, bias = np.zeros((classes, values.shape[1])), np.zeros(classes)
    with ignoring(ConvergenceWarning):  # near the optimum the predictions no longer move
        strength = _best_strength(values[subsets[0]], y[subsets[0]], seed) if C is None else C
        for subset in subsets:
            fitted = LogisticRegression(C=strength, tol=1e-6, max_iter=2000).fit(values[subset], y[subset])
            w, b = _per_class(fitted.coef_, fitted.intercept_)
            weight += w / len(subsets)
            bias += b / len(subsets)
    return weight, bias


def _best_strength(values: NDArray[Any], y: NDArray[Any], seed: int) -> float:
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(y).min())), shuffle=True, random_state=seed)

    def quality(strength: float) -> float:
        model = LogisticRegression(C=strength, tol=1e-4, max_iter=500)
        return float(cross_val_score(model, values, y, cv=folds, scoring="neg_log_loss").mean())

    return max(STRENGTHS, key=quality)


def _per_class(weight: NDArray[Any], bias: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return one row per class; two classes get half the binary logit each, with opposite signs."""
    if len(weight) > 1:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()
