"""Gradient checks: the report, its figures and its text."""

import io
import re
import sys
import time

import numpy as np
import pytest
from checking import batch, gradient_changed, network, of

from xpnet import check_gradients
from xpnet.gradcheck.directions import compared
from xpnet.gradcheck.report import Entry, GradientCheck, ParameterCheck


@pytest.fixture(scope="module")
def wrong():
    """A check of a network all but one of whose W1 entries are wrong, by ratios of 1.1, 1.2, …"""
    net = gradient_changed(network(), W1=lambda g: g * (1 + 0.1 * np.arange(30).reshape(6, 5)))
    return check_gradients(net, *batch(), worst=4)


class TestReport:
    def test_layout(self):
        """Columns, the worst entries below the largest, hints, problems, and a verdict that counts the undecided."""
        check = GradientCheck("Net, seed 0", ["something is odd"])
        assert "         0 ms" not in repr(check)
        assert repr(check).splitlines()[0].endswith(", 0 ms")
        check.seconds, check.audit = 0.0124, "16 of 16"
        big, small = Entry((0, 1), 2.0, -2.0, 2.0), Entry((1, 0), 0.5, 1.5, 2 / 3)
        check.parameters = [
            ParameterCheck("W1", (2, 2), "loop", 0.5, 1, 1, 0, 2, big, (small, big), "a hint"),
            ParameterCheck("b1", (3,), "loop", 0.5, 0, 1, 2, 0),
        ]
        head = (
            "gradient check   Net, seed 0, 12 ms\n"
            "audit            16 of 16\n"
            "parameter                    checked        pass        kink   undecided        fail  rel. error\n"
        )
        problem = "problem          something is odd\n"
        first = (
            "W1 (2, 2)                          4           1           1           0           2     2.0e+00\n"
            "                 at (0, 1): numerical 2.00000e+00, backprop -2.00000e+00, ratio -1\n"
            "                 at (1, 0): numerical 5.00000e-01, backprop 1.50000e+00, ratio 3\n"
            "                 a hint\n"
        )
        second = "b1 (3)                             3           0           1           2           0            \n"
        assert repr(check) == head + first + second + problem + "FAIL             2 of 7 entries fail"
        del check.parameters[0]
        assert repr(check) == head + second + problem + "FAIL             see the problem above"
        check.problems.clear()
        check.notes.append("something is worth knowing")
        verdict = "pass             0 entries agree, 1 are on a kink, 2 are undecided"
        assert repr(check) == head + second + "note             something is worth knowing\n" + verdict
        check.notes.clear()
        check.parameters.clear()
        check.problems.append("something is odd")
        assert repr(check).endswith(problem + "FAIL             nothing could be checked")

    @pytest.mark.parametrize(
        ("numerical", "backprop", "ratio"), [(2.0, -3.0, -1.5), (0.0, 3.0, np.inf), (0.0, -3.0, -np.inf)]
    )
    def test_ratio(self, numerical, backprop, ratio):
        assert Entry((0,), numerical, backprop, 1.0).ratio == ratio

    def test_three_failures_of_a_parameter_are_listed_by_default(self):
        check = check_gradients(gradient_changed(network(), W1=lambda g: 3 * g), *batch())
        assert [len(p.worst) for p in check.parameters] == [3, 0, 0, 0]

    def test_counts_add_up(self, wrong):
        assert wrong.checked == 30 + 5 + 20 + 4
        assert wrong.failed == 29
        for p in wrong.parameters:
            assert p.checked == p.passed + p.kinks + p.undecided + p.failed == np.prod(p.shape)

    def test_worst_entries_have_the_largest_absolute_errors(self, wrong):
        p = of(wrong, "W1")
        errors = [abs(entry.backprop - entry.numerical) for entry in p.worst]
        assert len(errors) == 4
        assert errors == sorted(errors, reverse=True)
        for entry in p.worst:
            factor = 1 + 0.1 * (5 * entry.index[0] + entry.index[1])
            assert entry.ratio == pytest.approx(factor, rel=1e-6)
            assert entry.error == pytest.approx(1 - 1 / factor, rel=1e-6)

    def test_largest_is_the_largest_relative_error(self, wrong):
        assert of(wrong, "W1").largest.index == (5, 4)

    def test_text(self, wrong):
        lines = repr(wrong).splitlines()
        assert re.match(
            r"gradient check   TwoLayerNet, batch 7, float64, difference propagation, h = 2\^-\d+, seed 0, \d+ ms$",
            lines[0],
        )
        assert re.match(r"audit +16 of 16 entries agree with the plain loop, moved together to \S+$", lines[1])
        assert lines[2].split()[:6] == ["parameter", "checked", "pass", "kink", "undecided", "fail"]
        assert re.match(r"W1 \(6, 5\) +30 +1 +0 +0 +29 +\d\.\de[+-]\d\d$", lines[3])
        assert re.match(r" +at \(5, 4\): numerical \S+, backprop \S+, ratio 3.9$", lines[4])
        assert all(len(line) <= 100 for line in lines)
        assert lines[-1] == "FAIL             29 of 59 entries fail"

    def test_an_entry_that_should_be_zero_has_no_ratio(self):
        def lines(numerical, backprop):
            entry = Entry((0,), numerical, backprop, 1.0)
            check = GradientCheck("")
            check.parameters = [ParameterCheck("b", (1,), "loop", 0.1, 0, 0, 0, 1, entry, (entry,))]
            return [line.strip() for line in repr(check).splitlines() if " at (" in line]

        assert lines(0.0, 0.5) == ["at (0,): numerical 0.00000e+00, backprop 5.00000e-01, should be 0"]
        assert lines(-1e-9, 0.5) == ["at (0,): numerical -1.00000e-09, backprop 5.00000e-01, should be nearly 0"]
        assert lines(1e-3, 60.0) == ["at (0,): numerical 1.00000e-03, backprop 6.00000e+01, ratio 60000"]
        assert lines(0.25, -0.0) == ["at (0,): numerical 2.50000e-01, backprop 0.00000e+00, ratio 0"]
        assert lines(0.25, np.nan) == ["at (0,): numerical 2.50000e-01, backprop nan"]
        assert lines(0.25, np.inf) == ["at (0,): numerical 2.50000e-01, backprop inf, ratio inf"]

    def test_what_is_moved_together_has_no_factor_of_nothing(self):
        assert compared(1.5, "the right one") == "is 1.5 times the right one"
        assert compared(0.0, "the right one") == "is 0, but the right one is not"
        for ratio in (np.inf, -3.3e6):
            assert compared(ratio, "the right one") == "is not 0, but the right one is, or nearly so"

    def test_a_factor_of_a_gradient_like_the_values_is_no_weight_decay(self):
        x = np.linspace(-1.0, 2.0, 7)
        check = check_gradients(lambda x: (x**2).sum(), x, gradient=lambda x: x)
        assert of(check, "x").hint == "every ratio is 0.5, a factor of two"

    def test_a_long_check_tells_seconds(self):
        check = GradientCheck("a title")
        for seconds, told in ((0.0123, "12 ms"), (63.102, "63 s")):
            check.seconds = seconds
            assert check.head() == f"a title, {told}"

    def test_text_of_a_pass(self):
        begun = time.perf_counter()
        check = check_gradients(network(), *batch())
        assert 0 < check.seconds < time.perf_counter() - begun
        assert repr(check).splitlines()[-1] == "pass             59 entries agree"
        assert bool(check) is True
        assert str(check) == repr(check)

    def test_an_assertion_shows_it(self, wrong):
        with pytest.raises(AssertionError) as caught:
            assert wrong
        assert "29 of 59 entries fail" in str(caught.value)

    def test_one_seed_is_one_report(self):
        def text(seed):
            return re.sub(r"\d+ ms", "", repr(check_gradients(network(activation="relu"), *batch(), rng=seed)))

        assert text(1) == text(1)
        generator = np.random.default_rng(0)
        drawn, other = text(generator), text(generator)
        seed = int(re.search(r"seed\s+(\d+)", drawn)[1])
        assert text(seed) == drawn != other

    def test_silent_where_stderr_is_no_terminal(self, capsys):
        assert check_gradients(network(), *batch(), method="loop")
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""

    def test_a_bar_on_a_terminal(self, monkeypatch):
        import tqdm

        class Terminal(io.StringIO):
            def isatty(self):
                return True

        bars = []

        class Bar(tqdm.tqdm):
            def __init__(self, **options):
                super().__init__(**options | {"delay": 0, "mininterval": 0, "file": sys.stderr})
                bars.append(self)

        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(tqdm, "tqdm", Bar)
        assert check_gradients(network(), *batch())
        assert "checking gradients" in sys.stderr.getvalue()
        assert bars[0].total == 59
        assert bars[0].n == 59
        x, t = batch()
        x[:2] = 0
        assert check_gradients(network(activation="relu"), x, t)  # its kinks need a second look
        assert [(bar.total, bar.n) for bar in bars[1:]] == [(59, 59)] * 2
        shown = sys.stderr.getvalue()
        assert check_gradients(network(), *batch(), progress=False)
        assert sys.stderr.getvalue() == shown
