"""Losses: the reference numbers, every kind of target, stacks of batches, and refusals."""

import math

import numpy as np
import pytest

from xpnet import cross_entropy_error, get_backend, mean_squared_error, sum_squared_error, why_unusable

Y = [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]
Y_WRONG = [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0]
T = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]

BATCH = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]
BATCH_LOSSES = [-math.log(p + 1e-7) for p in (0.8, 0.7, 0.6)]

REFERENCES = [
    (sum_squared_error, Y, 0.0975),
    (sum_squared_error, Y_WRONG, 0.5975),
    (mean_squared_error, Y, 0.09750000000000003),
    (mean_squared_error, Y_WRONG, 0.5975),
    (cross_entropy_error, Y, 0.510825457099338),
    (cross_entropy_error, Y_WRONG, 2.302584092994546),
]


@pytest.mark.parametrize(("loss", "y", "expected"), REFERENCES)
def test_one_sample(case, loss, y, expected):
    y, t = case.asarray(y), case.asarray(np.asarray(T, dtype=float))
    with case.computing():
        value = loss(y, t)
    case.assert_close(value, expected, eps=2)


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error])
def test_squared_errors_of_a_batch_are_sums(case, loss):
    y, t = case.asarray([Y, Y_WRONG]), case.asarray(np.asarray([T, T]))
    with case.computing():
        value = loss(y, t)
    case.assert_close(value, 0.0975 + 0.5975, eps=4)


def test_the_true_mean_is_a_keyword_away(case):
    y, t = case.asarray([Y, Y_WRONG]), case.asarray([T, T])
    with case.computing():
        one = mean_squared_error(y[0, ...], t[0, ...], mean=True)
        two = mean_squared_error(y, t, mean=True)
    case.assert_close(one, 2 * 0.0975, eps=4)  # one sample: Σ (y − t)², without the ½
    case.assert_close(two, (2 * 0.0975 + 2 * 0.5975) / 2, eps=4)


def test_cross_entropy_of_a_batch_is_the_mean(case):
    y = case.asarray(BATCH)
    for t in (np.eye(3), np.eye(3, dtype=int), np.eye(3, dtype=bool), np.asarray([0, 1, 2])):
        target = case.asarray(t)
        with case.computing():
            value = cross_entropy_error(y, target)
        case.assert_close(value, sum(BATCH_LOSSES) / 3, eps=4)


@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
def test_every_kind_of_one_hot_target_gives_the_same_loss(case, rng, leading):
    p = rng.uniform(0.05, 1.0, size=(*leading, 4, 5))
    p /= p.sum(axis=-1, keepdims=True)
    labels = rng.integers(0, 5, size=(*leading, 4))
    y = case.asarray(p)
    hot = np.eye(5)[labels]
    expected = -np.log((p * hot).sum(axis=-1) + 1e-7).mean(axis=-1)
    for t in (labels, labels.astype("uint8"), hot, hot.astype(int), hot.astype(bool), hot.astype("uint8")):
        target = case.asarray(t)
        with case.computing():
            value = cross_entropy_error(y, target)
        case.assert_close(value, expected, eps=16)


@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
def test_soft_targets_weigh_with_any_real_number(case, rng, leading):
    p = rng.uniform(0.05, 1.0, size=(*leading, 4, 5))
    weights = rng.normal(size=(*leading, 4, 5))
    y, t = case.asarray(p), case.asarray(weights)
    with case.computing():
        value = cross_entropy_error(y, t)
    expected = (-weights * np.log(p + 1e-7)).sum(axis=-1).mean(axis=-1)
    terms = np.abs(weights * np.log(p + 1e-7)).sum(axis=-1).max()
    case.assert_ours(value, leading)
    np.testing.assert_allclose(case.host(value), expected, rtol=0, atol=8 * case.eps * terms)


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error, cross_entropy_error])
def test_a_stack_of_batches_gives_a_stack_of_losses(case, rng, loss):
    p, hot = rng.uniform(0.1, 0.9, size=(3, 2, 4, 5)), np.eye(5)[rng.integers(0, 5, size=(3, 2, 4))]
    y, t = case.asarray(p), case.asarray(hot)
    with case.computing():
        stack = loss(y, t)
        single = [[loss(y[i, j, ...], t[i, j, ...]) for j in range(2)] for i in range(3)]
    case.assert_close(stack, [[float(case.host(v)) for v in row] for row in single], eps=4)


def test_one_set_of_targets_serves_a_stack_of_predictions(case, rng):
    p, labels = rng.uniform(0.1, 0.9, size=(3, 4, 5)), rng.integers(0, 5, size=4)
    y, t, hot = case.asarray(p), case.asarray(labels), case.asarray(np.eye(5)[labels])
    with case.computing():
        from_labels, from_hot = cross_entropy_error(y, t), cross_entropy_error(y, hot)
    expected = [-np.log(p[i][np.arange(4), labels] + 1e-7).mean() for i in range(3)]
    case.assert_close(from_labels, expected)
    case.assert_close(from_hot, expected)


