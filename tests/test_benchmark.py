"""The benchmark runs at a tiny size and writes what a reader needs to judge its numbers."""

import json
import math
import os
import signal
from argparse import Namespace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from running import run_python

from xpnet import why_unusable

ROOT = Path(__file__).parents[1]


def run(tmp_path, *arguments):
    file = tmp_path / "results.json"
    script = ROOT / "examples" / "benchmark.py"
    done = run_python(script, "--quick", "--json", file, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def check_times(row):
    assert len(row["seconds"]) == 1
    assert all(math.isfinite(s) and s > 0 for s in [*row["seconds"], row["first"]])


def test_import_and_data(tmp_path):
    printed, found = run(tmp_path, "--only", "d")
    *times, memory = found["results"]
    assert [row["contender"] for row in times] == [
        "import numpy, array_api_compat",
        "import xpnet, beyond that",
        "get_backend()",
        "load_mnist()",
    ]
    for row in times:
        check_times(row)
        assert row["contender"] in printed
    # 70,000 images of 784 float32 and as many int64 labels: the peak cannot be below its own result
    assert memory["result bytes"] == 70_000 * (784 * 4 + 8)
    assert min(memory["bytes"]) >= memory["result bytes"]


def test_training_and_steps(tmp_path):
    printed, found = run(tmp_path, "--only", "a,c")
    machine = found["machine"]
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert {"python", "xpnet", "numpy", "array-api-compat"} <= set(machine["versions"])
    assert "--quick" in machine["command"]

    training = {row["contender"]: row for row in found["results"] if row["part"] == "a"}
    first = next(iter(training.values()))
    assert first["contender"].startswith("xpnet")
    for name, row in training.items():
        check_times(row)
        assert name in printed
        assert len(row["accuracies"]) == len(first["accuracies"]) == 1
        assert all(0 < a <= 1 for a in row["accuracies"][-1])
        if "the book" not in name:  # which draws its own batches; the others must have done the same work
            assert row["accuracies"][-1] == pytest.approx(first["accuracies"][-1], abs=0.01), name

    steps = [row for row in found["results"] if row["part"] == "c"]
    assert {(row["hidden"], row["batch"]) for row in steps} == {(10, 10), (10, 100), (50, 10), (50, 100)}
    for row in steps:
        check_times(row)
    for library, name in (("torch", "PyTorch"), ("jax", "JAX")):
        measured = any(name in row["contender"] for row in found["results"])
        assert measured != (library in machine["absent"]), "a peer is measured, or named as absent"


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="--only names e; the parts are a, b, c and d"):
        run(tmp_path, "--only", "a,e")


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import benchmark_workers

    return benchmark_workers


def test_each_contender_has_a_process_of_its_own_and_keeps_it(workers):
    runs = {name: partial(workers.Run, os.getpid) for name in ("one", "other")}
    with workers.Workers() as asked:
        rows, failed = workers.measure(asked, runs, 2)
        again, _ = workers.measure(asked, runs, 1)
    assert failed == {}
    assert [len(row["seconds"]) for row in rows.values()] == [2, 2]
    processes = [row["result"] for row in rows.values()]
    assert len({os.getpid(), *processes}) == 3
    assert processes == [row["result"] for row in again.values()]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (partial(os._exit, 3), "its process ended with exit code 3"),
        (partial(signal.raise_signal, signal.SIGTERM), "its process ended with exit code -15"),
        (partial(int, "x"), "ValueError: invalid literal"),
        (partial(import_module, "no_such_library"), "ModuleNotFoundError: No module named 'no_such_library'"),
    ],
    ids=["ends", "is killed", "raises", "lacks a library"],
)
@pytest.mark.parametrize("when", ["being made", "warming up", "repeating"])
def test_a_contender_that_fails_is_told_and_ends_no_other(workers, make, why, when):
    if "-15" in why and os.name != "posix":
        pytest.skip("no signal ends a process so on this system")
    good = partial(pow, 2, 3)
    bad = {
        "being made": make,
        "warming up": partial(workers.Run, make),
        "repeating": partial(workers.Run, make, warm_up=good),
    }[when]
    with workers.Workers() as asked:
        rows, failed = workers.measure(asked, {"bad": bad, "good": partial(workers.Run, good)}, 2)
        assert failed.keys() == {"bad"}
        assert failed["bad"].startswith(why)
        assert rows.keys() == {"good"}
        assert rows["good"]["result"] == 8
        assert len(rows["good"]["seconds"]) == 2
        rows, failed = workers.measure(asked, {"bad": partial(workers.Run, good)}, 1)  # at another size it may do
        assert rows["bad"]["result"] == 8
        assert failed == {}


