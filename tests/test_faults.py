"""Faults of the world outside: killed and interrupted programs, damaged data files, long runs, several threads."""

import gzip
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, environment, run_python

from xpnet import TwoLayerNet, load_mnist, load_training, save_parameters, save_training, train
from xpnet.datasets.mnist import FOLDER, IMAGES, LABELS, read_idx
from xpnet.installing import install_command

TRAIN, PREDICT = ROOT / "examples/train.py", ROOT / "examples/predict.py"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(values):
    values = np.asarray(values, dtype=np.uint8)
    return struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()


def write_folder(folder, side=4, n_train=200, n_test=100):
    """Write IDX files with images that a network can tell apart: the row of the label is bright."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for part, n in (("train", n_train), ("t10k", n_test)):
        labels = np.arange(n) % 4
        images = rng.integers(0, 60, size=(n, side, side))
        images[np.arange(n), labels] += 190
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("faults") / "idx")


def run_train(data, *options, cwd):
    return run_python(TRAIN, "--data", data, "--hidden", 8, "--batch-size", 20, *options, cwd=cwd)


# ── train.py ────────────────────────────────────────────────────────────────────────────────────────────────────────


class TestTrainPy:
    def test_a_disk_that_becomes_full_ends_the_run_and_keeps_the_last_epoch(self, tmp_path, data):
        """The limit on the size of files lets the checkpoint grow by a few epochs of 200 losses, and no further."""
        pytest.importorskip("resource", reason="this system has no limit on file sizes")
        options = ("--batch-size", 1, "--checkpoint", "run.npz")
        assert run_train(data, "--epochs", 1, *options, cwd=tmp_path).returncode == 0
        limit = (tmp_path / "run.npz").stat().st_size + 3000
        (tmp_path / "full.py").write_text(
            f"import resource, runpy, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            f"runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n"
        )
        more = ("--data", data, "--hidden", 8, "--epochs", 9, *options, "--resume")
        ran = run_python(tmp_path / "full.py", *more, cwd=tmp_path)
        assert ran.returncode == 1
        (said,) = ran.stderr.splitlines()
        assert said.startswith("train.py: error: ")
        assert said.endswith("run.npz could not be written, and what was there is unchanged: File too large")
        reached = len(load_training(tmp_path / "run.npz").records)
        assert 1 < reached < 9
        assert sorted(path.name for path in tmp_path.iterdir()) == ["full.py", "run.npz"], "nothing half-written"
        assert run_train(data, "--epochs", 9, *options, "--resume", cwd=tmp_path).returncode == 0
        assert run_train(data, "--epochs", 9, *options[:2], "--checkpoint", "whole.npz", cwd=tmp_path).returncode == 0
        gone_on, whole = (load_training(tmp_path / name) for name in ("run.npz", "whole.npz"))
        for name, value in whole.parameters.items():
            assert gone_on.parameters[name].tobytes() == value.tobytes()

    @pytest.mark.skipif(os.name != "posix", reason="Ctrl-C reaches a process otherwise on this system")
    def test_ctrl_c_while_the_data_are_read(self, tmp_path):
        """The images are a pipe that nobody fills, so that the signal comes while they are waited for."""
        write_folder(tmp_path)
        images = tmp_path / "train-images-idx3-ubyte"
        images.unlink()
        os.mkfifo(images)
        start = (
            "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        training = subprocess.Popen(
            [sys.executable, "-u", "-c", start, TRAIN, "--data", tmp_path], env=environment(), cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with training, images.open("wb"):  # which waits until the program opens the other end
            training.send_signal(signal.SIGINT)
            _, said = training.communicate()
        assert training.returncode == 130
        assert said == "train.py: stopped by Ctrl-C before the training began\n"

    def test_a_run_in_two_parts_prints_and_saves_what_one_run_does(self, tmp_path, data):
        whole = run_train(data, "--iterations", 55, "--checkpoint", "whole.npz", cwd=tmp_path)
        first = run_train(data, "--iterations", 30, "--checkpoint", "parts.npz", cwd=tmp_path)
        second = run_train(data, "--iterations", 55, "--checkpoint", "parts.npz", "--resume", cwd=tmp_path)
        assert [ran.returncode for ran in (whole, first, second)] == [0, 0, 0], second.stderr
        assert first.stdout.splitlines()[1:-1] + second.stdout.splitlines()[1:] == whole.stdout.splitlines()[1:]
        whole, parts = (load_training(tmp_path / name) for name in ("whole.npz", "parts.npz"))
        for name, value in whole.parameters.items():
            assert parts.parameters[name].tobytes() == value.tobytes()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--resume"], "--resume goes on from a file; name it with --checkpoint FILE"),
            (["--resume", "--checkpoint", "nothing.npz"], "No such file or directory: 'nothing.npz'"),
            (["--checkpoint", "there.npz"], "there.npz exists; add --resume to go on from it, or name another file"),
            (["--checkpoint", "nowhere/x.npz"], "could not be written, and what was there is unchanged: there is no"),
            (["--checkpoint", "there.npz", "--resume", "--seed", "1"], "was begun with --seed 0, now it is 1; give"),
            (["--checkpoint", "there.npz", "--resume", "--hidden", "9"], "was begun with --hidden 8, now it is 9"),
            (["--checkpoint", "there.npz", "--resume", "--hidden", "9", "7"], "with --hidden 8, now it is 9 7; give"),
            (["--checkpoint", "broken.npz", "--resume"], "broken.npz was not saved by xpnet, or is damaged"),
            pytest.param(
                ["--show-mistakes"],
                "no window can be opened here; name a file: --show-mistakes FILE",
                marks=pytest.mark.skipif(not find_spec("matplotlib"), reason="pip install matplotlib"),
            ),
            pytest.param(
                ["--show-mistakes"],
                f"pictures need matplotlib; run: {install_command('matplotlib')}",
                marks=pytest.mark.skipif(bool(find_spec("matplotlib")), reason="matplotlib is installed"),
            ),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_a_mistake_is_one_line_and_status_2(self, tmp_path, data, options, says):
        if "there.npz" in options:
            run_train(data, "--iterations", 1, "--checkpoint", "there.npz", cwd=tmp_path)
        (tmp_path / "broken.npz").write_bytes(b"PK")
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        ran = run_train(data, *options, cwd=tmp_path)
        assert ran.returncode == 2
        assert re.fullmatch(r"train\.py: error: [^\n]+\n", ran.stderr)
        assert says in ran.stderr
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_training_that_goes_wrong_is_one_line_and_status_1(self, tmp_path, data):
        ran = run_train(data, "--iterations", 20, "--learning-rate", 1e30, "--checkpoint", "kept.npz", cwd=tmp_path)
        assert ran.returncode == 1
        assert re.fullmatch(
            r"train\.py: error: in epoch 1, iteration \d+, the loss became (nan|inf): learning_rate 1e\+30 is probably "
            r"too large; try 1e\+29\. The network is as it was before this epoch\n",
            ran.stderr,
        )
        assert "nan" not in ran.stdout
        assert all(np.isfinite(value).all() for value in load_training(tmp_path / "kept.npz").parameters.values())

    @pytest.mark.skipif(os.name != "posix", reason="Ctrl-C reaches a process otherwise on this system")
    def test_ctrl_c_says_how_to_go_on_and_that_works(self, tmp_path, data):
        start = (
            "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        options = ["--data", str(data), "--hidden", "8", "--batch-size", "20", "--checkpoint", "my run.npz"]
        training = subprocess.Popen(
            [sys.executable, "-c", start, TRAIN, *options, "--epochs", "10000000"],
            env=environment(PYTHONUNBUFFERED="1"), cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with training:
            for line in training.stdout:
                if line.startswith("epoch   2"):
                    training.send_signal(signal.SIGINT)
                    break
            *_, last = training.stdout.read().splitlines()
        assert training.returncode == 130
        command = re.fullmatch(r"my run\.npz holds the last whole epoch; to go on: python (.+)", last).group(1)
        reached = len(load_training(tmp_path / "my run.npz").records)
        assert reached >= 2
        again = subprocess.run(
            f"{sys.executable} {command.replace('10000000', str(reached + 2))}", shell=True, check=True,
            env=environment(), cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        epochs = [int(line.split()[1]) for line in again.stdout.splitlines() if line.startswith("epoch")]
        assert epochs == [reached + 1, reached + 2]

    def test_pictures_are_written(self, tmp_path, data):
        pytest.importorskip("matplotlib", reason="pictures need matplotlib")
        ran = run_train(
            data, "--iterations", 2, "--save-plot", "curves.png", "--show-mistakes", "wrong.png", cwd=tmp_path
        )
        assert ran.returncode == 0, ran.stderr
        for name in ("curves.png", "wrong.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


# ── predict.py ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder_of_digits(tmp_path_factory):
    """Return a folder with a network that learned 3,000 digits, and eight others of which it is sure."""
    folder = tmp_path_factory.mktemp("predict")
    (x, t), (x_test, t_test) = load_mnist(backend="numpy")
    network = TwoLayerNet(784, 30, 10, 0.05, dtype="float32", backend="numpy")
    records = list(train(network, x[:3000], t[:3000], epochs=8, batch_size=50, learning_rate=0.3))
    save_training(network, records, folder / "digits.npz", settings={"activation": "relu"})
    p = network.probabilities(x_test[:200])
    sure = np.flatnonzero((p.argmax(axis=1) == t_test[:200]) & (p.max(axis=1) > 0.98))[:8]
    np.savez(folder / "some.npz", images=x_test[sure].reshape(-1, 28, 28), labels=t_test[sure])
    return folder


class TestPredictPy:
    """A network that learned digits reads them again from pictures that were drawn otherwise."""

    @pytest.mark.parametrize("how", ["as it is", "dark on light", "large, aside, on grey paper", "transparent"])
    def test_pictures_of_digits(self, folder_of_digits, how):
        Image = pytest.importorskip("PIL.Image", reason="reading pictures needs Pillow")
        some = np.load(folder_of_digits / "some.npz")
        for number, image in enumerate(some["images"]):
            grey = Image.fromarray((255 * image).astype("uint8"))
            if how == "dark on light":
                grey = Image.fromarray((255 - 255 * image).astype("uint8"))
            elif how == "large, aside, on grey paper":
                paper = np.full((300, 400), 210.0) + np.random.default_rng(1).normal(0, 4, size=(300, 400))
                paper[90:258, 11:179] *= 1 - 0.9 * np.asarray(grey.resize((168, 168))) / 255
                grey = Image.fromarray(paper.astype("uint8"))
            elif how == "transparent":
                black = Image.new("RGBA", grey.size, "black")
                black.putalpha(grey)
                grey = black
            grey.save(folder_of_digits / f"{number}.png")
        ran = run_python(PREDICT, "digits.npz", *(f"{number}.png" for number in range(8)), cwd=folder_of_digits)
        assert ran.returncode == 0, ran.stderr
        head, *lines = ran.stdout.splitlines()
        assert head.split()[-10:] == list("0123456789")
        answers = [int(line.split()[1]) for line in lines]
        assert answers == some["labels"].tolist()
        for line in lines:
            assert sum(map(float, line.split()[2:])) == pytest.approx(100, abs=0.51)

    def test_without_a_picture_it_shows_test_images(self, folder_of_digits):
        ran = run_python(PREDICT, "digits.npz", cwd=folder_of_digits)
        assert ran.returncode == 0, ran.stderr
        assert len(re.findall(r"(?m)^test image \d, a \d +\d ", ran.stdout)) == 10

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["nothing.npz"], "there is no file nothing.npz; train.py --checkpoint FILE makes one"),
            (["some.npz"], "some.npz was not saved by xpnet"),
            (["small.npz"], "small.npz holds no two-layer network for images of 28 × 28 pixels"),
            (["digits.npz", "nothing.png"], "there is no file nothing.png"),
            (["digits.npz", "some.npz"], "some.npz: cannot identify image file"),
            (["digits.npz", "blank.png"], "blank.png: nothing is drawn on it"),
        ],
        ids=lambda value: value[-1] if isinstance(value, list) else "",
    )
    def test_a_mistake_is_one_line_and_status_2(self, folder_of_digits, options, says):
        Image = pytest.importorskip("PIL.Image", reason="reading pictures needs Pillow")
        Image.new("L", (40, 40), 200).save(folder_of_digits / "blank.png")
        save_parameters(TwoLayerNet(16, 3, 2, backend="numpy"), folder_of_digits / "small.npz")
        ran = run_python(PREDICT, *options, cwd=folder_of_digits)
        assert ran.returncode == 2
        assert re.fullmatch(r"predict\.py: error: [^\n]+\n", ran.stderr)
        assert says in ran.stderr

    def test_a_missing_pillow_is_named_with_what_installs_it(self, folder_of_digits):
        code = f"import runpy, sys; sys.modules['PIL'] = None; runpy.run_path({str(PREDICT)!r}, run_name='__main__')"
        ran = run_python("-c", code, "digits.npz", "any.png", cwd=folder_of_digits)
        assert ran.returncode == 2
        assert ran.stderr.endswith(f"error: reading pictures needs Pillow; run: {install_command('pillow')}\n")


# ── Data files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def corrupted(content, regions, count, seed):
    """Yield (region, content) ``count`` times: one to three bytes of the region changed, taken out or put in."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        name, (start, stop) = list(regions.items())[number % len(regions)]
        hit = bytearray(content)
        place, length = int(rng.integers(start, stop)), int(rng.integers(1, 4))
        new = rng.integers(256, size=length, dtype=np.uint8).tobytes()
        kind = number // len(regions) % 3
        if kind == 0:
            hit[place : place + length] = new[: len(hit) - place]
        elif kind == 1:
            del hit[place : place + length]
        else:
            hit[place:place] = new
        yield name, bytes(hit)


