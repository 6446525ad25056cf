import math
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.margins import (
    MARGINS,
    clopper_pearson,
    first_order_margin,
    margin,
    margin_frame,
    robustness_probability,
    share_with_margin,
)
from harmonicvae.margins.chi_squared import distribution_lower, median_upper, tail_bound_root
from harmonicvae.records import Bound

EXAMPLES = [
    ((5, 5, 0.2, 8, 10), ("0.000", "0.139", "0.129", "0.1471", "0.2710")),
    ((2, 2, 0.5, 8, 10), ("0.000", "0.866", "0.804", "0.9194", "1.6935")),
    ((5, 5, 0.3, 8, 10), ("0.000", "0.000", "0.032", "0.0607", "0.1908")),
    ((10, 5, 0.5, 8, 64), ("0.000", "0.000", "0.000", "0.0000", "0.0000")),
]
COLUMNS = ("barrett_1", "sharpened_1", "barrett_2", "triangle_chi2", "noncentral_chi2")


def positive(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


constants = positive(0.05, 50)
dims = st.sampled_from([1, 2, 3, 10, 64])


@st.composite
def informative(draw, largest=30.0):
    """Draw constants a, b, γ, m and an r at which the noise matters and margins are not 0."""
    a, b, std, dim = draw(constants), draw(constants), draw(positive(1e-3, 10)), draw(dims)
    return a, b, std, a * std * math.sqrt(dim) * draw(positive(1.0, largest)), dim


def chi2_below(threshold, dof, noncentrality=0):
    """P(χ'² ≤ threshold) by the Poisson mixture in mpmath, in the working precision."""
    half, x = mpmath.mpf(noncentrality) / 2, threshold / 2
    last = int(half + 20 * mpmath.sqrt(half) + 60)
    weights = (mpmath.exp(-half + j * mpmath.log(half)) / mpmath.factorial(j) for j in range(last))
    if noncentrality == 0:
        weights = iter([mpmath.mpf(1)])

    def central(shape):
        series = mpmath.hyp1f1(1, shape + 1, x, maxterms=10**6)
        return mpmath.exp(shape * mpmath.log(x) - x - mpmath.loggamma(shape + 1)) * series

    return mpmath.fsum(
        weight * central(mpmath.mpf(dof) / 2 + j) for j, weight in enumerate(weights)
    )


@pytest.mark.parametrize("column", range(5), ids=COLUMNS)
@pytest.mark.parametrize(("numbers", "expected"), EXAMPLES)
def test_worked_examples(numbers, expected, column):
    a, b, std, r, dim = numbers
    found = margin(b, a, std, r, latent_dim=dim, method=COLUMNS[column])
    digits = len(expected[column]) - 2
    assert f"{found.value:.{digits}f}" == expected[column]


def test_every_margin_is_in_the_table():
    assert set(MARGINS) == {*COLUMNS, "barrett_2_root"}


@settings(max_examples=60, deadline=None)
@given(informative())
def test_order(numbers):
    a, b, std, r, dim = numbers
    value = {
        name: margin(b, a, std, r, latent_dim=dim, method=name).value * (1 - 1e-13)
        for name in MARGINS
    }
    slack = 1 + 1e-12
    assert value["barrett_1"] <= value["sharpened_1"] * slack
    assert value["barrett_2"] <= value["barrett_2_root"] * slack
    assert value["barrett_2_root"] <= value["triangle_chi2"] * slack
    assert value["triangle_chi2"] <= value["noncentral_chi2"] * slack
    assert value["sharpened_1"] <= value["noncentral_chi2"] * slack
    assert value["barrett_2_root"] - value["barrett_2"] <= r / a / b / 199 * slack


@settings(max_examples=40, deadline=None)
@given(
    informative(largest=5.0),
    st.sampled_from(["triangle_chi2", "barrett_2_root", "noncentral_chi2"]),
)
def test_gaussian_margins_are_the_roots_and_never_above(numbers, method):
    """At R the defining inequality holds in 30 digits; 10⁻⁷·r/(ab) above it fails."""
    a, b, std, r, dim = numbers
    assume(method != "barrett_2_root" or dim > 1)
    found = margin(b, a, std, r, latent_dim=dim, method=method).value
    assume(found > 0)
    with mpmath.workdps(30):
        a, b, std, r, m = (mpmath.mpf(number) for number in (a, b, std, r, dim))

        def holds(radius):
            shift = b * radius
            if method == "noncentral_chi2":
                threshold = (r / a) ** 2 / (2 * std**2)
                return chi2_below(threshold, dim, shift**2 / (2 * std**2)) >= 0.5
            if shift > r / a:
                return False
            u = (r / a - shift) ** 2 / (2 * std**2)
            if method == "triangle_chi2":
                return chi2_below(u, dim) >= 0.5
            constant = mpmath.exp((m - (m - 1) * mpmath.log(m)) / 2) / mpmath.sqrt(mpmath.pi)
            bound = constant * u ** (m / 2) * mpmath.exp(-u / 2) / (u - m + 2)
            return u > m - 2 and bound <= 0.5

        assert holds(mpmath.mpf(found))
        assert not holds(mpmath.mpf(found) + mpmath.mpf("1e-7") * r / (a * b))


@settings(deadline=None)
@given(informative(), positive(1e-3, 20), st.integers(0, 10**6))
def test_markov_margins_are_the_roots_and_never_above(numbers, growth, seed):
    a, b, std, r, dim = numbers
    stds = std * np.random.default_rng(seed).uniform(0.1, 1, size=dim)
    for method, factor in (("barrett_1", 4), ("sharpened_1", 2)):
        found = margin(b, a, stds, r, latent_dim=dim, std_bound=growth, method=method).value
        with mpmath.workdps(40):
            room = (mpmath.mpf(r) / a) ** 2 / 2
            size = mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(s)) ** 2 for s in stds))

            def left(radius, factor=factor, size=size):
                square = mpmath.mpf(b) ** 2 + mpmath.mpf(growth) ** 2
                linear = factor * mpmath.mpf(growth) * size
                return square * radius**2 + linear * radius + factor * size**2

            if found == 0:
                assert left(mpmath.mpf(0)) >= room
            else:
                assert left(mpmath.mpf(found)) <= room < left(mpmath.mpf(found) * (1 + 1e-12))


