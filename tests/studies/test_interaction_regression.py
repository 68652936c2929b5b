"""The nested models against scikit-learn and plain loops; the permutation test against its definition and its law."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from captum_ablate.studies import interaction_regression
from captum_ablate.studies.linear_models import Blocks, bootstrap, fit, freedman_lane

matplotlib.use("Agg")


def groups(n=90, product=0.0, seed=0, noise=0.1, classes=3, **columns):
    """Groups whose deficit is 0.1 s + 0.2 a + product s a + 0.05 log n + noise, with s and a standardised."""
    random = np.random.default_rng(seed)
    s, a = random.normal(size=(2, n))
    z = [(v - v.mean()) / v.std() for v in (s, a)]
    size = random.integers(3, 30, n)
    excess = 0.1 * z[0] + 0.2 * z[1] + product * z[0] * z[1] + 0.05 * np.log(size) + noise * random.normal(size=n)
    return pd.DataFrame(
        {"selectivity": 3 + 2 * s, "mean_activity": 10 * a, "n_units": size, "excess": excess}
        | {"class": np.arange(n) % classes}
        | columns
    )


def plain_fit(columns, y):
    """R2, adjusted R2, AIC and coefficients by scikit-learn and the textbook's formulas."""
    x = np.column_stack(columns)
    model = LinearRegression().fit(x, y)
    n, p = len(y), x.shape[1] + 1
    rss = ((y - model.predict(x)) ** 2).sum()
    r2 = model.score(x, y)
    log_likelihood = sum(stats.norm.logpdf(e, scale=np.sqrt(rss / n)) for e in y - model.predict(x))
    return r2, 1 - (1 - r2) * (n - 1) / (n - p), 2 * p - 2 * log_likelihood, [model.intercept_, *model.coef_]


def plain_t(columns, y):
    """t of the last column in an ordinary regression."""
    x = np.column_stack([np.ones(len(y)), *columns])
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    variance = ((y - x @ beta) ** 2).sum() / (len(y) - x.shape[1])
    return beta[-1] / np.sqrt(variance * inverse[-1, -1])


def test_the_three_models_equal_scikit_learn():
    frame = groups(product=0.1)
    found = interaction_regression(frame, permutations=9, resamples=10)
    s, a = (
        (frame[name] - frame[name].mean()).to_numpy() / frame[name].std(ddof=0)
        for name in ("selectivity", "mean_activity")
    )
    size, y = np.log(frame["n_units"].to_numpy()), frame["excess"].to_numpy()
    for name, columns in {"M1": (s, size), "M2": (s, a, size), "M3": (s, a, size, s * a)}.items():
        r2, adjusted, aic, beta = plain_fit(columns, y)
        row = found.models.loc[name]
        np.testing.assert_allclose([row["r2"], row["adjusted_r2"], row["aic"]], [r2, adjusted, aic], rtol=1e-9)
        estimates = found.coefficients.query("model == @name")["estimate"]
        np.testing.assert_allclose(estimates, beta, rtol=1e-8)
        assert row["coefficients"] == len(beta)
    assert found.product == pytest.approx(0.1, abs=0.04)
    assert found.r2_gain == pytest.approx(found.models.loc["M3", "r2"] - found.models.loc["M2", "r2"])
    assert found.aic_gain("M1") == found.models.loc["M1", "aic"] - found.models.loc["M3", "aic"]
    assert found.n == 90


def test_without_noise_the_coefficients_come_back_exactly():
    found = interaction_regression(groups(product=0.3, noise=0.0), permutations=99, resamples=50)
    terms = found.coefficients.query("model == 'M3'").set_index("term")["estimate"]
    expected = {"constant": 0, "selectivity": 0.1, "activity": 0.2, "log size": 0.05, "product": 0.3}
    np.testing.assert_allclose(terms[list(expected)], list(expected.values()), atol=1e-12)
    assert found.p == 0.01
    np.testing.assert_allclose(found.product_interval, [0.3, 0.3], atol=1e-9)
    assert found.models.loc["M3", "r2"] == pytest.approx(1)


