"""Slow second opinions on every score: plain loops, one unit at a time, written from the papers' formulas."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.cluster import expected_mutual_information


def layer_output(model, layer, *inputs, at_input=False):
    """The output (or the first input) of a layer in one plain forward pass, as float64 numpy."""
    seen = []
    if at_input:
        handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    else:
        handle = layer.register_forward_hook(lambda _, __, output: seen.append(output.detach().clone()))
    with torch.no_grad():
        model(*(x.clone() if isinstance(x, torch.Tensor) else x for x in inputs))
    handle.remove()
    (output,) = seen
    return output.double().cpu().numpy()


def pooled(output, unit_dim=1):
    """Mean over positions, ``[n, units]``: one sample and one unit at a time."""
    if unit_dim is None:
        return np.array([sample.flatten() for sample in output])
    units = output.shape[unit_dim]
    return np.array([[np.take(output, u, axis=unit_dim)[i].mean() for u in range(units)] for i in range(len(output))])


def layer_values(model, layer, *inputs, unit_dim=1, at_input=False):
    """Pooled activations of a layer, ``[n, units]``."""
    return pooled(layer_output(model, layer, *inputs, at_input=at_input), unit_dim)


def grouped(values, groups):
    """Units joined by group number: the mean over the indices of each group, ``[n, groups]``."""
    groups = list(groups)
    columns = [[u for u in range(len(groups)) if groups[u] == g] for g in range(max(groups) + 1)]
    return np.array([[np.mean([row[u] for u in column]) for column in columns] for row in values])


def mean_activity(values):
    return np.array([sum(column) / len(column) for column in values.T])


def class_mean(column, labels, c):
    members = [a for a, y in zip(column, labels, strict=True) if y == c]
    return sum(members) / len(members)


def class_means(values, labels):
    """mu[c, u], ``[classes, units]``."""
    return np.array([[class_mean(column, labels, c) for column in values.T] for c in sorted(set(labels))])


def class_selectivity(values, labels, eps=0.0):
    """(best - rest) / (abs best + abs rest + eps), rest being the mean of the other class means; 0 for a dead unit."""
    scores = []
    for column in values.T:
        means = sorted(class_mean(column, labels, c) for c in set(labels))
        best, rest = means[-1], sum(means[:-1]) / (len(means) - 1)
        size = abs(best) + abs(rest) + eps
        scores.append((best - rest) / size if size else 0.0)
    return np.array(scores)


def class_selectivity_per_class(values, labels, eps=0.0):
    """The same index with each class in turn in the place of the best one, ``[classes, units]``."""
    classes = sorted(set(labels))
    scores = np.empty((len(classes), values.shape[1]))
    for u, column in enumerate(values.T):
        for row, c in enumerate(classes):
            own = class_mean(column, labels, c)
            rest = np.mean([class_mean(column, labels, k) for k in classes if k != c])
            size = abs(own) + abs(rest) + eps
            scores[row, u] = (own - rest) / size if size else 0.0
    return scores


def selectivity_activity(values, labels, eps=0.0):
    """Selectivity times mean absolute activity."""
    return class_selectivity(values, labels, eps) * mean_activity(np.abs(values))


def selectivity_activity_per_class(values, labels, eps=0.0):
    """Selectivity of each class times the mean absolute activity in it, negative products set to 0."""
    product = class_selectivity_per_class(values, labels, eps) * class_means(np.abs(values), labels)
    return np.array([[max(p, 0.0) for p in row] for row in product])


def median_threshold(values):
    return np.array([float(np.median(column)) for column in values.T])


def width_edges(values, bins):
    """Inner edges of equal-width bins over the range of the whole layer."""
    low, high = values.min(), values.max()
    return [low + (high - low) * k / bins for k in range(1, bins)]


def mass_edges(values, bins):
    """Inner edges of bins that hold equally many of the whole layer's values."""
    return [float(np.quantile(values.flatten(), k / bins)) for k in range(1, bins)]


def default_edges(values, positions):
    """One bit at 0 for outputs >= 0 without positions, else 16 equal-width bins."""
    return [0.0] if values.min() >= 0 and positions == 1 else width_edges(values, 16)


