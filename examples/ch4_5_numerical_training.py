"""Learning without a derivative (book, 4.5)
=========================================

One network is trained twice, by numerical gradients and by backpropagation, and there is one curve.

Both start from the same weights and see the same batches. The numerical one moves each of 39,760 weights and biases up
and down in every iteration and looks at the loss; it knows no derivative. Right, how far the two losses are apart:
mostly they are the same number, else they differ in the last digits that float64 has. train_numerically.py does the
same for as long as you like.
"""

# %%
import numpy as np

from xpnet import TwoLayerNet, load_mnist, plotting, to_numpy, train
from xpnet.showing import command_line, progress, show_or_save

options = command_line(__doc__)
iterations = 3 if options.quick else 200

# %%
(x_train, t_train), _ = load_mnist()
losses, ends = {}, {}
with progress(2 * iterations) as bar:
    for gradient in ("numerical", "backpropagation"):
        network = TwoLayerNet(784, 50, 10, activation="sigmoid", rng=1)
        records = train(
            network,
            x_train,
            t_train,
            iterations=iterations,
            learning_rate=1.0,
            gradient=gradient,
            rng=1,
            on_iteration=bar.update,
        )
        losses[gradient] = np.concatenate([record.losses for record in records])
        ends[gradient] = to_numpy(network.params["W1"])
print(f"largest difference of a weight in W1 at the end: {abs(ends['numerical'] - ends['backpropagation']).max():.1e}")

# %%
# What parts the two losses, counted in units of the last binary digit that float64 keeps of them
units = (losses["numerical"] - losses["backpropagation"]) / np.spacing(losses["backpropagation"])
equal = units == 0
count = np.arange(1, iterations + 1)
figure, (left, right) = plotting.subplots(1, 2, figsize=(9, 3.6))
left.plot(count, losses["numerical"], color=plotting.BLUE, linewidth=4, alpha=0.5, label="numerical gradients")
left.plot(count, losses["backpropagation"], color=plotting.BLACK, linewidth=0.8, label="backpropagation")
left.set(xlabel="iteration", ylabel="loss of the batch", title="The same training, twice")
points = {"linestyle": "", "markersize": 3}
for some, what, style in ((equal, "the same number", plotting.LINES[0]), (~equal, "another one", plotting.LINES[1])):
    right.plot(count[some], units[some], **style | points, label=f"{what}: {some.sum()} of {iterations}")
reach = max(8, 1.2 * abs(units).max())
right.set(xlabel="iteration", ylabel="units of the last digit", ylim=(-reach, reach), title="Their difference")
for ax in (left, right):
    ax.legend(loc="upper right")
    ax.grid(alpha=0.3)
show_or_save(figure, "ch4_5_numerical_training", options)