@settings(deadline=None)
@given(informative(), positive(1e-3, 20), st.integers(0, 10**6))
def test_triangle_margin_with_a_learned_std(numbers, growth, seed):
    a, b, std, r, dim = numbers
    stds = std * np.random.default_rng(seed).uniform(0.1, 1, size=dim)
    options = {"latent_dim": dim, "std_bound": growth, "method": "triangle_chi2"}
    found = margin(b, a, stds, r, **options).value
    assume(found > 0)
    largest, median = stds.max(), stats.chi2.median(dim)

    def left(radius):
        spread = math.sqrt(largest**2 + (largest + growth * radius) ** 2)
        return b * radius + spread * math.sqrt(median)

    assert left(found) <= r / a * (1 + 1e-12)
    assert left(found * (1 + 1e-9)) + 1e-9 * r / a > r / a
    assert found <= margin(b, a, stds, r, latent_dim=dim, method="triangle_chi2").value


@settings(max_examples=40, deadline=None)
@given(positive(1e-3, 300), st.integers(1, 80), st.one_of(st.just(0.0), positive(1e-3, 300)))
def test_distribution_is_a_lower_bound_and_tight(threshold, dof, noncentrality):
    ours = distribution_lower(Decimal(threshold), dof, Decimal(noncentrality))
    with mpmath.workdps(40):
        true = chi2_below(mpmath.mpf(threshold), dof, mpmath.mpf(noncentrality))
        assert 0 <= true - mpmath.mpf(str(ours)) <= 1e-18


