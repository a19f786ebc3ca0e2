"""Differentiation by differences: reference numbers, what f may do to x, and agreement with exact derivatives."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.polynomial import Polynomial

from xpnet import gradient_descent, numerical_diff, numerical_gradient, tangent_line
from xpnet.functions import namespace
from xpnet.steps import default_step


def total_square(x):
    return namespace(x).sum(x**2)


def cubic(x):
    """A function whose central difference is off by exactly h², in every entry."""
    return namespace(x).sum(x**3)


def tolerance(case, scale=1.0):
    """Return how far a difference of values of size ``scale`` may be off, truncation aside."""
    return 8 * case.eps * max(scale, 1.0) / default_step(case.float, case.xp)


def read_only(case):
    return case.read_only or case.backend == "jax"


class TestNumericalDiff:
    @pytest.mark.parametrize(
        ("f", "x", "expected"),
        [
            (lambda x: 0.01 * x**2 + 0.1 * x, 5, 0.1999999999990898),
            (lambda x: 0.01 * x**2 + 0.1 * x, 10, 0.2999999999986347),
            (lambda x: x**2 + 16, 3, 6.00000000000378),
            (lambda x: 9 + x**2, 4, 7.999999999999119),
        ],
    )
    def test_reference_numbers(self, f, x, expected):
        assert numerical_diff(f, x) == expected
        assert numerical_diff(f, float(x)) == expected

    @given(st.lists(st.integers(-20, 20), min_size=1, max_size=4), st.floats(-3, 3))
    def test_quadratic_and_cubic_polynomials_with_their_exact_error(self, coefficients, x):
        p = Polynomial(coefficients)
        h = 2.0**-7
        third = p.deriv(3)(x) if len(coefficients) > 3 else 0.0
        assert numerical_diff(p, x, h=h) == pytest.approx(p.deriv()(x) + h**2 * third / 6, rel=1e-10, abs=1e-9)

    def test_central_is_better_than_forward(self):
        central, forward = (abs(numerical_diff(math.exp, 1.0, method=m) - math.e) for m in ("central", "forward"))
        assert forward == pytest.approx(math.e * 1e-4 / 2, rel=1e-3)
        assert central == pytest.approx(math.e * 1e-8 / 6, rel=1e-2)

    @pytest.mark.parametrize("method", ["central", "forward"])
    def test_the_step_as_stored_is_the_divisor_in_arrays(self, case, method):
        x = case.asarray([10.0, 100.0, 1000.0] if case.dtype == "float32" else [1e9, 1e10, 1e11])
        found = numerical_diff(lambda x: 3.0 * x, x, method=method)
        np.testing.assert_allclose(case.host(found), 3.0, rtol=0, atol=8 * case.eps * case.host(x).max() / 1e-4)

    @pytest.mark.parametrize("method", ["central", "forward"])
    def test_a_number_beside_which_the_step_is_another_is_refused(self, method):
        """At 7·10¹¹ a step of 1e-4 is stored as 1.2e-4: the derivative of x would be 1.22."""
        with pytest.raises(ValueError, match=r"h = 0.0001 is too small beside x = 700000000000.0, .* use about 7e\+07"):
            numerical_diff(lambda x: x, 7e11, h=1e-4, method=method)
        assert numerical_diff(lambda x: x, 7e11, h=7e7, method=method) == 1.0

    def test_every_entry_of_an_array_on_every_backend(self, case):
        x = case.asarray([[-2.0, 0.5], [1.0, 3.0]])
        found = numerical_diff(lambda x: x**2, x, h=2.0**-6)
        assert found.dtype == case.float
        np.testing.assert_allclose(case.host(found), 2 * case.host(x), atol=9 * case.eps * 2**6)

    def test_array_is_left_alone(self, case):
        x = case.asarray([1.0, 2.0])
        numerical_diff(lambda x: x**2, x, h=2.0**-6)
        assert case.host(x).tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("x", [3, 3.0, np.asarray([1e-60, 3.0])], ids=["int", "float", "array"])
    def test_step_that_vanishes_beside_x(self, x):
        with pytest.raises(ValueError, match=r"h = 1e-49 is too small: x . h is stored as x"):
            numerical_diff(lambda x: x**2, x, h=1e-49)

    @pytest.mark.parametrize("x", [1.0, -1.0, np.asarray([0.0, 1.0]), np.asarray([0.0, -1.0])])
    def test_step_that_vanishes_on_one_side(self, x):
        """Below a power of two floats lie half as far apart: 1 − h is not 1 where 1 + h is, and the reverse for −1."""
        with pytest.raises(ValueError, match="is too small"):
            numerical_diff(lambda x: x**2, x, h=2.0**-53)

    def test_step_that_vanishes_beside_float32(self, case):
        if case.dtype != "float32":
            pytest.skip("float64 can hold this step")
        with pytest.raises(ValueError, match="is too small"):
            numerical_diff(lambda x: x**2, case.asarray([1000.0]), h=1e-6)

    @pytest.mark.parametrize("h", [0, -1e-4, math.nan, math.inf])
    def test_step_that_is_no_step(self, h):
        with pytest.raises(ValueError, match=r"h is .*it must be a positive number"):
            numerical_diff(lambda x: x**2, 1.0, h=h)

    def test_unknown_method(self):
        with pytest.raises(ValueError, match="method is 'backward'; it must be 'central' or 'forward'"):
            numerical_diff(lambda x: x**2, 1.0, method="backward")

    def test_integer_arrays_are_refused(self, case):
        with pytest.raises(TypeError, match=r"x has dtype .*int64.*convert with xp.astype"):
            numerical_diff(lambda x: x**2, case.asarray([1, 2]))


class TestTangentLine:
    def test_touches_the_curve_and_has_its_slope(self):
        tangent = tangent_line(lambda x: 0.01 * x**2 + 0.1 * x, 5)
        assert tangent(5) == 0.75
        assert tangent(6) - tangent(5) == pytest.approx(0.2, abs=1e-12)
        assert tangent(0) == pytest.approx(0.75 - 5 * 0.2, abs=1e-11)

    @given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10))
    def test_tangent_of_a_line_is_the_line(self, slope, value, x, t):
        assert tangent_line(lambda x: slope * x + value, x)(t) == pytest.approx(slope * t + value, abs=1e-8)


class TestNumericalGradient:
    @pytest.mark.parametrize(
        ("x", "expected"), [([3.0, 4.0], [6.0, 8.0]), ([0.0, 2.0], [0.0, 4.0]), ([3.0, 0.0], [6.0, 0.0])]
    )
    def test_reference_numbers_on_every_backend(self, case, x, expected):
        found = numerical_gradient(total_square, case.asarray(x))
        assert case.host(found).tolist() == expected

    @pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3)])
    @pytest.mark.parametrize("stacked", [False, True])
    def test_shape_dtype_and_device_are_those_of_x(self, case, rng, shape, stacked):
        x = case.asarray(rng.standard_normal(shape))
        axes = tuple(range(-len(shape), 0))

        def f(x):
            return namespace(x).sum(x**2, axis=axes) if shape else x**2

        found = numerical_gradient(f, x, stacked=stacked)
        assert type(found) is type(x)
        assert tuple(found.shape) == shape
        assert found.dtype == x.dtype
        assert found.device == x.device
        np.testing.assert_allclose(case.host(found), 2 * case.host(x), atol=tolerance(case, 9.0 * math.prod(shape)))

    def test_every_entry_of_a_matrix_moves_alone(self, case):
        """Looping over rows would move a whole row at once and give each entry the sum of its row's derivatives."""
        x = case.asarray([[1.0, 2.0], [3.0, 4.0]])
        assert case.host(numerical_gradient(total_square, x)).tolist() == [[2.0, 4.0], [6.0, 8.0]]

    @pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2, 2)])
    @pytest.mark.parametrize("options", [{}, {"points": True}, {"stacked": True}])
    def test_empty_array_has_an_empty_gradient(self, case, shape, options):
        found = numerical_gradient(lambda x: 1 / 0, case.asarray(np.zeros(shape)), **options)
        assert tuple(found.shape) == shape
        assert found.dtype == case.float

    def test_error_is_exactly_the_truncation_error(self, case):
        h = 2.0**-4
        found = case.host(numerical_gradient(cubic, case.asarray([1.0, -2.0, 0.5]), h=h))
        np.testing.assert_allclose(found, np.asarray([3.0, 12.0, 0.75]) + h**2, atol=16 * case.eps * 10 / h)

    def test_divisor_is_the_step_as_stored(self, case):
        """1000 + 0.001 is off by up to 3 % of the step in float32; a divisor of 2h would hand that on."""
        x = case.asarray([1000.0])
        found = numerical_gradient(lambda x: namespace(x).sum(x), x, h=1e-3)
        assert float(case.host(found)[0]) == 1.0

    def test_default_step_in_float32_is_accurate(self, case):
        x = case.asarray([0.3, -1.2, 2.0])
        host = case.host(x).astype(float)
        found = case.host(numerical_gradient(lambda x: namespace(x).sum(namespace(x).sin(x)), x))
        np.testing.assert_allclose(found, np.cos(host), atol=1e-8 if case.dtype == "float64" else 1e-4)

    def test_python_float_from_f_is_taken(self, case):
        def f(x):
            return float(case.host(total_square(x)))

        found = numerical_gradient(f, case.asarray([3.0, 4.0]))
        assert found.dtype == case.float
        assert case.host(found).tolist() == [6.0, 8.0]

    @settings(max_examples=40)
    @given(arrays(np.float64, (3,), elements=st.floats(-4, 4)))
    def test_against_scipy(self, x):
        derivative = pytest.importorskip("scipy.differentiate", reason="SciPy is not installed").derivative

        def f(x):
            return np.sin(x[0]) * np.exp(0.3 * x[1]) + x[2] ** 2 * x[0]

        def along(i):
            def g(values):
                return np.reshape([f(np.concat([x[:i], [v], x[i + 1 :]])) for v in np.ravel(values)], np.shape(values))

            return derivative(g, x[i]).df

        np.testing.assert_allclose(numerical_gradient(f, x.copy()), [along(i) for i in range(3)], rtol=1e-7, atol=1e-6)

    @settings(max_examples=40)
    @given(arrays(np.float64, (4,), elements=st.floats(-2, 2)), arrays(np.float64, (4, 4), elements=st.floats(-2, 2)))
    def test_quadratic_forms_have_no_truncation_error(self, x, A):
        found = numerical_gradient(lambda x: x @ A @ x, x.copy(), h=2.0**-13)
        np.testing.assert_allclose(found, (A + A.T) @ x, atol=1e-10)

    @settings(max_examples=40)
    @given(arrays(np.float64, (4,), elements=st.floats(0, 2)), arrays(np.float64, (4, 4), elements=st.floats(0, 2)))
    def test_the_step_of_a_small_entry_leaves_its_slope_right_beside_the_others(self, x, A):
        found, right = numerical_gradient(lambda x: x @ A @ x, x.copy()), (A + A.T) @ x
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-6 * right.max() + 1e-10)

    def test_small_entries_are_not_read_from_values_that_have_cancelled(self, rng):
        """The round-off of f is that of what has cancelled in it, which its size does not tell."""
        for _ in range(1000):
            x, A = rng.uniform(-2, 2, 4), rng.uniform(-2, 2, (4, 4)) if rng.random() < 0.5 else np.ones((4, 4))
            x[rng.integers(4)] *= 10.0 ** -rng.integers(6, 14)
            right = (A + A.T) @ x
            found = numerical_gradient(lambda x, A=A: x @ A @ x, x.copy())
            np.testing.assert_allclose(found, right, rtol=0, atol=1e-3 * np.abs(right).max())


