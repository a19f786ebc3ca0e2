"""Train one network twice, by numerical gradients and by backpropagation, and see one curve (book, 4.5 and 5.7).

Both start from the same weights and see the same batches. The numerical one moves each of 39,760 weights and biases up
and down in every iteration and looks at the loss; it knows no derivative. What parts the two is the error of a central
difference. train_numerically.py does the same for as long as you like.
"""

# %%
import numpy as np
from show_or_save import command_line, progress, show_or_save

from xpnet import TwoLayerNet, load_mnist, plotting, to_numpy, train

options = command_line(__doc__)
iterations = 3 if options.quick else 200

# %%
(x_train, t_train), _ = load_mnist()
losses, ends = {}, {}
with progress(2 * iterations) as bar:
    for gradient in ("numerical", "backpropagation"):
        network = TwoLayerNet(784, 50, 10, activation="sigmoid", rng=1)
        records = train(
            network, x_train, t_train,
            iterations=iterations, learning_rate=1.0, gradient=gradient, rng=1, on_iteration=bar.update,
        )
        losses[gradient] = np.concatenate([record.losses for record in records])
        ends[gradient] = to_numpy(network.params["W1"])
print(f"largest difference of a weight in W1 at the end: {abs(ends['numerical'] - ends['backpropagation']).max():.1e}")

# %%
apart = abs(losses["numerical"] - losses["backpropagation"])
count = range(1, iterations + 1)
figure, (left, right) = plotting.subplots(1, 2, figsize=(9, 3.6))
left.plot(count, losses["numerical"], color=plotting.BLUE, linewidth=4, alpha=0.5, label="numerical gradients")
left.plot(count, losses["backpropagation"], color=plotting.BLACK, linewidth=0.8, label="backpropagation")
left.set(xlabel="iteration", ylabel="loss of the batch", title="The same training, twice")
left.legend()
right.plot(count, np.where(apart > 0, apart, np.nan), color=plotting.VERMILION, marker=".", linestyle="")
right.set(xlabel="iteration", ylabel="difference of the two losses", yscale="log", title="How far the two part")
for ax in (left, right):
    ax.grid(alpha=0.3)
show_or_save(figure, "ch4_5_numerical_training", options)
