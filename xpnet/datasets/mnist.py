"""MNIST from the four IDX files inside the package, or from a folder of files in the same layout."""

from __future__ import annotations

import math
import os
import re

from ..annotations import Array, FilePath
from ..backend import Backend, get_backend
from ..functions import one_hot
from ..scalars import is_count

FOLDER = os.path.join(os.path.dirname(__file__), "mnist_data")
IMAGES, LABELS = 0x803, 0x801  # magic numbers: unsigned bytes in three dimensions, in one


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    folder: FilePath | None = None,
    backend: str | Backend | None = None,
    share: tuple[int, int] | None = None,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return ``(x_train, t_train), (x_test, t_test)`` as arrays of the backend: 60,000 and 10,000 digits.

    Source: Deep Learning from Scratch, 3.6.1; MNIST by Y. LeCun, C. Cortes and C. J. C. Burges (CC BY-SA 3.0).

    Parameters
    ----------
    normalize : bool
        Whether images are float32 in [0, 1], or uint8 in 0…255.
    flatten : bool
        Whether images are (N, 784), or (N, 1, 28, 28).
    one_hot_label : bool
        Whether labels are float32 (N, 10), or int64 (N,).
    folder : str or path
        Where other files in the same layout lie, compressed or not: Fashion-MNIST, KMNIST, EMNIST. Names may have dots
        for dashes, and torchvision's folder ``raw`` is found. The largest training label plus one is then the number of
        classes.
    backend : str or Backend
        As in ``xpnet.get_backend``.
    share : tuple of int
        (rank, ranks) keeps the samples rank, rank + ranks, rank + 2·ranks … of both parts, and never holds the others.

    Returns
    -------
    tuple of tuples of arrays

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        For what is no share, and, naming the file, if one is damaged or has less than ``ranks`` samples, or the files
        do not belong together.

    Examples
    --------
    >>> (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False, backend="numpy")
    >>> x_train.shape, t_train[:5], x_test.shape
    ((60000, 784), array([5, 0, 4, 1, 9]), (10000, 784))
    """
    from pathlib import Path  # here, because importing it would take a third of the time that xpnet takes

    rank, ranks = share or (0, 1)
    if not (is_count(rank, 0) and is_count(ranks) and rank < ranks):
        raise ValueError(f"share is {share!r}; it must be (rank, ranks), two whole numbers with 0 ≤ rank < ranks")
    backend = get_backend(backend)
    xp = backend.xp
    folder = Path(FOLDER if folder is None else folder)
    labels = {which: read_idx(_find(folder, which, "labels"), LABELS) for which in ("train", "test")}
    classes = int(labels["train"].max()) + 1
    if labels["test"].max() >= classes:
        highest = labels["test"].max()
        raise ValueError(f"{folder}: test labels go up to {highest}, but training labels only to {classes - 1}")
    parts, pixels = [], {}
    for which in ("train", "test"):
        file = _find(folder, which, "images")
        images, labelled = read_idx(file, IMAGES, rank, ranks), labels[which][rank::ranks]
        pixels[which] = images.shape[1:]
        _require_alike(file, images, labelled, pixels["train"], "" if ranks == 1 else f" for rank {rank} of {ranks}")
        x = xp.reshape(backend.asarray(images), (images.shape[0], *((-1,) if flatten else (1, *pixels[which]))))
        del images  # else 47 MB would wait while the next part is read
        if normalize:
            x = xp.astype(x, xp.float32)
            x /= 255.0
        t = backend.asarray(labelled.astype("int64"))
        parts.append((x, one_hot(t, classes, dtype=xp.float32) if one_hot_label else t))
    return parts[0], parts[1]


def _require_alike(file, images, labels, pixels, those):
    """Refuse images that are not as many as their labels, or not of as many ``pixels`` as those for training."""
    if images.shape[0] != labels.shape[0]:
        raise ValueError(f"{file} has {images.shape[0]} images{those}, but there are {labels.shape[0]} labels")
    if images.shape[1:] != pixels:
        found, expected = (" × ".join(map(str, size)) for size in (images.shape[1:], pixels))
        raise ValueError(f"{file} has images of {found} pixels, but those for training have {expected}")


def read_idx(path, magic, rank=0, ranks=1):
    """Return the unsigned bytes of an IDX file, gzip-compressed or not, as a NumPy array.

    ``magic`` is 0x803 for images (N, rows, columns) or 0x801 for labels (N,). Of the N entries, those at rank,
    rank + ranks … are returned; 1 MB at a time is held of the others. Nothing larger than the header
    announces is unpacked, and a header that announces more than the file can hold is refused first. Raises
    ValueError, naming the file, if it is not what it says.

    Source: the IDX file format, as described on the MNIST page of Y. LeCun.
    """
    import gzip
    import zlib
    from pathlib import Path

    import numpy as np

    path = Path(path)
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            # deflate packs at most 1,032 bytes into one, so a larger promise is a lie and needs no memory to detect
            shape = _shape_in_header(file, path, magic, path.stat().st_size * (1032 if compressed else 1))
            if shape[0] < ranks:
                raise ValueError(f"{path} has {shape[0]} entries, too few for {ranks} ranks to have one each")
            size = math.prod(shape)
            entry = size // shape[0]
            together = max(1, 2**20 // (entry * ranks)) * entry * ranks  # about 1 MB, from one of rank 0's on
            data, seen = bytearray(), 0  # grows with what comes, so that a false size takes no memory
            while block := file.read(min(size - seen, together)):
                seen += len(block)
                whole = np.frombuffer(block[: len(block) // entry * entry], dtype=np.uint8).reshape(-1, entry)
                data += whole[rank::ranks].tobytes()
            more = file.read(1)  # reading to the end is also what compares the check sum
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error
    if seen != size or more:
        raise ValueError(f"{path} announces {size} bytes of data, but holds {'more' if more else 'less'}")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, *shape[1:])


def _shape_in_header(file, path, magic, most):
    """Return the shape that the header of an IDX file announces, of ``most`` bytes at the most."""
    size = 4 + 4 * (magic & 0xFF)
    header = file.read(size)
    if len(header) < size:
        raise ValueError(f"{path} ends within its header")
    found, *shape = (int.from_bytes(header[i : i + 4]) for i in range(0, size, 4))
    if found != magic:
        raise ValueError(f"{path} begins with the number {found:#x}; a file of this kind begins with {magic:#x}")
    announced = math.prod(shape)
    if announced == 0:
        raise ValueError(f"{path} announces {' × '.join(map(str, shape))} entries, which is none")
    if announced > most:
        stored = path.stat().st_size
        raise ValueError(f"{path} announces {announced} bytes of data, more than a file of {stored} bytes can hold")
    return shape


def _find(folder, which, content):
    """Return the one file of ``folder`` that holds the images or labels of the training or test part.

    Names are those of the data sets, in any case, with dots for dashes and ``.gz`` or without. A file may lie in a
    folder of its own name, as some programs unpack it; failing that, all of them in ``raw``, as torchvision keeps them.
    Of one file in several forms, the least packed counts.
    """
    parts = {"train": "train", "test": "(t10k|test)"}[which]
    name = re.compile(rf".*{parts}[-.]{content}[-.]idx\d[-.]ubyte(\.gz)?", re.IGNORECASE)
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [path for path in inside if name.fullmatch(path.name)]
    within = [path for own in named if own.is_dir() for path in sorted(own.iterdir()) if name.fullmatch(path.name)]
    for candidates in (named, within):
        forms = _least_packed(candidates)
        if len(forms) > 1:
            listed = ", ".join(path.name for path in forms)
            raise ValueError(f"{folder} has {len(forms)} files for the {which} {content}, one is needed: {listed}")
        if forms:
            return forms[0]
    for path in inside:
        if path.name == "raw" and path.is_dir():
            return _find(path, which, content)
    stem = f"*{parts.strip('()').partition('|')[0]}-{content}-idx*-ubyte"
    empty = f" ({named[0].name} is a folder without one)" if named else ""
    raise FileNotFoundError(
        f"{folder} has no file {stem} or {stem}.gz{empty}; load_mnist needs four IDX files, images and labels for "
        "training and test"
    )


def _least_packed(candidates):
    """Return one path for each file: of one in several forms, that with the shortest name."""
    forms = {}
    files = [path for path in candidates if path.exists() and not path.is_dir()]  # a pipe, too, can be read
    for path in sorted(files, key=lambda path: len(path.name)):
        stem = re.sub(r"\.gz$", "", path.name.lower()).replace(".", "-")
        forms.setdefault(stem, path)
    return list(forms.values())
