"""Every example runs from any directory; train.py keeps its promises; a learner's own script needs new imports only."""

import ast
import os
import re
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from running import ROOT, environment, run_python

from xpnet import why_unusable

FILES = sorted((ROOT / "examples").glob("*.py"))
IMPORTED = {  # a file that another example imports is a part of that example
    name for path in FILES for name in re.findall(r"(?m)^ *(?:from|import) +(\w+)", path.read_text(encoding="utf-8"))
}
EXAMPLES = [path for path in FILES if path.stem not in IMPORTED]


def run(*command, backend="", cwd):
    """Run Python in another directory, with ``XPNET_BACKEND`` set to ``backend``."""
    return run_python(*command, cwd=cwd, XPNET_BACKEND=backend)


def usable(name):
    """Mark a parameter that needs the backend ``name``: the reason is the sentence a user would read."""
    return pytest.param(name, marks=pytest.mark.skipif(bool(why_unusable(name)), reason=str(why_unusable(name))))


BACKENDS = [usable(name) for name in ("numpy", "array_api_strict", "torch", "jax", "cupy")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of IDX files with 200 + 100 images of 4 × 4 pixels that a network can tell apart."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for part, n in (("train", 200), ("t10k", 100)):
        labels = np.arange(n, dtype=np.uint8) % 4
        images = rng.integers(0, 60, size=(n, 4, 4), dtype=np.uint8)
        images[np.arange(n), labels] += 190  # the row of the label is bright
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, n, 4, 4) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + labels.tobytes())
    return folder


