"""A gradient check as a map (book, 5.7.3)
=======================================

Where backpropagation and numerical gradients disagree.

Above, backpropagation is right: every weight lies on the diagonal, and in the map, where each tile is a hidden unit
and each dot one of its 784 weights, all are as dark as round-off. Below, the gradient of one single weight has the
wrong sign. The mean difference over all weights is still tiny, but one point leaves the diagonal, the map shows its
place, and ``check_gradients`` names it. check_gradients.py plants other mistakes.
"""

# %%
from xpnet import Affine, Network, Sigmoid, TwoLayerNet, check_gradients, get_backend, load_mnist, plotting, to_numpy
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)
backend = get_backend()

# %%
# A network that is right
right = TwoLayerNet(784, 10, 10, activation="sigmoid", weight_init_std=0.1)

# %%
# The same network with a mistake: the gradient of weight (406, 3) has the wrong sign
signs = to_numpy(right.params["W1"]) * 0 + 1
weight = (406, 3)
signs[weight] = -1
signs = backend.asarray(signs)


class CarelessAffine(Affine):
    """An affine layer whose backward is wrong for one weight."""

    def backward_parameters(self, dout):
        """Keep dW and db, one entry of dW with the wrong sign."""
        super().backward_parameters(dout)
        self.dW = self.dW * signs


W1, b1, W2, b2 = right.params.values()
careless = Network([CarelessAffine(W1, b1), Sigmoid(), Affine(W2, b2)])

# %%
# One batch, both gradients of both networks: where they agree, a weight lies on the diagonal
_, (x_test, t_test) = load_mnist()
x, t = x_test[:100, ...], t_test[:100]
figure, rows = plotting.subplots(2, 2, figsize=(9, 6), width_ratios=(1, 1.8))
for (pairs, tiles), name, network in zip(rows, ("right", "one wrong sign"), (right, careless), strict=True):
    backprop = to_numpy(network.gradient(x, t)["W1"])
    numerical = to_numpy(network.numerical_gradient(x, t)["W1"])
    print(f"{name}: mean absolute difference {abs(backprop - numerical).mean():.1e}")
    pairs.plot(1000 * numerical.ravel(), 1000 * backprop.ravel(), color=plotting.BLUE, marker=".", linestyle="")
    pairs.set(xlabel="numerical (thousandths)", ylabel="backpropagation", title=f"7,840 weights, {name}")
    pairs.grid(alpha=0.3)
    plotting.gradient_map(backprop, numerical, tiles, shape=(28, 28), columns=5)
    tiles.set_title(" ".join(tiles.get_title().split()))

# the wrong one, once more by name
place = 1000 * float(numerical[weight]), 1000 * float(backprop[weight])
pairs.plot(*place, color=plotting.VERMILION, marker="o", markersize=7)
text = {"textcoords": "offset points", "va": "center", "color": plotting.VERMILION, "weight": "bold"}
pairs.annotate(f"weight {weight}", place, (-14, 20), **text)
show_or_save(figure, "ch5_7_gradient_check", options)

# %%
# What the check says about each
print(check_gradients(right, x, t))
print(check_gradients(careless, x, t))