def read_corrupted(path, compressed, count, seed):
    """Return {region: (refused, read unchanged, read changed)} of corrupted files; any other error is raised."""
    values = np.random.default_rng(3).integers(256, size=(20, 6, 5), dtype=np.uint8)
    content = gzip.compress(idx(values), mtime=0) if compressed else idx(values)
    end = len(content)
    regions = {"magic": (0, 4), "counts": (4, 16), "body": (16, end)}
    if compressed:
        regions = {"gzip header": (0, 10), "body": (10, end - 8)}
        regions |= {"check sum": (end - 8, end - 4), "length": (end - 4, end)}
    table = {name: [0, 0, 0] for name in regions}
    for name, hit in corrupted(content, regions, count, seed):
        path.write_bytes(hit)
        tracemalloc.start()
        try:
            found = read_idx(path, IMAGES)
            same = found.shape == values.shape and np.array_equal(found, values)
            table[name][1 if same else 2] += 1
        except ValueError as error:
            table[name][0] += str(path) in str(error)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000, "memory is bounded, whatever the file announces"
        tracemalloc.stop()
    return table


def test_corrupted_gzip_files_are_refused_or_read_unchanged(tmp_path):
    """The check sum guards every byte of the data; a gzip header also has bytes that say nothing."""
    table = read_corrupted(tmp_path / "images", True, 400, seed=0)
    assert sum(map(sum, table.values())) == 400, "each refusal names the file"
    assert not any(changed for _, _, changed in table.values()), table
    for name in ("body", "check sum", "length"):
        assert table[name][0] > 90