def test_cross_entropy_of_a_certain_mistake_is_finite(case):
    y, t = case.asarray([1.0, 0.0]), case.asarray([0, 1])
    with case.computing():
        value = cross_entropy_error(y, t)
    case.assert_close(value, -math.log(1e-7), eps=4)


def test_label_of_one_sample_is_told_apart_by_its_axes(case):
    y, t = case.asarray(Y), case.asarray(np.asarray(2))
    with case.computing():
        value = cross_entropy_error(y, t)
    case.assert_close(value, 0.510825457099338, eps=2)


def test_as_many_labels_as_classes_are_still_labels(case):
    y, t = case.asarray(BATCH), case.asarray([1, 1, 0])
    with case.computing():
        value = cross_entropy_error(y, t)
    case.assert_close(value, -(np.log(0.1 + 1e-7) + np.log(0.7 + 1e-7) + np.log(0.1 + 1e-7)) / 3, eps=4)


def test_a_label_out_of_range_gives_nan(case):
    y, t = case.asarray(BATCH), case.asarray([0, 1, 3])
    with case.computing():
        value = cross_entropy_error(y, t)
    assert np.isnan(case.host(value))


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error, cross_entropy_error])
def test_arguments_are_not_written(case, loss):
    y, t = case.asarray(BATCH), case.asarray(np.eye(3))
    with case.computing():
        first, second = loss(y, t), loss(y, t)
    np.testing.assert_array_equal(case.host(first), case.host(second))
    np.testing.assert_array_equal(case.host(y), np.asarray(BATCH, dtype=case.dtype))
    np.testing.assert_array_equal(case.host(t), np.eye(3))


def test_float_labels_are_refused(case):
    with pytest.raises(TypeError, match=r"labels t have dtype .*float.* class numbers are integers; convert with"):
        cross_entropy_error(case.asarray(BATCH), case.asarray([0.0, 1.0, 2.0]))


def test_float_labels_of_a_stack_are_refused(case):
    y = case.asarray(np.full((2, 3, 4), 0.25))
    with pytest.raises(TypeError, match=r"labels t have dtype .*float.* class numbers are integers; convert with"):
        cross_entropy_error(y, case.asarray(np.zeros((2, 3))))


def test_the_shapes_that_targets_may_have_are_named(case):
    y = case.asarray(np.full((2, 3, 4), 0.25))
    with pytest.raises(ValueError, match=r"integer labels of shape \(2, 3\) or weights of shape \(2, 3, 4\) do$"):
        cross_entropy_error(y, case.asarray(np.zeros((3, 5))))


def test_bool_labels_are_refused(case):
    with pytest.raises(TypeError, match=r"labels t have dtype .*bool.* class numbers are integers"):
        cross_entropy_error(case.asarray(BATCH), case.asarray([True, False, True]))


@pytest.mark.parametrize("shape", [(2, 3), (3, 4), (4,), (3, 1), (2, 3, 3)])
def test_targets_of_another_shape_are_refused(case, shape):
    t = np.zeros(shape, dtype=int if len(shape) == 1 else float)
    with pytest.raises(ValueError, match=r"targets t have shape .* does not fit predictions of shape \(3, 3\)"):
        cross_entropy_error(case.asarray(BATCH), case.asarray(t))


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (3, 1), (3, 4)])
def test_squared_errors_do_not_broadcast(case, loss, shape):
    with pytest.raises(ValueError, match=r"y has shape \(3, 3\) and t has shape .*; they must be equal"):
        loss(case.asarray(BATCH), case.asarray(np.zeros(shape)))


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error, cross_entropy_error])
def test_an_integer_prediction_is_refused(case, loss):
    with pytest.raises(TypeError, match=r"y has dtype .*int64.* only real floating.* convert with"):
        loss(case.asarray(np.eye(3, dtype=int)), case.asarray(np.eye(3)))


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error, cross_entropy_error])
def test_lists_are_refused(loss):
    with pytest.raises(TypeError, match=r"expected arrays of one library, got list.*; convert with"):
        loss(Y, T)


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error, cross_entropy_error])
def test_a_list_of_targets_is_refused(loss):
    with pytest.raises(TypeError, match=r"expected arrays of one library, got numpy\.ndarray, list"):
        loss(np.asarray(Y), T)


@pytest.mark.parametrize("loss", [sum_squared_error, mean_squared_error, cross_entropy_error])
def test_arrays_of_two_libraries_are_refused(loss):
    reason = why_unusable("array_api_strict")
    if reason:
        pytest.skip(reason)
    t = get_backend("array_api_strict").asarray(np.eye(3))
    with pytest.raises(TypeError, match=r"one library, got numpy\.ndarray, array_api_strict\.Array; convert with"):
        loss(np.asarray(BATCH), t)
