"""Draw the figures of docs/numerical_gradients.md into this folder: `python docs/figures/draw.py`, half a minute."""

from pathlib import Path

import numpy as np

from xpnet import TwoLayerNet, load_mnist, plotting, to_numpy, train

FOLDER = Path(__file__).parent
(x_train, t_train), (x_test, t_test) = load_mnist()


def trained(activation):
    network = TwoLayerNet(784, 50, 10, activation=activation, weight_init_std=0.1)
    for _ in train(network, x_train, t_train, iterations=300):
        pass
    return network


def change_of_loss(network, unit):
    """Return F: by how much the loss of one image changes if a hidden unit's input moves by u."""
    x, t = x_test[8:9, ...], t_test[8:9]
    bias, here = float(network.params["b1"][unit]), float(network.loss(x, t))

    def F(u):
        network.params["b1"][unit] = bias + u
        loss = float(network.loss(x, t))
        network.params["b1"][unit] = bias
        return loss - here

    return F


def one_function_for_each_unit():
    """Where F is smooth, two measurements on either side are as good as all; where it has a kink, they are not."""
    figure, axes = plotting.subplots(1, 2, figsize=(9, 3.4))
    reach, u = 3.0, np.linspace(-3.2, 3.2, 400)
    for ax, activation, unit in ((axes[0], "sigmoid", 7), (axes[1], "relu", 7)):
        F = change_of_loss(trained(activation), unit)
        shares = [1.0, 1 / 3]
        odd = [(F(share * reach) - F(-share * reach)) / (2 * share * reach) for share in shares]
        c1 = (odd[1] - odd[0]) / (reach**2 * (shares[1] ** 2 - shares[0] ** 2))
        ax.plot(u, [(F(move) - F(-move)) / 2 for move in u], color=plotting.BLUE, label="half of F(u) − F(−u)")
        ax.plot(u, u * (odd[0] + c1 * (u**2 - reach**2)), color=plotting.VERMILION, ls="--", label="read off")
        moves = [sign * share * reach for share in shares for sign in (-1, 1)]
        ax.plot(moves, [(F(m) - F(-m)) / 2 for m in moves], color=plotting.BLACK, marker="o", ls="", label="measured")
        ax.set(xlabel="move u of one unit", ylabel="change of one image's loss", title=activation)
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(FOLDER / "one_unit.png", dpi=100, metadata={"Software": None})


def error_against_step():
    """Losses that are subtracted lose digits as 1/h; changes that are carried do not."""
    x, t = x_test[:20, ...], t_test[:20]
    figure, ax = plotting.subplots(figsize=(6.4, 4.4))
    steps = 2.0 ** -np.arange(1, 41)
    lines = iter(plotting.LINES)
    for method, name in (("loop", "the book's loop"), ("difference", "changes carried through")):
        for dtype in ("float64", "float32"):
            network = TwoLayerNet(784, 2, 10, activation="sigmoid", weight_init_std=0.1, dtype=dtype)
            exact = TwoLayerNet(784, 2, 10, activation="sigmoid", weight_init_std=0.1)
            for key, value in network.params.items():
                exact.params[key] = np.asarray(to_numpy(value), dtype="float64")
            right = exact.gradient(x, t)["W2"]
            errors, used = [], []
            for h in steps.tolist():
                try:
                    found = network.numerical_gradient(x, t, h=h, method=method)["W2"]
                except ValueError:  # h vanishes beside a weight
                    break
                errors.append(float(abs(found - right).max() / abs(right).max()))
                used.append(h)
            ax.plot(used, errors, **next(lines) | {"markersize": 3}, label=f"{name}, {dtype}")
    ax.set(xscale="log", yscale="log", ylim=(1e-17, 1e6), xlabel="step h", ylabel="largest error / largest entry")
    ax.set_title("The gradient of W2, against backpropagation in float64")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left", ncols=2)
    figure.savefig(FOLDER / "error_against_step.png", dpi=100, metadata={"Software": None})


one_function_for_each_unit()
error_against_step()
