"""Why gradients are zero everywhere, in the words of someone who looks at what each layer gives."""

from ..functions import namespace

CURE = "check with other inputs or weights"


def cause_of_zeros(subject):
    """Return why arrays of a subject have no gradient, and what to do; nothing if neither inputs nor units tell."""
    x = subject.inputs.get("x", subject.values.get("x"))
    if x is not None and not bool(namespace(x).any(x != 0)):
        return f"the inputs are all 0: {CURE}"
    found = []
    for title, layer in subject.layers[:-1]:
        x = layer.forward(x)
        found += _what_units_give(title, x)
    if subject.layers[:-1] and x.shape[-1] == 1 and float(subject.run({})) == 0:
        return "softmax over one score is always 1, and the loss always 0: take two classes, or another output layer"
    return "" if has_zero_weights(subject) or not found else found[0]


def _what_units_give(title, x):
    """Return a line if a layer gives nothing, or the same for every sample."""
    xp = namespace(x)
    if not bool(xp.any(x != 0)):
        return [f"{title} gives 0 for every sample, its units are dead: {CURE}"]
    if x.ndim > 1 and x.shape[0] > 1 and bool(xp.all(x == x[:1, ...])):
        return [f"{title} gives the same for every sample, its units are saturated: {CURE}"]
    return []


def has_zero_weights(subject):
    """Return whether all weights of a layer are 0: a beginning at which the gradients of others are 0 by symmetry."""
    weights = (value for name, value in subject.values.items() if name != "x" and value.ndim > 1)
    return any(not bool(namespace(value).any(value != 0)) for value in weights)