def test_contenders_take_turns_but_for_what_takes_long(workers):
    class Asked:
        def __init__(self):
            self.said = []

        def ask(self, name, make=None):
            self.said.append((name, make))
            seconds = 6.0 if name == "long" else 0.5
            return {"seconds": seconds, "result": None, "scale": 10.0, "whole": name != "warmed up"}

    asked, runs = Asked(), {"one": "make one", "long": "make long", "warmed up": "make it"}
    rows, _ = workers.measure(asked, runs, 2)
    assert asked.said == [*runs.items(), *[("one", None), ("warmed up", None)] * 2]
    assert {name: row["seconds"] for name, row in rows.items()} == {
        "one": [5.0, 5.0],
        "long": [60.0],
        "warmed up": [5.0, 5.0],
    }


def test_failures_are_in_the_tables_and_in_the_file(workers, capsys):
    from benchmark_report import Report

    report, row = Report({"cpu": "a CPU"}), {"seconds": [0.5], "first": 1.0, "scale": 1.0, "result": None}
    report.table("a", "training", {"xpnet": row}, {"other": "it ended"})
    grid = {(10, 1): {"xpnet": row, "other": row}, (10, 2): {"other": row}, (10, 3): {"xpnet": row}}
    report.grid("c", "a step", grid, {(10, 1): {}, (10, 2): {"xpnet": "no memory"}, (10, 3): {"other": "it ended"}})
    printed = capsys.readouterr().out
    assert "other: not measured, it ended" in printed
    assert "xpnet, hidden 10 batch 2: not measured, no memory" in printed
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:4] == "| 10"]
    assert lines == [
        ["10", "1", "500 ms", "500 ms", "1.00"],
        ["10", "2", "–", "–", "–"],
        ["10", "3", "500 ms", "167 ms", "–"],
    ]
    found = report.everything()
    assert len(found["results"]) == 5
    assert found["failed"][1] == {
        "part": "c",
        "work": "a step",
        "hidden": 10,
        "batch": 2,
        "contender": "xpnet",
        "why": "no memory",
    }


def test_what_is_absent_takes_no_part(workers):
    from benchmark_contenders import contenders

    def names(part, **options):
        return list(contenders(part, Namespace(**{"backend": "numpy", "gpu": False, "quick": False} | options)))

    every = names("a", absent={})
    assert every[0] == "xpnet, numpy"
    assert {"xpnet, jax, compiled", "xpnet, torch, compiled", "JAX jit + scan", "NumPy by hand"} <= set(every)
    left = names("a", absent={"jax": "not installed"})
    assert [name for name in every if "jax" not in name.lower()] == left
    assert not any("torch" in name.lower() for name in names("c", absent={"torch": "not installed"}))


@pytest.mark.parametrize("hidden", [[10], [12, 7]])
def test_contenders_start_alike_and_do_the_same_at_any_depth(workers, hidden):
    from benchmark_contenders import contenders, start_weights

    absent = {name: "not installed" for name in ("torch", "jax") if why_unusable(name)}
    rng, found = np.random.default_rng(0), {}
    data = {part: (rng.random((40, 784), dtype="float32"), np.arange(40) % 10) for part in ("train", "test")}
    options = Namespace(backend="numpy", gpu=False, quick=True, absent=absent)
    for name, make in contenders("a", options).items():
        contender, weights = make(data), start_weights(*hidden)
        contender.reset(weights)
        x, t = (contender.put(a) for a in data["train"])
        for _ in range(5):
            contender.step(*(contender.data["train"] if "book" in name or "NumPy" in name else (x, t)))
        found[name] = parameters(contender, weights)
    first = next(iter(found.values()))
    for name, last in found.items():
        for mine, theirs, start in zip(first, last, weights.values(), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5), name
            assert not np.array_equal(mine, start)


def parameters(contender, names):
    """Return the parameters of a contender as NumPy arrays, all weights (inputs, outputs)."""
    if hasattr(contender, "model"):
        return [value.detach().numpy().T for value in contender.model.parameters()]
    held = contender.net.params if hasattr(contender, "net") else contender.params
    return [np.asarray(held[name]) for name in names]


def test_networks_of_another_depth_and_a_layer_of_none(tmp_path):
    printed, found = run(tmp_path, "--only", "b", "--hidden", "4", "3")
    assert "numerical gradient 784-4-3-10, relu, float32" in printed
    assert "784-4-3-10, a user's tanh" in printed
    assert found["failed"] == []
    with pytest.raises(AssertionError, match="--hidden: got 0"):
        run(tmp_path, "--hidden", "4", "0")


@pytest.mark.parametrize(
    ("cpu", "gpu", "on_gpu", "name"),
    [
        ("Intel(R) Xeon(R) CPU @ 2.80GHz", None, False, "intel-xeon-cpu-2.80ghz-2-cores"),
        ("AMD EPYC", "NVIDIA H200, 570.1", True, "nvidia-h200"),
        ("AMD EPYC", "NVIDIA H200, 570.1", False, "amd-epyc-2-cores"),
    ],
)
def test_results_in_a_folder_are_named_by_the_device(cpu, gpu, on_gpu, name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from benchmark_report import device_name

    assert device_name({"cpu": cpu, "cores": 2, "gpu": gpu}, on_gpu) == name
