"""Layers along time, of sequences (N, T, D): RNN, LSTM and GRU from a zero state, attention."""

import math

from .base import Kind, Layer, space


def logistic(z):
    return 1 / (1 + space(z).exp(-z))


class Recurrent(Layer):
    """Steps along time; the output holds every state."""

    parameters = ("Wx", "Wh", "b")

    def __init__(self, Wx, Wh, b):
        self.Wx, self.Wh, self.b = Wx, Wh, b

    def forward(self, x):
        xp = space(x)
        n = x.shape[0]
        zero = xp.zeros((n, self.Wh.shape[0]), dtype=x.dtype)
        self.x, self.steps, state = x, [], (zero, zero)
        for t in range(x.shape[1]):
            state, kept = self.step(x[:, t, :], *state)
            self.steps.append(kept)
        return xp.stack([kept[-1] for kept in self.steps], axis=1)

    def backward(self, dout):
        xp = space(dout)
        self.dWx, self.dWh, self.db = (xp.zeros_like(p) for p in (self.Wx, self.Wh, self.b))
        dx, dh, dc = [], 0.0, 0.0
        for t in reversed(range(dout.shape[1])):
            x = self.x[:, t, :]
            d, dh, dc = self.step_back(x, dout[:, t, :] + dh, dc, *self.steps[t])
            if self.bug == "no time" or (self.bug == "one step of time" and t % 2):
                dh, dc = 0.0, 0.0
            dx.append(d)
        return xp.stack(dx[::-1], axis=1)

    def add(self, x, h, d):
        """Add the share of one step, whose sums before the activation have the gradient d; return dx."""
        last = self.bug == "the last step's alone"
        self.dWx = x.T @ d + (0 if last else self.dWx)
        self.dWh = h.T @ d + (0 if self.bug == "dWh of the first step" else self.dWh)
        self.db = space(d).sum(d, axis=0) + (0 if self.bug == "db of the first step" else self.db)
        return d @ self.Wx.T


class Rnn(Recurrent):
    bugs = (
        "no time",
        "one step of time",
        "no slope of tanh",
        "dWh of the first step",
        "Wh for its transpose",
        "1 - h for 1 - h²",
    )

    def step(self, x, h, _):
        new = space(x).tanh(x @ self.Wx + h @ self.Wh + self.b)
        return (new, h), (h, new)

    def step_back(self, x, dh, _, h, new):
        slope = {"no slope of tanh": 1, "1 - h for 1 - h²": 1 - new}.get(self.bug, 1 - new * new)
        d = dh * slope
        return self.add(x, h, d), d @ (self.Wh if self.bug == "Wh for its transpose" else self.Wh.T), 0.0


class Lstm(Recurrent):
    bugs = (
        "no time",
        "dc not carried on",
        "forget and input gate swapped",
        "no slope of tanh(c)",
        "db of the first step",
        "output gate's slope forgotten",
    )

    def step(self, x, h, c):
        xp, m = space(x), self.Wh.shape[0]
        a = x @ self.Wx + h @ self.Wh + self.b
        f, i, o = (logistic(a[:, k * m : (k + 1) * m]) for k in range(3))
        g = xp.tanh(a[:, 3 * m :])
        new = f * c + i * g
        y = o * xp.tanh(new)
        return (y, new), (h, c, f, i, o, g, new, y)

    def step_back(self, x, dh, dc, h, c, f, i, o, g, new, _):
        xp, bug = space(dh), self.bug
        tanh = xp.tanh(new)
        dc = dc + dh * o * (1 if bug == "no slope of tanh(c)" else 1 - tanh * tanh)
        df, di, dg = dc * c * f * (1 - f), dc * g * i * (1 - i), dc * i * (1 - g * g)
        do = dh * tanh * (1 if bug == "output gate's slope forgotten" else o * (1 - o))
        if bug == "forget and input gate swapped":
            df, di = di, df
        d = xp.concat([df, di, do, dg], axis=1)
        return self.add(x, h, d), d @ self.Wh.T, 0.0 if bug == "dc not carried on" else dc * f


