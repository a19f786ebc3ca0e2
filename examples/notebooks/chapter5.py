# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Chapter 5: the same gradients, backward
#
# After *Deep Learning from Scratch*, chapter 5. Run the cells from top to bottom. Where a cell says **exercise**,
# write your answer and run it together with the cell below it: `check_gradients` compares what you wrote with
# numerical gradients, and says what is wrong. Answers are at the end.
#
# This needs xpnet with matplotlib: `pip install '.[plot]'` in its repository. In Colab, upload a wheel of it, made by
# `pip wheel --no-deps .`, and run `%pip install xpnet-0.1.0-py3-none-any.whl matplotlib` in a cell of its own first;
# for a GPU, choose one under *Runtime*, and change the line that begins with `BACKEND`.
#
# All cells together take half a minute. If a training takes minutes, another program uses the processor's cores, and
# threads wait for each other: restart the kernel and run `%env OMP_NUM_THREADS=1` before anything else.

# %%
import numpy as np
from tqdm.auto import tqdm

from xpnet import (
    AddLayer,
    Affine,
    MulLayer,
    Network,
    Relu,
    TwoLayerNet,
    check_gradients,
    get_backend,
    load_mnist,
    plotting,
    to_numpy,
    train,
)

BACKEND = "numpy"  # on an NVIDIA GPU: "cupy"
backend = get_backend(BACKEND)
print(backend.describe())
rng = np.random.default_rng(0)

# %% [markdown]
# ## Apples and oranges (5.1 to 5.4)
#
# A graph computes a price forward, and the derivative of the price with respect to everything backward. A
# multiplication passes back what came, times the *other* input; an addition passes it on.

# %%
apple_layer, tax_layer = MulLayer(), MulLayer()
apple_cost = apple_layer.forward(100, 2)
price = tax_layer.forward(apple_cost, 1.1)
dapple_cost, dtax = tax_layer.backward(1)
dapple, dapples = apple_layer.backward(dapple_cost)
print(f"price {price:g}; one apple more costs {dapples:g}, a price of 1 more for an apple {dapple:g}")

# %% [markdown]
# **Exercise 1.** Three oranges at 150 come into the same bag. By how much does the price rise with one orange more?
# Fill in what is missing, with two `MulLayer` and one `AddLayer` beside those above.

# %%
my_price, my_doranges = None, None

# %%
if my_price is None:
    print("exercise 1: not answered yet")
else:
    print("exercise 1:", "right" if np.allclose((my_price, my_doranges), (715, 165)) else "not yet")

# %% [markdown]
# ## A layer (5.5)
#
# A layer keeps in `forward` what its `backward` needs. `backward` gets ∂L/∂output and returns ∂L/∂input.
#
# **Exercise 2.** tanh is a common activation; its derivative is 1 − tanh². The `backward` below is wrong. Run the
# check, read what it says, and mend it.


# %%
class MyTanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y)


# %%
x = rng.normal(size=(5, 4))
check_gradients(MyTanh(), x)

# %% [markdown]
# ## A layer that learns (5.6)
#
# It names what it learns in `parameters`, and keeps the gradient of each beside it: `dgamma` for `gamma`.
#
# **Exercise 3.** This layer multiplies each feature by a factor of its own. A factor acts on every sample of the
# batch; what is missing in its gradient?


# %%
class MyScale:
    parameters = ("gamma",)

    def __init__(self, gamma):
        self.gamma = gamma

    def forward(self, x):
        self.x = x
        return x * self.gamma

    def backward(self, dout):
        self.dgamma = (dout * self.x)[0]
        return dout * self.gamma


# %%
check_gradients(MyScale(rng.normal(size=4)), x)

# %% [markdown]
# ## A network, checked (5.7)
#
# `TwoLayerNet` is a row of layers: Affine, ReLU, Affine, and softmax with cross entropy at the end. Its 39,760
# gradients by backpropagation are compared with numerical ones, every entry:

