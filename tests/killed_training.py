"""A training that is killed again and again, and must end as one that was not: ``python killed_training.py 200``."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from xpnet import TwoLayerNet, load_training, save_training, train

EPOCHS = 150


def go_on(file):
    """Train to the end, from ``file`` if it is there, writing it after each epoch; most of the time is writing."""
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=(45, 784)), rng.integers(10, size=45)
    network, records = TwoLayerNet(784, 50, 10, backend="numpy"), []
    if file.exists():
        state = load_training(file)
        state.restore(network)
        records = state.records
    resume = records[-1] if records else None
    print("training", flush=True)
    for record in train(network, x, t, epochs=EPOCHS, batch_size=10, rng=5, resume=resume):
        records = [*(old for old in records if old.epoch < record.epoch), record]
        save_training(network, records, file, settings={"lr": 0.1})


def survive(folder, kills, seed=0, longest=0.12):
    """Kill trainings at ``kills`` random moments; return (trainings finished, kills that hit the middle of writing).

    After each kill the file must be whole or not there yet, and must not have gone back; each finished training must
    equal, bit for bit, one that was not killed.
    """
    moments = random.Random(seed)
    expected = folder / "expected.npz"
    go_on(expected)
    finished = in_the_middle = killed = epoch = 0
    file = folder / "killed.npz"
    while killed < kills:
        with subprocess.Popen(
            [sys.executable, __file__, "--child", str(file)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE,
        ) as child:  # fmt: skip
            child.stdout.readline()
            time.sleep(moments.uniform(0, longest))
            child.kill()
            ended = child.wait()
        assert ended in (0, -signal.SIGKILL), "the training failed before it was killed"
        killed += ended != 0
        leftovers = list(folder.glob(".killed.npz.*.tmp"))
        in_the_middle += len(leftovers)
        for leftover in leftovers:
            leftover.unlink()
        if file.exists():
            reached = len(load_training(file).records)
            assert reached >= epoch, f"the file went back from epoch {epoch} to {reached}"
            epoch = reached
        if ended == 0 or epoch == EPOCHS:
            assert_equal(load_training(file), load_training(expected))
            finished, epoch = finished + 1, 0
            file.unlink()
    if file.exists():
        go_on(file)
        assert_equal(load_training(file), load_training(expected))
        finished += 1
    return finished, in_the_middle


def assert_equal(state, expected):
    assert state.settings == expected.settings
    for name, value in expected.parameters.items():
        assert state.parameters[name].tobytes() == value.tobytes(), name
    for one, other in zip(state.records, expected.records, strict=True):
        assert one._replace(losses=None) == other._replace(losses=None)
        assert one.losses.tobytes() == other.losses.tobytes()


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        go_on(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            finished, in_the_middle = survive(Path(temporary), int(sys.argv[1]))
        print(f"{sys.argv[1]} kills, {in_the_middle} while writing, {finished} trainings finished, all equal")