class TestEveryExample:
    def test_there_are_examples(self):
        assert {"train.py", "buy_fruit.py", "gradient_descent.py"} <= {path.name for path in EXAMPLES}

    @pytest.mark.parametrize(
        "path", [path for path in EXAMPLES if path.stem != "train_simple"], ids=lambda path: path.name
    )  # which is there to be read and has no options
    def test_help_from_another_directory(self, path, tmp_path):
        ran = run(path, "--help", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("usage: ")
        assert ran.stderr == ""

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    def test_first_line_says_what_it_shows(self, path):
        source = path.read_text(encoding="utf-8")
        first = ast.get_docstring(ast.parse(source)).splitlines()[0]
        assert source.startswith(f'"""{first}')
        assert len(first) > 20
        assert first[-1] in ".:)"  # or a heading of the gallery, such as "… (book, 4.4)"


class TestTrain:
    def train(self, *options, cwd, data, backend=""):
        return run(
            ROOT / "examples/train.py",
            "--data",
            data,
            "--hidden",
            8,
            "--batch-size",
            20,
            *options,
            cwd=cwd,
            backend=backend,
        )

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_learns_and_reports(self, tmp_path, data, backend):
        options = ("--iterations", 55, "--learning-rate", 0.5, "--seed", 3)
        ran = self.train(*options, cwd=tmp_path, data=data, backend=backend)
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""  # no progress bar where nobody sees it
        first, *epochs, last = ran.stdout.splitlines()
        assert first.startswith(f"backend {backend}, device ")
        assert first.removesuffix(", compiled").endswith(", dtype float32, seed 3")
        number = r"\d+\.\d{4}"
        for epoch, line in enumerate(epochs, start=1):
            assert re.fullmatch(
                rf"epoch +{epoch}  iteration +{min(10 * epoch, 55)}  loss {number}  train accuracy {number}  "
                rf"test accuracy {number}",
                line,
            )
        assert len(epochs) == 6
        assert re.fullmatch(r"test accuracy [01]\.\d{4}", last)
        assert float(last.split()[-1]) > 0.9
        assert epochs[-1].endswith(last)

    @pytest.mark.parametrize(
        "options",
        [
            ["--epochs", 2],
            ["--hidden", 7, 6, "--iterations", 3],
            ["--activation", "sigmoid", "--iterations", 3],
            ["--replacement", "--iterations", 3],
            ["--dtype", "float64", "--iterations", 3],
            ["--gradient", "numerical", "--iterations", 2],
        ],
        ids=lambda options: options[0],
    )
    def test_every_option_runs(self, tmp_path, data, options):
        ran = self.train(*options, cwd=tmp_path, data=data)
        assert ran.returncode == 0, ran.stderr
        assert re.search(r"\ntest accuracy [01]\.\d{4}\n$", ran.stdout)

    def test_epochs_and_iterations_say_the_same(self, tmp_path, data):
        epochs, iterations = (
            self.train(option, value, cwd=tmp_path, data=data).stdout
            for option, value in (("--epochs", 2), ("--iterations", 20))
        )
        assert epochs == iterations

    def test_one_seed_gives_one_output_and_another_seed_another(self, tmp_path, data):
        first, again, other = (
            self.train("--iterations", 20, "--seed", seed, cwd=tmp_path, data=data).stdout for seed in (1, 1, 2)
        )
        assert first == again
        assert first.splitlines()[1:] != other.splitlines()[1:]

    def test_a_network_of_any_depth_learns(self, tmp_path, data):
        options = ("--hidden", 12, 8, "--epochs", 20, "--learning-rate", 0.5)
        ran = self.train(*options, cwd=tmp_path, data=data)
        assert ran.returncode == 0, ran.stderr
        assert float(ran.stdout.split()[-1]) > 0.9

    def test_the_first_line_says_how_many_threads_multiply(self, tmp_path, data):
        """On NumPy, where beside another busy program more than one make a run many times slower."""
        for threads, says in (("1", ", 1 BLAS thread, "), ("2", ", 2 BLAS threads (beside other programs: OPENBLAS")):
            ran = run_python(
                *(ROOT / "examples/train.py", "--data", data, "--iterations", 1),
                cwd=tmp_path,
                XPNET_BACKEND="",
                OPENBLAS_NUM_THREADS=threads,
            )
            assert says in ran.stdout.splitlines()[0]

    def test_option_decides_before_the_variable(self, tmp_path, data):
        ran = self.train("--iterations", 1, "--backend", "numpy", cwd=tmp_path, data=data, backend="abacus")
        assert ran.stdout.startswith("backend numpy, ")

    @pytest.mark.parametrize(
        ("options", "backend", "says"),
        [
            (["--backend", "abacus"], "", "backend='abacus': there is no backend of that name"),
            ([], "nunpy", "XPNET_BACKEND=nunpy: there is no backend of that name (did you mean numpy?)"),
            (["--data", "nowhere"], "", "nowhere has no file *train-labels-idx*-ubyte"),
            (["--data", "damaged"], "", "train-labels-idx1-ubyte ends within its header"),
        ],
        ids=["backend", "variable", "missing data", "damaged data"],
    )
    def test_mistake_is_one_line_and_status_2(self, tmp_path, data, options, backend, says):
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged/train-labels-idx1-ubyte").write_bytes(b"")
        ran = self.train(*options, cwd=tmp_path, data=data, backend=backend)
        assert ran.returncode == 2
        assert re.fullmatch(r"train\.py: error: [^\n]+\n", ran.stderr)
        assert says in ran.stderr

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--hidden", 0),
            ("--batch-size", -1),
            ("--iterations", 0),
            ("--epochs", 1.5),
            ("--learning-rate", "nan"),
            ("--learning-rate", 0),
            ("--seed", -1),
            ("--dtype", "int8"),
            ("--activation", "tanh"),
            ("--gradient", "x"),
        ],
    )
    def test_value_that_is_not_allowed_is_named(self, tmp_path, data, option, value):
        ran = self.train(option, value, cwd=tmp_path, data=data)
        assert ran.returncode == 2
        assert ran.stdout == ""
        usage, error = ran.stderr.splitlines()
        assert usage == "usage: train.py [options]"
        assert error.startswith(f"train.py: error: argument {option}: ")
        assert str(value) in error

    @pytest.mark.skipif(os.name != "posix", reason="Ctrl-C reaches a process otherwise on this system")
    def test_ctrl_c_ends_with_what_was_reached(self, tmp_path, data):
        # where the tests themselves run in the background, a child would ignore the signal
        start = (
            "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        training = subprocess.Popen(
            [sys.executable, "-c", start, ROOT / "examples/train.py", "--data", data, "--epochs", "10000000"],
            env=environment(PYTHONUNBUFFERED="1"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with training:
            for line in training.stdout:
                if line.startswith("epoch   2"):
                    training.send_signal(signal.SIGINT)
                    break
            *_, message, last = training.stdout.read().splitlines()
            assert training.stderr.read() == ""
        assert training.returncode == 130
        assert message == "stopped by Ctrl-C; the network as it is now:"
        assert re.fullmatch(r"test accuracy [01]\.\d{4}", last)


class TestBuyFruit:
    def test_the_books_numbers(self, tmp_path):
        output = run(ROOT / "examples/buy_fruit.py", cwd=tmp_path).stdout
        table = dict(re.findall(r"(?m)^(\S.*?)  +\S+  +(\S+)$", output))
        assert "715.0000000000001" in output
        assert table == {
            "price": "1",
            "cost before tax": "1.1",
            "apple cost": "1.1",
            "orange cost": "1.1",
            "price of an apple": "2.2",
            "number of apples": "110.00000000000001",
            "price of an orange": "3.3000000000000003",
            "number of oranges": "165.0",
            "tax": "650",
        }


class TestGradientDescent:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_reaches_the_books_point(self, tmp_path, backend):
        ran = run(ROOT / "examples/gradient_descent.py", cwd=tmp_path, backend=backend)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith(f"backend {backend}, ")
        ends = re.findall(r"after 100 steps: \( *(\S+), *(\S+)\)", ran.stdout)
        good, large, small = ((float(x0), float(x1)) for x0, x1 in ends)
        assert good == pytest.approx((-6.11110793e-10, 8.14814391e-10), rel=1e-6)
        assert abs(large[0]) > 1e8
        assert small == pytest.approx((-3 * 0.9998**100, 4 * 0.9998**100))

    def test_mistake_is_one_line_and_status_2(self, tmp_path):
        ran = run(ROOT / "examples/gradient_descent.py", cwd=tmp_path, backend="abacus")
        assert ran.returncode == 2
        assert re.fullmatch(r"gradient_descent\.py: error: [^\n]+\n", ran.stderr)


# The training loop as learners type it from the book. Only the first two imports are not the book's; the folder and
# the size are a test's.
LEARNERS_SCRIPT = """
import sys
import numpy as np
from xpnet import TwoLayerNet, load_mnist

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True, folder=sys.argv[1])
network = TwoLayerNet(input_size=16, hidden_size=8, output_size=4)

iters_num = 60
train_size = x_train.shape[0]
batch_size = 20
learning_rate = 0.5
train_loss_list = []
test_acc_list = []
iter_per_epoch = max(train_size / batch_size, 1)

np.random.seed(0)
for i in range(iters_num):
    batch_mask = np.random.choice(train_size, batch_size)
    x_batch = x_train[batch_mask]
    t_batch = t_train[batch_mask]
    grad = network.gradient(x_batch, t_batch)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= learning_rate * grad[key]
    loss = network.loss(x_batch, t_batch)
    train_loss_list.append(loss)
    if i % iter_per_epoch == 0:
        test_acc_list.append(network.accuracy(x_test, t_test))

print(type(network.params["W1"]).__module__.partition(".")[0])
print(float(network.accuracy(x_test, t_test)))
print(float(train_loss_list[-1]))
"""


@pytest.mark.parametrize("backend", [usable(name) for name in ("numpy", "torch", "jax", "cupy")])
def test_learners_script_with_only_its_imports_changed(tmp_path, data, backend):
    """Not array_api_strict: the book indexes with x_train[batch_mask], which the standard leaves out."""
    script = tmp_path / "learner.py"
    script.write_text(LEARNERS_SCRIPT)
    ran = run(script, data, cwd=tmp_path, backend=backend)
    assert ran.returncode == 0, ran.stderr
    library, accuracy, loss = ran.stdout.split()
    assert library.removesuffix("lib") == backend
    assert float(accuracy) > 0.9
    expected = run(script, data, cwd=tmp_path, backend="numpy").stdout.split()
    assert float(accuracy) == pytest.approx(float(expected[1]), abs=0.02)
    assert float(loss) == pytest.approx(float(expected[2]), rel=1e-6)
