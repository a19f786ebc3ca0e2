"""Pictures: each draws what the library computed, into the axes it is given, and leaves everything else alone."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xpnet import (
    TwoLayerNet,
    get_backend,
    gradient_descent,
    numerical_diff,
    numerical_gradient,
    plotting,
    train,
    why_unusable,
)
from xpnet.installing import install_command
from xpnet.training import EpochRecord

PACKAGE = Path(plotting.__file__).parents[1]


@pytest.fixture
def plt():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'xpnet[plot]'")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


@pytest.fixture(params=["numpy", "torch", "jax", "array_api_strict", "cupy"])
def backend(request):
    if reason := why_unusable(request.param):
        pytest.skip(reason)
    return get_backend(request.param)


def bowl(x):
    return (x**2)[0] + (x**2)[1]


def records(test=True):
    return [
        EpochRecord(1, 3, 2.0, 0.5, 0.25 if test else None, np.asarray([3.0, 2.0, 1.0])),
        EpochRecord(2, 5, 0.75, 0.875, 0.75 if test else None, np.asarray([0.5, 1.0])),
    ]


def arrays(asarray):
    """Return everything that a picture needs, as arrays made by ``asarray``."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((16, 3))
    return {
        "points": asarray(rng.standard_normal((5, 2))),
        "gradients": asarray(rng.standard_normal((5, 2))),
        "path": asarray([[-3.0, 4.0], [-2.0, 3.0], [-1.0, 1.0]]),
        "side": asarray(np.linspace(-2.0, 2.0, 5)),
        "x": asarray(rng.random((3, 16))),
        "labels": asarray(np.asarray([1, 2, 0])),
        "predictions": asarray(np.asarray([1, 0, 0])),
        "W": asarray(a),
        "other": asarray(a * 1.5),
        "steps": asarray([1e-1, 1e-2, 1e-3]),
    }


PICTURES = {
    "learning_curves": lambda d, ax: plotting.learning_curves(records(), ax),
    "tangent": lambda d, ax: plotting.tangent(lambda x: x**2, 3.0, ax),
    "secants": lambda d, ax: plotting.secants(lambda x: x**2, 3.0, 0.5, ax),
    "step_errors": lambda d, ax: plotting.step_errors(lambda x: x**3, 2.0, 12.0, d["steps"], ax),
    "gradient_field": lambda d, ax: plotting.gradient_field(d["points"], d["gradients"], ax),
    "descent_path": lambda d, ax: plotting.descent_path(d["path"], bowl, ax),
    "surface": lambda d, ax: plotting.surface(bowl, d["side"], d["side"], ax),
    "images": lambda d, ax: plotting.images(d["x"], d["labels"], d["predictions"], ax),
    "weights": lambda d, ax: plotting.weights(d["W"], ax),
    "gradient_map": lambda d, ax: plotting.gradient_map(d["W"], d["other"], ax, shape=(4, 4)),
}


def axes_for(plt, name):
    if name == "learning_curves":
        return plt.subplots(1, 2)[1]
    return plt.subplots(subplot_kw={"projection": "3d"} if name == "surface" else None)[1]


@pytest.mark.parametrize("name", PICTURES)
def test_any_backends_arrays_are_drawn_as_numpys_are(plt, backend, name):
    """Pixel for pixel."""
    drawn = []
    for asarray in (lambda x: backend.asarray(np.asarray(x)), np.asarray):
        ax = np.ravel(PICTURES[name](arrays(asarray), None))[0]
        ax.figure.set_dpi(40)
        ax.figure.canvas.draw()
        drawn.append(np.asarray(ax.figure.canvas.buffer_rgba()).copy())
    np.testing.assert_array_equal(*drawn)
    assert np.unique(drawn[0]).size > 1


@pytest.mark.parametrize("name", PICTURES)
def test_given_axes_are_used_and_returned_and_nothing_else_changes(plt, name):
    ax = axes_for(plt, name)
    other = plt.figure()
    settings, figures = dict(plt.rcParams), plt.get_fignums()
    assert PICTURES[name](arrays(np.asarray), ax) is ax
    for each in np.ravel(ax):
        assert each.has_data()
    assert dict(plt.rcParams) == settings
    assert plt.get_fignums() == figures
    assert plt.gcf() is other
    assert not other.axes


@pytest.mark.parametrize("name", PICTURES)
def test_without_axes_there_is_one_new_figure_and_no_window(plt, monkeypatch, name):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a picture was shown"))
    settings = dict(plt.rcParams)
    ax = np.ravel(PICTURES[name](arrays(np.asarray), None))[0]
    assert [plt.figure(number) for number in plt.get_fignums()] == [ax.figure]
    assert dict(plt.rcParams) == settings


