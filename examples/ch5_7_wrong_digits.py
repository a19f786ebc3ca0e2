"""The digits it still gets wrong (after chapter 5)
================================================

The mistakes of a trained network, beside the first images of the test set.
"""

# %%
import numpy as np

from xpnet import TwoLayerNet, load_mnist, plotting, to_numpy, train
from xpnet.showing import command_line, progress, show_or_save

options = command_line(__doc__)
iterations = 3 if options.quick else 3000

# %%
(x_train, t_train), (x_test, t_test) = load_mnist()
network = TwoLayerNet(784, 50, 10, dtype="float32")
with progress(iterations) as bar:
    for _ in train(network, x_train, t_train, iterations=iterations, on_iteration=bar.update):
        pass

# %%
# The first 20 images, right or wrong
probabilities = to_numpy(network.probabilities(x_test))
images, labels, answers = to_numpy(x_test), to_numpy(t_test), probabilities.argmax(axis=1)
figure, ax = plotting.subplots(figsize=(8.5, 2.6))
plotting.images(images[:20], labels[:20], answers[:20], ax)
ax.set_title("the first 20 test images")
show_or_save(figure, "ch5_7_digits", options)

# %%
# The 30 mistakes of which the network is most sure
wrong = np.flatnonzero(answers != labels)
worst = wrong[np.argsort(-probabilities[wrong, answers[wrong]])][:30]
print(f"{wrong.size} of {labels.size} test images are wrong")
figure, ax = plotting.subplots(figsize=(8.5, 3.9))
plotting.images(images[worst], labels[worst], answers[worst], ax)
ax.set_title(f"{wrong.size} of {labels.size:,} are wrong; the 30 it is most sure of (label → prediction)")
show_or_save(figure, "ch5_7_wrong_digits", options)