# %%
(x_train, t_train), (x_test, t_test) = load_mnist(backend=backend)
network = TwoLayerNet(784, 50, 10, backend=backend)
check_gradients(network, x_test[:100, ...], t_test[:100])

# %% [markdown]
# An entry at a *kink* is no mistake: there the loss bends within the step, as where a ReLU switches, and
# backpropagation gives one of the two slopes.
#
# **Exercise 4.** Build a network of three affine layers, 784-30-20-10, with ReLU between them, and check it.
# `Affine(W, b)` takes the arrays themselves; start the weights with standard deviation 0.1.

# %%
my_network = None

# %%
if my_network is None:
    print("exercise 4: not answered yet")
else:
    shapes = [tuple(value.shape) for value in my_network.params.values()]
    print("shapes", "right" if shapes == [(784, 30), (30,), (30, 20), (20,), (20, 10), (10,)] else f"not yet: {shapes}")
    print(check_gradients(my_network, x_test[:20, ...], t_test[:20]))

# %% [markdown]
# ## Learning (5.7.4)
#
# `train` is a loop over epochs: nothing happens until it is read.

# %%
network = TwoLayerNet(784, 50, 10, dtype="float32", backend=backend)
iterations, records = 1800, []
with tqdm(total=iterations) as bar:
    for record in train(network, x_train, t_train, x_test, t_test, iterations=iterations, on_iteration=bar.update):
        records.append(record)
        bar.set_postfix(test=f"{100 * record.test_accuracy:.1f} %")
axes = plotting.learning_curves(records)
# %% [markdown]
# The images that it gets wrong:

# %%
answers, labels = to_numpy(network.predict(x_test)).argmax(axis=1), to_numpy(t_test)
wrong = np.flatnonzero(answers != labels)
print(f"{wrong.size} of {labels.size} are wrong")
ax = plotting.images(to_numpy(x_test)[wrong[:20]], labels[wrong[:20]], answers[wrong[:20]])
# %% [markdown]
# **Exercise 5.** Make it better: at least 96.5 % of the test images after 1,800 batches of 100. A larger learning
# rate, or more hidden units?

# %%
my_settings = {"hidden": 50, "learning_rate": 0.1}


# %%
def accuracy_of(hidden, learning_rate):
    network = TwoLayerNet(784, hidden, 10, dtype="float32", backend=backend)
    *_, record = train(network, x_train, t_train, x_test, t_test, iterations=1800, learning_rate=learning_rate)
    print(f"hidden {hidden}, learning rate {learning_rate:g}: {100 * record.test_accuracy:.2f} %")
    return record.test_accuracy


print("exercise 5:", "right" if accuracy_of(**my_settings) >= 0.965 else "not yet")

# %% [markdown]
# ## Answers

# %%
apple_layer, orange_layer, sum_layer, tax_layer = MulLayer(), MulLayer(), AddLayer(), MulLayer()
cost = sum_layer.forward(apple_layer.forward(100, 2), orange_layer.forward(150, 3))
price = tax_layer.forward(cost, 1.1)
dcost, dtax = tax_layer.backward(1)
dapple_cost, dorange_cost = sum_layer.backward(dcost)
dorange, doranges = orange_layer.backward(dorange_cost)
assert np.allclose((price, doranges), (715, 165))


class AnswerTanh(MyTanh):
    def backward(self, dout):
        return dout * (1 - self.y**2)


class AnswerScale(MyScale):
    def backward(self, dout):
        self.dgamma = (dout * self.x).sum(axis=0)
        return dout * self.gamma


def affine(rows, columns):
    return Affine(backend.asarray(0.1 * rng.normal(size=(rows, columns))), backend.asarray(np.zeros(columns)))


answer = Network([affine(784, 30), Relu(), affine(30, 20), Relu(), affine(20, 10)])

assert check_gradients(AnswerTanh(), x)
assert check_gradients(AnswerScale(rng.normal(size=4)), x)
assert check_gradients(answer, x_test[:20, ...], t_test[:20])
assert accuracy_of(hidden=100, learning_rate=0.5) >= 0.965
