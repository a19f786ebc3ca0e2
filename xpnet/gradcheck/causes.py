"""Why gradients are zero everywhere, in the words of someone who looks at what each layer gives."""

from ..functions import namespace

CURE = "check with other inputs or weights"


def cause_of_zeros(subject):
    """Return the likely cause that an array of a subject has no gradient, and what to do."""
    x = subject.inputs.get("x", subject.values.get("x"))
    if x is not None and not bool(namespace(x).any(x != 0)):
        return f"the inputs are all 0: {CURE}"
    for title, layer in subject.layers[:-1]:
        x = layer.forward(x)
        xp = namespace(x)
        if not bool(xp.any(x != 0)):
            return f"{title} gives 0 for every sample, its units are dead: {CURE}"
        if x.ndim > 1 and x.shape[0] > 1 and bool(xp.all(x == x[:1, ...])):
            return f"{title} gives the same for every sample, its units are saturated: {CURE}"
    if subject.layers[:-1] and x.shape[-1] == 1 and float(subject.run({})) == 0:
        return "softmax over one score is always 1, and the loss always 0: take two classes, or another output layer"
    return f"nothing it does changes the loss here (outputs saturated, one class only?): {CURE}"
