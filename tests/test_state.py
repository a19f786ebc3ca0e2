"""What is used is afterwards as it was: attributes, containers, arrays to the bit, random generators."""

import collections
import random
import threading
import types
import warnings

import numpy as np
import pytest

from xpnet import Affine, Network, Relu, TwoLayerNet
from xpnet.state import not_restorable, unchanged


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("__secret", "array", "unset")

    def __init__(self):
        self.array, self.__secret = np.ones(3), 1

    def change(self):
        self.array[0] = 7
        self.array, self.__secret, self.unset = None, 2, 3

    def state(self):
        return self.array, self.__secret, hasattr(self, "unset")


def test_attributes_come_back_the_same_objects_in_the_same_order():
    array, inner = np.ones(3), Plain(n=1)
    thing = Plain(array=array, count=1, inner=inner, gone=2)
    with unchanged(thing):
        thing.array, thing.count, thing.inner, thing.new = np.zeros((2, 3)), 2, None, 5
        inner.n = 3
        del thing.gone
    assert list(vars(thing)) == ["array", "count", "inner", "gone"]
    assert thing.array is array
    assert thing.inner is inner
    assert (thing.count, thing.gone, inner.n) == (1, 2, 1)


def test_after_an_exception_too():
    thing = Plain(array=np.ones(3))

    def fails():
        with unchanged(thing):
            thing.array *= 2
            thing.more = 1
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fails()
    assert thing.array.tolist() == [1, 1, 1]
    assert vars(thing).keys() == {"array"}


def test_slots():
    thing = Slotted()
    array = thing.array
    with unchanged(thing):
        thing.change()
    assert thing.state()[0] is array
    assert thing.state()[1:] == (1, False)
    assert array.tolist() == [1, 1, 1]


def test_containers_and_what_they_hold():
    inside = np.zeros(2)
    thing = Plain(
        listed=[1, inside],
        named={"a": inside, "b": {"c": [3]}},
        several={1, 2},
        ends=collections.deque([1, 2], maxlen=2),
        ordered=collections.OrderedDict(a=1, b=2),
        numbers=bytearray(b"ab"),
        fixed=([4], types.MappingProxyType({"d": [5]})),
        itself=[],
    )
    thing.itself.append(thing)
    with unchanged(thing):
        inside += 1
        thing.listed.append(2)
        thing.named["b"]["c"].append(1)
        del thing.named["a"]
        thing.several.add(3)
        thing.ends.append(3)
        thing.ordered.move_to_end("a")
        thing.numbers.extend(b"c")
        thing.fixed[0].append(1)
        thing.fixed[1]["d"].append(1)
        thing.itself.clear()
    assert inside.tolist() == [0, 0]
    assert thing.listed[0] == 1
    assert thing.listed[1] is inside
    assert list(thing.named) == ["a", "b"]
    assert thing.named["a"] is inside
    assert thing.named["b"] == {"c": [3]}
    assert (thing.several, list(thing.ends), thing.ends.maxlen) == ({1, 2}, [1, 2], 2)
    assert list(thing.ordered) == ["a", "b"]
    assert thing.numbers == b"ab"
    assert thing.fixed == ([4], {"d": [5]})
    assert thing.itself == [thing]


def test_arrays_to_the_bit():
    bits = np.asarray([0x7FF8000000000001, 0x8000000000000000, 1], dtype="uint64").view("float64")  # NaN, −0, smallest
    thing, kept = Plain(a=bits.copy(), b=np.arange(6.0).reshape(2, 3), view=None), bits.tobytes()
    thing.view = thing.b.T[1:]
    with unchanged(thing):
        thing.a[...] = 0
        thing.view *= 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, from 2.5 on
            thing.b.shape = (6,)
    assert thing.a.tobytes() == kept
    np.testing.assert_array_equal(thing.b, np.arange(6.0).reshape(2, 3))


def test_a_lock_on_an_array_and_what_happened_without_it():
    locked, open_one = np.ones(2), np.ones(2)
    locked.flags.writeable = False
    with unchanged(locked, open_one):
        locked.flags.writeable = True
        locked[0] = 5
        open_one[0] = 5
        open_one.flags.writeable = False
    assert locked.tolist() == open_one.tolist() == [1, 1]
    assert not locked.flags.writeable
    assert open_one.flags.writeable


def test_masked_and_overlapping_arrays():
    masked = np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0])
    overlapping = np.lib.stride_tricks.as_strided(np.arange(3.0), (2, 2), (8, 8))
    with unchanged(masked, overlapping):
        masked[...] = 7
        overlapping[...] = 7
    assert masked.mask.tolist() == [False, True, False]
    assert masked.data.tolist() == [1, 2, 3]
    assert overlapping.tolist() == [[0, 1], [1, 2]]


