"""The verdict on every entry of a gradient check, for changes of functions whose slopes, bends and kinks are known."""

import numpy as np
import pytest

from xpnet.differences import Change
from xpnet.gradcheck.verdicts import agree, census

SMALL, LARGE = 2.0**-12, 2.0**-10  # steps


def change(f, h, size=1, how="difference"):
    """Return by how much ``f``, a function of the move of each of ``size`` entries, changes by a step ``h``."""
    move = np.full(size, h)
    return Change(np.stack([f(move) - f(0 * move), f(-move) - f(0 * move)]), h, how)


def verdict(a, f, *, how="difference", loss=1.0, tolerance=None, worst=3, samples=7):
    """Return the census of gradients ``a`` of a loss that the moves change by ``f``, measured with both steps."""
    a = np.asarray(a)
    first, second = (change(f, h, a.size, how) for h in (LARGE, SMALL))
    return census("W", a, first, second, loss, tolerance, worst, samples)


def counts(p):
    return p.passed, p.kinks, p.imprecise, p.failed


def of_line(a, n, samples=7):
    """Return the census of gradients ``a`` of a loss that is linear, with gradients ``n``."""
    a, n = np.asarray(a), np.asarray(n)
    first, second = (Change(np.stack([n * h, -n * h]), h, "difference") for h in (LARGE, SMALL))
    return census("W", a, first, second, 1.0, None, 3, samples)


def test_zero_agrees_with_zero_and_nothing_else():
    assert agree(np.asarray([0.0, -0.0, 1e-300]), np.zeros(3), 1e-6).tolist() == [True, True, False]
    assert counts(of_line([0.0, 1.0], [0.0, 1.0])) == (2, 0, 0, 0)


class TestKinks:
    @staticmethod
    def bent_at_a_kink(d):
        """Slopes 2 to the left and 3 to the right, both with a curvature that takes them inwards from there."""
        return 2 * d + np.maximum(d, 0.0) - 16 * d**2

    @pytest.mark.parametrize("a", [2.0, 2.5, 3.0])
    def test_the_slopes_at_the_kink_itself_are_allowed(self, a):
        """With either step the slopes differ from 2 and 3: they are continued to a step of zero."""
        assert counts(verdict([a], self.bent_at_a_kink)) == (int(a == 2.5), int(a != 2.5), 0, 0)

    @pytest.mark.parametrize("a", [2.0 - 4 * SMALL, 3.0 + 4 * SMALL])
    def test_a_quarter_of_what_the_curvature_moves_the_slopes_is_too_far_outside(self, a):
        assert counts(verdict([a], self.bent_at_a_kink)) == (0, 0, 0, 1)

    def test_every_entry_has_slopes_of_its_own(self):
        def f(d):
            return np.asarray([2.0, 10.0, 2.0]) * d + np.maximum(d, 0.0)

        assert counts(verdict([10.0, 3.0, 2.0], f)) == (0, 1, 0, 2)

    def test_a_mistake_within_the_curvature_is_a_mistake(self):
        """The slopes to the right and to the left differ by 2h, but the function is smooth."""
        assert counts(verdict([2.0 + SMALL / 2], lambda d: 2 * d + d**2)) == (0, 0, 0, 1)

    def test_round_off_in_the_slopes_is_no_kink(self):
        """A smooth function; both sides of the small step are too high by 0.6 of what round-off may do."""
        noise = 1e-5

        def f(d):
            return 3 * d + 2 * noise / LARGE * d**2 + np.where(np.abs(d) == SMALL, 0.6 * noise * SMALL, 0.0)

        loss = noise * SMALL / (32 * 2.0**-52)
        assert counts(verdict([3 + noise / 2], f, how="loop", loss=loss)) == (1, 0, 0, 0)


class TestPrecision:
    @pytest.mark.parametrize(("share", "expected"), [(0.02, (0, 0, 1, 0)), (0.005, (1, 0, 0, 0))])
    def test_too_small_to_tell_is_where_round_off_is_over_a_hundredth(self, share, expected):
        noise = 32 * 2.0**-52 / SMALL
        n = noise / share
        assert counts(verdict([n + noise / 2], lambda d: n * d, how="loop")) == expected
        assert counts(verdict([n + noise * 2], lambda d: n * d, how="loop")) == (0, 0, 0, 1)

    def test_the_second_look_takes_the_tolerance_that_was_given(self):
        """The large step is 1 % off, the small one 0.06 %."""
        assert counts(verdict([1.0], lambda d: d + 1e4 * d**3, tolerance=1e-3)) == (1, 0, 0, 0)
        assert counts(verdict([1.0], lambda d: d + 1e4 * d**3, tolerance=1e-4)) == (0, 0, 0, 1)


class TestEntries:
    def test_exact_agreement_still_has_a_largest_error(self):
        p = of_line([1.0, 2.0], [1.0, 2.0])
        assert p.largest.error == 0.0
        assert p.worst == ()

    def test_largest_is_relative_worst_is_absolute_and_each_is_listed_once(self):
        p = of_line([0.02, 110.0, 1.0, 3.0], [0.01, 100.0, 1.0, 4.0])
        assert (p.largest.index, p.largest.error) == ((0,), pytest.approx(0.5))
        assert [entry.index for entry in p.worst] == [(1,), (3,), (0,)]
        assert [entry.error for entry in p.worst] == pytest.approx([1 / 11, 1 / 4, 1 / 2])

    def test_a_gradient_of_another_shape_fails_in_every_entry_and_in_none_twice(self):
        p = of_line(np.ones((2, 3)), np.ones((3, 2)))
        assert counts(p) == (0, 0, 0, 6)
        assert p.checked == 6


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
            ([1.0005, 1.0005, 1.0, 1.0], "every ratio is 1.0005"),
            (np.full(9, 1.5), "every ratio is 1.5"),
        ],
        ids=range(11),
    )  # fmt: skip
    def test_what_the_failures_have_in_common(self, ratios, hint):
        n = np.linspace(3.0, 5.0, len(ratios))
        assert of_line(n * ratios, n).hint == hint

    @pytest.mark.parametrize(
        ("ratio", "hint"),
        [
            (100.1, "every ratio is 100, the batch size: a missing 1/N?"),
            (0.01, "every ratio is 0.01, 1/N: divided by N twice?"),
            (0.15, "every ratio is 0.15"),
        ],
    )
    def test_the_batch_size_within_two_thousandths(self, ratio, hint):
        n = np.linspace(3.0, 5.0, 9)
        assert of_line(n * ratio, n, samples=100).hint == hint

    def test_a_square_matrix_that_is_not_transposed(self):
        n = np.linspace(3.0, 5.0, 9).reshape(3, 3)
        assert of_line(2 * n, n).hint == "every ratio is 2, a factor of two"
        assert of_line(n.T, n).hint == "every entry is that of the transposed matrix"

    def test_a_gradient_where_the_loss_has_none(self):
        assert of_line([1.0, 2.0, 3.0], [0.0, 0.0, 3.0]).hint == "the loss does not depend on these entries"
