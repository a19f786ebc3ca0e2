"""Steps of numerical derivatives: relative to x, other ones where the first is in doubt, and a given one as it is."""

import math

import numpy as np
import pytest

from xpnet import cross_entropy_error, gradient_descent, numerical_diff, numerical_gradient, tangent_line
from xpnet.functions import namespace
from xpnet.steps import LEVELS, default_step, step_for

# elementwise functions by the names of the Array API, with their derivatives for NumPy arrays in float64
FUNCTIONS = {
    "square": (lambda xp, x: x**2, lambda x: 2 * x),
    "cube": (lambda xp, x: x**3, lambda x: 3 * x**2),
    "log": (lambda xp, x: xp.log(x), lambda x: 1 / x),
    "inverse": (lambda xp, x: 1 / x, lambda x: -1 / x**2),
    "sqrt": (lambda xp, x: xp.sqrt(x), lambda x: 0.5 / np.sqrt(x)),
}
SPREAD = np.asarray([0.51, 1.4, 0.83, 1.02, 0.66])


def relative(case):
    """Return how far a derivative may be off, relative to itself: the step's truncation, and round-off beside it."""
    return 1e-6 if case.dtype == "float64" else 2e-3


def elementwise(name):
    f, derivative = FUNCTIONS[name]
    return (lambda x: f(namespace(x), x)), derivative


def total(name):
    f, derivative = elementwise(name)
    return (lambda x: namespace(x).sum(f(x), axis=-1)), derivative


def counted(f):
    def g(x):
        g.calls += 1
        return f(x)

    g.calls = 0
    return g


def scales(case):
    return (1e-12, 1e-5, 1e-3, 1.0, 1e3, 1e9, *((1e30,) if case.dtype == "float64" else ()))


class TestStepFor:
    @pytest.mark.parametrize(
        ("x", "power"),
        [([0.3, -0.6], 2.0**-1), ([0.0, 0.0], 1.0), ([1.0, -3.9], 1.0), ([1e-12, 0.0], 2.0**-40)],
        ids=["below 1", "zeros", "ordinary", "tiny"],
    )
    def test_it_is_the_default_times_a_power_of_two(self, case, x, power):
        assert step_for(case.asarray(x)) == default_step(case.float, case.xp) * power

    def test_it_grows_slower_than_large_entries_and_is_always_stored(self, case):
        for size in (1e3, 1e9, 1e30):
            x = case.asarray([size])
            step = step_for(x)
            assert default_step(case.float, case.xp) < step < default_step(case.float, case.xp) * size
            assert bool(case.xp.all(x + step != x))

    def test_nan_and_infinity_do_not_count(self, case):
        assert step_for(case.asarray([math.nan, math.inf, 0.5])) == step_for(case.asarray([0.5]))


