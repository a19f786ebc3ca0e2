"""What a check found, as data and as a page: arrays by name, dicts, HTML, a report that fits its width."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from xpnet import Affine, Network, Relu, check_gradients


class OneWrong(Affine):
    def backward_parameters(self, dout):
        super().backward_parameters(dout)
        self.dW[1, 2] *= -1


@pytest.fixture
def wrong(rng):
    layers = [OneWrong(rng.normal(size=(4, 5)), rng.normal(size=5)), Relu(), Affine(rng.normal(size=(5, 3)))]
    return Network(layers), rng.normal(size=(6, 4)), np.arange(6) % 3


def test_verdicts_and_both_gradients_are_arrays_by_name(wrong):
    network, x, t = wrong
    check = check_gradients(network, x, t)
    assert list(check.verdicts) == list(check.numerical) == list(check.backprop) == ["W1", "b1", "W2"]
    assert np.argwhere(check.verdicts["W1"] == "fail").tolist() == [[1, 2]]
    assert (check.verdicts["W2"] == "pass").all()
    gradient = network.gradient(x, t)
    for name, value in network.params.items():
        assert check.numerical[name].shape == check.backprop[name].shape == value.shape
        np.testing.assert_array_equal(check.backprop[name], gradient[name])
    np.testing.assert_allclose(check.numerical["W1"][1, 2], -gradient["W1"][1, 2], rtol=1e-6)


def test_a_check_is_plain_data(wrong):
    check = check_gradients(*wrong)
    found = json.loads(json.dumps(check.to_dict(arrays=True), allow_nan=False))
    assert found["passed"] is False
    assert (found["checked"], found["failed"]) == (check.checked, 1)
    first = found["parameters"][0]
    assert (first["name"], first["shape"], first["failed"]) == ("W1", [4, 5], 1)
    assert first["worst"][0]["index"] == [1, 2]
    assert first["worst"][0]["ratio"] == pytest.approx(-1)
    assert found["verdicts"]["W1"][1][2] == "fail"
    assert "verdicts" not in check.to_dict()
    empty = check_gradients(lambda x: x, np.ones(2), gradient=lambda x, d: 1 / 0).to_dict(arrays=True)
    assert empty["problems"] == ["gradient raised ZeroDivisionError: division by zero"]
    assert empty["parameters"] == []


def test_ratios_that_are_no_numbers_are_none():
    check = check_gradients(lambda x: 0 * x[0] + x[1] ** 2, np.ones(2), gradient=lambda x: np.ones(2))
    found = json.loads(json.dumps(check.to_dict(arrays=True), allow_nan=False))
    assert None in [entry["ratio"] for entry in found["parameters"][0]["worst"]]


class Reader(HTMLParser):
    """Reads a page; fails where tags are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_a_notebook_gets_words_and_colours_and_no_script(wrong):
    check = check_gradients(*wrong)
    reader = read(check._repr_html_())
    text = " ".join(reader.words)
    assert "FAIL" in text
    assert "1 of 40 entries fail" in text.replace("  ", " ")
    assert "(1, 2)" in text
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in reader.tags}
    assert [a["class"] for tag, a in reader.tags if tag == "rect" and a["class"] != "pass"] == ["fail"]
    assert not any(
        name.startswith("on") or "http" in str(value) for _, attrs in reader.tags for name, value in attrs.items()
    )