class TestInPlace:
    def test_f_gets_x_itself_where_it_can_be_written(self, case):
        x = case.asarray([3.0, 4.0])
        seen = []
        numerical_gradient(lambda v: seen.append(v is x) or total_square(v), x)
        assert seen == [not read_only(case)] * 4

    def test_f_that_looks_at_x_and_not_at_its_argument(self, case):
        if read_only(case):
            pytest.skip("such arrays cannot be written")
        x = case.asarray([3.0, 4.0])
        assert case.host(numerical_gradient(lambda _: total_square(x), x)).tolist() == [6.0, 8.0]

    def test_x_is_put_back_exactly(self, case, rng):
        x = case.asarray(rng.standard_normal((3, 4)) * 0.1)
        before = case.host(x).copy()
        numerical_gradient(total_square, x, h=0.3)  # with such a step, x + h - h is seldom x
        assert np.array_equal(case.host(x), before)

    @pytest.mark.parametrize("call", range(4))
    def test_x_is_put_back_when_f_raises(self, case, call):
        x = case.asarray([0.1, 0.7])
        before = case.host(x).copy()
        calls = iter(range(4))

        def f(x):
            if next(calls) == call:
                raise ZeroDivisionError
            return total_square(x)

        with pytest.raises(ZeroDivisionError):
            numerical_gradient(f, x)
        assert np.array_equal(case.host(x), before)

    def test_x_is_put_back_when_f_returns_nonsense(self, case):
        x = case.asarray([0.1, 0.7])
        before = case.host(x).copy()
        with pytest.raises(ValueError, match="; a gradient needs one number"):
            numerical_gradient(lambda x: x * 2.0, x)
        assert np.array_equal(case.host(x), before)

    def test_strided_view_is_differentiated_in_place(self):
        whole = np.arange(12.0).reshape(3, 4)
        column = whole[:, 1]
        assert numerical_gradient(lambda _: np.sum(whole**2), column).tolist() == [2.0, 10.0, 18.0]

    def test_f_that_ignores_its_argument_is_reported(self, case):
        if not read_only(case):
            pytest.skip("such arrays can be written, so f sees the change in x")
        x = case.asarray([3.0, 4.0])
        says = r"f ignores its argument\. Arrays of (numpy|jaxlib) like this one .*write lambda W: loss\(W\)"
        with pytest.raises(ValueError, match=says):
            numerical_gradient(lambda _: total_square(x), x)

    def test_f_that_looks_only_at_the_shape_of_its_argument_ignores_it(self, case):
        if not read_only(case):
            pytest.skip("such arrays can be written, so f sees the change in x")
        x = case.asarray([3.0, 4.0])
        with pytest.raises(ValueError, match="f ignores its argument"):
            numerical_gradient(lambda W: total_square(x) / W.shape[0], x)

    def test_flat_f_is_not_taken_for_one_that_ignores_its_argument(self, case):
        x = case.asarray([-3.0, -4.0])
        found = numerical_gradient(lambda x: namespace(x).sum(namespace(x).maximum(x, 0.0)), x)
        assert case.host(found).tolist() == [0.0, 0.0]