def test_the_permutation_statistic_is_the_t_of_the_full_model():
    """Freedman and Lane by definition: permute reduced residuals in each stratum, add, fit the full model again."""
    frame = groups(n=40, product=0.02, classes=4)
    s, a = (stats.zscore(frame[name].to_numpy()) for name in ("selectivity", "mean_activity"))
    y, strata = frame["excess"].to_numpy(), frame["class"].to_numpy()
    reduced = np.column_stack([np.ones(40), s, a])
    beta = np.linalg.lstsq(reduced, y, rcond=None)[0]
    fitted, residuals = reduced @ beta, y - reduced @ beta
    random = np.random.default_rng(7)
    observed, exceed = abs(plain_t((s, a, s * a), y)), 0
    for _ in range(1000):
        permuted = residuals.copy()
        for stratum in range(4):
            own = np.flatnonzero(strata == stratum)
            permuted[own] = residuals[random.permutation(own)]
        exceed += abs(plain_t((s, a, s * a), fitted + permuted)) >= observed
    expected = (1 + exceed) / 1001
    found = freedman_lane(reduced, s * a, y, Blocks.single(strata), permutations=4000, seed=0)
    assert 0.02 < expected < 0.98, "the example should be neither certain nor hopeless"
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 1000))


def test_rows_are_exchanged_within_their_stratum_only():
    """Two rows a stratum that hold the same residual: every permutation is the identity, so p is 1."""
    strata = np.arange(20) // 2
    random = np.random.default_rng(0)
    extra = np.repeat(random.normal(size=10), 2)
    y = np.repeat(random.normal(size=10), 2)
    assert freedman_lane(np.ones((20, 1)), extra, y, Blocks.single(strata), permutations=99, seed=0) == 1.0
    assert (
        freedman_lane(np.ones((20, 1)), extra, y, Blocks.single(np.zeros(20, dtype=int)), permutations=99, seed=0) < 1.0
    )


def in_classes(n=14, classes=10, seed=0, between=1.0):
    """The frame of one grid: groups that have no product, each a row in every class, with an effect of its own."""
    random = np.random.default_rng(seed)
    frame = groups(n, noise=between, seed=seed).drop(columns="class").assign(group=range(n))
    frame = pd.concat([frame.assign(**{"class": c}) for c in range(classes)], ignore_index=True)
    return frame.assign(excess=frame["excess"] + 0.5 * random.normal(size=len(frame)))


def test_the_rows_of_a_group_are_permuted_and_drawn_together():
    strata, group, place = np.zeros(8, dtype=int), np.array([0, 1, 2, 3, 3, 2, 1, 0]), np.repeat([0, 1], 4)
    blocks = Blocks.of(strata, group, place)
    random = np.random.default_rng(0)
    for order in blocks.orders(50, random):
        assert (group[order][:4] == group[order][[7, 6, 5, 4]]).all()
        assert (place[order] == place).all()
    assert len(np.unique(blocks.orders(500, random), axis=0)) == 24
    times = blocks.draws(50, random)
    assert (times[:, :4] == times[:, [7, 6, 5, 4]]).all()
    assert (times.sum(axis=1) == 8).all()


def test_groups_with_other_classes_are_not_exchanged():
    frame = in_classes(6, 3).iloc[:-1]  # the last group has no row in the last class
    strata = frame["class"].to_numpy() * 0
    blocks = Blocks.of(strata, frame["group"].to_numpy(), frame["class"].to_numpy())
    orders = blocks.orders(50, np.random.default_rng(0))
    alone = frame["group"].to_numpy() == 5
    assert (orders[:, alone] == np.flatnonzero(alone)).all()


def test_rows_of_one_group_say_nothing_more_than_one_row():
    """Without noise between classes, ten classes are ten copies: p is that of one, and so is the interval."""
    one = in_classes(classes=1, seed=3)
    copies = pd.concat([one.assign(**{"class": c}) for c in range(10)], ignore_index=True)
    few, many = (interaction_regression(f, permutations=2000, resamples=1000) for f in (one, copies))
    assert (few.groups, many.groups, many.n) == (14, 14, 140)
    assert "14 groups, 140 rows" in repr(many)
    np.testing.assert_allclose(many.product_interval, few.product_interval, rtol=1e-6)
    apart = interaction_regression(copies, groups=(), permutations=9, resamples=1000)
    assert np.subtract(*apart.product_interval) > 0.6 * np.subtract(*many.product_interval)


