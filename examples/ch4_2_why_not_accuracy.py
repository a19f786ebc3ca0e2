"""Why accuracy cannot be the loss (book, 4.2.5)
=============================================

Against one weight the accuracy is flat almost everywhere.

A network that has seen a little of MNIST looks at 100 test images. One of its weights is moved, all else stays as it
is. The loss answers every move, so its slope says where to go. The accuracy stays the same, then jumps by a whole
image: its slope is 0, which says nothing.
"""

# %%
import numpy as np

from xpnet import TwoLayerNet, get_backend, load_mnist, numerical_diff, plotting, to_numpy, train
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)

# %%
# A network that is neither ignorant nor finished
(x_train, t_train), (x_test, t_test) = load_mnist()
network = TwoLayerNet(784, 50, 10)
for _ in train(network, x_train, t_train, iterations=3 if options.quick else 300):
    pass
x, t = x_test[:100, ...], t_test[:100]

# %%
# Loss and accuracy as functions of one weight: from hidden unit 0 to the score of the digit 4
unit, digit = 0, 4
trained = to_numpy(network.params["W2"]).copy()


def measured(measure):
    def f(weight):
        W2 = trained.copy()
        W2[unit, digit] = weight
        network.params["W2"] = get_backend().asarray(W2)
        return float(measure(x, t))

    return f


loss, accuracy = measured(network.loss), measured(network.accuracy)
here = float(trained[unit, digit])
places = np.linspace(here - 3, here + 3, 61 if options.quick else 601).tolist()

# %%
figure, axes = plotting.subplots(2, 1, figsize=(6.4, 5), sharex=True)
for ax, f, name, style in (
    (axes[0], loss, "loss", {"color": plotting.BLUE}),
    (axes[1], lambda weight: 100 * accuracy(weight), "accuracy (%)", {"color": plotting.VERMILION, "ds": "steps-mid"}),
):
    ax.plot(places, [f(weight) for weight in places], **style)
    slope = numerical_diff(f, here)
    ax.plot([here], [f(here)], color=plotting.BLACK, marker="o", linestyle="", label=f"now: slope {slope:.3g}")
    ax.set(ylabel=name)
    ax.grid(alpha=0.3)
    ax.legend()
axes[0].set_title("100 test images, one weight of W2 moved")
axes[1].set_xlabel(f"the weight from hidden unit {unit} to the score of the digit {digit}")
show_or_save(figure, "ch4_2_why_not_accuracy", options)
