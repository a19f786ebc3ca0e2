"""The verdict on one entry, from slopes of functions that are known, and what is counted and said of all of them."""

import numpy as np
import pytest

from xpnet.gradcheck.census import census
from xpnet.gradcheck.looks import Judged
from xpnet.gradcheck.verdicts import FAIL, KINK, PASS, UNDECIDED, agree, by_first_look, decide, has_kink

STEPS = [2.0**-7 / 8**k for k in range(9)]


def rows(f, noise=0.0):
    """Slopes of ``f`` at 0 to the right and left over nine steps; round-off ``noise`` of f is in them by turns."""
    found = []
    for k, h in enumerate(STEPS):
        off = noise * (-1) ** k
        found.append(((f(h) - f(0.0) + off) / h, (f(0.0) - f(-h) - off) / h, 2 * noise / h))
    return found


def verdict(a, f, noise=0.0, tolerance=1e-6):
    return decide(a, rows(f, noise), tolerance, 0.0)[0]


class TestOneEntry:
    @pytest.mark.parametrize(("a", "code"), [(3.0, PASS), (3.001, FAIL), (-3.0, FAIL), (0.0, FAIL), (4.5, FAIL)])
    def test_a_smooth_function(self, a, code):
        """Bent as it is within the large steps, no other value than the derivative is right."""
        assert verdict(a, lambda d: 3 * d + 40 * d**2 - 500 * d**3) == code

    @pytest.mark.parametrize(
        ("a", "code"), [(2.0, KINK), (2.5, KINK), (3.0, KINK), (1.98, FAIL), (3.02, FAIL), (-2.5, FAIL)]
    )
    def test_a_kink_allows_what_lies_between_its_slopes(self, a, code):
        assert verdict(a, lambda d: 2 * d + max(d, 0.0) - 16 * d**2) == code

    def test_a_kink_beside_the_entry_is_none_of_its_own(self):
        """It lies within all but the smallest steps: there the function is smooth, and its slope is 2."""
        f = lambda d: 2 * d + max(d - STEPS[6], 0.0)  # noqa: E731
        assert not has_kink(rows(f))
        assert verdict(2.0, f) == PASS
        assert verdict(2.5, f) == FAIL

    @pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
    def test_nothing_depends_on_the_size_of_the_loss(self, size):
        assert verdict(3.0 * size, lambda d: size * np.sin(3 * d)) == PASS
        assert verdict(3.003 * size, lambda d: size * np.sin(3 * d)) == FAIL

    def test_round_off_is_no_kink(self):
        assert not has_kink(rows(lambda d: 3 * d, noise=1e-9))
        assert verdict(3.0, lambda d: 3 * d, noise=1e-9) == PASS

    def test_what_round_off_hides_is_undecided_and_what_it_cannot_is_wrong(self):
        noise = 1e-6
        assert verdict(1e-5, lambda d: 1.01e-5 * d, noise=noise) == UNDECIDED
        assert verdict(1.0, lambda d: 1.01e-5 * d, noise=noise) == FAIL

    def test_values_that_are_never_finite_agree_with_nothing(self):
        assert decide(1.0, [(np.nan, 1.0, 0.0), (np.inf, 1.0, 0.0)], 1e-6, 0.0)[0] == FAIL


def test_zero_agrees_with_zero_and_nothing_else():
    assert agree(np.asarray([0.0, -0.0, 1e-300]), np.zeros(3), 1e-6).tolist() == [True, True, False]


def test_the_first_look_takes_the_tolerance_and_what_round_off_may_do():
    a, c = np.asarray([1.0, 1.0, 1e-9, 1.0]), np.asarray([1.0 + 5e-7, 1.001, 3e-9, 1.0])
    assert by_first_look(a, c, 1e-6, 1e-8).tolist() == [PASS, FAIL, UNDECIDED, PASS]


def of(a, n, samples=7, value=None):
    """Return the census of gradients ``a`` beside ``n``: what differs fails."""
    a, n = np.asarray(a, dtype="float64"), np.asarray(n, dtype="float64")
    codes = None if a.shape != n.shape else np.where(agree(a, n, 1e-6), PASS, FAIL)
    value = np.ones(n.shape) if value is None else value
    return census("W", Judged(a, n, codes, "difference", 2.0**-30), value, 3, samples)


