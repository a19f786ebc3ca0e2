"""Learning curves (book, 5.7.4)
=============================

The book's training run on MNIST: 784-50-10, 10,000 batches of 100 images.

Stop it with Ctrl-C after some epochs, and the picture shows those.
"""

# %%
from xpnet import TwoLayerNet, load_mnist, plotting, train
from xpnet.showing import command_line, progress, show_or_save

options = command_line(__doc__)
iterations = 3 if options.quick else 10_000

# %%
(x_train, t_train), (x_test, t_test) = load_mnist()
network = TwoLayerNet(784, 50, 10, dtype="float32")
records = []
with progress(iterations) as bar:
    try:
        for record in train(network, x_train, t_train, x_test, t_test, iterations=iterations, on_iteration=bar.update):
            records.append(record)
    except KeyboardInterrupt:
        if not records:
            raise
print(f"after {records[-1].iteration} iterations: test accuracy {records[-1].test_accuracy:.4f}")

# %%
# Training and test accuracy stay close: the network has not learned its images by heart
left, right = plotting.learning_curves(records)
show_or_save(left.figure, "ch5_7_learning_curves", options)