class Gru(Recurrent):
    bugs = ("no time", "no way through the candidate", "1 - z for z", "no reset in dWh", "the last step's alone")

    def step(self, x, h, _):
        xp, m = space(x), self.Wh.shape[0]
        a = x @ self.Wx + self.b
        b = h @ self.Wh[:, : 2 * m]
        z, r = logistic(a[:, :m] + b[:, :m]), logistic(a[:, m : 2 * m] + b[:, m:])
        g = xp.tanh(a[:, 2 * m :] + (r * h) @ self.Wh[:, 2 * m :])
        new = (1 - z) * h + z * g
        return (new, h), (h, z, r, g, new)

    def step_back(self, x, dh, _, h, z, r, g, new):
        xp, m, bug = space(dh), self.Wh.shape[0], self.bug
        dg = dh * z * (1 - g * g)
        drh = dg @ self.Wh[:, 2 * m :].T
        dz, dr = dh * (g - h) * z * (1 - z), drh * h * r * (1 - r)
        gates, rh = xp.concat([dz, dr], axis=1), h if bug == "no reset in dWh" else r * h
        dh = dh * (z if bug == "1 - z for z" else 1 - z) + gates @ self.Wh[:, : 2 * m].T
        if bug != "no way through the candidate":
            dh = dh + drh * r
        d = xp.concat([gates, dg], axis=1)
        share = xp.concat([h.T @ gates, rh.T @ dg], axis=1)
        last = bug == "the last step's alone"
        self.dWx, self.dWh = x.T @ d + (0 if last else self.dWx), share + (0 if last else self.dWh)
        self.db = xp.sum(d, axis=0) + self.db
        return d @ self.Wx.T, dh, 0.0


class Attention(Layer):
    """One head that attends to its own sequence: softmax(Q Kᵀ/√d) V."""

    parameters = ("Wq", "Wk", "Wv")
    bugs = ("no 1/√d", "softmax's slope without its sum", "Q for K", "weights not transposed", "dx without V's way")

    def __init__(self, Wq, Wk, Wv):
        self.Wq, self.Wk, self.Wv = Wq, Wk, Wv

    def forward(self, x):
        xp = space(x)
        self.x, self.q, self.k, self.v = x, x @ self.Wq, x @ self.Wk, x @ self.Wv
        self.root = math.sqrt(self.Wq.shape[1])
        s = self.q @ xp.matrix_transpose(self.k) / self.root
        e = xp.exp(s - xp.max(s, axis=-1, keepdims=True))
        self.a = e / xp.sum(e, axis=-1, keepdims=True)
        return self.a @ self.v

    def backward(self, dout):
        xp, bug, a = space(dout), self.bug, self.a
        T = xp.matrix_transpose
        da = dout @ T(self.v)
        dv = (a if bug == "weights not transposed" else T(a)) @ dout
        total = 0 if bug == "softmax's slope without its sum" else xp.sum(a * da, axis=-1, keepdims=True)
        ds = a * (da - total) / (1 if bug == "no 1/√d" else self.root)
        dq, dk = ds @ (self.q if bug == "Q for K" else self.k), T(ds) @ self.q
        self.dWq, self.dWk, self.dWv = (xp.tensordot(self.x, d, axes=((0, 1), (0, 1))) for d in (dq, dk, dv))
        return dq @ self.Wq.T + dk @ self.Wk.T + (0 if bug == "dx without V's way" else dv @ self.Wv.T)


def rnn(draw):
    return Rnn(draw.normal(3, 4, scale=0.6), draw.normal(4, 4, scale=0.5), draw.normal(4, scale=0.3))


def lstm(draw):
    return Lstm(draw.normal(3, 12, scale=0.6), draw.normal(3, 12, scale=0.6), draw.normal(12, scale=0.5))


def gru(draw):
    return Gru(draw.normal(3, 9, scale=0.6), draw.normal(3, 9, scale=0.6), draw.normal(9, scale=0.5))


def attention(draw):
    return Attention(*(draw.normal(3, 4, scale=0.7) for _ in range(3)))


KINDS = [
    Kind(rnn, shape=(3, 4, 3), scales="small"),
    Kind(lstm, shape=(3, 4, 3), scales="small"),
    Kind(gru, shape=(3, 4, 3), scales="small"),
    Kind(attention, shape=(3, 4, 3), scales="small"),
]