def test_quantiles_are_proved_on_the_safe_side():
    for dof in (1, 2, 3, 10, 64, 500):
        with mpmath.workdps(40):
            upper = median_upper(dof)
            exact = mpmath.mpf(upper.numerator) / upper.denominator
            assert chi2_below(exact, dof) >= 0.5 > chi2_below(exact * (1 - 1e-13), dof)
        if dof > 1:
            root = float(tail_bound_root(dof))
            assert stats.chi2.sf(root, dof) <= 0.5


def test_the_callers_decimal_context_has_no_say():
    expected = distribution_lower(Decimal(30), 11, Decimal(17))
    with localcontext():
        getcontext().prec = 3
        assert distribution_lower(Decimal(30), 11, Decimal(17)) == expected


def isometry(source, outer, inner):
    return np.linalg.qr(source.normal(size=(outer, inner)))[0]


def linear_pair(dim, a, b, seed):
    """Return g = a·isometry and p with Lip(p) = b attained in the direction returned."""
    source = np.random.default_rng(seed)
    decoder = a * isometry(source, dim + 2, dim)
    left, right = isometry(source, dim, dim), isometry(source, dim + 3, dim)
    slopes = b * np.concatenate([[1.0], source.uniform(0, 1, size=dim - 1)])
    encoder = left @ np.diag(slopes) @ right.T
    return encoder, decoder, right[:, 0]


@settings(max_examples=40, deadline=None)
@given(informative(), st.sampled_from(sorted(MARGINS)), st.integers(0, 10**6))
def test_robust_at_the_margin_of_a_linear_model(numbers, method, seed):
    """The probability is known there: ‖g(z') − g(z)‖² / (2a²γ²) is noncentral χ²."""
    a, b, std, r, dim = numbers
    found = margin(b, a, std, r, latent_dim=dim, method=method).value
    encoder, decoder, worst = linear_pair(dim, a, b, seed)

    def probability(delta):
        shift = decoder @ (encoder @ delta)
        scale = 2 * (a * std) ** 2
        return stats.ncx2.cdf(r**2 / scale, dim, shift @ shift / scale)

    if found > 0:
        assert probability(found * worst) >= 0.5 - 1e-9
    direction = np.random.default_rng(seed).normal(size=dim + 3)
    if found > 0:
        assert probability(found * direction / np.linalg.norm(direction)) >= 0.5 - 1e-9
    if method == "noncentral_chi2" and found > 1e-3 * r / (a * b):
        assert probability(1.001 * found * worst) < 0.5


@pytest.mark.parametrize("dim", [1, 4, 32])
@pytest.mark.parametrize("method", sorted(MARGINS))
def test_robust_in_ten_thousand_draws(method, dim):
    a, b, std = 3.0, 2.0, 0.25
    r = 4.0 * a * std * math.sqrt(dim)
    found = margin(b, a, std, r, latent_dim=dim, method=method)
    encoder, decoder, worst = linear_pair(dim, a, b, dim)
    result = robustness_probability(
        lambda rows: rows @ encoder.T,
        lambda codes: codes @ decoder.T,
        std,
        np.zeros((1, dim + 3)),
        found.value * worst,
        r,
        n_samples=20_000,
        random_state=3,
    )
    shift, scale = found.value * b, 2 * std**2
    exact = stats.ncx2.cdf((r / a) ** 2 / scale, dim, max(shift**2 / scale, 1e-300))
    assert exact >= 0.5 - 1e-9
    assert result.upper[0] >= 0.5
    assert result.lower[0] <= exact <= result.upper[0]


def upper(value, status="certified", **changes):
    return Bound(
        **{"kind": "upper", "method": "lipsdp", "value": value, "status": status} | changes
    )