class TestScales:
    @pytest.mark.parametrize("name", FUNCTIONS)
    @pytest.mark.parametrize("way", ["loop", "stacked", "points"])
    def test_gradients_at_every_scale(self, case, name, way):
        f, derivative = total(name)
        for scale in scales(case):
            if name == "cube" and scale > 1e10:
                continue  # whose values no float32 holds
            x = case.asarray(scale * SPREAD)
            x = x[None, :] if way == "points" else x
            found = numerical_gradient(f, x, stacked=way != "loop", points=way == "points")
            assert found.dtype == case.float
            np.testing.assert_allclose(case.host(found), derivative(case.host(x).astype(float)), rtol=relative(case))

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_derivatives_of_arrays_at_every_scale_at_once(self, case, name):
        f, derivative = elementwise(name)
        x = case.asarray([[1e-12, 1e-3, 0.7], [40.0, 1e3, 1e9]])
        np.testing.assert_allclose(
            case.host(numerical_diff(f, x)), derivative(case.host(x).astype(float)), rtol=relative(case)
        )

    @pytest.mark.parametrize("name", FUNCTIONS)
    @pytest.mark.parametrize("x", [1e-30, 1e-12, 1e-3, 0.3, 1e3, 1e9, 1e30])
    def test_derivatives_at_numbers(self, name, x):
        f, derivative = elementwise(name)

        def of_number(x):
            return float(f(np.asarray(x)))

        assert numerical_diff(of_number, x) == pytest.approx(float(derivative(np.asarray(x))), rel=1e-6)
        assert numerical_diff(of_number, x, method="forward") == pytest.approx(float(derivative(x)), rel=1e-3)
        assert tangent_line(of_number, x)(x) == of_number(x)

    @pytest.mark.parametrize("stacked", [False, True])
    def test_magnitudes_mixed_in_one_array(self, case, stacked):
        f, derivative = total("log")
        x = case.asarray([1e-12, 1e-6, 0.5, 0.02, 1e9])
        found = numerical_gradient(f, x, stacked=stacked)
        np.testing.assert_allclose(case.host(found), derivative(case.host(x).astype(float)), rtol=4 * relative(case))

    def test_probabilities_near_zero(self, case):
        """The step of an entry of 0.9 would lead one of 0.001 below zero, where a logarithm has no value."""
        for p in (0.01, 1e-3, 1e-4, 1e-6):
            y = case.asarray([[p, 0.9, 0.1 - p]])
            found = numerical_gradient(lambda y: cross_entropy_error(y, case.asarray([0])), y)
            np.testing.assert_allclose(case.host(found), [[-1 / (p + 1e-7), 0, 0]], rtol=relative(case))

    def test_values_of_one_beside_tiny_entries(self, case):
        """A step relative to 1e-12 is lost in exp(x), which is 1: the noise calls for a longer one."""
        xp = case.xp
        x = case.asarray([1e-12, -1e-9, 1e-20])
        for f in (lambda x: xp.sum(xp.exp(x)), lambda x: 5.0 + xp.sum(x)):
            np.testing.assert_allclose(case.host(numerical_gradient(f, x)), 1.0, rtol=relative(case))
        np.testing.assert_allclose(case.host(numerical_diff(xp.exp, x)), 1.0, rtol=relative(case))
        assert numerical_diff(math.exp, 1e-12) == pytest.approx(1.0, rel=1e-8)

    def test_a_tiny_entry_among_ones(self, case):
        """One entry far below the others is no reason for a step that they would drown."""
        x = case.asarray([1e-25, 1.0, 1.0])
        np.testing.assert_allclose(
            case.host(numerical_gradient(lambda x: case.xp.sum(x) ** 2, x)), 4.0, rtol=relative(case)
        )

    def test_descent_on_a_small_scale(self, case):
        """The minimum of (x/s − 3)², for an s far below the default step."""
        s = 1e-6
        end = gradient_descent(lambda x: case.xp.sum((x / s - 3.0) ** 2), case.asarray([s, 5 * s]), lr=0.3 * s**2)
        np.testing.assert_allclose(case.host(end) / s, 3.0, rtol=relative(case))


