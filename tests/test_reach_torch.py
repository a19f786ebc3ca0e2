"""Checks of PyTorch functions, modules and custom autograd functions, whose own autograd is what is checked."""

import numpy as np
import pytest
from checking import failed, problem

from xpnet import check_gradients

torch = pytest.importorskip("torch")
DTYPES = [torch.float64, torch.float32]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tensor(*shape, dtype=torch.float64, **kind):
    return torch.randn(*shape, dtype=dtype, **kind)


def custom(derivative):
    """Return a custom function of exp(x), differentiated as ``derivative(ctx, dout, y)`` says."""

    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x.exp())
            return x.exp()

        @staticmethod
        def backward(ctx, dout):
            (y,) = ctx.saved_tensors
            return derivative(dout, y)

    return Exp.apply


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_custom_function_in_one_call(dtype):
    x = tensor(4, 3, dtype=dtype)
    check = check_gradients(custom(lambda dout, y: dout * y), x)
    assert check
    assert "Exp.apply, x" in check.title
    assert not check_gradients(custom(lambda dout, y: 1.01 * dout * y), x)
    assert not check_gradients(custom(lambda dout, y: y), x)  # ignores its dout


def test_what_a_backward_gets_wrong_is_a_verdict():
    x = tensor(4, 3)
    assert failed(check_gradients(custom(lambda dout, y: -dout * y), x)) == {"x": 12}
    assert failed(check_gradients(custom(lambda dout, y: None), x)) == {"x": 12}
    assert "autograd raised RuntimeError: Function ExpBackward returned an invalid gradient" in problem(
        check_gradients(custom(lambda dout, y: (dout * y).sum(0).sum(0)[None].expand(5)), x)
    )
    assert (
        problem(check_gradients(custom(lambda dout, y: 1 / 0), x))
        == "autograd raised ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_module_and_its_parameters(dtype):
    module = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.LayerNorm(5), torch.nn.Linear(5, 2)
    ).to(dtype)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    check = check_gradients(module, tensor(4, 3, dtype=dtype))
    assert check
    names = [f"{layer}.{kind}" for layer in (0, 2, 3) for kind in ("weight", "bias")]
    assert [p.name for p in check.parameters] == ["input", *names]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_running_statistics_and_modes_are_left_alone():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    x = tensor(6, 3)
    for training in (True, False):
        module.train(training)
        before = {name: value.clone() for name, value in module.state_dict().items()}
        assert check_gradients(module, x)
        assert module.training is training
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_a_wrong_module_is_found_by_the_parameter():
    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = torch.nn.Parameter(tensor(3))
            self.beta = torch.nn.Parameter(tensor(3))

        def forward(self, x):
            return x * self.gamma.detach() + self.beta

    assert failed(check_gradients(Scale(), tensor(4, 3))) == {"gamma": 3}


def test_frozen_parameters_and_inputs_that_ask_for_it():
    module = torch.nn.Linear(3, 2).double()
    module.bias.requires_grad_(False)
    check = check_gradients(module, tensor(4, 3))
    assert check
    assert [p.name for p in check.parameters] == ["input", "weight"]
    x, t = tensor(4, 3, requires_grad=True), tensor(4, 3)
    check = check_gradients(lambda x, t: ((x - t.detach()) ** 2).mean(), x, t)
    assert check
    assert [p.name for p in check.parameters] == ["x"]
    assert "not differentiated: t" in check.title
    assert failed(check_gradients(lambda x, t: ((x - t.detach()) ** 2).mean(), x.detach(), t)) == {"t": 12}


def test_functions_of_several_tensors_integers_and_containers():
    words = torch.tensor([0, 2, 2])
    f = lambda p, words: (torch.nn.functional.embedding(words, p["W"]) @ p["V"], words)  # noqa: E731
    check = check_gradients(f, {"W": tensor(4, 3), "V": tensor(3, 2)}, words)
    assert check
    assert [p.name for p in check.parameters] == ["p.W", "p.V"]


def test_losses_and_losses_on_labels():
    labels = torch.tensor([0, 2, 1, -100])
    assert check_gradients(torch.nn.functional.cross_entropy, tensor(4, 3), labels)
    assert check_gradients(torch.nn.CrossEntropyLoss(), tensor(4, 3, dtype=torch.float32), labels)


@pytest.mark.parametrize(
    "lying",
    [
        lambda x: x.T,
        lambda x: x[:, ::2],
        lambda x: x.clone().requires_grad_(),
        lambda x: x.clone().requires_grad_() * 2,
        lambda x: x[:1].expand(4, 3),
        lambda x: torch.nn.Parameter(x),
    ],
)
def test_tensors_are_taken_as_they_come(lying):
    x = lying(tensor(4, 3))
    values, requires, version = x.detach().clone(), x.requires_grad, x._version
    assert check_gradients(custom(lambda dout, y: dout * y), x)
    assert torch.equal(x.detach(), values)
    assert (x.requires_grad, x._version) == (requires, version)
    with torch.no_grad():
        assert check_gradients(custom(lambda dout, y: dout * y), x)


def test_a_fault_that_shows_only_where_rows_are_apart():
    class Rows(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.contiguous = x.is_contiguous()
            return 2 * x

        @staticmethod
        def backward(ctx, dout):
            return 2 * dout if ctx.contiguous else 3 * dout

    assert check_gradients(Rows.apply, tensor(4, 3))
    assert failed(check_gradients(Rows.apply, tensor(3, 4).T)) == {"x": 12}


def test_what_is_random():
    x = tensor(50, 4)
    dropout = torch.nn.Dropout(0.5)
    assert "Dropout is random: two calls differ" in problem(check_gradients(dropout, x))
    assert check_gradients(dropout.eval(), x)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    f = lambda x, g: x * (torch.rand(x.shape, generator=g) > 0.5)  # noqa: E731
    assert check_gradients(f, x, generator)
    assert torch.equal(generator.get_state(), before)


def test_what_writes_into_its_input_and_what_is_no_tensor():
    x = tensor(3, 2)
    kept = x.clone()
    assert problem(check_gradients(lambda x: x.mul_(2), x)) == "f changes its x; it must leave what it is given alone"
    assert torch.equal(x, kept)
    with pytest.raises(TypeError, match=r"autograd differentiates tensors: do not call \.item"):
        check_gradients(lambda x: x.sum().item(), x)
    with pytest.raises(TypeError, match="f returned str"):
        check_gradients(lambda x: "x", x)


def test_a_graph_that_is_cut_is_a_verdict():
    assert failed(check_gradients(lambda x: torch.tensor(np.exp(x.detach().numpy())), tensor(3))) == {"x": 3}


def test_a_gradient_of_ones_own_beside_autograd():
    x = tensor(3)
    assert check_gradients(lambda x: (x**3).sum(), x, gradient=lambda x: 3 * x**2)
    assert failed(check_gradients(lambda x: (x**3).sum(), x, gradient=lambda x: x**2)) == {"x": 3}


def test_autograd_agrees_with_gradcheck_on_right_functions():
    functions = [torch.sin, torch.nn.functional.softplus, lambda x: torch.linalg.norm(x), lambda x: x.cumsum(0)]
    for f in functions:
        x = tensor(3, 4)
        assert torch.autograd.gradcheck(f, x.clone().requires_grad_())
        assert check_gradients(f, x)
