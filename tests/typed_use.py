"""What people write, for the type checker alone: arrays of any library, layers of their own, results by name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import xpnet
from xpnet import (
    Affine,
    BatchNormalization,
    Dropout,
    EpochRecord,
    GradientCheck,
    Network,
    Relu,
    SimpleNet,
    TwoLayerNet,
    check_gradients,
    cross_entropy_error,
    get_backend,
    gradient_descent,
    load_mnist,
    load_training,
    numerical_diff,
    numerical_gradient,
    save_training,
    to_numpy,
    train,
)


class Scale:
    """A layer of one's own, with no base class."""

    parameters = ("a",)

    def __init__(self, a: np.ndarray) -> None:
        self.a = a

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return self.a * x

    def backward(self, dout: np.ndarray) -> np.ndarray:
        self.da = (dout * self.x).sum(axis=0)
        return self.a * dout


class LeakyRelu(Relu):
    """A layer that inherits."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return np.maximum(x, 0.01 * x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        return np.where(self.x > 0, dout, 0.01 * dout)


class OneInput(Network):
    """A network whose predict is its own."""

    def predict(self, x: np.ndarray, train_flg: bool = False) -> np.ndarray:
        scores: np.ndarray = super().predict(2 * x, train_flg)
        return scores


def functions_and_losses(x: np.ndarray, t: np.ndarray) -> float:
    y = xpnet.softmax(xpnet.relu(x) + xpnet.sigmoid(x))
    y[0] = 0.5
    loss: float = float(cross_entropy_error(y, t))
    return loss + float(xpnet.mean_squared_error(y, xpnet.one_hot(t, 10, dtype=np.float32), mean=True))


def derivatives(x: np.ndarray) -> np.ndarray:
    slope = numerical_diff(lambda x: x**2, 3.0) + numerical_diff(np.sin, x, h=1e-4, method="forward").sum()
    with ProcessPoolExecutor() as pool:
        gradient = numerical_gradient(np.sum, x, map=pool.map)
    point, path = gradient_descent(lambda x: np.sum(x**2), x, lr=0.1, step_num=20, return_path=True)
    tangent = xpnet.tangent_line(lambda x: x**2, 3.0)
    return slope * gradient + point + path[-1] + tangent(4.0)


def networks() -> list[Network]:
    layers = [Affine(np.ones((3, 4)), np.zeros(4)), LeakyRelu(), Scale(np.ones(4)), Dropout(0.5, rng=1)]
    own = Network([*layers, BatchNormalization(np.ones(4), np.zeros(4))], last_layer=xpnet.IdentityWithLoss())
    own.params["W1"] -= 0.1 * own.gradient(np.ones((2, 3)), np.ones((2, 4)))["W1"]
    simple = SimpleNet(rng=np.random.default_rng(0))
    simple.W = np.ones((2, 3))
    two = [TwoLayerNet(784, 50, 10, activation=name, dtype="float32") for name in ("relu", "sigmoid")]
    return [own, simple, OneInput([Affine(np.ones((3, 4)))]), *two]


def whole_training(folder: Path) -> Iterator[EpochRecord]:
    backend = get_backend("numpy")
    print(backend.describe(), backend.asarray([1.0, 2.0], "float32"))
    (x_train, t_train), (x_test, t_test) = load_mnist(one_hot_label=True, folder=folder, backend=backend)
    network, records = TwoLayerNet(784, 50, 10, rng=0, backend=backend), []
    for record in train(network, x_train, t_train, x_test, t_test, epochs=3, learning_rate=0.1, rng=0):
        records.append(record)
        save_training(network, records, folder / "training.npz", settings={"seed": 0})
        print(f"{record.loss:.4f} {record.train_accuracy:.4f} {len(record.losses)}")
    state = load_training(folder / "training.npz")
    state.restore(network)
    print(to_numpy(network.predict(x_test)).argmax(axis=1), state.records[-1].epoch, state.settings["seed"])
    yield from train(network, x_train, t_train, iterations=100, resume=state.records[-1])


def checks(network: Network, x: np.ndarray, t: np.ndarray) -> GradientCheck:
    check = check_gradients(network, x, t, tolerance=1e-5)
    for parameter in check.parameters:
        print(parameter.name, parameter.failed, parameter.largest.error if parameter.largest else None)
    if not check:
        print(check.problems, check.verdicts["W1"] == "fail", check.to_dict()["passed"])
    return check_gradients(lambda x: np.sum(x**2), x, gradient=lambda x: 2 * x)