@pytest.mark.parametrize(
    ("encoder", "decoder", "options", "status"),
    [
        (upper(2.0), upper(3.0), {}, "certified"),
        (upper(2.0), upper(3.0, "float64"), {}, "float64"),
        (2.0, upper(3.0), {}, "float64"),
        (2.0, 3.0, {}, "float64"),
        (upper(2.0), upper(3.0, "estimate", kind="lower"), {}, "estimate"),
        (upper(2.0, kind="lower"), upper(3.0), {}, "estimate"),
        (2.0, upper(3.0, "estimate", kind="estimate"), {}, "estimate"),
        (upper(2.0, scope="box"), upper(3.0), {}, "estimate"),
        (upper(2.0), upper(3.0), {"std_bound": 0.5}, "float64"),
        (upper(2.0), upper(3.0), {"std_bound": upper(0.5)}, "certified"),
        (upper(2.0), upper(3.0), {"std_bound": upper(0.5, kind="lower")}, "estimate"),
        (upper(2.0), upper(3.0), {"std": np.full(4, 0.1)}, "float64"),
    ],
)
def test_status_is_that_of_the_weakest_constant(encoder, decoder, options, status):
    given = {"std": 0.1, "latent_dim": 4, "method": "sharpened_1"} | options
    found = margin(encoder, decoder, given.pop("std"), 8.0, **given)
    assert found.status == status
    assert (found.message != "") == (status == "estimate")
    assert found.encoder_bound == 2.0
    assert found.decoder_bound == 3.0
    assert set(found.to_dict()) >= {"value", "status", "r", "std", "latent_dim", "message"}


@pytest.mark.parametrize("method", sorted(MARGINS))
def test_degenerate_constants(method):
    def value(b, a, std, r, dim=3):
        return margin(b, a, std, r, latent_dim=dim, method=method).value

    assert value(2.0, 0.0, 1.0, 8.0) == math.inf
    assert value(math.inf, 0.0, 1.0, 0.0) == math.inf
    assert value(math.inf, 1.0, 1.0, 8.0) == 0
    assert value(1.0, math.inf, 1.0, 8.0) == 0
    assert value(0.0, 1.0, 1.0, 80.0) == math.inf
    assert value(0.0, 1.0, 1.0, 0.5) == 0
    assert value(1.0, 1.0, 1.0, 0.0) == 0
    noiseless = 1 / math.sqrt(2) if method in ("barrett_1", "sharpened_1") else 1.0
    grid = 1 / 199 if method == "barrett_2" else 1e-14
    assert value(2.0, 3.0, 0.0, 8.0) == pytest.approx(noiseless * 8 / 6, rel=grid + 1e-14)
    assert Fraction(value(2.0, 3.0, 0.0, 8.0)) <= Fraction(8, 6)
    expected = noiseless * 1e300
    assert value(1e-300, 1.0, 1e-5, 1.0) == pytest.approx(expected, rel=grid + 1e-3)
    if method != "barrett_2":  # its grid has no point below the largest float64 but 0
        assert value(1e-300, 1e-300, 1.0, 1.0) == pytest.approx(1.797e308, rel=1e-3)
    assert value(1e300, 1e300, 1.0, 1.0) == 0


def test_one_latent_unit_has_no_bound_2():
    for method in ("barrett_2", "barrett_2_root"):
        found = margin(1.0, 1.0, 0.1, 8.0, latent_dim=1, method=method)
        assert found.value == 0
        assert "latent_dim >= 2" in found.message


def test_hardly_any_noise_falls_back_to_the_triangle():
    options = {"latent_dim": 64, "method": "noncentral_chi2"}
    below, above = (margin(1.0, 1.0, std, 1.0, **options).value for std in (2.24e-4, 2.23e-4))
    assert above == margin(1.0, 1.0, 2.23e-4, 1.0, latent_dim=64, method="triangle_chi2").value
    assert above < below < 1
    assert above == pytest.approx(below, rel=3e-3)


@settings(max_examples=20, deadline=None)
@given(informative())
def test_monotone(numbers):
    a, b, std, r, dim = numbers
    slack = 1 + 1e-12
    for method in MARGINS:
        value = margin(b, a, std, r, latent_dim=dim, method=method).value
        for changed in ((2 * b, a, std, r), (b, 2 * a, std, r), (b, a, 2 * std, r)):
            assert margin(*changed, latent_dim=dim, method=method).value <= value * slack
        assert margin(b, a, std, 2 * r, latent_dim=dim, method=method).value * slack >= value


