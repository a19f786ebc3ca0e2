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
# # Chapter 4: what to minimize, and which way is down
#
# After *Deep Learning from Scratch*, chapter 4. Run the cells from top to bottom. Where a cell says **exercise**,
# write your answer and run it together with the cell below it: the library checks what you wrote. Answers are at the
# end.
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
    TwoLayerNet,
    cross_entropy_error,
    get_backend,
    gradient_descent,
    load_mnist,
    numerical_diff,
    numerical_gradient,
    plotting,
    sum_squared_error,
    to_numpy,
    train,
)

BACKEND = "numpy"  # on an NVIDIA GPU: "cupy"
backend = get_backend(BACKEND)
print(backend.describe())


def verdict(what, problem):
    """Say whether an answer is right, and what is wrong with it if not."""
    print(f"{what}: {'right' if problem is None else 'not yet: ' + problem}")


# %% [markdown]
# ## What a wrong answer costs (4.2)
#
# A network gives each of ten classes a probability. How bad is an answer? The cross entropy is −log of the
# probability of the true class.

# %%
t = np.zeros(10)
t[2] = 1.0
good = np.asarray([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
bad = np.asarray([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0])
for y in (good, bad):
    print(f"squared error {float(sum_squared_error(y, t)):.4f}, cross entropy {float(cross_entropy_error(y, t)):.4f}")

# %% [markdown]
# **Exercise 1.** Write the cross entropy of a *batch*: `y` is (N, 10), `t` are labels (N,), the answer is one number,
# the mean over the N samples. What is here takes the sum.


# %%
def my_cross_entropy(y, t):
    return -np.sum(np.log(y[np.arange(len(t)), t]))


# %%
def check_cross_entropy(answer):
    rng = np.random.default_rng(0)
    for n in (1, 5, 100):
        y, t = rng.dirichlet(np.ones(10), size=n), rng.integers(10, size=n)
        mine, right = float(answer(y, t)), float(cross_entropy_error(y, t))
        if not np.isclose(mine, right, rtol=1e-3):
            return f"for {n} samples it is {mine:.4f}, and should be {right:.4f}"


verdict("exercise 1", check_cross_entropy(my_cross_entropy))
# %% [markdown]
# ## The slope (4.3)
#
# The central difference (f(x + h) − f(x − h)) / 2h is close to the derivative. How close depends on h, and a smaller
# one is not always better.

# %%
exact = np.exp(0.5)
for h in (1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13):
    print(f"h = {h:.0e}: the error is {abs(numerical_diff(np.exp, 0.5, h=h) - exact):.1e}")

# %%
ax = plotting.secants(np.exp, 0.5, 0.75, span=(-0.6, 1.6))
_ = ax.set_title("eˣ at 0.5, with h = 0.75")

# %% [markdown]
# **Exercise 2.** Here is what many write down first. Two things are wrong with it: it multiplies where it should
# divide, and its step is so small that x + h *is* x.


# %%
def my_diff(f, x):
    h = 1e-50
    return (f(x + h) - f(x - h)) / 2 * h


# %%
def check_diff(answer):
    for name, f, x in (("x²", lambda x: x**2, 3.0), ("sin x", np.sin, 1.0), ("x³ + x", lambda x: x**3 + x, 5.0)):
        mine, right = float(answer(f, x)), float(numerical_diff(f, x))
        if not np.isclose(mine, right, rtol=1e-4):
            return f"the slope of {name} at {x:g} is {mine:.4g}, and should be {right:.4g}"


verdict("exercise 2", check_diff(my_diff))

# %% [markdown]
# ## Many slopes at once (4.4)
#
# The gradient has one slope for each entry: move this one entry, leave all others, put it back.
#
# **Exercise 3.** Write it, for arrays of any shape. The start below moves whole rows of a matrix at once, because
# `x[i]` is a row.


# %%
def my_gradient(f, x):
    h = 1e-4
    gradient = np.zeros_like(x)
    for i in range(len(x)):
        kept = x[i].copy()
        x[i] = kept + h
        higher = f(x)
        x[i] = kept - h
        lower = f(x)
        x[i] = kept
        gradient[i] = (higher - lower) / (2 * h)
    return gradient


# %%
def check_gradient(answer):
    def f(x):
        return float(np.sum(x**2 * np.arange(1.0, x.size + 1).reshape(x.shape)))

    rng = np.random.default_rng(0)
    for shape in ((4,), (2, 3), (2, 2, 2)):
        x = rng.normal(size=shape)
        before = x.copy()
        mine, right = answer(f, x), numerical_gradient(f, before.copy())
        if not np.array_equal(x, before):
            return f"x of shape {shape} is not as it was; put every entry back"
        if np.shape(mine) != shape or not np.allclose(mine, right, rtol=1e-4, atol=1e-6):
            return f"for x of shape {shape} it is\n{mine}\nand should be\n{right}"


verdict("exercise 3", check_gradient(my_gradient))

# %% [markdown]
# ## Downhill (4.4.1)
#
# Gradient descent takes a step against the gradient, again and again. How long a step is, is the learning rate.


# %%
def bowl(x):
    return np.sum(x**2)


end, path = gradient_descent(bowl, np.asarray([-3.0, 4.0]), lr=0.1, step_num=20, return_path=True)
ax = plotting.descent_path(path, bowl, span=(-5, 5), label="learning rate 0.1, 20 steps")

# %% [markdown]
# **Exercise 4.** The valley x₀²/20 + x₁² is long and flat in one direction and steep in the other. Find a learning
# rate that comes within 0.1 of the bottom in 60 steps. (Which is the largest that does not leave the valley?)

# %%
my_rate = 0.1


# %%
def valley(x):
    return x[0] ** 2 / 20 + x[1] ** 2


def check_rate(rate):
    end = gradient_descent(valley, np.asarray([-7.0, 2.0]), lr=rate, step_num=60)
    away = float(np.linalg.norm(end))
    return None if away < 0.1 else f"with {rate:g} it ends {away:.3g} away from the bottom"


verdict("exercise 4", check_rate(my_rate))
# %% [markdown]
# ## Learning without a derivative (4.5)
#
# Now for a network with 39,760 parameters. `network.numerical_gradient` moves each of them up and down, as you did,
# but follows only what moves, so that it takes milliseconds where a loop takes many seconds. A network that knows no
# derivative learns:

# %%
(x_train, t_train), (x_test, t_test) = load_mnist(backend=backend)
network = TwoLayerNet(784, 50, 10, activation="sigmoid", backend=backend)
iterations = 60
with tqdm(total=iterations) as bar:
    records = list(
        train(
            network,
            x_train,
            t_train,
            x_test,
            t_test,
            iterations=iterations,
            learning_rate=1.0,
            gradient="numerical",
            on_iteration=bar.update,
        )
    )
print(f"after {iterations} batches: {100 * records[-1].test_accuracy:.1f} % of the test images are right")

# %% [markdown]
# **Exercise 5.** Is it the same gradient? Take your own `my_gradient` for the 10 biases `b2`, and compare.

# %%
x, t = x_test[:20, ...], t_test[:20]
right = to_numpy(network.numerical_gradient(x, t)["b2"])


def loss_with(b2):
    kept = network.params["b2"]
    network.params["b2"] = backend.asarray(b2)
    loss = float(network.loss(x, t))
    network.params["b2"] = kept
    return loss


def check_biases(gradient):
    mine = gradient(loss_with, to_numpy(network.params["b2"]).copy())
    largest = float(np.max(abs(mine - right)))
    return None if largest < 1e-7 else f"the largest difference is {largest:.1e}"


verdict("exercise 5", check_biases(my_gradient))

# %% [markdown]
# It is right even before you mend `my_gradient`, because a bias has one axis. Chapter 5 finds the same gradients
# backward, in one run.
#
# ## Answers


# %%
def answer_1(y, t):
    return -np.mean(np.log(y[np.arange(len(t)), t]))


def answer_2(f, x):
    h = 1e-4
    return (f(x + h) - f(x - h)) / (2 * h)


def answer_3(f, x):
    h = 1e-4
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + h
        higher = f(x)
        x[index] = kept - h
        lower = f(x)
        x[index] = kept
        gradient[index] = (higher - lower) / (2 * h)
    return gradient


answer_4 = 0.9  # from 1.0 on the steep direction no longer shrinks

assert check_cross_entropy(answer_1) is None
assert check_diff(answer_2) is None
assert check_gradient(answer_3) is None
assert check_rate(answer_4) is None
assert check_biases(answer_3) is None