def quantised(values, edges):
    """The bin of a value is the number of edges strictly below it; edges of all units, or one list each."""
    bins = np.zeros(values.shape, dtype=int)
    for i, row in enumerate(values):
        for u, a in enumerate(row):
            own = edges[u] if np.ndim(edges[0]) else edges
            bins[i, u] = sum(edge < a for edge in own)
    return bins


def threshold_edges(thresholds):
    """One edge for each unit."""
    return [[t] for t in thresholds]


def shares(items):
    """P(item) of every item that occurs."""
    items = list(items)
    return {item: count / len(items) for item, count in Counter(items).items()}


def entropy(bins):
    """H(T) = - sum_t P(t) log2 P(t), bits, ``[units]``."""
    return np.array([-sum(p * math.log2(p) for p in shares(column).values()) for column in bins.T])


def specific_information(bins, labels):
    """D(P(T given c) to P(T)), bits, ``[classes, units]``."""
    classes = sorted(set(labels))
    bits = np.empty((len(classes), bins.shape[1]))
    for u, column in enumerate(bins.T):
        marginal = shares(column)
        for row, c in enumerate(classes):
            given = shares(t for t, y in zip(column, labels, strict=True) if y == c)
            bits[row, u] = sum(p * math.log2(p / marginal[t]) for t, p in given.items())
    return bits


def mutual_information(bins, labels):
    """I(T;Y) from the joint counts: sum P(t, c) log2 (P(t, c) / P(t) P(c)), bits, ``[units]``."""
    p_class, scores = shares(labels), []
    for column in bins.T:
        p_bin, joint = shares(column), shares(zip(column, labels, strict=True))
        scores.append(sum(p * math.log2(p / (p_bin[t] * p_class[c])) for (t, c), p in joint.items()))
    return np.array(scores)


def kl_selectivity(bins, labels):
    """max_c D(P(T given c) to P(T)), bits, ``[units]``."""
    return np.array([max(column) for column in specific_information(bins, labels).T])


def specific_information_by_chance(bins, labels):
    """E[D(P(T given c) to P(T))] under permuted labels: each count is hypergeometric, bits, ``[classes, units]``."""
    n, classes = len(labels), sorted(set(labels))
    bits = np.zeros((len(classes), bins.shape[1]))
    for u, column in enumerate(bins.T):
        for row, c in enumerate(classes):
            size = sum(y == c for y in labels)
            for count in Counter(column).values():
                for k in range(1, min(count, size) + 1):
                    p = float(stats.hypergeom(n, count, size).pmf(k))
                    bits[row, u] += p * k / size * math.log2(k * n / (size * count))
    return bits


def information_by_chance(bins, labels):
    """The mean mutual information over all permutations of the labels, in bits, ``[units]``; scikit-learn's."""
    table = [pd.crosstab(np.array(labels), column).to_numpy() for column in bins.T]
    return np.array([expected_mutual_information(one, len(labels)) / math.log(2) for one in table])


def probe_weights(values, labels, C):
    """Centred weights of a logistic regression on standardised units, ``[classes, units]``; dead units 0.

    The binary probe is the softmax with the columns -w/2 and +w/2.
    """
    classes = sorted(set(labels))
    alive = [u for u in range(values.shape[1]) if len(set(values[:, u])) > 1]
    columns = [(values[:, u] - values[:, u].mean()) / values[:, u].std() for u in alive]
    fitted = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(np.stack(columns, axis=1), labels).coef_
    if len(classes) == 2:
        fitted = np.stack([-fitted[0] / 2, fitted[0] / 2])
    weights = np.zeros((len(classes), values.shape[1]))
    for column, u in enumerate(alive):
        weights[:, u] = fitted[:, column] - fitted[:, column].mean()
    return weights


def probe(values, labels, C):
    """L2 norm over classes of the centred probe weights, ``[units]``."""
    return np.array([math.sqrt(sum(w**2 for w in column)) for column in probe_weights(values, labels, C).T])