def test_frame_has_a_row_for_each_image_and_radius():
    stds = np.array([[0.1, 0.2], [0.3, 0.1], [1.0, 1.0]])
    options = {"latent_dim": 2, "std_bound": 0.5, "method": "sharpened_1"}
    frame = margin_frame(2.0, 3.0, stds, [1.0, 8.0], **options)
    assert frame[["image", "r"]].to_numpy().tolist() == [[i, r] for i in range(3) for r in (1, 8)]
    expected = [margin(2.0, 3.0, row, r, **options).value for row in stds for r in (1.0, 8.0)]
    assert frame["margin"].tolist() == expected
    assert margin_frame(2.0, 3.0, 0.5, 8.0, latent_dim=2)["image"].tolist() == [0]


@given(
    st.lists(st.integers(0, 4).map(float) | st.just(math.inf), min_size=1, max_size=9),
    st.lists(st.integers(0, 5).map(float), min_size=1, max_size=5),
)
def test_share_with_margin(values, radii):
    frame = share_with_margin(values, radii)
    assert frame["radius"].tolist() == radii
    for radius, share in zip(frame["radius"], frame["share"]):
        assert share == sum(value >= radius for value in values) / len(values)


def test_share_takes_records():
    records = [margin(2.0, 2.0, std, 8.0, latent_dim=2) for std in (0.1, 0.5, 5.0)]
    assert share_with_margin(records, [records[1].value])["share"].tolist() == [2 / 3]


def test_first_order_margin():
    found = first_order_margin([0.5, 0.2], 4.0, stats.norm.cdf(1.5), 8.0, latent_dim=2)
    assert found.value == pytest.approx(0.2 * 1.5 / 4.0)
    assert found.status == "estimate"
    for slope, probability, expected in [(4.0, 0.5, 0), (4.0, 0.2, 0), (4.0, 1.0, math.inf)]:
        assert first_order_margin(0.5, slope, probability, 8, latent_dim=2).value == expected
    assert first_order_margin(0.5, 0.0, 0.9, 8, latent_dim=2).value == math.inf
    assert first_order_margin(0.0, 1.0, 1.0, 8, latent_dim=2).value == 0


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_interval_covers_exactly(share, confidence):
    """Coverage is a finite sum over the binomial distribution: no sampling."""
    count = np.arange(41)
    lower, upper_end = clopper_pearson(count, 40, confidence)
    mass = stats.binom.pmf(count, 40, share)
    assert mass[(lower <= share) & (share <= upper_end)].sum() >= confidence - 1e-12
    tail = (1 - confidence) / 2
    np.testing.assert_allclose(stats.binom.sf(count[1:] - 1, 40, lower[1:]), tail, rtol=1e-8)
    np.testing.assert_allclose(stats.binom.cdf(count[:-1], 40, upper_end[:-1]), tail, rtol=1e-8)


def network():
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Dropout(0.5))
    return encoder, torch.nn.Linear(3, 5)


def test_modules_run_in_eval_mode_and_stay_as_they_were():
    encoder, decoder = network()
    x, delta = np.random.default_rng(0).normal(size=(2, 4, 5))
    options = {"n_samples": 500, "random_state": 1}
    found = robustness_probability(encoder, decoder, 0.5, x, delta, 1.5, **options)
    assert encoder.training
    with torch.no_grad():
        weights = [p.double().numpy() for p in (*encoder.parameters(), *decoder.parameters())]
    plain = robustness_probability(
        lambda rows: rows @ weights[0].T + weights[1],
        lambda codes: codes @ weights[2].T + weights[3],
        0.5,
        x,
        delta,
        1.5,
        **options,
    )
    assert np.abs(found.count - plain.count).max() <= 1
    assert 0 < found.count.min() < found.count.max() < 500
    bound = robustness_probability(encoder.forward, decoder.forward, 0.5, x, delta, 1.5, **options)
    np.testing.assert_array_equal(bound.count, found.count)


