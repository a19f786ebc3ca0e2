"""Gradient checks of single layers."""

import numpy as np
import pytest
from array_api_compat import array_namespace
from checking import failures, of

from xpnet import Affine, IdentityWithLoss, Relu, Sigmoid, Softmax, SoftmaxWithLoss, check_gradients


class Bent:
    """A user's layer: sin(x @ V) + c·x, with parameters and a gradient by the input."""

    parameters = ("V", "c")

    def __init__(self, V, c):
        self.V, self.c = V, c

    def forward(self, x):
        self.x = x
        return array_namespace(x).sin(x @ self.V) + self.c * x

    def backward(self, dout):
        xp = array_namespace(dout)
        inner = dout * xp.cos(self.x @ self.V)
        self.dV = self.x.T @ inner
        self.dc = xp.sum(dout * self.x, axis=0)
        return inner @ self.V.T + dout * self.c


def bent(asarray=np.asarray):
    rng = np.random.default_rng(0)
    return Bent(asarray(rng.normal(size=(3, 3))), asarray(rng.normal(size=3))), asarray(rng.normal(size=(4, 3)))


class TestSingleLayers:
    def test_right_ones_pass_on_every_backend(self, case):
        layer, x = bent(case.asarray)
        check = check_gradients(layer, x)
        assert check
        assert [(p.name, p.shape) for p in check.parameters] == [("x", (4, 3)), ("V", (3, 3)), ("c", (3,))]
        assert check.title.startswith(f"Bent, x (4, 3), {case.dtype}, plain loop, h = 2^-")

    @pytest.mark.parametrize("layer", [Relu(), Sigmoid(), Softmax(), Affine(np.eye(3, 2), np.ones(2))])
    def test_ours_pass(self, layer):
        assert check_gradients(layer, bent()[1])

    @pytest.mark.parametrize("last", [SoftmaxWithLoss(), IdentityWithLoss()])
    @pytest.mark.parametrize("t", [np.asarray([0, 2, 1, 1]), np.linspace(0, 1, 12).reshape(4, 3)])
    def test_output_layers_pass(self, last, t):
        check = check_gradients(last, bent()[1], t)
        assert check
        assert [p.name for p in check.parameters] == ["x"]

    @pytest.mark.parametrize("name", ["V", "c", "x"])
    def test_a_wrong_entry_is_named(self, name):
        layer, x = bent()
        right = layer.backward

        def backward(dout):
            dx = right(dout)
            where = {"V": (1, 2), "c": (2,), "x": (3, 0)}[name]
            (dx if name == "x" else getattr(layer, f"d{name}"))[where] *= 1.01
            return dx

        layer.backward = backward
        check = check_gradients(layer, x)
        assert failures(check) == {name: 1}
        assert of(check, name).hint == "the ratio is 1.01"

    def test_the_batch_size_is_named(self):
        layer, x = bent()
        right = layer.backward

        def backward(dout):
            dx = right(dout)
            layer.dV, layer.dc = layer.dV / 4, 4 * layer.dc
            return dx

        layer.backward = backward
        check = check_gradients(layer, x)
        assert of(check, "V").hint == "every ratio is 0.25, 1/N: divided by N twice?"
        assert of(check, "c").hint == "every ratio is 4, the batch size: a missing 1/N?"

    def test_a_single_sample_has_no_batch_size(self):
        class Tripled(Sigmoid):
            def backward(self, dout):
                return 3 * super().backward(dout)

        assert of(check_gradients(Tripled(), np.linspace(-1, 1, 3)), "x").hint == "every ratio is 3"

    def test_a_gradient_that_is_missing_is_named(self):
        class Forgetful(Bent):
            def backward(self, dout):
                dx = super().backward(dout)
                del self.dV
                return dx

        layer, x = bent()
        check = check_gradients(Forgetful(layer.V, layer.c), x)
        assert check.problems == ["backpropagation gives no gradient for V: forgotten?"]

    def test_attributes_of_its_own_named_x_and_dx(self):
        class Shift:
            """Its x is no input and its dx is no gradient."""

            x, dx = 3.0, 5.0

            def forward(self, x):
                self.y = x + self.x
                return self.y**2

            def backward(self, dout):
                return 2 * dout * self.y

        layer = Shift()
        assert check_gradients(layer, bent()[1])
        assert (layer.x, layer.dx) == (3.0, 5.0)

    def test_the_step_is_the_one_asked_for_then_smaller_ones(self):
        """With h = 0.05 a sine is off by h²/6, 0.04 %; only smaller steps show that it is right."""
        layer, x = bent()
        largest = {"x": np.abs(x).max(), "V": np.abs(layer.V).max(), "c": np.abs(layer.c).max()}
        for p in check_gradients(layer, x).parameters:
            assert 2.0**-14 < p.h / largest[p.name] < 2.0**-12
        check = check_gradients(layer, x, h=0.05)
        assert check
        assert {p.h for p in check.parameters} == {0.05}

    def test_a_mistake_beside_outputs_a_billion_times_larger(self):
        """Outputs are subtracted before they are summed, so that those which do not move hide nothing."""
        x = bent()[1]
        x[:, 0] *= 1e-5
        layer = Affine(np.eye(3, 2), np.ones(2))
        right = layer.backward

        def backward(dout):
            dx = right(dout)
            layer.dW = layer.dW + 1e-9 * (np.arange(6) == 1).reshape(3, 2)
            return dx

        layer.backward = backward
        assert failures(check_gradients(layer, x, h=2.0**-3)) == {"W": 1}
        assert failures(check_gradients(layer, x)) == {"W": 1}

    def test_dout_ignored(self):
        class Deaf(IdentityWithLoss):
            def backward(self, dout=1.0):
                return super().backward(1.0)

        check = check_gradients(Deaf(), bent()[1], np.asarray([0, 2, 1, 1]))
        assert check.problems == ["half of dout gives the same gradient for x: a backward ignores its dout"]

    @pytest.mark.parametrize("calls", [2, 4, 5, 20, 35, 50])
    def test_parameters_are_restored_when_forward_raises(self, calls):
        """But for the first call, which finds out what the layer takes, and the third, at values of the check's own."""
        layer, x = bent()
        V, c, kept = layer.V, layer.c, (layer.V.copy(), layer.c.copy(), x.copy())
        right, count = layer.forward, iter(range(1, 10**6))

        def forward(x):
            if next(count) == calls:
                raise RuntimeError("half-way")
            return right(x)

        layer.forward = forward
        with pytest.raises(RuntimeError, match="half-way"):
            check_gradients(layer, x)
        assert layer.V is V
        assert layer.c is c
        for now, before in zip((V, c, x), kept, strict=True):
            assert now.tobytes() == before.tobytes()