def test_corrupted_plain_files_are_refused_unless_only_pixels_changed(tmp_path):
    """A file without check sum cannot tell one pixel from another; its structure it can."""
    table = read_corrupted(tmp_path / "images", False, 300, seed=1)
    assert sum(map(sum, table.values())) == 300, "each refusal names the file"
    for name in ("magic", "counts"):
        assert not table[name][2], table
    assert table["body"][0] > 60, "two thirds change the length"


def endless(path, size):
    """Write a gzip file of zeros that unpacks to ``size`` bytes, in pieces, behind a header of 1000 × 28 × 28."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as out:
        out.write(packer.compress(struct.pack(">4I", IMAGES, 1000, 28, 28)))
        for _ in range(size // 2**24):
            out.write(packer.compress(bytes(2**24)))
        out.write(packer.flush())


def test_a_gzip_file_that_expands_without_end_takes_bounded_memory(tmp_path):
    """268 MB of zeros from 0.3 MB; 784,000 bytes are announced, and no more than a few times that is held."""
    endless(tmp_path / "images", 2**28)
    assert (tmp_path / "images").stat().st_size < 2**19
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"images announces 784000 bytes of data, but holds more"):
            read_idx(tmp_path / "images", IMAGES)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**31, 2**31, 1), (60000, 28, 2**20), (10**9, 1, 1)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_announces_more_than_memory_holds(tmp_path, shape, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(struct.pack(">4I", IMAGES, *shape) + bytes(5000)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"images announces \d+ bytes of data, more than a file of \d+ bytes can"):
            read_idx(path, IMAGES)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        return write_folder(tmp_path / "idx", n_train=6, n_test=3)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_folder_in_the_place_of_a_file(self, folder, name):
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(OSError, match=name):
            load_mnist(folder=folder, backend="numpy")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="only an ordinary user can be kept out")
    @pytest.mark.parametrize("name", NAMES)
    def test_a_file_that_may_not_be_read(self, folder, name):
        (folder / name).chmod(0)
        with pytest.raises(PermissionError, match=name):
            load_mnist(folder=folder, backend="numpy")

    @pytest.mark.parametrize(("part", "which"), [("train", "train"), ("t10k", "test")])
    @pytest.mark.parametrize("count", [1, 2, 5, 7, 200])
    def test_counts_that_differ(self, folder, part, which, count):
        expected = {"train": 6, "test": 3}[which]
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(count) + 3 * (np.arange(count) == 0)))
        with pytest.raises(ValueError, match=f"{part}-images-idx3-ubyte has {expected} images, but .* {count} labels"):
            load_mnist(folder=folder, backend="numpy")

    def test_image_sizes_that_differ(self, folder):
        (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 2, 8))))
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte has images of 2 × 8 pixels, .* have 4 × 4"):
            load_mnist(folder=folder, backend="numpy")

    def test_labels_and_images_exchanged(self, folder):
        images, labels = (folder / name for name in NAMES[:2])
        kept = images.read_bytes()
        images.write_bytes(labels.read_bytes())
        labels.write_bytes(kept)
        with pytest.raises(ValueError, match="train-labels-idx1-ubyte begins with the number 0x803"):
            load_mnist(folder=folder, backend="numpy")

    def test_the_shipped_files_were_not_touched_by_any_of_this(self):
        assert read_idx(Path(FOLDER) / "t10k-labels-idx1-ubyte.gz", LABELS).shape == (10000,)


# ── Long and concurrent use ─────────────────────────────────────────────────────────────────────────────────────────


def growth(steps):
    """Return by how many bytes memory has grown between a tenth and the end of a training of ``steps`` steps."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(100, 4)), rng.integers(3, size=100)
    network = TwoLayerNet(4, 3, 3, backend="numpy")
    tracemalloc.start()
    try:
        before = None
        for record in train(network, x, t, iterations=steps, batch_size=2):
            if before is None and record.iteration >= steps // 10:
                before = tracemalloc.get_traced_memory()[0]
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_steps():
    """One number kept for each of the 2,700 steps would be 65 kB. What libraries set up once is set up before."""
    growth(500)
    assert growth(3000) < 10_000


def test_networks_trained_in_threads_do_not_touch_each_other():
    """Each of four networks ends, bit for bit, where it ends when it is trained alone."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(200, 12)), rng.integers(5, size=200)

    def trained(seed):
        activation = ("relu", "sigmoid")[seed % 2]
        network = TwoLayerNet(12, 8 + seed, 5, 0.3, activation=activation, rng=seed, backend="numpy")
        losses = [record.losses for record in train(network, x, t, epochs=10, batch_size=5, rng=seed)]
        return [*map(np.asarray, network.params.values()), np.concatenate(losses)]

    found = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: trained(seed)})) for seed in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads take turns within a step
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for seed in range(4):
        for one, other in zip(found[seed], trained(seed), strict=True):
            assert one.tobytes() == other.tobytes()
