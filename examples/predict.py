"""Ask a network that train.py saved which digit a picture shows: the probability of every class.

    python train.py --checkpoint digits.npz
    python predict.py digits.npz seven.png      # a photo or drawing of one digit, dark on light or light on dark
    python predict.py digits.npz                # without a picture: the first images of the test set

A network knows only what it was shown. MNIST's digits are light on dark, 20 pixels high or wide, and lie with their
centre of mass on pixel (14, 14) of 28 × 28, counted from 0; a picture is brought into that form first.
"""

import argparse
import sys

import numpy as np

from xpnet import BackendError, TwoLayerNet, get_backend, load_mnist, load_training, to_numpy
from xpnet.installing import install_command

SIDE, BOX, MIDDLE = 28, 20, 14


def read_picture(file):
    """Return the grey values of an image file, (height, width) in [0, 1], what is transparent as white."""
    from PIL import Image

    with Image.open(file) as picture:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return np.asarray(Image.alpha_composite(white, picture).convert("L")) / 255


def as_mnist(grey):
    """Return grey values (height, width) of one digit as MNIST would hold it: (28, 28), light on dark, centred."""
    from PIL import Image

    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = np.abs(grey - np.median(border))  # paper is what lies along the border
    if ink.max() < 0.1:
        raise ValueError("nothing is drawn on it: all of it has nearly the grey of its border")
    ink = np.clip(ink / ink.max() - 0.1, 0, None) / 0.9  # leaves out the shades of paper
    rows, columns = np.flatnonzero(ink.max(axis=1) > 0.2), np.flatnonzero(ink.max(axis=0) > 0.2)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(length * BOX / max(ink.shape))) for length in ink.shape)
    small = Image.fromarray((255 * ink).astype("uint8")).resize((width, height), Image.Resampling.LANCZOS)
    small = np.asarray(small) / 255
    y, x = (np.average(np.arange(n), weights=small.sum(axis=1 - axis)) for axis, n in enumerate(small.shape))
    top, left = (int(np.clip(round(MIDDLE - centre), 0, SIDE - length)) for centre, length in ((y, height), (x, width)))
    image = np.zeros((SIDE, SIDE))
    image[top : top + height, left : left + width] = small
    return image


def load_network(file, backend):
    """Return the network that ``file`` holds; its sizes are those of its weights."""
    state = load_training(file)
    if state.parameters.keys() != {"W1", "b1", "W2", "b2"} or state.parameters["W1"].shape[0] != SIDE**2:
        raise ValueError(f"{file} holds no two-layer network for images of {SIDE} × {SIDE} pixels")
    W1, W2 = state.parameters["W1"], state.parameters["W2"]
    activation = state.settings.get("activation", "relu")
    network = TwoLayerNet(*W1.shape, W2.shape[1], activation=activation, dtype=W1.dtype.name, backend=backend)
    state.restore(network)
    return network


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parameters", metavar="FILE", help="what train.py --checkpoint FILE wrote")
    parser.add_argument("pictures", metavar="IMAGE", nargs="*", help="picture of one digit; 10 test images without it")
    options = parser.parse_args()
    name = None
    try:
        backend = get_backend()
        network = load_network(options.parameters, backend)
        images, titles = [], options.pictures
        for name in options.pictures:
            images.append(as_mnist(read_picture(name)))
        name = None
        if not images:
            _, (x_test, t_test) = load_mnist(backend="numpy")
            images, titles = list(x_test[:10]), [f"test image {i}, a {t}" for i, t in enumerate(t_test[:10])]
    except ModuleNotFoundError:
        parser.exit(2, f"{parser.prog}: error: reading pictures needs Pillow; run: {install_command('pillow')}\n")
    except FileNotFoundError as error:
        cure = "" if name else "; train.py --checkpoint FILE makes one"
        parser.exit(2, f"{parser.prog}: error: there is no file {error.filename}{cure}\n")
    except (BackendError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {f'{name}: ' if name else ''}{error}\n")

    x = backend.asarray(np.stack([image.reshape(-1) for image in images]).astype("float32"))
    probabilities = to_numpy(network.probabilities(x))
    width = max(map(len, titles))
    print(f"{'probability in %':{width}}  answer  " + "".join(f"{c:6d}" for c in range(probabilities.shape[1])))
    for title, row in zip(titles, probabilities, strict=True):
        print(f"{title:{width}}  {row.argmax():6d}  " + "".join(f"{100 * p:6.1f}" for p in row))


if __name__ == "__main__":
    sys.exit(main())
