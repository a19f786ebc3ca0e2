"""Check backpropagation against numerical gradients on real images; plant a mistake and see it caught.

Every entry of every parameter is compared. The exit status is 0 if all agree and 1 if not. Mistakes to plant:

  sign       the largest gradient of W1 has the wrong sign
  share      the largest gradient of W1 is wrong by 0.05 %
  mean       the output layer forgets to divide by the batch size
  mask       the activation's backward lets everything pass
  bias       the gradient of b1 is forgotten and stays zero
  sum        the gradient of the last b is that of the first image instead of the sum over the batch
  transpose  the gradient of the last W is transposed (with 10 units before it, as many as outputs, or it would not fit)
"""

import argparse
import sys
from functools import partial

from xpnet import BackendError, MultiLayerNet, TwoLayerNet, check_gradients, get_backend, load_mnist, train
from xpnet.command_line import count, seed


def plant(mistake, network, xp):
    """Break the backpropagation of ``network``, whose arrays are of the namespace ``xp``, in a named way."""
    affine1, activation, *_, affine2 = network.layers.values()
    output = network.last_layer

    def after_backward(layer, change):
        right = layer.backward_parameters
        layer.backward_parameters = lambda dout: (right(dout), change(layer, dout))

    def one_weight(factor):
        def change(layer, dout):
            size = xp.abs(layer.dW)
            layer.dW = xp.where(size == xp.max(size), factor * layer.dW, layer.dW)

        return change

    def set_gradient(name, value):
        return lambda layer, dout: setattr(layer, name, value(layer, dout))

    if mistake == "sign":
        after_backward(affine1, one_weight(-1))
    elif mistake == "share":
        after_backward(affine1, one_weight(1.0005))
    elif mistake == "mean":
        right = output.backward
        output.backward = lambda dout=1.0: right(dout) * output.t.shape[0]
    elif mistake == "mask":
        activation.backward = lambda dout: dout
    elif mistake == "bias":
        after_backward(affine1, set_gradient("db", lambda layer, dout: 0.0 * layer.db))
    elif mistake == "sum":
        after_backward(affine2, set_gradient("db", lambda layer, dout: dout[0, ...]))
    elif mistake == "transpose":
        after_backward(affine2, set_gradient("dW", lambda layer, dout: layer.dW.T))


MISTAKES = [line.split()[0] for line in __doc__.splitlines() if line.startswith("  ")]


def command_line(prog):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog, "%(prog)s [options]", __doc__, formatter_class=raw)
    add = parser.add_argument
    add("--plant", choices=MISTAKES, help="break backpropagation in this way")
    add("--activation", choices=("relu", "sigmoid"), default="relu", help="%(default)s by default")
    add(
        "--hidden",
        type=count,
        nargs="+",
        default=[50],
        metavar="N",
        help="units of each hidden layer (50), as in 200 100",
    )
    add("--batch-size", type=count, default=100, metavar="N", help="images (%(default)s)")
    add(
        "--trained",
        type=partial(count, lowest=0),
        default=0,
        metavar="N",
        help="train for N iterations first (%(default)s)",
    )
    add("--dtype", choices=("float32", "float64"), default="float64", help="%(default)s by default")
    add("--method", choices=("auto", "difference", "stacked", "loop"), default="auto", help="%(default)s by default")
    add("--seed", type=seed, default=0, metavar="N", help="fixes weights and audit (%(default)s)")
    add("--backend", help="numpy, cupy, torch, jax, ...; by default what XPNET_BACKEND says, else numpy")
    return parser


def main(arguments=None, prog=None):
    """Run the command line, or ``arguments`` of a command ``prog``; return the exit status."""
    parser = command_line(prog)
    options = parser.parse_args(arguments)
    hidden = [*options.hidden[:-1], 10] if options.plant == "transpose" else options.hidden
    try:
        backend = get_backend(options.backend)
        (x_train, t_train), (x_test, t_test) = load_mnist(backend=backend)
        how = {"activation": options.activation, "rng": options.seed, "dtype": options.dtype, "backend": backend}
        network = TwoLayerNet(784, *hidden, 10, **how) if len(hidden) == 1 else MultiLayerNet(784, hidden, 10, **how)
        if options.trained:
            for _ in train(network, x_train, t_train, iterations=options.trained, rng=options.seed):
                pass
        if options.plant:
            plant(options.plant, network, backend.xp)
        x, t = x_test[: options.batch_size, ...], t_test[: options.batch_size]
        check = check_gradients(network, x, t, method=options.method, rng=options.seed)
    except (ArithmeticError, BackendError, TypeError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        print("stopped by Ctrl-C, before there was a verdict")
        return 130
    shape = "-".join(map(str, (784, *hidden, 10)))
    print(f"{backend.describe()}, {shape} {options.activation}")
    print(check)
    return 0 if check else 1


if __name__ == "__main__":
    sys.exit(main())
