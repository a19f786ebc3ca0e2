"""What a training tells: the record of an epoch, and the error that ends one which went wrong."""

from __future__ import annotations

from typing import NamedTuple

from .annotations import Array
from .batches import steps_per_epoch
from .describing import record_in_words


class TrainingError(ArithmeticError):
    """A training that went wrong: the loss or a parameter became NaN or infinite. The message names the likely cause.

    ``epoch`` and ``iteration`` say when; ``parameters`` are the last good ones, those from before that epoch, which
    the network holds again.
    """

    def __init__(self, message: str, epoch: int, iteration: int, parameters: dict[str, Array]) -> None:
        super().__init__(message)
        self.epoch, self.iteration, self.parameters = epoch, iteration, parameters

    def __reduce__(self):  # an exception is otherwise made again from its message alone
        return type(self), (*self.args, self.epoch, self.iteration, self.parameters)


class EpochRecord(NamedTuple):
    """What an epoch reached, as numbers on the host, from which ``train`` can go on.

    Attributes
    ----------
    epoch : int
        Its number, from 1.
    iteration : int
        That of its last step, counted from the very beginning.
    loss : float
        The mean of ``losses``.
    train_accuracy : float
        The share of the training data, in [0, 1], that the network gets right at its end.
    test_accuracy : float
        That of the test data, None without them.
    losses : NumPy array
        The loss of each batch before its step.
    seed : int
        From it and ``epoch`` the batches were drawn; None in the file of an older xpnet.
    """

    epoch: int
    iteration: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    losses: Array
    seed: int | None = None

    def __repr__(self):
        return record_in_words(self)


def require_record(resume, size, batch_size):
    """Raise unless ``resume`` is the record of a run on ``size`` samples in batches of ``batch_size``."""
    if not isinstance(resume, EpochRecord):
        raise TypeError(f"resume is {type(resume).__name__}; it must be an EpochRecord, the last one of a run")
    count, steps = len(resume.losses), steps_per_epoch(size, batch_size)
    if not 0 < count <= steps or (resume.epoch - 1) * steps + count != resume.iteration:
        raise ValueError(
            f"resume is at epoch {resume.epoch}, iteration {resume.iteration}, which {size} samples in batches of "
            f"{batch_size} never reach; go on with the data and the batch_size that the run began with"
        )
    if resume.seed is None:
        raise ValueError(
            "resume carries no seed: it was saved by an xpnet that drew batches in another way, and going on would "
            "take samples twice; finish the run with that xpnet (load_training(file).version), or begin a new one, "
            "without resume, from the parameters that it reached"
        )
