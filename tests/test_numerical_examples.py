"""The examples of numerical gradients: a check that sees each planted mistake, chapter 4 trained beside chapter 5."""

import re

import pytest
from running import ROOT, run_python


def run(example, *options, backend="numpy"):
    return run_python(ROOT / "examples" / example, *options, XPNET_BACKEND=backend)


def check(*options):
    return run("check_gradients.py", "--hidden", 20, "--batch-size", 10, *options)


class TestCheckGradients:
    @pytest.mark.parametrize(("activation", "dtype"), [("relu", "float64"), ("sigmoid", "float32")])
    def test_what_is_right_passes(self, activation, dtype):
        ran = check("--activation", activation, "--dtype", dtype)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stderr == ""
        lines = ran.stdout.splitlines()
        assert lines[0].endswith(f", 784-20-10 {activation}")
        assert lines[1].startswith(f"gradient check   TwoLayerNet, batch 10, {dtype}, difference propagation, h = 2^-")
        assert lines[-1].startswith("pass             159")
        assert sum(map(int, re.findall(r"\d+", lines[-1]))) == 15910  # agree, on a kink, too small to tell

    @pytest.mark.parametrize(
        ("mistake", "parameters", "says"),
        [
            ("sign", {"W1": 1}, "the ratio is -1, a sign"),
            ("share", {"W1": 1}, "the ratio is 1.0005"),
            (
                "mean",
                {"W1": None, "b1": None, "W2": None, "b2": 10},
                "every ratio is 10, the batch size: a missing 1/N?",
            ),
            ("mask", {"W1": None, "b1": None}, None),
            ("bias", {"b1": None}, "backpropagation gives 0 for all of them: forgotten?"),
            ("sum", {"b2": 10}, None),
            ("transpose", {"W2": 90}, "every entry is that of the transposed matrix"),
        ],
    )
    def test_planted_mistakes_are_caught_and_named(self, mistake, parameters, says):
        size = ("--hidden", 50, "--batch-size", 100) if mistake in ("sign", "share") else ()
        ran = check("--plant", mistake, *size)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        counts = {}
        for line in ran.stdout.splitlines():
            if row := re.match(r"([Wb]\d) \(.*?\) +\d+ +\d+ +\d+ +\d+ +(\d+)(?: |$)", line):
                counts[row[1]] = int(row[2])
        assert counts.keys() == {"W1", "b1", "W2", "b2"}
        failed = {name: count for name, count in counts.items() if count}
        assert failed.keys() == parameters.keys()
        for name, count in parameters.items():
            assert count in (None, failed[name])
        hints = [line.strip() for line in ran.stdout.splitlines() if re.match(r" {17}(?!at \()\S", line)]
        assert hints == ([says] * len(parameters) if says else [])
        assert re.match(rf"FAIL             {sum(failed.values())} of \d+ entries fail", ran.stdout.splitlines()[-1])

    def test_one_wrong_weight_is_one_that_matters(self):
        assert check("--plant", "sign", "--seed", 1).returncode == 1

    def test_help_names_every_mistake(self):
        ran = run("check_gradients.py", "--help")
        assert "--plant {sign,share,mean,mask,bias,sum,transpose}" in ran.stdout


class TestTrainNumerically:
    def test_both_curves_are_one(self):
        """In float64, 30 iterations apart by rounding and a truncation of h²: below 1e-9 of a loss of 2.3."""
        ran = run("train_numerically.py", "--iterations", 30, "--hidden", 10)
        assert ran.returncode == 0, ran.stderr
        lines = ran.stdout.splitlines()
        found = re.search(r"largest difference of a batch's loss (\S+), of a weight at the end (\S+)", ran.stdout)
        assert float(found[1]) < 1e-9
        assert float(found[2]) < 1e-9
        row = next(line for line in lines if re.match(r" +1 +30 ", line)).split()
        assert row[2:5] == row[5:8]
        assert "7960 parameters, 15920 finite changes of the loss in every iteration" in lines
        assert re.fullmatch(r"test accuracy 0\.\d{4}", lines[-1])
        assert ran.stderr == ""

    def test_float32(self):
        ran = run("train_numerically.py", "--iterations", 20, "--hidden", 5, "--dtype", "float32")
        apart = float(re.search(r"largest difference of a batch's loss ([^,\s]+),", ran.stdout)[1])
        assert apart < 1e-4
        assert re.fullmatch(r"test accuracy 0\.\d{4}", ran.stdout.splitlines()[-1])

    def test_an_unusable_backend_is_one_line(self):
        ran = run("train_numerically.py", "--backend", "nunpy")
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert re.fullmatch(r"train_numerically.py: error: .*did you mean numpy\?.*\n", ran.stderr)