@pytest.mark.parametrize("between", [1.0, 0.1])
def test_groups_in_many_classes_are_significant_as_seldom_as_said(between):
    p = [
        interaction_regression(in_classes(seed=k, between=between), permutations=99, resamples=1).p for k in range(120)
    ]
    assert np.mean(np.array(p) <= 0.05) <= stats.binom.ppf(0.99, 120, 0.06) / 120
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_groups_are_found_by_their_units_or_named():
    frame = in_classes(12, 3)
    assert interaction_regression(frame, permutations=9, resamples=9).groups == 12
    assert interaction_regression(frame, groups=(), permutations=9, resamples=9).groups == 36
    named = frame.rename(columns={"group": "tile"})
    assert interaction_regression(named, groups="tile", permutations=9, resamples=9).groups == 12
    layers = pd.concat([frame.assign(layer="a"), frame.assign(layer="b")], ignore_index=True)
    assert interaction_regression(layers, permutations=9, resamples=9).groups == 24
    assert interaction_regression(layers, groups="group", permutations=9, resamples=9).groups == 24
    planes = frame.assign(selectivity=frame["selectivity"] + frame["class"])  # each class in its own plane
    assert interaction_regression(planes, permutations=9, resamples=9).groups == 36
    with pytest.raises(ValueError, match="groups must be columns of the frame; it has no 'tile'"):
        interaction_regression(frame, groups=["tile"])


def test_p_is_uniform_where_there_is_no_product():
    p = [interaction_regression(groups(30, seed=k), permutations=99, resamples=1, seed=k).p for k in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert min(p) >= 0.01


def test_a_product_that_is_there_is_found_in_either_direction():
    for sign in (1, -1):
        found = interaction_regression(groups(product=0.1 * sign))
        assert found.p < 0.01
        low, high = found.product_interval
        assert low < 0.1 * sign < high
        assert low * sign > 0
        assert found.aic_gain("M2") > 10


def test_a_product_that_is_not_there_does_not_lower_aic_by_much():
    gains = [interaction_regression(groups(seed=k), permutations=1, resamples=1).aic_gain("M2") for k in range(60)]
    assert min(gains) >= -2  # one useless coefficient costs 2 at most
    assert np.mean(np.array(gains) > 0) == pytest.approx(0.157, abs=0.15)  # P(chi2_1 > 2)


def test_the_bootstrap_interval_covers_the_product():
    inside = 0
    for k in range(100):
        low, high = interaction_regression(
            groups(60, product=0.05, seed=k), permutations=1, resamples=300
        ).product_interval
        inside += low <= 0.05 <= high
    assert 85 <= inside <= 100


def test_the_bootstrap_equals_fits_to_the_rows_drawn():
    frame = groups(20)
    terms = np.column_stack([np.ones(20), frame["selectivity"], frame["mean_activity"]])
    y, strata = frame["excess"].to_numpy(), frame["class"].to_numpy()
    coefficients, r2 = bootstrap(terms, y, Blocks.single(strata), resamples=5, seed=3)
    random = np.random.default_rng(3)
    times = np.zeros((5, 20))
    for stratum in range(3):
        own = np.flatnonzero(strata == stratum)
        times[:, own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), size=5)
    for k in range(5):
        rows = np.repeat(np.arange(20), times[k].astype(int))
        again = fit(terms[rows], y[rows])
        np.testing.assert_allclose(coefficients[k], again.coefficients, rtol=1e-6)
        assert r2[k] == pytest.approx(again.r2)
        assert [(strata[rows] == c).sum() for c in range(3)] == [(strata == c).sum() for c in range(3)]


def test_activities_of_two_layers_are_standardised_apart():
    one, two = groups(60, product=0.1, layer="a"), groups(60, product=0.1, seed=1, layer="b")
    two["mean_activity"] = 1e4 * two["mean_activity"] + 1e6
    joined = interaction_regression(pd.concat([one, two], ignore_index=True), permutations=9, resamples=9)
    assert joined.product == pytest.approx(0.1, abs=0.04)
    assert joined.strata == ("layer", "class")
    for layer in (slice(0, 60), slice(60, 120)):
        np.testing.assert_allclose(joined.rows["activity"][layer].std(ddof=0), 1)


def test_the_order_of_rows_does_not_matter():
    frame = groups(product=0.05)
    mixed = frame.sample(frac=1, random_state=1)
    one, two = (interaction_regression(f, permutations=2000, resamples=2000) for f in (frame, mixed))
    assert one.product == pytest.approx(two.product)
    assert one.p == pytest.approx(two.p, abs=0.03)
    np.testing.assert_allclose(one.product_interval, two.product_interval, atol=0.01)


