"""Train the two-layer network of chapter 5 on MNIST, in a few lines to read; train.py has options for everything."""

from xpnet import TwoLayerNet, get_backend, load_mnist, train

backend = get_backend()  # what XPNET_BACKEND names, else NumPy
print(backend.describe())

(x_train, t_train), (x_test, t_test) = load_mnist(one_hot_label=True, backend=backend)
network = TwoLayerNet(784, 50, 10, activation="relu", rng=0, dtype="float32", backend=backend)

# 16 passes through the 60,000 images in batches of 100, each followed by a record of what was reached
for record in train(network, x_train, t_train, x_test, t_test, epochs=16, batch_size=100, learning_rate=0.1):
    print(
        f"epoch {record.epoch:2d}  loss {record.loss:.4f}  "
        f"train accuracy {record.train_accuracy:.4f}  test accuracy {record.test_accuracy:.4f}"
    )

# ask the trained network about one image
scores = network.predict(x_test[0, ...])
print("the first test image is a", int(backend.xp.argmax(scores)))