class TestRefused:
    def test_integers(self, case):
        with pytest.raises(TypeError, match=r"int64.*3 \+ 0.0001 is stored as 3.*convert with xp.astype\(x, xp"):
            numerical_gradient(total_square, case.asarray([3, 4]))

    def test_complex_numbers(self, case):
        kind = case.xp.complex64 if case.dtype == "float32" else case.xp.complex128
        x = case.xp.astype(case.asarray([3.0, 4.0]), kind)
        with pytest.raises(TypeError, match=r"complex.*only real floating-point numbers"):
            numerical_gradient(total_square, x)

    def test_lists(self):
        with pytest.raises(TypeError, match=r"expected an array, got list; convert with numpy"):
            numerical_gradient(total_square, [3.0, 4.0])

    @pytest.mark.parametrize("options", [{}, {"stacked": True}])
    def test_step_that_vanishes(self, case, options):
        x = case.asarray([1.0, 1e30])
        before = case.host(x).copy()
        with pytest.raises(ValueError, match="is too small: an entry plus h is stored as the entry itself"):
            numerical_gradient(lambda x: namespace(x).sum(x, axis=-1), x, h=1e-4, **options)
        assert np.array_equal(case.host(x), before)

    @pytest.mark.parametrize("h", [0, -1.0, math.nan, math.inf])
    def test_step_that_is_no_step(self, h):
        with pytest.raises(ValueError, match="it must be a positive number"):
            numerical_gradient(total_square, np.asarray([1.0]), h=h)

    @pytest.mark.parametrize(
        ("value", "came"),
        [(None, "NoneType"), ("1.0", "str"), ([1.0], "list"), (np.ones((1, 2)), r"ndarray of shape \(1, 2\)")],
        ids=["None", "str", "list", "array"],
    )
    def test_f_that_returns_no_number(self, value, came):
        with pytest.raises(ValueError, match=f"f returned {came}; a gradient needs one number"):
            numerical_gradient(lambda x: value, np.asarray([1.0]))

    def test_points_without_an_axis(self):
        with pytest.raises(ValueError, match="points=True needs an array of points, but x has no axis"):
            numerical_gradient(total_square, np.asarray(1.0), points=True)

    def test_stacked_f_that_returns_another_number_of_values(self, case):
        with pytest.raises(ValueError, match="stack of 4 inputs; it must return one value for each"):
            numerical_gradient(total_square, case.asarray([1.0, 2.0]), stacked=True)

    def test_stacked_f_that_returns_a_python_number(self):
        with pytest.raises(ValueError, match=r"f returned shape \(\) for a stack of 4 inputs"):
            numerical_gradient(lambda x: 1.0, np.asarray([1.0, 2.0]), stacked=True)


