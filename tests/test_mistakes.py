"""The sixteen mistakes found in notes on the book: each written as found, the number it gives, and ours."""

import math
import warnings

import numpy as np
import pytest

from xpnet import (
    Affine,
    Network,
    Relu,
    Sigmoid,
    SoftmaxWithLoss,
    TwoLayerNet,
    cross_entropy_error,
    gradient_descent,
    numerical_diff,
    numerical_gradient,
    sigmoid,
    softmax,
    train,
)
from xpnet.training import epochs_of_batches


def sum_of_squares(case):
    return lambda x: case.xp.sum(x**2)


def writeable(case, x):
    return case.xp.asarray(case.asarray(x), copy=True)


def allowed(case):
    """The error of a central difference of x² with our step: no truncation, rounding ε·f/h with f below 100."""
    return 1e-9 if case.dtype == "float64" else 1e-3


def test_01_step_too_small_is_refused(case):
    def as_in_the_notes(f, x):
        h = 10e-50
        return (f(x + h) - f(x - h)) / (2 * h)

    assert as_in_the_notes(lambda x: x**2, 3.0) == 0
    with pytest.raises(ValueError, match=r"h = 1e-49 is too small: x \+ h is stored as x.* use about 1e-4"):
        numerical_diff(lambda x: x**2, 3.0, h=10e-50)
    x = writeable(case, [3.0, 4.0])
    with pytest.raises(ValueError, match="h = 1e-49 is too small"):
        numerical_diff(lambda x: x**2, x, h=10e-50)
    with pytest.raises(ValueError, match="h = 1e-49 is too small"):
        numerical_gradient(sum_of_squares(case), x, h=10e-50)
    np.testing.assert_allclose(case.host(numerical_gradient(sum_of_squares(case), x)), [6, 8], atol=allowed(case))


def test_02_the_difference_is_divided_by_2h():
    def as_in_the_notes(f, x):
        h = 1e-4
        return (f(x + h) - f(x - h)) / 2 * h

    def f(x):
        return x**2 + 16

    assert as_in_the_notes(f, 3) == pytest.approx(6.0e-8, rel=1e-6)
    assert numerical_diff(f, 3) == 6.00000000000378
    assert numerical_diff(lambda x: 9 + x**2, 4) == 7.999999999999119


def test_03_an_integer_array_is_refused(case):
    def as_in_the_notes(f, x):
        h, grad = 1e-4, np.zeros(x.shape)
        for i in range(x.size):
            old = x[i]
            x[i] = old + h
            above = f(x)
            x[i] = old - h
            grad[i] = (above - f(x)) / (2 * h)
            x[i] = old
        return grad

    assert as_in_the_notes(lambda x: (x**2).sum(), np.asarray([3, 4]))[0] == pytest.approx(25000)
    with pytest.raises(TypeError, match=r"x has dtype .*int64.* stored as 3 in an integer array.* convert with"):
        numerical_gradient(sum_of_squares(case), case.asarray([3, 4]))
    with pytest.raises(TypeError, match="convert with"):
        numerical_diff(lambda x: x**2, case.asarray([3, 4]))
    gradient = numerical_gradient(sum_of_squares(case), writeable(case, [3.0, 4.0]))
    np.testing.assert_allclose(case.host(gradient), [6, 8], atol=allowed(case))


def test_04_every_entry_of_a_matrix_moves_by_itself(case):
    def as_in_the_notes(f, x):
        h, grad = 1e-4, np.zeros_like(x)
        for i in range(len(x)):
            old = x[i].copy()
            x[i] = old + h
            above = f(x)
            x[i] = old - h
            grad[i] = (above - f(x)) / (2 * h)
            x[i] = old
        return grad

    point = [[1.0, 2.0], [3.0, 4.0]]
    wrong = as_in_the_notes(lambda x: (x**2).sum(), np.asarray(point))
    np.testing.assert_allclose(wrong, [[6, 6], [14, 14]], atol=1e-8)  # the sums of the rows
    gradient = numerical_gradient(sum_of_squares(case), writeable(case, point))
    np.testing.assert_allclose(case.host(gradient), [[2, 4], [6, 8]], atol=allowed(case))


def test_05_a_raising_function_leaves_no_trace(case):
    def as_in_the_notes(f, x):
        old = x[0]
        x[0] = old + 1e-4
        f(x)
        x[0] = old

    calls = []

    def raises(_):
        calls.append(1)
        raise ArithmeticError("half-way")

    weight = np.asarray([3.0, 4.0])
    with pytest.raises(ArithmeticError, match="half-way"):
        as_in_the_notes(raises, weight)
    assert weight[0] == 3.0001
    x = writeable(case, [3.0, 4.0])
    with pytest.raises(ArithmeticError, match="half-way"):
        numerical_gradient(raises, x)
    np.testing.assert_array_equal(case.host(x), [3.0, 4.0])
    assert len(calls) == 2


