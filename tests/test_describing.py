"""What objects say of themselves: shapes, dtype, device and number of parameters, on every library, never a value."""

import numpy as np
import pytest

import xpnet
from xpnet import (
    AddLayer,
    Affine,
    BatchNormalization,
    Dropout,
    MulLayer,
    Network,
    Relu,
    SimpleNet,
    SoftmaxWithLoss,
    TimeSoftmaxWithLoss,
    TwoLayerNet,
)
from xpnet.describing import in_short, record_in_words


class Broken:
    def __repr__(self):
        raise RuntimeError("no words")


class Nothing:
    """An array that no one may look at: it has a shape, a dtype and a device, and its values are not there yet."""

    shape, ndim, device = (784, 50), 2, "cuda:1"
    dtype = np.dtype("float32")

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for")


def affine(rows, columns, dtype="float64"):
    return Affine(np.ones((rows, columns), dtype=dtype), np.zeros(columns, dtype=dtype))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (affine(784, 50, "float32"), "Affine(784, 50, float32 on cpu, 39,250 parameters)"),
        (Affine(np.ones((1, 1))), "Affine(1, 1, float64 on cpu, 1 parameter)"),
        (Relu(), "Relu()"),
        (MulLayer(), "MulLayer()"),
        (AddLayer(), "AddLayer()"),
        (SoftmaxWithLoss(), "SoftmaxWithLoss()"),
        (Dropout(0.3, rng=1), "Dropout(dropout_ratio=0.3)"),
        (TimeSoftmaxWithLoss(), "TimeSoftmaxWithLoss(ignore_label=-1)"),
        (
            BatchNormalization(np.ones(4), np.zeros(4)),
            "BatchNormalization(4, momentum=0.9, epsilon=1e-06, float64 on cpu, 8 parameters)",
        ),
    ],
)
def test_a_layer_says_its_sizes_settings_and_parameters(layer, expected):
    assert repr(layer) == expected


def test_a_layer_of_your_own_says_what_ours_would():
    class Scaled(Relu):
        parameters = ("scale",)

        def __init__(self, scale, floor=0.5):
            self.scale, self.floor = scale, floor

    class Wider(Affine):
        pass

    assert repr(Scaled(np.ones(3))) == "Scaled(3, floor=0.5, float64 on cpu, 3 parameters)"
    assert repr(Wider(np.ones((2, 3)))) == "Wider(2, 3, float64 on cpu, 6 parameters)"


def test_a_layer_that_is_not_whole_yet_is_shown_as_python_shows_it():
    class Late(Affine):
        parameters = ("W",)

        def __init__(self):
            self.shown = repr(self)  # before there is a W

    assert "Late object at 0x" in Late().shown


def test_no_value_is_looked_at_and_the_device_is_named():
    layer = Affine.__new__(Affine)
    layer.W, layer.b, layer.parameters = Nothing(), None, ("W",)
    assert repr(layer) == "Affine(784, 50, float32 on cuda:1, 39,200 parameters)"


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array_api_strict"])
def test_a_network_shows_its_layers_and_the_names_of_their_parameters(name):
    if reason := xpnet.why_unusable(name):
        pytest.skip(reason)
    network = TwoLayerNet(784, 50, 10, dtype="float32", backend=name)
    assert repr(network) == (
        "TwoLayerNet(float32 on cpu, 39,760 parameters)\n"
        "  Affine1          W1 (784, 50), b1 (50,)\n"
        "  Relu1\n"
        "  Affine2          W2 (50, 10), b2 (10,)\n"
        "  SoftmaxWithLoss"
    )
    assert repr(network.params) == (
        "Parameters(W1 (784, 50), b1 (50,), W2 (50, 10), b2 (10,), float32 on cpu, 39,760 parameters)"
    )


def test_layers_within_layers_have_lines_of_their_own():
    class Block(Relu):
        def __init__(self):
            self.layers = [affine(3, 3), Relu()]

    lines = repr(Network([Block(), affine(3, 2)])).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        *("Block1", "Block1.Affine1", "Block1.Relu1", "Affine1", "SoftmaxWithLoss"),
    ]
    assert "Block1.W1 (3, 3)" in lines[2]


def test_what_learns_nothing_says_so():
    network = Network([Relu()])
    assert repr(network) == "Network(no parameters)\n  Relu1\n  SoftmaxWithLoss"
    assert repr(network.params) == "Parameters(no parameters)"


def test_a_notebook_shows_a_network_as_a_small_table():
    shown = SimpleNet(np.ones((2, 3)))._repr_html_()
    assert "SimpleNet, float64 on cpu, 6 parameters" in shown
    assert "<td>Affine1</td><td>W1 (2, 3)</td><td>6</td>" in shown


def test_names_of_classes_are_no_tags_in_a_notebook():
    network = Network([type("<b>", (Relu,), {})()])
    assert "<b>" not in network._repr_html_()


def test_a_network_that_is_not_whole_is_shown_as_python_shows_it():
    class Forgetful(Network):
        def __init__(self):
            pass

    assert "Forgetful object at 0x" in repr(Forgetful())
    assert Forgetful()._repr_html_() is None


def test_a_change_of_the_loss_does_not_print_its_gradient():
    network = SimpleNet(np.ones((2, 3)))
    changes = network.loss_changes(np.ones((1, 2)), np.asarray([0]))
    assert "gradient=<float64 (2, 3)>" in repr(changes["W1"])


def test_a_record_of_an_epoch_does_not_print_its_losses_and_a_file_not_its_arrays(tmp_path):
    network = SimpleNet(np.ones((2, 3)))
    records = list(xpnet.train(network, np.ones((600, 2)), np.zeros(600, dtype=int), epochs=1, batch_size=1))
    shown = repr(records[0])
    assert shown.startswith("EpochRecord(epoch=1, iteration=600, loss=")
    assert "test_accuracy=None, losses=<float64 (600,)>" in shown
    assert len(shown) < 500
    xpnet.save_training(network, records, tmp_path / "file.npz")
    assert "parameters={'W1': <float64 (2, 3)>}" in repr(xpnet.load_training(tmp_path / "file.npz"))


def test_a_record_that_cannot_be_shown_is_shown_as_python_shows_it():
    change = xpnet.differences.Change(Broken(), 0.1, "loop")
    assert "Change object at 0x" in record_in_words(change)


def test_a_broken_repr_breaks_no_message():
    with pytest.raises(TypeError, match=r"Broken object at 0x.* is no layer"):
        Network([Broken()])
    with pytest.raises(TypeError, match=r"network is <.*Broken object at 0x"):
        xpnet.check_gradients(Broken(), np.ones(3), np.ones(3))


def test_a_long_repr_is_one_short_line_in_a_message():
    assert len(in_short("x" * 1000)) == 60
    assert in_short(SimpleNet(np.ones((2, 3)))) == "SimpleNet(float64 on cpu, 6 parameters)"