@pytest.mark.parametrize("name", PICTURES)
def test_no_text_is_cut(plt, name):
    figure = np.ravel(PICTURES[name](arrays(np.asarray), None))[0].figure
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox()
    left, bottom, right, top = (value * figure.dpi for value in (box.x0, box.y0, box.x1, box.y1))
    assert left >= 0
    assert bottom >= 0
    assert right <= width
    assert top <= height


def line(ax, label):
    """Return the one line whose label begins so."""
    [found] = [each for each in ax.get_lines() if each.get_label().startswith(label)]
    return found


class TestLearningCurves:
    def test_losses_and_accuracies_are_those_of_the_records(self, plt):
        loss, accuracy = plotting.learning_curves(iter(records()))
        assert line(loss, "one batch").get_xydata().tolist() == [[1, 3], [2, 2], [3, 1], [4, 0.5], [5, 1]]
        assert line(loss, "mean").get_xydata().tolist() == [[3, 2], [5, 0.75]]
        assert line(accuracy, "train").get_xydata().tolist() == [[3, 50], [5, 87.5]]
        assert line(accuracy, "test, at the end 75.0 %").get_xydata().tolist() == [[3, 25], [5, 75]]

    def test_without_test_data_there_is_no_such_curve(self, plt):
        _, accuracy = plotting.learning_curves(records(test=False))
        assert [each.get_label().partition(",")[0] for each in accuracy.get_lines()] == ["train"]

    def test_a_resumed_training_begins_where_it_went_on(self, plt):
        loss, _ = plotting.learning_curves(records()[1:])
        assert line(loss, "one batch").get_xydata().tolist() == [[4, 0.5], [5, 1]]

    def test_records_of_a_training(self, plt, rng):
        x, t = rng.random((20, 4), dtype=np.float32), np.arange(20) % 3
        history = list(train(TwoLayerNet(4, 5, 3, dtype="float32", backend="numpy"), x, t, epochs=2, batch_size=5))
        loss, _ = plotting.learning_curves(history)
        assert len(line(loss, "one batch").get_xdata()) == 8

    def test_no_records_is_an_error(self):
        with pytest.raises(ValueError, match="no records"):
            plotting.learning_curves([])


class TestTangent:
    def test_it_touches_the_curve_with_the_slope_of_the_derivative(self, plt):
        ax = plotting.tangent(lambda x: x**2 + 16, 3.0, span=(0.0, 10.0))
        (x0, y0), (x1, y1) = line(ax, "tangent, slope 6").get_xydata()
        assert (x0, x1) == (0, 10)
        assert (y1 - y0) / 10 == pytest.approx(6)
        assert y0 == pytest.approx(25 - 18)
        curve = line(ax, "f(x)").get_xydata()
        np.testing.assert_allclose(curve[:, 1], curve[:, 0] ** 2 + 16)


class TestDifferences:
    def test_secants_go_through_the_points_they_are_named_after(self, plt):
        ax = plotting.secants(np.exp, 0.5, 0.75, span=(-1.0, 2.0))
        for method, through in (("forward", (0.5, 1.25)), ("central", (-0.25, 1.25))):
            (x0, y0), (x1, y1) = line(ax, method).get_xydata()
            for x in through:
                assert y0 + (y1 - y0) / (x1 - x0) * (x - x0) == pytest.approx(np.exp(x))

    def test_errors_are_those_of_numerical_diff(self, plt):
        ax = plotting.step_errors(np.exp, 0.5, np.exp(0.5), np.asarray([0.1, 0.01]), label="float64")
        for method in ("forward", "central"):
            expected = [abs(numerical_diff(np.exp, 0.5, h=h, method=method) - np.exp(0.5)) for h in (0.1, 0.01)]
            assert line(ax, f"{method}, float64").get_ydata().tolist() == expected

    def test_steps_that_vanish_are_left_out_in_the_precision_of_x(self, plt):
        steps = np.asarray([1e-3, 1e-9, 1e-18])
        for dtype, drawn in (("float64", [1e-3, 1e-9]), ("float32", [1e-3])):
            ax = plotting.step_errors(np.exp, np.asarray(0.5, dtype=dtype), np.exp(0.5), steps)
            assert line(ax, "central").get_xdata().tolist() == drawn

    def test_an_error_of_the_function_itself_is_not_hidden(self, plt):
        def f(x):
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            plotting.step_errors(f, 0.5, 1.0, np.asarray([0.1]))

    def test_no_error_at_all_is_a_gap(self, plt):
        ax = plotting.step_errors(lambda x: 2 * x, 0.5, 2.0, np.asarray([0.25]))
        assert np.isnan(line(ax, "central").get_ydata()).all()