def test_06_softmax_keeps_the_samples_of_a_batch_apart(case):
    def as_in_the_notes(x):
        e = np.exp(x - np.max(x))
        return e / np.sum(e)

    batch = [[0.3, 2.9, 4.0], [1.0, 1.0, 1.0]]
    assert as_in_the_notes(np.asarray(batch)).sum(axis=1)[1] < 0.1
    x = case.asarray(batch)
    with case.computing():
        together, alone = softmax(x), softmax(x[0, ...])
    np.testing.assert_allclose(case.host(together).sum(axis=1), [1, 1], atol=4 * case.eps)
    case.assert_close(together[0, ...], case.host(alone), eps=2)
    case.assert_close(together[1, ...], [1 / 3] * 3, eps=2)


def test_07_labels_choose_a_logarithm_and_do_not_weigh_it(case):
    def as_in_the_notes(y, t):
        return -np.sum(t * np.log(y[np.arange(y.shape[0]), t] + 1e-7)) / y.shape[0]

    p = np.full((1, 10), 0.1)
    right = -math.log(0.1 + 1e-7)
    assert as_in_the_notes(p, np.asarray([0])) == 0  # class 0 costs nothing
    assert as_in_the_notes(p, np.asarray([9])) == pytest.approx(9 * right)  # class 9 nine times too much
    y = case.asarray(p)
    for label in (0, 9):
        t = case.asarray([label])
        with case.computing():
            loss = cross_entropy_error(y, t)
        case.assert_close(loss, right, eps=2)


def test_08_relu_backward_leaves_the_callers_array_alone(case):
    def as_in_the_notes(x, dout):
        dout[x <= 0] = 0
        return dout

    dout = np.asarray([5.0, 7.0])
    as_in_the_notes(np.asarray([-1.0, 2.0]), dout)
    assert dout[0] == 0
    layer, dout = Relu(), case.asarray([5.0, 7.0])
    with case.computing():
        layer.forward(case.asarray([-1.0, 2.0]))
        dx = layer.backward(dout)
    case.assert_close(dx, [0, 7], eps=0)
    np.testing.assert_array_equal(case.host(dout), [5, 7])


def test_09_softmax_with_loss_multiplies_by_dout(case):
    def as_in_the_notes(y, t, dout):
        return (y - t) / t.shape[0]

    scores, targets = np.asarray([[0.0, 0.0]]), np.asarray([[1.0, 0.0]])
    np.testing.assert_array_equal(as_in_the_notes(np.full((1, 2), 0.5), targets, dout=3.0), [[-0.5, 0.5]])
    layer = SoftmaxWithLoss()
    x, t, dout = case.asarray(scores), case.asarray(targets), case.asarray(np.asarray(3.0))
    with case.computing():
        layer.forward(x, t)
        by_number, by_array, by_default = layer.backward(3.0), layer.backward(dout), layer.backward()
    case.assert_close(by_number, [[-1.5, 1.5]], eps=2)
    case.assert_close(by_array, [[-1.5, 1.5]], eps=2)
    case.assert_close(by_default, [[-0.5, 0.5]], eps=2)


def test_10_targets_need_not_sum_to_one(case, rng):
    def as_in_the_notes(y, t):
        return (y - t) / t.shape[0]

    scores, targets = rng.normal(size=(2, 3)), np.asarray([[0.5, 0.0, 2.0], [0.1, 0.0, 0.0]])
    layer = SoftmaxWithLoss()
    x, t = case.asarray(scores), case.asarray(targets)
    with case.computing():
        layer.forward(x, t)
        dx = layer.backward()
    numerical = numerical_gradient(lambda x: SoftmaxWithLoss().forward(x, targets), scores)
    e = np.exp(scores)
    wrong = as_in_the_notes(e / e.sum(axis=1, keepdims=True), targets)
    assert np.abs(wrong - numerical).max() > 0.1
    np.testing.assert_allclose(case.host(dx), numerical, rtol=0, atol=1e-8 + 8 * case.eps)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_11_rebinding_a_parameter_goes_on_learning(case, rng, activation):
    class AsInTheNotes:
        """A dict of parameters, and layers that were given its arrays once."""

        def __init__(self, params):
            self.params = params
            self.affine = Affine(params["W"])

    W = np.ones((2, 3))
    notes = AsInTheNotes({"W": W})
    notes.params["W"] = notes.params["W"] - 0.1 * np.ones((2, 3))
    assert np.array_equal(notes.affine.W, W), "the layer still holds the old array"

    network = TwoLayerNet(4, 3, 2, 0.5, activation=activation, dtype=case.dtype, backend=case.backend)
    x, t = case.asarray(rng.normal(size=(8, 4))), case.asarray(rng.integers(0, 2, size=8))
    losses = []
    for _ in range(4):
        with case.computing():
            loss, grad = network.loss_and_gradient(x, t)
            for key in network.params:
                network.params[key] = network.params[key] - 0.5 * grad[key]
        losses.append(float(case.host(loss)))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-3