class TestEntries:
    def test_exact_agreement_still_has_a_largest_error(self):
        found = of([1.0, 2.0], [1.0, 2.0])
        assert found.largest.error == 0.0
        assert found.worst == ()

    def test_largest_is_relative_worst_is_absolute_and_each_is_listed_once(self):
        found = of([0.02, 110.0, 1.0, 3.0], [0.01, 100.0, 1.0, 4.0])
        assert (found.largest.index, found.largest.error) == ((0,), pytest.approx(0.5))
        assert [entry.index for entry in found.worst] == [(1,), (3,), (0,)]
        assert [entry.error for entry in found.worst] == pytest.approx([1 / 11, 1 / 4, 1 / 2])

    def test_a_gradient_of_another_shape_fails_in_every_entry_and_in_none_twice(self):
        found = of(np.ones((2, 3)), np.ones((3, 2)))
        assert (found.passed, found.kinks, found.undecided, found.failed, found.checked) == (0, 0, 0, 6, 6)
        assert found.hint == "backpropagation has shape (2, 3): transposed?"


class TestHints:
    @staticmethod
    def mostly(count, ratio, other):
        """Return 100 ratios, ``count`` of them the same."""
        return np.where(np.arange(100) < count, ratio, other)

    @pytest.mark.parametrize(
        ("ratios", "hint"),
        [
            ([1.0, 1.0], ""),
            ([1.0, 0.25], "the ratio is 0.25"),
            ([0.25, 0.25], "every ratio is 0.25"),
            (np.linspace(1.1, 3.9, 9), ""),
            (np.linspace(0.01, 0.03, 9), ""),
            (mostly(99, 0.25, 0.75), "every ratio is 0.25"),
            (mostly(98, 0.25, 0.75), ""),
            (mostly(99, 0.0, 0.75), "every ratio is 0"),
            (np.full(9, 1.0005), "every ratio is nearly 1: the loss is not quite the one that was differentiated, as "
             "with log(y + 1e-7)?"),
            ([1.0005, 1.0005, 1.0, 1.0, 1.0], "every ratio is 1.0005"),
            (np.full(9, 1.5), "every ratio is 1.5"),
        ],
        ids=range(11),
    )  # fmt: skip
    def test_what_the_failures_have_in_common(self, ratios, hint):
        n = np.linspace(3.0, 5.0, len(ratios))
        assert of(n * ratios, n).hint == hint

    @pytest.mark.parametrize(
        ("ratio", "hint"),
        [
            (100.1, "every ratio is 100.1, the batch size: a missing 1/N?"),
            (0.01, "every ratio is 0.01, 1/N: divided by N twice?"),
            (0.15, "every ratio is 0.15"),
        ],
    )
    def test_the_batch_size_within_two_thousandths(self, ratio, hint):
        n = np.linspace(3.0, 5.0, 9)
        assert of(n * ratio, n, samples=100).hint == hint

    def test_a_square_matrix_that_is_not_transposed(self):
        n = np.linspace(3.0, 5.0, 9).reshape(3, 3)
        assert of(2 * n, n).hint == "every ratio is 2, a factor of two"
        assert of(n.T, n).hint == "every entry is that of the transposed matrix"

    def test_a_gradient_where_the_loss_has_none(self):
        assert (
            of([1.0, 2.0, 3.0], [0.0, 0.0, 3.0]).hint
            == "the loss does not depend on these entries: their gradient should be 0"
        )

    def test_a_weight_decay_in_one_of_the_two(self, rng):
        value, n = rng.normal(size=20), rng.normal(size=20)
        assert (
            "0.05 times the values: a weight decay that is in the gradient but not"
            in of(n + 0.05 * value, n, value=value).hint
        )
        assert (
            "0.05 times the values: a weight decay that is in the loss but not"
            in of(n - 0.05 * value, n, value=value).hint
        )
