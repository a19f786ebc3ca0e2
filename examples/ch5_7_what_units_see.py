"""What hidden units see (after chapter 5)
=======================================

Each unit's 784 weights as an image, before and after training.

A unit whose image is still noise had hardly any influence on the scores, so hardly any gradient came back to it.
"""

# %%
from xpnet import TwoLayerNet, load_mnist, plotting, to_numpy, train
from xpnet.showing import command_line, progress, show_or_save

options = command_line(__doc__)
iterations = 3 if options.quick else 3000

# %%
(x_train, t_train), _ = load_mnist()
network = TwoLayerNet(784, 50, 10, dtype="float32")
before = to_numpy(network.params["W1"]).copy()
with progress(iterations) as bar:
    for _ in train(network, x_train, t_train, iterations=iterations, on_iteration=bar.update):
        pass
after = to_numpy(network.params["W1"])

# %%
# Bright pixels speak for the unit, dark ones against it. The border is never written on, so it never learns.
figure, axes = plotting.subplots(2, 1, figsize=(8, 3.5), height_ratios=(1, 2))
plotting.weights(before[:, :10], axes[0])
axes[0].set_title("10 hidden units before training: noise")
plotting.weights(after[:, :20], axes[1])
axes[1].set_title(f"the same 10, and 10 more, after {iterations:,} iterations: strokes")
show_or_save(figure, "ch5_7_what_units_see", options)