def test_12_an_epoch_is_a_whole_number_of_batches():
    train_size, batch_size = 60000, 128
    iter_per_epoch = max(train_size / batch_size, 1)
    as_in_the_notes = [i for i in range(1, 6000) if i % iter_per_epoch == 0]
    assert iter_per_epoch == 468.75
    assert as_in_the_notes == [1875, 3750, 5625]  # every fourth epoch

    epochs = list(epochs_of_batches(train_size, batch_size, np.random.default_rng(0), epochs=2))
    assert [len(epoch) for epoch in epochs] == [469, 469]
    assert [epoch[-1].shape[0] for epoch in epochs] == [96, 96]
    network = TwoLayerNet(2, 2, 2, backend="numpy")
    records = train(network, np.ones((75, 2)), np.zeros(75, dtype=int), epochs=3, batch_size=16)
    assert [record.iteration for record in records] == [5, 10, 15]


def test_13_the_loss_of_a_network_is_not_bent_by_1e_7(case):
    p = 1e-5
    scores, label = np.asarray([[math.log(p), math.log1p(-p)]]), np.asarray([0])
    exact = np.asarray([[p - 1, 1 - p]])

    def as_in_the_notes(x):
        return cross_entropy_error(softmax(x), label)

    bent = numerical_gradient(as_in_the_notes, scores.copy())
    np.testing.assert_allclose(bent / exact, p / (p + 1e-7), rtol=1e-5)  # 1 % away from a correct backpropagation
    layer = SoftmaxWithLoss()
    x, t = writeable(case, scores), case.asarray(label)
    with case.computing():
        loss = layer.forward(x, t)
        dx = layer.backward()
    case.assert_close(loss, -math.log(p), eps=4)
    case.assert_close(dx, exact, eps=8)
    numerical = numerical_gradient(lambda x: SoftmaxWithLoss().forward(x, t), x)
    error = 1e-7 if case.dtype == "float64" else 3e-4  # of the numerical gradient, with its rounding ε·11.5/h
    np.testing.assert_allclose(case.host(numerical), exact, rtol=0, atol=error)


def test_14_gradient_descent_leaves_its_starting_point_alone(case):
    def as_in_the_notes(init_x):
        x = init_x
        for _ in range(100):
            x -= 0.1 * 2 * x
        return x

    start = np.asarray([-3.0, 4.0])
    as_in_the_notes(start)
    assert np.abs(start).max() < 1e-8, "the starting point is gone"
    x = writeable(case, [-3.0, 4.0])
    end = gradient_descent(sum_of_squares(case), x, lr=0.1, step_num=100)
    np.testing.assert_array_equal(case.host(x), [-3, 4])
    # what is left is 0.8¹⁰⁰ of the way, and what rounding x ± h does at the end
    reached = [-6.11110793e-10, 8.14814391e-10]
    np.testing.assert_allclose(case.host(end), reached, rtol=0, atol=0.1 * case.eps)


class FlippedSign(Affine):
    """An Affine whose backward has the sign of one weight's gradient wrong."""

    def __init__(self, W, b, index):
        super().__init__(W, b)
        self.index = index

    def backward_parameters(self, dout):
        super().backward_parameters(dout)
        sign = np.ones(self.W.shape)
        sign[self.index] = -1
        self.dW = self.dW * sign


def test_15_one_flipped_sign_among_39200_weights_is_found(rng):
    from xpnet import check_gradients

    def as_in_the_notes(numerical, gradient):
        return np.average(np.abs(numerical - gradient))

    layers = list(TwoLayerNet(784, 50, 10, activation="sigmoid", backend="numpy").layers.values())
    x, t = rng.uniform(size=(3, 784)), np.asarray([5, 0, 4])
    right = Network(layers)
    assert check_gradients(right, x, t)
    gradient = right.gradient(x, t)["W1"]
    # the entry whose size is nearest to the 1.2e-3 that makes 2·|g| / 39200 = 6e-8
    index = np.unravel_index(np.argmin(np.abs(np.abs(gradient) - 1.2e-3)), gradient.shape)
    wrong = Network([FlippedSign(layers[0].W, layers[0].b, index), Sigmoid(), layers[2]])
    average = as_in_the_notes(wrong.numerical_gradient(x, t)["W1"], wrong.gradient(x, t)["W1"])
    assert average < 1e-7, "which the notes take for agreement"

    check = check_gradients(wrong, x, t)
    assert not check
    report = repr(check)
    assert "W1" in report
    assert f"({index[0]}, {index[1]})" in report


def test_16_sigmoid_does_not_overflow(case):
    def as_in_the_notes(x):
        return 1 / (1 + np.exp(-x))

    far = -1000.0
    with pytest.warns(RuntimeWarning, match="overflow encountered in exp"):
        as_in_the_notes(np.asarray([far]))
    x = case.asarray([far, -80.0, 0.0, 1000.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with case.computing():
            y = sigmoid(x)
    np.testing.assert_allclose(case.host(y), [0.0, 1 / (1 + math.exp(80)), 0.5, 1.0], rtol=4 * case.eps, atol=0)
    assert (np.tanh(-100.0 / 2) + 1) / 2 == 0  # the usual way out of the overflow loses everything here