def test_a_page_is_whole_and_what_is_in_it_is_escaped(tmp_path, rng):
    def f(x):
        return (x**2).sum()

    f.__name__ = "<script>alert('x')</script>"
    check = check_gradients(f, rng.normal(size=3), gradient=lambda x: 1 / 0)
    check.problems.append("a < b & c")
    check.save(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "color-scheme" in text
    assert "<script" not in text
    assert "problem: a &lt; b &amp; c" in text
    read(text)


def test_pages_of_every_shape(tmp_path, rng):
    for shape in ((), (1,), (3, 4, 5), (200, 3), (3, 200)):
        x = np.asarray(rng.normal(size=shape))
        claim = np.asarray(2 * x)
        claim[(0,) * x.ndim] *= -1
        check = check_gradients(lambda x: (x**2).sum(), x, gradient=claim)
        reader = read(check._repr_html_())
        assert [a["class"] for tag, a in reader.tags if tag == "rect" and a["class"] != "pass"] == ["fail"]


def test_a_folder_that_is_missing_is_an_error(tmp_path, rng):
    check = check_gradients(lambda x: x**2, rng.normal(size=3), gradient=lambda x, d: 2 * x * d)
    with pytest.raises(OSError, match="No such file"):
        check.save(tmp_path / "missing" / "report.html")


def test_a_report_fits_a_hundred_columns(rng):
    def f(an_argument_of_a_very_long_name, another_argument_of_a_very_long_name):
        return an_argument_of_a_very_long_name * another_argument_of_a_very_long_name

    x, y = rng.normal(size=(2, 1000, 3)) * 1e-200 ** np.arange(2)[:, None, None]
    checks = [
        check_gradients(f, x[:20], y[:20], gradient=lambda a, b, d: (d * b, 3 * d * a)),
        check_gradients(f, x[:20], y[:20], gradient=lambda a, b, d: d / 0),
        check_gradients(Network([Affine(rng.normal(size=(4, 3)))]), rng.normal(size=(6, 4)), np.arange(6) % 3),
    ]
    for check in checks:
        assert max(map(len, repr(check).splitlines())) <= 100, check


# ── Less than every entry, and more than one output ─────────────────────────────────────────────────────────────────


@pytest.fixture
def many(rng):
    A = rng.normal(size=(60, 50))
    return lambda A: float(np.tanh(A).sum()), A, lambda A: 1 - np.tanh(A) ** 2


def test_a_sample_of_the_entries_says_what_it_can_tell(many):
    f, A, gradient = many
    calls = []
    check = check_gradients(lambda A: calls.append(1) or f(A), A, gradient=gradient, entries=30)
    assert check
    assert len(calls) < 300  # of 6,000
    assert check.parameters[0].shape == (60, 50)
    assert check.checked == np.count_nonzero(check.verdicts["A"] == "pass") == 30
    assert np.count_nonzero(check.verdicts["A"] == "left out") == 2970
    assert np.isfinite(check.numerical["A"]).sum() == 30
    assert (
        "30 of 3000 entries of A, drawn with seed 0: a mistake in 9.5 % of them would be found with 95 % certainty"
        in check.notes[0]
    )
    assert "one in a single entry with 1 %" in check.notes[0]
    other = check_gradients(f, A, gradient=gradient, entries=30, rng=1)
    assert (check.verdicts["A"] != other.verdicts["A"]).any()
    json.dumps(check.to_dict())
    read(check._repr_html_())


def test_a_sample_finds_what_is_in_it(many):
    f, A, gradient = many
    check = check_gradients(f, A, gradient=lambda A: 1.01 * gradient(A), entries=30)
    assert not check
    assert check.failed == 30
    drawn = np.argwhere(check.verdicts["A"] == "fail")
    claim = gradient(A)
    claim[tuple(drawn[0])] *= -1
    check = check_gradients(f, A, gradient=claim, entries=30)
    assert np.argwhere(check.verdicts["A"] == "fail").tolist() == [drawn[0].tolist()]
    assert check.parameters[0].largest.index == tuple(drawn[0])


def test_small_arrays_are_checked_whole(rng):
    check = check_gradients(
        lambda x, y: x[:3] * y,
        rng.normal(size=3),
        rng.normal(size=3),
        entries=3,
        gradient=lambda x, y, d: (d * y, d * x),
    )
    assert check
    assert check.checked == 6
    assert not check.notes


def test_directions_are_a_first_screen(many):
    f, A, gradient = many
    calls = []
    check = check_gradients(lambda A: calls.append(1) or f(A), A, gradient=gradient, directions=3)
    assert check
    assert len(calls) < 150
    assert check.checked == 3
    assert "3 directions agree" in repr(check)
    assert "not entry by entry" in check.notes[0]
    for wrong in (lambda A: 1.001 * gradient(A), lambda A: gradient(A).T.reshape(60, 50), lambda A: 0 * A):
        assert not check_gradients(f, A, gradient=wrong, directions=3)
    claim = gradient(A)
    claim[5, 7] *= -1
    assert not check_gradients(f, A, gradient=claim, directions=3)


def test_directions_of_a_network_and_of_float32(rng):
    layers = [Affine(rng.normal(size=(4, 5)), rng.normal(size=5)), Relu(), OneWrong(rng.normal(size=(5, 4)))]
    x, t = rng.normal(size=(6, 4)), np.arange(6) % 3
    check = check_gradients(Network(layers), x, t, directions=2)
    assert {p.name: p.failed > 0 for p in check.parameters} == {"W1": False, "b1": False, "W2": True}
    f = lambda x: np.tanh(x) ** 2  # noqa: E731
    x = rng.normal(size=(30, 20)).astype("float32")
    right = lambda x, d: 2 * d * np.tanh(x) * (1 - np.tanh(x) ** 2)  # noqa: E731
    assert check_gradients(f, x, gradient=right, directions=4)
    assert not check_gradients(f, x, gradient=lambda x, d: np.float32(1.01) * right(x, d), directions=4)


def test_directions_along_which_nothing_happens_are_no_pass():
    check = check_gradients(lambda x: 0 * x, np.ones(3), gradient=lambda x, d: 0 * d, directions=2)
    assert not check
    assert check.problems == ["along every direction of x both gradients are 0: nothing was tested"]


@pytest.mark.parametrize("what", ["entries", "directions"])
@pytest.mark.parametrize("count", [0, -1, 2.5, True, "3"])
def test_counts_that_are_none_are_errors(many, what, count):
    f, A, gradient = many
    with pytest.raises(ValueError, match=f"{what} is {count!r}; it must be a whole number of at least 1"):
        check_gradients(f, A, gradient=gradient, **{what: count})


def test_a_jacobian_entry_by_entry(rng):
    x, W = rng.normal(size=(2, 3)), rng.normal(size=(3, 2))
    check = check_gradients(lambda x, W: x @ W, x, W, gradient=lambda x, W, d: (d @ W.T, x.T @ d), jacobian=True)
    assert check
    assert [p.name for p in check.parameters][:3] == ["∂out[0, 0]/∂x", "∂out[0, 0]/∂W", "∂out[0, 1]/∂x"]
    np.testing.assert_allclose(check.numerical["∂out[1, 0]/∂x"], [np.zeros(3), W[:, 0]], atol=1e-9)

    def swaps(x, W, d):  # the second output's gradient is that of the first: random weights cannot hide it either
        return d[:, [1, 0]] @ W.T, x.T @ d

    check = check_gradients(lambda x, W: x @ W, x, W, gradient=swaps, jacobian=True)
    assert {p.name for p in check.parameters if p.failed} == {f"∂out[{i}, {j}]/∂x" for i in (0, 1) for j in (0, 1)}


def test_a_jacobian_of_what_has_none(rng):
    with pytest.raises(ValueError, match="here one number is"):
        check_gradients(lambda x: (x**2).sum(), rng.normal(size=3), gradient=lambda x: 2 * x, jacobian=True)
    with pytest.raises(ValueError, match="at most 1000; there are 1001"):
        check_gradients(lambda x: x * 2, np.ones(1001), gradient=lambda x, d: 2 * d, jacobian=True)