def test_arrays_of_every_library(case):
    x, n = case.asarray(np.arange(6.0).reshape(2, 3)), case.asarray(np.arange(3))
    net = TwoLayerNet(3, 4, 2, 0.5, dtype=case.dtype, backend=case.backend)
    net.loss(x, n[:2])
    before, held = {k: np.array(case.host(v)) for k, v in net.params.items()}, dict(net.params)
    attributes = [dict(vars(layer)) for layer in net.layers.values()]
    with case.computing(), unchanged(net, x, n):
        for name in net.params:
            net.params[name] = 2 * net.params[name]
        net.gradient(2 * x, n[:2])
    for name, value in net.params.items():
        assert value is held[name]
        assert case.host(value).tobytes() == before[name].tobytes()
    for layer, kept in zip(net.layers.values(), attributes, strict=True):
        assert all(vars(layer)[name] is value for name, value in kept.items())
        assert vars(layer).keys() == kept.keys()


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (np.random.default_rng(1), lambda g: g.uniform()),
        (np.random.PCG64(1), lambda g: g.random_raw()),
        (np.random.RandomState(1), lambda g: g.uniform()),
        (random.Random(1), lambda g: g.gauss()),
        (random, lambda g: g.random()),
        (np.random, lambda g: g.uniform()),
    ],
    ids=["Generator", "PCG64", "RandomState", "Random", "random", "numpy.random"],
)
def test_random_generators(generator, draw):
    thing = Plain(rng=generator)
    draw(generator)
    with unchanged(thing):
        first = [draw(generator) for _ in range(3)]
    assert [draw(generator) for _ in range(3)] == first


class TestTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def test_generators(self, torch):
        own = torch.Generator()
        with unchanged(own):
            first = torch.rand(1).item(), torch.rand(1, generator=own).item()
        assert (torch.rand(1).item(), torch.rand(1, generator=own).item()) == first

    def test_gradients_and_whether_they_are_required(self, torch):
        leaf, plain = torch.ones(3, requires_grad=True), torch.ones(3)
        (leaf * 2).sum().backward()
        grad = leaf.grad
        with unchanged(leaf, plain):
            (leaf * 3).sum().backward()
            leaf.requires_grad_(False)
            plain.requires_grad_(True)
            leaf += 1
        assert leaf.requires_grad
        assert not plain.requires_grad
        assert plain.grad is None
        assert leaf.grad is grad
        assert grad.tolist() == [2, 2, 2]
        assert leaf.tolist() == [1, 1, 1]

    def test_a_graph_that_was_built_before_can_be_walked_afterwards(self, torch):
        leaf = torch.ones(3, requires_grad=True)
        y = (leaf**2).sum()
        with unchanged(leaf):
            leaf.data *= 5
        y.backward()
        assert leaf.grad.tolist() == [2, 2, 2]

    def test_modules(self, torch):
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout())
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with unchanged(module):
            module(torch.rand(5, 3)).sum().backward()
            module.eval()
        assert module.training
        assert all(p.grad is None for p in module.parameters())
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name])

    def test_one_number_that_stands_for_many(self, torch):
        x = torch.tensor([0.3]).expand(2)
        with unchanged(x):
            x.data[:1] = 5
        assert x.tolist() == pytest.approx([0.3, 0.3])


def test_classes_modules_functions_files_and_locks_are_left_alone(tmp_path):
    def f():
        return None

    class Counted:
        count = 0

    with (tmp_path / "log").open("w") as file:
        thing = Plain(f=f, cls=Counted, module=np, file=file, lock=threading.Lock(), counted=Counted())
        with unchanged(thing):
            Counted.count += 1
            f.calls = 1
            file.write("x")
            thing.lock.acquire()
    assert Counted.count == f.calls == 1
    assert thing.lock.locked()
    assert not_restorable(thing) == []


def test_what_cannot_be_put_back_is_named():
    net = Network([Affine(np.ones((3, 2))), Relu()])
    assert not_restorable(net, np.dtype("float32"), random.Random(1), np.random.default_rng(1), 1.5, "a") == []
    assert not_restorable(Plain(numbers=iter([1, 2]))) == ["list_iterator"]
    assert not_restorable([(n for n in range(3))]) == ["generator"]


def test_only_what_is_reachable_is_touched():
    inside, outside = np.ones(2), np.ones(2)
    with unchanged([inside]):
        inside += 1
        outside += 1
    assert (inside.tolist(), outside.tolist()) == ([1, 1], [2, 2])