def metric_values(name, outputs, labels):
    """What a metric says of each sample, ``[n]``: accuracy, log_likelihood, logit or margin."""
    result = []
    for row, y in zip(outputs.double().numpy(), labels, strict=True):
        others = [z for k, z in enumerate(row) if k != y]
        result.append(
            {
                "accuracy": float(row[y] > max(others)),
                "log_likelihood": row[y] - math.log(sum(math.exp(z) for z in row)),
                "logit": row[y],
                "margin": row[y] - max(others),
            }[name]
        )
    return np.array(result)


def weight_norm(model, layer, inputs, consumers, unit_dim=1, at_input=False):
    """Norm of the weights of ``consumers`` whose inputs change if one unit changes, and the consumers stand still."""
    consumers = list(consumers)

    def run(unit, draw):
        seen, handles = {}, []

        def change(values):
            values = values.clone()
            where = [slice(None)] * values.ndim
            where[unit_dim] = unit
            values[tuple(where)] = 10 * torch.rand(
                values[tuple(where)].shape, generator=torch.Generator().manual_seed(draw)
            )
            return values

        for consumer in consumers:
            handles.append(consumer.register_forward_hook(lambda m, args, out: torch.ones_like(out)))
        if at_input:
            handles.append(layer.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:])))
        else:
            handles.append(layer.register_forward_hook(lambda _, __, output: change(output)))
        for k, consumer in enumerate(consumers):
            handles.append(consumer.register_forward_pre_hook(lambda m, args, k=k: seen.update({k: args[0].clone()})))
        with torch.no_grad():
            model(inputs.clone())
        for handle in handles:
            handle.remove()
        return seen

    units = layer_output(model, layer, inputs, at_input=at_input).shape[unit_dim]
    norms = []
    for unit in range(units):
        a, b, c = run(unit, 1), run(unit, 2), run(unit, 3)
        total = 0.0
        for k, consumer in enumerate(consumers):
            channel = 1 if consumer.weight.ndim > 2 else a[k].ndim - 1
            for column in range(a[k].shape[channel]):
                one, two, three = (x[k].select(channel, column) for x in (a, b, c))
                if not (torch.equal(one, two) and torch.equal(one, three)):
                    total += sum(float(w) ** 2 for w in weights_of_column(consumer, column))
        norms.append(math.sqrt(total))
    return np.array(norms)


def weights_of_column(module, column):
    """All entries of the weights of a Linear or Conv module that multiply one channel of its input."""
    weight = module.weight.detach().double()
    if weight.ndim == 2:
        return weight[:, column].tolist()
    if module.transposed:
        return weight[column].flatten().tolist()
    in_group, out_group = module.in_channels // module.groups, module.out_channels // module.groups
    group = column // in_group
    return weight[group * out_group : (group + 1) * out_group, column % in_group].flatten().tolist()


def activation_norms(output, unit_dim=1):
    """Root of the sum of squares over samples and positions, ``[units]``."""
    units = output.shape[unit_dim]
    return np.array([math.sqrt(sum(a * a for a in np.take(output, u, axis=unit_dim).flatten())) for u in range(units)])


def gate_slopes(model, layer, inputs, labels, unit_dim=1, step=1e-4):
    """Slope of each sample's cross entropy in a gate on one unit, ``[n, units]``, by a difference in float64."""
    model = copy.deepcopy(model).double()
    module = model.get_submodule(layer)

    def losses(unit, gate):
        def scale(_, __, output):
            output = output.clone()
            where = [slice(None)] * output.ndim
            where[unit_dim] = unit
            output[tuple(where)] *= gate
            return output

        handle = module.register_forward_hook(scale)
        with torch.no_grad():
            outputs = model(inputs.double() if inputs.is_floating_point() else inputs)
        handle.remove()
        log_p = torch.log_softmax(outputs, dim=1)
        return np.array([-float(log_p[i, c]) for i, c in enumerate(labels)])

    units = layer_output(model, module, inputs.double() if inputs.is_floating_point() else inputs).shape[unit_dim]
    return np.stack([(losses(u, 1 + step) - losses(u, 1 - step)) / (2 * step) for u in range(units)], axis=1)


