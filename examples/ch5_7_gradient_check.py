"""A gradient check as a map: where backpropagation and numerical gradients disagree (book, 5.7.3).

Each tile is a hidden unit, each dot one of its 784 weights. Left, backpropagation is right, and both agree to many
digits everywhere. Right, the gradient of one single weight has the wrong sign. The mean difference over all weights is
still tiny, but the map shows the place, and ``check_gradients`` names it. check_gradients.py plants other mistakes.
"""

# %%
from show_or_save import command_line, show_or_save

from xpnet import Affine, Network, Sigmoid, TwoLayerNet, check_gradients, get_backend, load_mnist, plotting, to_numpy

options = command_line(__doc__)
backend = get_backend()

# %% A network that is right
right = TwoLayerNet(784, 10, 10, activation="sigmoid", weight_init_std=0.1)

# %% The same network with a mistake: the gradient of weight (406, 3) has the wrong sign
signs = to_numpy(right.params["W1"]) * 0 + 1
signs[406, 3] = -1
signs = backend.asarray(signs)


class CarelessAffine(Affine):
    """An affine layer whose backward is wrong for one weight."""

    def backward_parameters(self, dout):
        """Keep dW and db, one entry of dW with the wrong sign."""
        super().backward_parameters(dout)
        self.dW = self.dW * signs


W1, b1, W2, b2 = right.params.values()
careless = Network([CarelessAffine(W1, b1), Sigmoid(), Affine(W2, b2)])

# %% One batch, both gradients of both networks
_, (x_test, t_test) = load_mnist()
x, t = x_test[:100, ...], t_test[:100]
figure, axes = plotting.subplots(1, 2, figsize=(9, 2.6))
for ax, name, network in ((axes[0], "right", right), (axes[1], "one wrong sign", careless)):
    backprop = to_numpy(network.gradient(x, t)["W1"])
    numerical = to_numpy(network.numerical_gradient(x, t)["W1"])
    print(f"{name}: mean absolute difference {abs(backprop - numerical).mean():.1e}")
    plotting.gradient_map(backprop, numerical, ax, shape=(28, 28), columns=5)
    ax.set_title(f"{name}: {ax.get_title()}", fontsize=10)
show_or_save(figure, "ch5_7_gradient_check", options)

# %% What the check says about each
print(check_gradients(right, x, t))
print(check_gradients(careless, x, t))
