"""The benchmark runs at a tiny size and writes what a reader needs to judge its numbers."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(tmp_path, *arguments):
    file = tmp_path / "results.json"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "benchmark.py", "--quick", "--json", file, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
    )
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