def unit_ablation(model, layer, inputs, labels, replacement, metric="log_likelihood", unit_dim=1):
    """Deficit of each sample when one unit alone is ablated, ``[n, units]``: a hook and a full pass for each.

    ``replacement(output)`` gives the fully ablated output; only the unit's slice of it is used.
    """

    def ablate(unit):
        def hook(_, __, output):
            output = output.clone()
            where = [slice(None)] * output.ndim
            where[unit_dim] = unit
            output[tuple(where)] = replacement(output)[tuple(where)]
            return output

        return hook

    units = layer_output(model, layer, inputs).shape[unit_dim]
    with torch.no_grad():
        intact = metric_values(metric, model(inputs.clone()), labels)
        deficits = []
        for unit in range(units):
            handle = layer.register_forward_hook(ablate(unit))
            deficits.append(intact - metric_values(metric, model(inputs.clone()), labels))
            handle.remove()
    return np.stack(deficits, axis=1)


def ablation_values(model, layer, inputs, labels, order, counts, replacement, metric="accuracy", unit_dim=1):
    """The metric of each sample as units go in ``order``, ``[steps, n]``: a hook and a full pass for each count.

    ``replacement(output)`` gives the fully ablated output; only the slices of ablated units are used.
    """
    rows = []
    for count in counts:

        def hook(_, __, output, count=count):
            replaced, kept = replacement(output), output.clone(memory_format=torch.contiguous_format)
            for unit in list(order)[:count]:
                if unit_dim is None:
                    kept.view(len(kept), -1)[:, unit] = replaced.flatten(1)[:, unit]
                else:
                    where = [slice(None)] * output.ndim
                    where[unit_dim] = int(unit)
                    kept[tuple(where)] = replaced[tuple(where)]
            return kept

        handle = layer.register_forward_hook(hook)
        with torch.no_grad():
            outputs = model(inputs.clone())
        handle.remove()
        if callable(metric):
            rows.append(metric(outputs, torch.as_tensor(labels)).double().numpy())
        else:
            rows.append(metric_values(metric, outputs, labels))
    return np.stack(rows)


def deficit_area(values, fractions):
    """D of one sample: v_0 minus the area under its curve by the trapezoid rule."""
    area = 0.0
    for k in range(len(values) - 1):
        area += (fractions[k + 1] - fractions[k]) * (values[k] + values[k + 1]) / 2
    return values[0] - area


def deficit_areas(values, fractions):
    """D_i of each sample, for ``values [steps, n]``."""
    return np.array([deficit_area(list(column), list(fractions)) for column in np.asarray(values).T])


def student_interval(values):
    """95 % interval of a mean."""
    n, mean = len(values), sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    half = stats.t.ppf(0.975, n - 1) * math.sqrt(variance / n)
    return mean - half, mean + half


def bounded_interval(values, span):
    """95 % interval of a mean of values within -span .. span: t with two deviations more, of what the spread shows."""
    n, mean = len(values), sum(values) / len(values)
    second = sum((v - mean) ** 2 for v in values)
    fourth = sum((v - mean) ** 4 for v in values)
    size, effective = (fourth / second, second**2 / fourth) if fourth > 1e-25 * span**4 else (0, 0)
    size += max(0, span**2 - size) / (1 + effective**2)
    half = stats.t.ppf(0.975, n - 1) * math.sqrt((second + 2 * size) / (n - 1) / n)
    return max(-span, mean - half), min(span, mean + half)


def bounded_p(values, span):
    """Two-sided p that the mean is 0: that of t, its error from the half-width of the bounded interval."""
    n, mean = len(values), sum(values) / len(values)
    low, high = bounded_interval(values, span)
    half = max(mean - low, high - mean)  # one side may be cut off at the span
    return 2 * stats.t.sf(abs(mean) * stats.t.ppf(0.975, n - 1) / half, n - 1)


def shapley_values(model, layer, x, labels, replacement, metric, units):
    """Each unit's Shapley value by the sum over all subsets, ``[n, units]``: every subset is one hooked pass."""
    value = {}
    for size in range(units + 1):
        for subset in itertools.combinations(range(units), size):
            order = [*subset, *(u for u in range(units) if u not in subset)]
            row = ablation_values(model, layer, x, labels, order, [size], replacement, metric)
            value[frozenset(subset)] = np.asarray(row).reshape(-1)
    found = np.zeros((len(x), units))
    for subset, without in value.items():
        for u in set(range(units)) - subset:
            weight = math.factorial(len(subset)) * math.factorial(units - len(subset) - 1) / math.factorial(units)
            found[:, u] += weight * (without - value[subset | {u}])
    return found


