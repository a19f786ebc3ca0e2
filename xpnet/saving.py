"""Saving what was learned, and a training that can go on: one ``.npz`` file without pickle, whole at every moment.

A file is written beside its place under another name, brought to the disk, and only then given its name. Whoever cuts
the power finds the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from array_api_compat import device, is_array_api_obj

from .annotations import Array, FilePath
from .arrays import put
from .backend import to_numpy
from .describing import record_in_words
from .functions import namespace
from .records import EpochRecord

# of the file, to be raised when an older xpnet would misread it: 2 also holds what layers keep, and 3 a seed for each
# record, from which, with the number of the epoch, its batches are drawn; before, it was a generator's state
FORMAT = 3


class TrainingState(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    parameters : dict of NumPy arrays
        By name.
    records : list of EpochRecord
        Of the epochs so far.
    settings : dict
        What was given to ``save_training``.
    version : str
        That of the xpnet which wrote it.
    layer_state : dict
        What layers keep beside their parameters, such as running statistics and random generators; None in a file of an
        xpnet that did not save it.
    """

    parameters: dict[str, Array]
    records: list[EpochRecord]
    settings: dict[str, Any]
    version: str
    layer_state: dict[str, Any] | None = None

    def __repr__(self):
        return record_in_words(self)

    def restore(self, network: Any) -> None:
        """Put parameters and what layers keep into ``network``, on its device; all or, if anything does not fit, none.

        Raises ValueError, naming it, if names, shapes or dtypes are not those of ``network``. Warns if its layers keep
        something that the file, of an older xpnet, does not hold.
        """
        held = dict(network.params)
        if held.keys() != self.parameters.keys():
            raise ValueError(
                f"the network has the parameters {', '.join(held)}, but {', '.join(self.parameters)} were saved; "
                "build the network as it was when it was saved"
            )
        arrays = {}
        for name, old in held.items():
            saved, dtype = self.parameters[name], str(old.dtype).rpartition(".")[2]
            if (saved.shape, saved.dtype.name) != (tuple(old.shape), dtype):
                raise ValueError(
                    f"parameter {name} of the network has shape {tuple(old.shape)} and dtype {dtype}, but was saved "
                    f"with shape {saved.shape} and dtype {saved.dtype.name}; build the network as it was when it was "
                    f"saved, with the same sizes and dtype={saved.dtype.name!r}"
                )
            arrays[name] = namespace(old).asarray(saved, device=device(old), copy=True)
        if hasattr(network, "restore_layer_state"):
            if self.layer_state is None and (begin_anew := ", ".join(network.layer_state())):
                warnings.warn(f"the file was saved without {begin_anew}, which begin anew", stacklevel=2)
            elif self.layer_state is not None:
                network.restore_layer_state(self.layer_state)
        put(network.params, arrays)


def save_parameters(network: Any, file: FilePath) -> None:
    """Write the parameters of ``network`` to ``file``, from any backend and device, as ``save_training`` does."""
    save_training(network, [], file)


def load_parameters(network: Any, file: FilePath) -> None:
    """Put the parameters that ``file`` holds into ``network``, whichever backend it was saved from.

    Raises as ``load_training`` does, and ValueError, naming the parameter, if they are not those of ``network``.
    """
    load_training(file).restore(network)


