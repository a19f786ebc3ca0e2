"""What workers are asked to do in tests: functions and networks that other processes can import."""

import os
import signal
import time

import numpy as np
from array_api_compat import array_namespace


def cubes(x):
    return float(np.sum(x**3))


def cubes_of(x):
    return array_namespace(x).sum(x**3)


def changing(x):
    x *= 2
    return float(x.sum())


def failing(x):
    raise LookupError("a planted mistake")


def slow(x):
    time.sleep(0.05)
    return float(np.sum(x))


def killing(x):
    os.kill(os.getpid(), signal.SIGKILL)


class Holder:
    """A function that looks at an array which it holds, not at its argument."""

    def __init__(self, w):
        self.w = w

    def __call__(self, _):
        return float(np.sum(self.w**2))


class Net:
    """A network of another make: tanh, softmax, cross entropy."""

    def __init__(self, *sizes, mistake=0.0):
        draw = np.random.default_rng(0).standard_normal
        self.params = {"W1": draw(sizes[:2]) / 4, "b1": draw(sizes[1]), "W2": draw(sizes[1:]) / 2, "b2": draw(sizes[2])}
        self.mistake = mistake

    def _forward(self, x):
        z = np.tanh(x @ self.params["W1"] + self.params["b1"])
        return z, z @ self.params["W2"] + self.params["b2"]

    def loss(self, x, t):
        y = self._forward(x)[1]
        y = y - y.max(axis=1, keepdims=True)
        return np.mean(np.log(np.exp(y).sum(axis=1)) - y[np.arange(len(t)), t])

    def gradient(self, x, t):
        z, y = self._forward(x)
        y = np.exp(y - y.max(axis=1, keepdims=True))
        y /= y.sum(axis=1, keepdims=True)
        y[np.arange(len(t)), t] -= 1
        y /= len(t)
        dz = (y @ self.params["W2"].T) * (1 - z**2)
        found = {"W1": x.T @ dz, "b1": dz.sum(axis=0), "W2": z.T @ y, "b2": y.sum(axis=0)}
        found["W1"][0, 0] += self.mistake
        return found