def same(rows):
    return rows


def test_draws_depend_on_seed_and_row_only():
    x = np.random.default_rng(0).normal(size=(3, 2))
    options = {"delta": np.array([0.5, 0.0]), "r": 1.5, "n_samples": 999}
    whole = robustness_probability(same, same, 1.0, x, random_state=7, **options)
    again = robustness_probability(same, same, 1.0, x[:2], random_state=7, max_batch=10, **options)
    np.testing.assert_array_equal(again.count, whole.count[:2])
    other = robustness_probability(same, same, 1.0, x, random_state=8, **options)
    assert (other.count != whole.count).any()
    for make in (np.random.default_rng, np.random.RandomState):
        first, second = (
            robustness_probability(same, same, 1.0, x, random_state=make(5), **options).count
            for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)


def test_std_may_depend_on_unit_row_and_input():
    x, delta = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([1.0, 0.0])
    options = {"n_samples": 20_000, "random_state": 0}

    def spread(rows):
        return np.abs(rows) + 0.1

    found = robustness_probability(same, same, spread, x, delta, 1.0, **options)
    for row, start in enumerate((0.0, 3.0)):
        first = math.hypot(start + 0.1, start + 1.1)
        points = np.linspace(-1, 1, 4001)
        inner = stats.norm.cdf(np.sqrt(1 - points**2) / (0.1 * math.sqrt(2))) * 2 - 1
        exact = np.trapezoid(stats.norm.pdf(points, 1.0, first) * inner, points)
        assert found.lower[row] <= exact <= found.upper[row]
    rows = robustness_probability(same, same, [[0.1, 1.0], [2.0, 0.1]], x, delta, 1.0, **options)
    assert rows.count[0] != rows.count[1]
    noiseless = robustness_probability(same, same, 0.0, x, delta, 1.0, **options)
    assert (noiseless.count == 20_000).all()


BAD_MARGINS = [
    ({"r": -1.0}, "r must be finite and >= 0, got -1.0"),
    ({"r": math.nan}, "r must be finite and >= 0"),
    ({"r": math.inf}, "r must be finite"),
    ({"r": "8"}, "r must be a number"),
    ({"std": -0.5}, "std must be >= 0, got -0.5"),
    ({"std": math.nan}, "std must be finite"),
    ({"std": np.ones(3)}, r"std must be a number or have shape \(2,\)"),
    ({"std": np.ones((4, 2))}, "use margin_frame"),
    ({"std": [0.1, 0.2]}, "noncentral_chi2 needs one fixed"),
    ({"std_bound": 0.5}, "noncentral_chi2 needs one fixed"),
    ({"std_bound": 0.5, "decoder_bound": 0.0}, "noncentral_chi2 needs one fixed"),
    ({"std_bound": 0.5, "method": "barrett_2"}, "barrett_2 needs one fixed"),
    ({"std_bound": -1.0, "method": "barrett_1"}, "std_bound must be >= 0, got -1.0"),
    ({"encoder_bound": -1.0}, "encoder_bound must be >= 0, got -1.0"),
    ({"decoder_bound": math.nan}, "decoder_bound must be >= 0, got nan"),
    ({"decoder_bound": upper(1.0, norm="linf")}, "must be a bound in the l2 norm, got norm='linf'"),
    ({"latent_dim": 0}, "latent_dim must be an integer >= 1, got 0"),
    ({"latent_dim": 2.0}, "latent_dim must be an integer"),
    ({"method": "barrett"}, "method must be one of"),
]


@pytest.mark.parametrize(("change", "message"), BAD_MARGINS)
def test_bad_margin_input_is_named(change, message):
    plain = {"encoder_bound": 1.0, "decoder_bound": 1.0, "std": 0.1, "r": 8.0, "latent_dim": 2}
    with pytest.raises(InputError, match=message):
        margin(**{**plain, **change})


