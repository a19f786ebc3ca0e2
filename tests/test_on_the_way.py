"""Arrays on their way to the host: together, exactly, as they were when they were taken."""

import gc
import pickle
import threading

import numpy as np
import pytest
from conftest import ASKED
from test_operations import count

from xpnet import get_backend
from xpnet.gradcheck.host import OnTheWay

FAR = pytest.mark.skipif(bool(ASKED), reason="seen on array-api-strict's second device, whatever backend is asked for")


def far(*numbers, dtype="float64"):
    return get_backend("array_api_strict:device1").asarray(np.asarray(numbers), dtype=dtype)


@FAR
def test_all_arrive_with_one_read_and_each_in_its_own_dtype():
    given = {"a": far(0.1, 1 / 3), "b": far(0.1, dtype="float32"), "c": far(True, dtype="bool"), "d": far(2.0)[0]}
    first, second = OnTheWay(given), OnTheWay({"e": far(5.0, 7.0)})
    *_, reads = count(lambda: (first.host, second.host))
    assert reads == 1
    assert list(first.host) == list("abcd")
    expected = [np.asarray([0.1, 1 / 3]), np.asarray([0.1], dtype="float32"), np.asarray([True]), np.asarray(2.0)]
    for found, right in zip(first.host.values(), expected, strict=True):
        assert found.dtype == right.dtype
        assert found.shape == right.shape
        assert (found == right).all()
    assert second.host["e"].tolist() == [5.0, 7.0]


@FAR
def test_integers_that_no_float_holds_arrive_exactly():
    large = 2**53 + 1
    one = OnTheWay({"n": far(large, dtype="int64"), "x": far(1.0)})
    assert one.host["n"].tolist() == [large]


@pytest.mark.parametrize("make", [pytest.param(far, marks=FAR), lambda *numbers: np.asarray(numbers)])
def test_a_copy_is_of_the_numbers_as_they_were(make):
    x = make(1.0, 2.0)
    taken = OnTheWay({"x": x}, copy=True)
    x[0] = 5.0
    assert taken.host["x"].tolist() == [1.0, 2.0]


def test_what_is_on_the_host_is_given_as_it_is():
    x = np.ones(3)
    assert OnTheWay({"x": x, "n": 2.0}).host["x"] is x


@FAR
def test_another_thread_and_another_process_find_the_numbers():
    one, found = OnTheWay({"x": far(3.0)}), []
    thread = threading.Thread(target=lambda: found.append(pickle.loads(pickle.dumps(one)).host["x"][0]))
    thread.start()
    thread.join()
    assert found == [3.0]
    assert one.host["x"][0] == 3.0


@FAR
def test_what_nobody_asks_for_any_more_is_not_brought():
    forgotten = OnTheWay({"x": far(*range(100))})
    del forgotten
    gc.collect()
    kernels, _, reads = count(lambda: OnTheWay({"x": far(1.0)}).host)
    assert (kernels, reads) == (1, 1)  # the array's own making
