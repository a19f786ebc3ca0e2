"""Functions of one number as layers: powers, logarithm, exponential."""

from .base import Layer, kind, some_at, space


class Abs(Layer):
    bugs = ("slope 1", "slope -sign", "slope x")

    def forward(self, x):
        self.x = x
        return space(x).abs(x)

    def backward(self, dout):
        sign = space(dout).sign(self.x)
        return dout * {"slope 1": sign * sign, "slope -sign": -sign, "slope x": self.x}.get(self.bug, sign)


class Power(Layer):
    """The functions whose derivative is a power: f is one of them; ``bugs`` fit all."""

    bugs = ("no factor", "sign", "y for x", "one power too many")

    def forward(self, x):
        self.x = x
        self.y = self.f(x)
        return self.y

    def backward(self, dout):
        x = self.y if self.bug == "y for x" else self.x
        slope = self.slope(x) / (self.factor if self.bug == "no factor" else 1)
        if self.bug == "one power too many":
            slope = slope * x
        return dout * (-slope if self.bug == "sign" else slope)


class Square(Power):
    factor = 2.0

    def f(self, x):
        return x * x

    def slope(self, x):
        return 2 * x


class Cube(Power):
    factor = 3.0

    def f(self, x):
        return x**3

    def slope(self, x):
        return 3 * x * x


class Log(Power):
    bugs = ("sign", "1/x²", "x")
    factor = 1.0

    def f(self, x):
        return space(x).log(x)

    def slope(self, x):
        return {"1/x²": 1 / (x * x), "x": x}.get(self.bug, 1 / x)


class Reciprocal(Power):
    bugs = ("sign", "1/x", "y for x")
    factor = 1.0

    def f(self, x):
        return 1 / x

    def slope(self, x):
        return -1 / x if self.bug == "1/x" else -1 / (x * x)


class Sqrt(Power):
    factor = 0.5

    def f(self, x):
        return space(x).sqrt(x)

    def slope(self, x):
        return 0.5 / space(x).sqrt(x)


class Exp(Layer):
    bugs = ("x", "exp(y)", "sign")

    def forward(self, x):
        self.x, self.y = x, space(x).exp(x)
        return self.y

    def backward(self, dout):
        return dout * {"x": self.x, "exp(y)": space(dout).exp(self.y), "sign": -self.y}.get(self.bug, self.y)


KINDS = [
    kind(Abs, scales="all", at_kink=some_at(0.0)),
    kind(Square, scales="all"),
    kind(Cube, scales="all"),
    kind(Log, scales="all", positive=True),
    kind(Reciprocal, scales="all", positive=True),
    kind(Sqrt, scales="all", positive=True),
    kind(Exp, scales="small"),
]