def save_training(
    network: Any, records: Sequence[EpochRecord], file: FilePath, *, settings: dict[str, Any] | None = None
) -> None:
    """Write ``file`` with all that is needed to go on: parameters, what layers keep, ``records``, your ``settings``.

    ``records`` are each ``EpochRecord`` of ``train``, the last made just now; its seed and epoch say which
    batches come next. ``settings`` is a dict of strings, numbers, truth values and None, for you to read again. The
    file is replaced as a whole: if anything fails, the one that was there is untouched. A process killed in the
    middle may leave a file with a name like ``.FILE.1234.tmp``, which can be deleted. Of the ranks of a
    ``DataParallel`` network, whose parameters are the same, only rank 0 writes.

    Raises OSError if the folder is missing, the disk full or the file may not be written, TypeError for settings that
    are not plain.
    """
    import json

    import numpy as np

    from . import __version__

    if not getattr(network, "leader", True):
        return
    try:
        json.dumps(settings)
    except TypeError as error:
        raise TypeError(f"settings must be strings, numbers, truth values and None, but: {error}") from error
    state = network.layer_state() if hasattr(network, "layer_state") else {}
    arrays: dict[str, Any] = {
        f"state {name}": to_numpy(value) for name, value in state.items() if is_array_api_obj(value)
    }
    header = {
        "format": FORMAT if records else 2 if state else 1,
        "state": {name: value for name, value in state.items() if f"state {name}" not in arrays},
        "version": __version__,
        "parameters": list(network.params),
        "settings": settings or {},
        "records": [record._replace(losses=len(record.losses))._asdict() for record in records],
    }
    arrays |= {f"parameter {name}": to_numpy(value) for name, value in network.params.items()}
    if records:
        arrays["losses"] = np.concatenate([record.losses for record in records])
    # MT19937 and others, which layers may keep, have arrays in their state
    arrays["xpnet"] = np.asarray(json.dumps(header, default=np.ndarray.tolist))
    _replace(os.path.realpath(file), lambda out: np.savez(out, **arrays))


def load_training(file: FilePath) -> TrainingState:
    """Return the ``TrainingState`` in ``file``, which ``save_training`` or ``save_parameters`` wrote.

    To go on: build the network and the data as before, then

        state = load_training(file)
        state.restore(network)
        train(network, x_train, t_train, ..., resume=state.records[-1])

    A training that an older xpnet saved, before format 3, can be read but not gone on with: its batches were drawn from
    the state of a generator, where now they follow from the seed and the number of the epoch.

    Nothing is unpickled. Raises OSError if the file cannot be read, ValueError if it is damaged, foreign, or written
    by an xpnet with a newer format.
    """
    import io
    import json
    import zipfile

    import numpy as np

    with open(file, "rb") as opened:
        content = io.BytesIO(opened.read())
    try:
        with zipfile.ZipFile(content) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, which xpnet's files never are")  # and might expand without end
            if damaged := archive.testzip():  # compares every check sum
                raise ValueError(f"the check sum of {damaged} is wrong")
        content.seek(0)
        with np.load(content, allow_pickle=False) as arrays:
            header = json.loads(arrays["xpnet"].item())
            if header["format"] in range(1, FORMAT + 1):
                return _state(header, arrays)
    except Exception as error:  # which one depends on the byte that was hit
        raise ValueError(
            f"{os.fspath(file)} was not saved by xpnet, or is damaged or cut short ({type(error).__name__}: {error})"
        ) from error
    raise ValueError(
        f"{os.fspath(file)} was written by xpnet {header.get('version')} in format {header['format']}; this xpnet "
        f"reads format {FORMAT}: install xpnet {header.get('version')} or newer"
    )


def _state(header, arrays):
    parameters = {name: arrays[f"parameter {name}"] for name in header["parameters"]}
    losses, start, records = arrays["losses"] if header["records"] else (), 0, []
    for fields in header["records"]:
        count = fields.pop("losses")
        fields.pop("rng_state", None)  # of format 1 and 2: train refuses to go on from a record without a seed
        records.append(EpochRecord(losses=losses[start : start + count], **fields))
        start += count
    if start != len(losses):
        raise ValueError(f"{len(losses)} losses for {start} iterations")
    state = header.get("state")
    if state is not None:
        state |= {name.removeprefix("state "): arrays[name] for name in arrays.files if name.startswith("state ")}
    return TrainingState(parameters, records, header["settings"], header["version"], state)


def _replace(path, write):
    """Let ``write`` fill a file that takes the place of ``path`` only when all of it is on the disk."""
    folder, name = os.path.split(path)
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, f"{path} is a device or a pipe, which a file would replace; name a file")
    temporary = os.path.join(folder, f".{name}.{threading.get_native_id()}.tmp")
    try:
        try:
            with open(temporary, "wb") as out:
                write(out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        if not os.path.isdir(folder):
            reason = f"there is no folder {folder}; make it first"
        raise OSError(error.errno, f"{path} could not be written, and what was there is unchanged: {reason}") from error
    # not every system lets a folder be opened; where it can, this is what makes the new name outlast a power cut
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