BAD_SIMULATIONS = [
    ({"r": -1.0}, "r must be finite and >= 0, got -1.0"),
    ({"std": -0.1}, "std must be >= 0, got -0.1"),
    ({"std": np.ones(3)}, r"std must be a number or have shape \(2,\)"),
    ({"std": np.ones((3, 2))}, "std must have one row for each of 4 inputs, got 3"),
    ({"std": lambda rows: -np.ones_like(rows)}, "std must be >= 0, got -1.0"),
    ({"std": lambda rows: rows[:, :1]}, r"std must return shape \(4, 2\)"),
    ({"x": np.full((4, 2), np.nan)}, "x must be finite"),
    ({"x": np.zeros(2)}, r"x must have shape \(n, d\)"),
    ({"delta": np.zeros(3)}, r"delta must have shape \(2,\) or \(4, 2\), got \(3,\)"),
    ({"delta": [np.nan, 0.0]}, "delta must be finite"),
    ({"decode": None}, "decode must be a torch module or a callable on arrays, got NoneType"),
    ({"encode": lambda rows: rows[0]}, "encode must return one row per input"),
    ({"encode": lambda rows: rows[:, 0]}, "encode must return codes of shape"),
    ({"encode": lambda rows: (rows, rows)}, r"encode\(rows\)\[0\]"),
    ({"confidence": 1.0}, "confidence must lie strictly between 0 and 1, got 1.0"),
    ({"confidence": 0.0}, "confidence must lie strictly between 0 and 1, got 0.0"),
    ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
    ({"max_batch": 1}, "max_batch must be >= 2"),
    ({"random_state": -1}, "random_state must be an integer >= 0, got -1"),
    ({"random_state": "seed"}, "random_state must be None"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SIMULATIONS)
def test_bad_simulation_input_is_named(change, message):
    plain = {"encode": same, "decode": same, "std": 0.1, "x": np.zeros((4, 2)), "delta": [0, 0]}
    with pytest.raises(InputError, match=message):
        robustness_probability(**{**plain, "r": 1.0, "n_samples": 3, **change})


def test_broken_models_are_no_success():
    with pytest.raises(SolverError, match="decode returned NaN"):
        robustness_probability(same, lambda codes: codes * np.nan, 0.1, [[0.0]], [0.0], 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: share_with_margin([], [1.0]), "margins must be a non-empty list"),
        (lambda: share_with_margin([np.nan], [1.0]), "margins must be >= 0 and not NaN"),
        (lambda: share_with_margin([1.0], [-1.0]), "radii must be >= 0 and not NaN, got -1.0"),
        (lambda: margin_frame(1, 1, 0.1, [], latent_dim=2), "r must hold at least one number"),
        (lambda: margin_frame(1, 1, 0.1, [1.0, -1.0], latent_dim=2), "r must be finite and >= 0"),
        (lambda: first_order_margin(0.1, 1.0, 1.5, 8, latent_dim=2), r"probability must lie in"),
        (lambda: first_order_margin(0.1, -1.0, 0.5, 8, latent_dim=2), "jacobian_norm must be"),
        (lambda: first_order_margin(np.ones((3, 2)), 1, 0.5, 8, latent_dim=2), "std must be"),
        (lambda: clopper_pearson([11], 10, 0.9), "count must hold integers from 0 to 10"),
    ],
)
def test_bad_input_of_the_rest_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_every_input_may_have_its_own_distance():
    x, delta = np.zeros((3, 2)), np.array([0.3, -0.1])
    radii = np.array([0.5, 1.0, 2.0])
    shared = {"n_samples": 500, "random_state": 4}
    together = robustness_probability(same, same, 0.4, x, delta, radii, **shared)
    alone = [robustness_probability(same, same, 0.4, x, delta, r, **shared) for r in radii]
    np.testing.assert_array_equal(together.count, [found.count[i] for i, found in enumerate(alone)])
    for wrong in ([0.5, 1.0], [0.5, -1.0, 2.0], [0.5, np.nan, 1.0]):
        with pytest.raises(InputError, match="r must be"):
            robustness_probability(same, same, 0.4, x, delta, wrong, **shared)
