"""Layers that do one thing in training and another in evaluation (book, 6.3 and 6.4).

``train_flg`` is True in training, as in the book: given to ``forward``, or kept as an attribute. A ``Network`` sees to
it (``xpnet.modes``). ``state`` names what such a layer keeps from batch to batch beside its parameters; it is saved and
restored with them.
"""

from __future__ import annotations

from array_api_compat import device

from .annotations import Array, Seed
from .backend import random_generator
from .functions import namespace, require_floats
from .layers import Remembers
from .scalars import is_number


class Dropout(Remembers):
    """Zeros a share ``dropout_ratio`` of the entries in training, drawn anew in every forward.

    In evaluation all entries are multiplied by 1 − ``dropout_ratio`` instead, as in the book. ``rng`` is a seed or a
    ``numpy.random.Generator``: numbers are drawn on the host, so one seed gives the same masks on every backend. Give
    each layer a seed of its own, or all of them one Generator. Raises ValueError unless 0 ≤ ``dropout_ratio`` < 1, and
    TypeError for what is no seed.

    Source: Deep Learning from Scratch, 6.4.3.
    """

    state = ("rng",)

    def __init__(self, dropout_ratio: float = 0.5, *, rng: Seed = 0) -> None:
        if not is_number(dropout_ratio, lambda ratio: 0 <= ratio < 1):
            raise ValueError(f"dropout_ratio is {dropout_ratio!r}; it must be a number of at least 0 and below 1")
        self.dropout_ratio, self.rng, self.train_flg = float(dropout_ratio), random_generator(rng, "dropout"), True

    def forward(self, x: Array, train_flg: bool | None = None) -> Array:
        """Return x·mask in training, x·(1 − dropout_ratio) in evaluation; ``train_flg=None`` leaves it as it is."""
        xp = namespace(x, names="x")
        if self.train_flg if train_flg is None else train_flg:
            kept = self.rng.random(tuple(x.shape)) > self.dropout_ratio
            self.mask = xp.astype(xp.asarray(kept, device=device(x)), x.dtype)
        else:
            self.mask = 1.0 - self.dropout_ratio
        return x * self.mask

    def backward(self, dout: Array) -> Array:
        """Return dout·mask, or dout·(1 − dropout_ratio) after an evaluation."""
        return dout * self.mask


class BatchNormalization(Remembers):
    """γ·(x − μ)/√(σ² + ε) + β with each feature's mean and variance over the batch ``x`` (N, D).

    In evaluation μ and σ² are running averages of those of training. ``dgamma`` and ``dbeta`` are the gradients of
    ``gamma`` and ``beta``.

    Source: Deep Learning from Scratch, 6.3; Ioffe and Szegedy, Batch Normalization (2015).

    Parameters
    ----------
    gamma : array (D,)
        γ, which the layer owns and learns.
    beta : array (D,)
        β, likewise.
    momentum : float
        In [0, 1]: the averages move by 1 − ``momentum`` of the way at every forward in training.
    running_mean : array (D,)
        The average μ at the beginning, by default 0.
    running_var : array (D,)
        The average σ² at the beginning, by default 1.
    epsilon : float
        ε.

    Raises
    ------
    TypeError
        If ``gamma`` and ``beta`` are not arrays of floats of one library.
    ValueError
        If their shapes do not fit, or ``momentum`` is not in [0, 1].
    """

    parameters = ("gamma", "beta")
    state = ("running_mean", "running_var")

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
        *,
        epsilon: float = 1e-6,
    ) -> None:
        xp = require_floats("gamma", gamma)
        namespace(gamma, beta, names="gamma and beta")
        if gamma.ndim != 1 or gamma.shape != beta.shape or gamma.dtype != beta.dtype:
            raise ValueError(
                f"gamma has shape {tuple(gamma.shape)} and dtype {gamma.dtype}, beta {tuple(beta.shape)} and "
                f"{beta.dtype}; both must be (D,) and of one dtype"
            )
        if not is_number(momentum, lambda momentum: 0 <= momentum <= 1):
            raise ValueError(f"momentum is {momentum!r}; it must be a number between 0 and 1")
        self.gamma, self.beta, self.momentum, self.epsilon = gamma, beta, float(momentum), float(epsilon)
        self.running_mean = xp.zeros_like(gamma) if running_mean is None else running_mean
        self.running_var = xp.ones_like(gamma) if running_var is None else running_var
        self.train_flg = True

    def forward(self, x: Array, train_flg: bool | None = None) -> Array:
        """Return the normalized batch (N, D); ``train_flg=None`` leaves the mode as it is.

        Raises ValueError for another shape: a sequence (N, T, D) or images must be brought to rows first.
        """
        xp = namespace(x, names="x")
        if x.ndim != 2 or x.shape[1] != self.gamma.shape[0]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; BatchNormalization takes a batch (N, {self.gamma.shape[0]}), in which "
                "all rows count as samples: reshape to rows first"
            )
        self.by_batch = self.train_flg if train_flg is None else train_flg
        mean, var = self.running_mean, self.running_var
        if self.by_batch:
            mean = xp.mean(x, axis=0)
            var = xp.mean((x - mean) ** 2, axis=0)
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mean
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        self.scale = 1.0 / xp.sqrt(var + self.epsilon)
        self.normalized = (x - mean) * self.scale
        return self.gamma * self.normalized + self.beta

    def backward(self, dout: Array) -> Array:
        """Return dx (N, D), and keep dgamma and dbeta (D,)."""
        xp = namespace(dout)
        self.dgamma, self.dbeta = xp.sum(dout * self.normalized, axis=0), xp.sum(dout, axis=0)
        by_norm = dout * self.gamma
        if self.by_batch:  # the batch's own mean and variance move with x
            along = xp.mean(by_norm * self.normalized, axis=0)
            by_norm = by_norm - xp.mean(by_norm, axis=0) - self.normalized * along
        return by_norm * self.scale