class TestManyPoints:
    @pytest.mark.parametrize("stacked", [False, True])
    def test_field_of_the_bowl(self, case, stacked):
        axis = np.arange(-2, 2.5, 0.25)
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

        def bowl(x):
            return namespace(x).sum(x**2, axis=-1)

        points = case.asarray(grid)
        field = numerical_gradient(bowl, points, points=True, stacked=stacked)
        assert tuple(field.shape) == (324, 2)
        np.testing.assert_allclose(case.host(field), 2 * grid, atol=tolerance(case, 9.0))
        assert np.array_equal(case.host(points), grid.astype(case.dtype))

    def test_points_of_any_shape(self, case, rng):
        x = case.asarray(rng.standard_normal((3, 2, 2)))
        found = numerical_gradient(total_square, x, points=True)
        np.testing.assert_allclose(case.host(found), 2 * case.host(x), atol=tolerance(case, 20.0))

    def test_points_are_differentiated_one_by_one(self, case):
        seen = []
        numerical_gradient(
            lambda x: seen.append(tuple(x.shape)) or total_square(x), case.asarray(np.ones((3, 2))), points=True
        )
        assert seen == [(2,)] * 12


class TestStacked:
    def f(self, x):
        """Map a stack (S, 2, 3) of inputs to S values."""
        xp = namespace(x)
        return xp.sum(xp.sin(x) * xp.exp(0.5 * x), axis=(-2, -1))

    def test_equals_one_at_a_time(self, case, rng):
        x = case.asarray(rng.standard_normal((2, 3)))
        one = numerical_gradient(self.f, x)
        together = numerical_gradient(self.f, x, stacked=True)
        np.testing.assert_allclose(case.host(together), case.host(one), atol=tolerance(case, 5.0))

    @pytest.mark.parametrize(("memory", "sizes"), [(2**26, [12]), (0, [2] * 6), (5 * 2 * 6 * 8 - 1, [8, 4])])
    def test_memory_bounds_the_stack(self, rng, memory, sizes):
        x = rng.standard_normal((2, 3))
        seen = []

        def f(x):
            seen.append(x.shape[0])
            return self.f(x)

        found = numerical_gradient(f, x, stacked=True, memory=memory)
        assert seen == sizes
        assert np.array_equal(found, numerical_gradient(self.f, x, stacked=True))

    def test_chunks_may_cut_through_a_point(self, case, rng):
        x = case.asarray(rng.standard_normal((5, 2, 3)))
        whole = numerical_gradient(self.f, x, points=True, stacked=True)
        bits = case.xp.finfo(case.float).bits
        cut = numerical_gradient(self.f, x, points=True, stacked=True, memory=4 * 2 * 6 * bits // 8)
        np.testing.assert_allclose(case.host(cut), case.host(whole), atol=tolerance(case, 5.0))

    def test_x_is_not_touched(self, case, rng):
        x = case.asarray(rng.standard_normal((2, 3)))
        before = case.host(x).copy()
        seen = []
        numerical_gradient(lambda v: seen.append(v is x) or self.f(v), x, stacked=True)
        assert seen == [False]
        assert np.array_equal(case.host(x), before)


class TestGradientDescent:
    def test_reference_point(self, case):
        start = case.asarray([-3.0, 4.0])
        end = case.host(gradient_descent(total_square, start, lr=0.1, step_num=100))
        if case.dtype == "float64":
            np.testing.assert_allclose(end, [-6.11110793e-10, 8.14814391e-10], rtol=1e-8)
        else:
            np.testing.assert_allclose(end, [0.0, 0.0], atol=1e-6)

    def test_defaults_are_the_books(self):
        """Each of 100 steps with rate 0.01 multiplies by 0.98."""
        end = gradient_descent(total_square, np.asarray([-3.0, 4.0]))
        np.testing.assert_allclose(end, np.asarray([-3.0, 4.0]) * 0.98**100, rtol=1e-9)

    def test_rate_that_is_too_large_runs_away(self):
        end, path = gradient_descent(total_square, np.asarray([-3.0, 4.0]), lr=1.1, return_path=True)
        np.testing.assert_allclose(end, np.asarray([-3.0, 4.0]) * 1.2**100, rtol=1e-3)
        assert np.all(np.diff(np.abs(path[:, 0])) > 0)

    def test_descent_that_leaves_the_range_of_its_step_is_stopped(self, case):
        """Each step multiplies x by −19, until x + h is stored as x."""
        far = np.asarray(4.0 * 19.0 ** np.arange(20), dtype=case.dtype)
        steps = np.argmax(far + far.dtype.type(default_step(case.float, case.xp)) == far)
        says = rf"the descent diverges: after {steps} steps x is [\s\S]*; choose lr smaller than 10"
        with pytest.raises(ValueError, match=says):
            gradient_descent(total_square, case.asarray([-3.0, 4.0]), lr=10)

    def test_rate_that_is_too_small_stays(self):
        end = gradient_descent(total_square, np.asarray([-3.0, 4.0]), lr=1e-10)
        np.testing.assert_allclose(end, [-2.99999994, 3.99999992], rtol=1e-10)

    def test_start_is_left_alone_and_the_result_is_another_array(self, case):
        start = case.asarray([-3.0, 4.0])
        for steps in (0, 1, 3):
            end = gradient_descent(total_square, start, lr=0.1, step_num=steps)
            assert end is not start
            assert case.host(start).tolist() == [-3.0, 4.0]

    def test_writing_into_the_result_does_not_reach_the_start(self):
        start = np.asarray([-3.0, 4.0])
        end = gradient_descent(total_square, start, step_num=0)
        end[0] = 7.0
        assert start[0] == -3.0

    def test_path_begins_at_the_start_and_ends_at_the_result(self, case):
        start = case.asarray([-3.0, 4.0])
        end, path = gradient_descent(total_square, start, lr=0.25, step_num=5, return_path=True)
        assert tuple(path.shape) == (6, 2)
        np.testing.assert_allclose(
            case.host(path), np.outer(0.5 ** np.arange(6), [-3.0, 4.0]), atol=tolerance(case, 25.0)
        )
        assert np.array_equal(case.host(path)[-1], case.host(end))

    def test_dtype_and_device_stay(self, case):
        end = gradient_descent(total_square, case.asarray([-3.0, 4.0]), lr=0.1, step_num=2)
        assert end.dtype == case.float
        assert end.device == case.device

    def test_integers_are_refused(self, case):
        with pytest.raises(TypeError, match=r"init_x has dtype .*int64"):
            gradient_descent(total_square, case.asarray([-3, 4]))


def test_a_function_that_returns_a_view_of_x():
    """The value must be kept before x is put back; a view would change with it."""
    np.testing.assert_allclose(numerical_gradient(lambda v: v[0, ...], np.asarray([3.0, 4.0])), [1.0, 0.0])


def test_a_step_from_numpy_does_not_promote_float32():
    x = np.asarray([3.0, 4.0], dtype="float32")
    gradient = numerical_gradient(lambda v: v[0] + 0.0, x, h=np.float64(1e-3))
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, [1.0, 0.0], rtol=1e-3)