def against_chance(gap, null):
    """z, Student's one-sided p and the exchange p of a gap among those of random orders."""
    spread = math.sqrt(sum(r * r for r in null) / len(null))
    z = gap / spread
    signed = [gap, -gap, *null, *[-r for r in null]]
    return z, float(stats.t.sf(z, len(null))), sum(value >= gap for value in signed) / len(signed)


def quantile(values, q):
    """Interpolated between the two nearest of the sorted values."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def holm(p):
    """Holm's adjusted p, one after the other."""
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = worst
    return adjusted


def two_way_interval(table):
    """95 % interval of the grand mean of ``table [n][orders]``, both random: (MS_i + MS_j - MS_ij) / (n orders).

    Satterthwaite's degrees of freedom; for tables in which both sources outweigh the rest.
    """
    n, orders = len(table), len(table[0])
    grand = sum(sum(row) for row in table) / (n * orders)
    row_means = [sum(row) / orders for row in table]
    column_means = [sum(row[j] for row in table) / n for j in range(orders)]
    ms_rows = orders * sum((m - grand) ** 2 for m in row_means) / (n - 1)
    ms_columns = n * sum((m - grand) ** 2 for m in column_means) / (orders - 1)
    ms_rest = 0.0
    for i in range(n):
        for j in range(orders):
            ms_rest += (table[i][j] - row_means[i] - column_means[j] + grand) ** 2
    ms_rest /= (n - 1) * (orders - 1)
    assert min(ms_rows, ms_columns) > ms_rest, "the formula holds only where both sources outweigh the rest"
    total = ms_rows + ms_columns - ms_rest
    freedom = total**2 / (ms_rows**2 / (n - 1) + ms_columns**2 / (orders - 1) + ms_rest**2 / ((n - 1) * (orders - 1)))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total / (n * orders))
    return grand - half, grand + half


def mean_squares(table):
    """Mean squares of ``table [rows][columns]`` without replication: of the rows' means, and of the rest."""
    rows, columns = len(table), len(table[0])
    grand = sum(sum(row) for row in table) / (rows * columns)
    row_means = [sum(row) / columns for row in table]
    column_means = [sum(row[j] for row in table) / rows for j in range(columns)]
    rest = 0.0
    for i in range(rows):
        for j in range(columns):
            rest += (table[i][j] - row_means[i] - column_means[j] + grand) ** 2
    between = columns * sum((m - grand) ** 2 for m in row_means) / (rows - 1)
    return {"rows": between, "rest": rest / ((rows - 1) * (columns - 1))}


def interval_with_noise(values, variance, degrees):
    """95 % interval of a mean to which an independent noise is added; Satterthwaite's degrees of freedom."""
    n, mean = len(values), sum(values) / len(values)
    own = sum((v - mean) ** 2 for v in values) / (n - 1) / n
    freedom = (own + variance) ** 2 / (own**2 / (n - 1) + variance**2 / degrees)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(own + variance)
    return mean - half, mean + half


def rank_ranges(values, span=None):
    """First and last possible rank of each method, ``values [methods][n]``: paired t, Holm over all pairs, 5 %.

    With a ``span`` of the differences the test is that of the bounded interval.
    """
    pairs = []
    for a in range(len(values)):
        for b in range(a):
            apart = np.subtract(values[a], values[b]).tolist()
            p = stats.ttest_1samp(apart, 0).pvalue if span is None else bounded_p(apart, span)
            pairs.append((float(p), a, b))
    better = set()
    for k, (p, a, b) in enumerate(sorted(pairs)):
        if not p <= 0.05 / (len(pairs) - k):
            break
        better.add((a, b) if np.mean(values[a]) > np.mean(values[b]) else (b, a))
    methods = range(len(values))
    return [
        (
            1 + sum((other, m) in better for other in methods),
            len(values) - sum((m, other) in better for other in methods),
        )
        for m in methods
    ]