class TestFieldAndDescent:
    def test_arrows_begin_at_the_points_and_go_downhill(self, plt):
        points = np.asarray([[3.0, 4.0], [0.0, 2.0]])
        ax = plotting.gradient_field(points, numerical_gradient(bowl, points, points=True))
        [arrows] = ax.collections
        np.testing.assert_array_equal(arrows.get_offsets(), points)
        np.testing.assert_allclose(np.stack([arrows.U, arrows.V]).T, [[-6, -8], [0, -4]], atol=1e-9)
        assert "length 10)" in ax.get_xlabel()

    def test_path_lies_on_the_contours_of_its_function(self, plt):
        _, path = gradient_descent(bowl, np.asarray([-3.0, 4.0]), lr=0.1, step_num=5, return_path=True)
        ax = plotting.descent_path(path, bowl, label="5 steps")
        np.testing.assert_array_equal(line(ax, "5 steps").get_xydata(), path)
        low, high = ax.get_xlim()
        assert low < path.min() < path.max() < high
        contours = next(each for each in ax.collections if hasattr(each, "levels"))
        for level, curve in zip(contours.levels, contours.get_paths(), strict=True):
            if len(curve.vertices) and level > 0:
                np.testing.assert_allclose((curve.vertices**2).sum(axis=1), level, rtol=0.05, atol=0.1)

    def test_path_that_explodes_needs_a_span_and_then_is_cut(self, plt):
        path = np.asarray([[1.0, 1.0], [np.inf, 0.0]])
        with pytest.raises(ValueError, match=r"span=\(from, to\)"):
            plotting.descent_path(path, bowl)
        assert plotting.descent_path(path, bowl, span=(-2, 2)).get_xlim() == (-2, 2)

    def test_path_that_does_not_move(self, plt):
        low, high = plotting.descent_path(np.ones((2, 2)), bowl).get_xlim()
        assert low < 1 < high

    def test_surface_has_the_heights_of_the_function_at_the_right_places(self, plt):
        ax, drawn = plt.subplots(subplot_kw={"projection": "3d"})[1], []
        ax.plot_surface = lambda *grid, **style: drawn.extend(grid)
        plotting.surface(lambda x: 10 * x[0] + x[1], np.asarray([0.0, 1.0]), np.asarray([0.0, 1.0, 2.0]), ax)
        x0, x1, heights = drawn
        assert {(0.0, 2.0), (1.0, 0.0)} <= set(zip(x0.ravel().tolist(), x1.ravel().tolist(), strict=True))
        np.testing.assert_array_equal(heights, 10 * x0 + x1)

    def test_surface_on_flat_axes_is_an_error(self, plt):
        with pytest.raises(ValueError, match="3-D axes"):
            plotting.surface(bowl, np.ones(2), np.ones(2), plt.subplots()[1])


