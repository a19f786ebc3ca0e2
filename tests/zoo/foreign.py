"""Foreign networks: a plain object with params, loss and gradient."""

from .base import space


class Foreign:
    """Tanh of an affine map, an affine map, and cross entropy or squares. ``spoil`` makes gradients wrong."""

    def __init__(self, draw, loss, norm, sizes):
        n, h, m = sizes
        self.params = {
            "W1": draw.normal(n, h, scale=2 / n**0.5), "b1": draw.normal(h), "W2": draw.normal(h, m, scale=2 / h**0.5),
            "b2": draw.normal(m),
        }  # fmt: skip
        self.squared, self.spoil = loss == "squares", {}
        if norm:
            self.params |= {"gamma": draw.uniform(0.5, 1.5, h), "beta": draw.normal(h)}

    def forward(self, x):
        p, xp = self.params, space(x)
        z = x @ p["W1"] + p["b1"]
        if "gamma" in p:
            c = z - xp.mean(z, axis=0)
            self.i = 1 / xp.sqrt(xp.mean(c * c, axis=0) + 1e-5)
            self.n = c * self.i
            z = p["gamma"] * self.n + p["beta"]
        self.h = xp.tanh(z)
        return self.h @ p["W2"] + p["b2"]

    def loss(self, x, t):
        xp, y = space(x), self.forward(x)
        if self.squared:
            return 0.5 * xp.sum((y - t) ** 2) / x.shape[0]
        z = y - xp.max(y, axis=1, keepdims=True)
        total = xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
        return -xp.sum((z - total) * t) / x.shape[0]

    def gradient(self, x, t):
        p, xp, y = self.params, space(x), self.forward(x)
        if not self.squared:
            e = xp.exp(y - xp.max(y, axis=1, keepdims=True))
            y = e / xp.sum(e, axis=1, keepdims=True)
        d = (y - t) / x.shape[0]
        grads = {"W2": self.h.T @ d, "b2": xp.sum(d, axis=0)}
        d = (d @ p["W2"].T) * (1 - self.h**2)
        if "gamma" in p:
            grads |= {"gamma": xp.sum(d * self.n, axis=0), "beta": xp.sum(d, axis=0)}
            g = d * p["gamma"]
            d = self.i * (g - xp.mean(g, axis=0) - self.n * xp.mean(g * self.n, axis=0))
        grads |= {"W1": x.T @ d, "b1": xp.sum(d, axis=0)}
        return {name: self.spoil.get(name, lambda g, v: g)(grads[name], p[name]) for name in p}


def foreign(loss, norm=False, n=7, sizes=(4, 5, 3)):
    """Return a maker of such a network and ``n`` samples."""

    def make(draw):
        net, x = Foreign(draw, loss, norm, sizes), draw.normal(n, sizes[0])
        t = draw.normal(n, sizes[-1])
        if loss == "entropy":
            t = space(x).astype(t == space(x).max(t, axis=1, keepdims=True), x.dtype)
        return net, net, x, t

    make.__name__ = f"foreign_{loss}{'_norm' if norm else ''}{'_wide' if n > 20 else ''}"
    return make