def test_groups_of_one_size_need_no_size():
    frame = groups(product=0.1, noise=0.02)
    frame["n_units"] = 8
    frame["excess"] += 0.3
    found = interaction_regression(frame, permutations=9, resamples=20)
    assert found.models.loc["M3", "coefficients"] == 4
    assert np.isfinite(found.models.to_numpy()).all()


def test_the_frame_and_the_plot_hold_every_model_and_term():
    found = interaction_regression(groups(product=0.1), permutations=9, resamples=9)
    frame = found.to_frame()
    assert len(frame) == 3 + 4 + 5
    assert list(frame.columns) == ["model", "term", "estimate", "low", "high", "r2", "adjusted_r2", "aic"]
    assert (frame["low"] <= frame["high"]).all()
    ax = found.plot()
    assert ax.get_ylabel() == "deficit beyond random groups"
    assert len(ax.collections[0].get_offsets()) == 90
    assert "90 groups" in ax.get_title(loc="left")
    assert "p = " in repr(found)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"excess": None}, {}, "the frame has no column 'excess'; it has 'selectivity'"),
        ({"mean_activity": np.nan}, {}, "'mean_activity' hold values that are not finite"),
        ({"n_units": 0}, {}, "'n_units' must be numbers of units above 0; got 0"),
        ({"selectivity": 1.0}, {}, "'selectivity' does not vary within every frame"),
        ({"class": range(90)}, {}, "every stratum of class has one row only"),
        ({}, {"strata": ["network"]}, "strata must be columns of the frame; it has no 'network'"),
        ({}, {"permutations": 0}, "permutations must be an int of at least 1; got 0"),
    ],
)
def test_bad_groups_are_refused(change, options, message):
    frame = groups()
    for name, value in change.items():
        frame = frame.drop(columns=name) if value is None else frame.assign(**{name: value})
    with pytest.raises(ValueError, match=message):
        interaction_regression(frame, **options)


def test_too_few_groups_to_tell_the_product_are_refused():
    with pytest.raises(ValueError, match="5 rows cannot tell the product"):
        interaction_regression(groups(5, classes=2))
    with pytest.raises(TypeError, match="frame must be a DataFrame with a row per group; got dict"):
        interaction_regression({})
    with pytest.raises(ValueError, match="the models are M1, M2, M3; got 'M4'"):
        interaction_regression(groups(), permutations=1, resamples=1).aic_gain("M4")


@pytest.mark.parametrize("level", [0.0, 0.1, 1e8, -3e-9])
def test_what_does_not_vary_has_no_r2(level):
    """The rounding of a mean is no variance: 0.1 averaged is not 0.1 to the last digit."""
    terms = np.column_stack([np.ones(49), np.random.default_rng(0).normal(size=49)])
    found = fit(terms, np.full(49, level))
    assert np.isnan(found.r2)
    _, r2 = bootstrap(terms, np.full(49, level), Blocks.single(np.zeros(49, dtype=np.int64)), resamples=20, seed=0)
    assert np.isnan(r2).all()


@pytest.mark.parametrize(("scale", "shift"), [(1e-8, 0.0), (1e8, 0.0), (1.0, 1e6)])
def test_r2_goes_neither_with_the_scale_nor_with_the_level_of_the_deficit(scale, shift):
    random = np.random.default_rng(0)
    terms = np.column_stack([np.ones(60), random.normal(size=60)])
    y, strata = terms[:, 1] + random.normal(size=60), np.zeros(60, dtype=np.int64)
    assert fit(terms, shift + scale * y).r2 == pytest.approx(fit(terms, y).r2, rel=1e-6)
    r2, moved = (bootstrap(terms, v, Blocks.single(strata), resamples=20, seed=0)[1] for v in (y, shift + scale * y))
    np.testing.assert_allclose(moved, r2, rtol=1e-5)


def test_layers_of_any_scale_are_standardised_apart():
    """The spread of a layer is judged by its own activities, however large those of another layer are."""
    frame = pd.concat(
        [groups(layer="a"), groups(seed=1, layer="b").assign(mean_activity=lambda f: f["mean_activity"] * 1e-13)]
    )
    same = frame.assign(mean_activity=lambda f: f["mean_activity"] * np.where(f["layer"] == "b", 1e13, 1))
    found, expected = (interaction_regression(f, permutations=9, resamples=10) for f in (frame, same))
    np.testing.assert_allclose(
        found.to_frame().select_dtypes("number"), expected.to_frame().select_dtypes("number"), rtol=1e-6, atol=1e-9
    )