class TestSecondLook:
    def test_a_function_that_bends_far_below_the_size_of_x(self, case):
        """Entries of 2 and 3, and a logarithm whose end is 1e-5 away; in float32, 1e-3."""
        xp, away = case.xp, 1e-5 if case.dtype == "float64" else 1e-3
        x = case.asarray([2.0 + away, 3.0])
        distance = float(case.host(x)[0]) - 2.0

        def f(x):
            return xp.log(x[0, ...] - 2.0) + x[1, ...] ** 2

        with np.errstate(invalid="ignore"):
            found = numerical_gradient(f, x)
        np.testing.assert_allclose(case.host(found), [1 / distance, 6.0], rtol=30 * relative(case))

    @pytest.mark.parametrize("stacked", [False, True])
    def test_a_logarithm_at_zero_with_the_books_guard(self, case, stacked):
        x = case.asarray([0.0, 0.5, 0.5])
        with np.errstate(invalid="ignore"):
            found = numerical_gradient(lambda x: case.xp.sum(case.xp.log(x + 1e-7), axis=-1), x, stacked=stacked)
        np.testing.assert_allclose(case.host(found), [1e7, 2.0, 2.0], rtol=2 * relative(case))

    def test_waves_shorter_than_the_step(self, case):
        if case.dtype == "float32":
            pytest.skip("its noise is as large as these waves")
        xp, x = case.xp, case.asarray([1.0, 2.0, 0.3])
        found = numerical_gradient(lambda x: xp.sum(xp.sin(1e5 * x)), x)
        np.testing.assert_allclose(case.host(found), 1e5 * np.cos(1e5 * case.host(x)), rtol=1e-5)

    def test_a_kink_within_the_step_but_not_at_x(self):
        x = np.asarray([1.0 + 1e-6, 3.0])
        found = numerical_gradient(lambda x: np.sum(np.maximum(x - 1.0, 0.0)), x)
        np.testing.assert_allclose(found, [1.0, 1.0], rtol=1e-6)

    def test_a_function_that_raises_further_away_is_not_asked_there(self):
        """The noise of 1e9 calls for longer steps, where math.log has no value: what is known then counts."""
        found = numerical_gradient(lambda x: 1e9 + math.log(x[0]) + float(x[1]), np.asarray([1e-9, 1.0]))
        np.testing.assert_allclose(found, [1e9, 1.0], rtol=1e-3)

    def test_nan_stays_nan_and_is_not_looked_at_for_ever(self):
        f = counted(lambda x: math.nan)
        assert np.isnan(numerical_gradient(f, np.asarray([1.0, 2.0]))).all()
        assert f.calls <= 5


class TestCost:
    @pytest.mark.parametrize(
        "f",
        [
            lambda x: np.sum(x**2),
            lambda x: np.sum(np.sin(x)),
            lambda x: np.log(np.sum(np.exp(x))),
            lambda x: 7.0,
            lambda x: x @ x - 3 * x[0] + np.prod(x),
        ],
        ids=["squares", "sines", "log of sum", "constant", "mixed"],
    )
    @pytest.mark.parametrize("x", [[3.0, 4.0], [0.0, 2.0], [0.3, -1.2, 2.0], [5.0], [40.0, 70.0]], ids=str)
    def test_two_calls_for_an_entry_of_an_ordinary_function(self, f, x):
        f = counted(f)
        numerical_gradient(f, np.asarray(x))
        assert f.calls == 2 * len(x)

    def test_a_networks_loss_costs_two_calls_for_a_weight(self, rng):
        W, x = 0.01 * rng.normal(size=(30, 5)), rng.normal(size=(8, 30))
        f = counted(lambda W: np.mean(np.log(np.sum(np.exp(x @ W), axis=-1)) - (x @ W)[:, 0]))
        numerical_gradient(f, W)
        assert f.calls <= 2 * W.size + 1

    def test_a_second_look_is_bounded(self, rng):
        """A function that is drawn anew is looked at, and left."""
        f = counted(lambda x: float(rng.normal()))
        numerical_gradient(f, np.asarray([1.0, 2.0, 3.0]))
        assert f.calls <= 3 * 2 * (LEVELS + 1) + 1

    @pytest.mark.parametrize("options", [{}, {"points": True}])
    def test_a_given_step_is_taken_as_it_is(self, case, options):
        """Even where another would be better: nobody looks again."""
        x, seen = case.asarray([[1e-3, 0.5]]), []

        def f(x):
            seen.append(case.host(x).copy())
            return case.xp.sum(x**3)

        h = 2.0**-3
        found = case.host(numerical_gradient(f, x, h=h, **options)).astype(float)
        assert len(seen) == 4
        np.testing.assert_allclose(found, 3 * case.host(x).astype(float) ** 2 + h**2, rtol=1e-4)

    def test_a_given_step_of_a_number_is_taken_as_it_is(self):
        seen = []
        numerical_diff(lambda x: seen.append(x) or x**2, 1e-3, h=0.5)
        assert seen == [0.501, -0.499]
