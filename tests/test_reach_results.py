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