def mosaic(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


class TestImages:
    @pytest.mark.parametrize("shape", [(3, 16), (3, 4, 4), (3, 1, 4, 4)])
    def test_every_pixel_is_there_once_and_in_place(self, plt, shape):
        x = np.arange(48.0).reshape(shape)
        drawn = mosaic(plotting.images(x, columns=2))
        assert sorted(drawn[~np.isnan(drawn)]) == list(range(48))
        np.testing.assert_array_equal(drawn[1:5, 1:5], np.arange(16.0).reshape(4, 4))

    def test_texts_name_the_label_and_what_was_said_instead(self, plt):
        ax = plotting.images(np.zeros((3, 16)), np.asarray([1, 2, 0]), np.asarray([1, 0, 0]))
        assert [text.get_text() for text in ax.texts] == ["1", "2 → 0", "0"]
        assert len(ax.get_lines()) == 1  # the frame

    def test_labels_alone_and_predictions_alone(self, plt):
        for labels, predictions in (([1, 2], None), (None, [1, 2])):
            ax = plotting.images(np.zeros((2, 16)), labels, predictions)
            assert [text.get_text() for text in ax.texts] == ["1", "2"]
            assert not ax.get_lines()

    def test_one_hot_labels_and_scores(self, plt):
        ax = plotting.images(np.zeros((2, 16)), np.eye(3)[[1, 2]], np.asarray([[0.1, 3.0, -9.0], [5.0, 0.0, 1.0]]))
        assert [text.get_text() for text in ax.texts] == ["1", "2 → 0"]

    @pytest.mark.parametrize("labels", [np.zeros(3, int), np.zeros((3, 2)), np.asarray(1)])
    def test_classes_that_do_not_fit_are_an_error(self, plt, labels):
        with pytest.raises(ValueError, match="there are 2 images, but their classes have shape"):
            plotting.images(np.zeros((2, 16)), labels)

    @pytest.mark.parametrize("x", [np.zeros((2, 15)), np.zeros(16), np.zeros((2, 3, 4, 4)), np.zeros((0, 16))])
    def test_what_is_no_image_is_an_error(self, plt, x):
        with pytest.raises(ValueError, match=r"shape=\(height, width\)|they must be"):
            plotting.images(x)

    def test_images_that_are_not_square(self, plt):
        drawn = mosaic(plotting.images(np.arange(6.0).reshape(1, 6), shape=(2, 3)))
        np.testing.assert_array_equal(drawn[1:3, 1:4], [[0, 1, 2], [3, 4, 5]])


class TestWeights:
    def test_a_column_is_a_tile_and_zero_is_in_the_middle_of_the_colours(self, plt):
        W = np.arange(32.0).reshape(16, 2) - 20
        ax = plotting.weights(W)
        np.testing.assert_array_equal(mosaic(ax)[1:5, 7:11], W[:, 1].reshape(4, 4))
        low, high = ax.images[0].get_clim()
        assert low == -high == -20

    def test_weights_that_are_all_zero(self, plt):
        assert plotting.weights(np.zeros((16, 2))).images[0].get_clim() == (-1, 1)


class TestGradientMap:
    def rings(self, ax):
        return ax.get_lines()[0].get_xydata().tolist()

    def test_a_planted_mistake_is_ringed_where_it_is(self, plt, rng):
        x, t = rng.random((10, 16)), np.arange(10) % 3
        network = TwoLayerNet(16, 4, 3, activation="sigmoid", weight_init_std=0.5, backend="numpy")
        backprop, numerical = network.gradient(x, t)["W1"].copy(), network.numerical_gradient(x, t)["W1"]
        ax = plotting.gradient_map(backprop, numerical, shape=(4, 4))
        assert ax.get_title() == "0 of 64 entries\ndiffer by more than 1 %"
        assert self.rings(ax) == []
        backprop[6, 2] *= -1  # row 1, column 2 of the third tile
        ax = plotting.gradient_map(backprop, numerical, shape=(4, 4))
        assert ax.get_title() == "1 of 64 entries\ndiffer by more than 1 %"
        assert self.rings(ax) == [[2 * 6 + 1 + 2, 1 + 1]]
        assert mosaic(ax)[2, 15] == pytest.approx(2, rel=1e-5)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_never_agrees(self, plt, wrong):
        n = np.asarray([1.0, wrong, 3.0])
        for a in (np.asarray([1.0, 2.0, 3.0]), n):
            ax = plotting.gradient_map(a, n)
            assert ax.get_title() == "1 of 3 entries\ndiffer by more than 1 %"
            assert self.rings(ax) == [[2, 1]]

    def test_two_zeros_agree_and_zero_against_anything_does_not(self, plt):
        ax = plotting.gradient_map(np.asarray([0.0, 0.0]), np.asarray([0.0, 1e-30]))
        np.testing.assert_array_equal(mosaic(ax)[1, 1:3], [np.finfo(float).eps, 1])

    def test_every_shape_of_parameter_and_many_mistakes(self, plt):
        for shape in ((5,), (4, 6), (2, 3, 4)):
            n = np.ones(shape)
            ax = plotting.gradient_map(2 * n, n)
            assert ax.get_title().startswith(f"{n.size} of {n.size} ")
        assert ax.get_lines() == []  # more than 20 rings would hide the map

    def test_other_shapes_are_an_error(self):
        pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'xpnet[plot]'")
        with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
            plotting.gradient_map(np.ones((2, 3)), np.ones((3, 2)))


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )


def test_importing_the_module_imports_no_matplotlib():
    ran = python("import sys; from xpnet import plotting; print('matplotlib' in sys.modules)")
    assert ran.stdout == "False\n", ran.stderr


def test_missing_matplotlib_is_one_sentence_with_the_line_that_installs_it():
    hidden = "import sys; sys.modules['matplotlib'] = None; from xpnet import plotting; "
    ran = python(hidden + "plotting.tangent(lambda x: x**2, 3.0)")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: pictures need matplotlib, which is not installed; run: {install_command('matplotlib')}"
    )
    assert "During handling" not in ran.stderr


def test_a_matplotlib_that_lacks_something_else_is_not_called_missing():
    pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'xpnet[plot]'")
    hidden = "import sys; sys.modules['PIL'] = None; from xpnet import plotting; "
    ran = python(hidden + "plotting.tangent(lambda x: x**2, 3.0)")
    assert "PIL" in ran.stderr.splitlines()[-1]


def test_nothing_in_the_library_imports_it():
    imported = re.compile(r"(?m)^\s*(from \S+ )?import .*\bplotting\b|^\s*from \S*\bplotting import")
    for planted in ("from . import x, plotting", "    import xpnet.plotting", "from .plotting import tangent"):
        assert imported.search(planted)
    for path in PACKAGE.rglob("*.py"):
        assert not imported.search(path.read_text(encoding="utf-8")), path
