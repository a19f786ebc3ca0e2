"""How benchmark.py measures and reports: contenders take turns, tables show medians, JSON keeps everything."""

import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np

import xpnet

LONG = 5.0  # a first run of so many seconds needs no warm-up and is the only one


class Run(NamedTuple):
    """``work`` is timed; ``prepare`` goes before and is not; ``warm_up`` goes first of all, else ``work`` does.

    A work that does a part of what its time stands for names the factor, ``scale``.
    """

    work: Callable
    prepare: Callable = lambda: None
    warm_up: Callable | None = None
    scale: float = 1.0


def measure(runs, repetitions):
    """Time {name: Run} in turns; return {name: {"seconds": […], "scale": …, "first": seconds, "result": …}}.

    ``seconds`` holds every repetition, already multiplied by ``scale``; ``first`` is what the warm-up took.
    """

    def timed(name, run, work):
        run.prepare()
        start = perf_counter()
        result = work()
        seconds = perf_counter() - start
        if seconds > 1:
            print(f"  {name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        return seconds, result

    rows = {}
    for name, run in runs.items():
        first, result = timed(name, run, run.warm_up or run.work)
        alone = run.warm_up is None and first > LONG
        seconds = [first * run.scale] if alone else []
        rows[name] = {"seconds": seconds, "scale": run.scale, "first": first, "result": result}
    waiting = [name for name, row in rows.items() if not row["seconds"]]
    for _ in range(repetitions):
        for name in waiting:
            seconds, rows[name]["result"] = timed(name, runs[name], runs[name].work)
            rows[name]["seconds"].append(seconds * runs[name].scale)
    return rows


def machine(options):
    """Return what a reader needs to know about where numbers were measured."""
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    packages = ("numpy", "array-api-compat", "torch", "jax", "jaxlib", "cupy-cuda12x", "cupy-cuda13x")
    versions = {"python": platform.python_version(), "xpnet": xpnet.__version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu = None
    variables = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    threads = {name: os.environ[name] for name in variables if name in os.environ}
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"],
        "blas threads": threads or "the library's default, all cores",
        "versions": versions,
        "backend": xpnet.get_backend(options.backend).describe(),
        "absent": options.absent,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": " ".join(["python", *sys.argv]),
    }


def device_name(machine, on_gpu):
    """Return a file's name for the device that numbers were measured on, such as "amd-epyc-2-cores"."""
    if on_gpu and machine["gpu"]:
        name = machine["gpu"].partition(",")[0]
    else:
        name = f"{machine['cpu']} {machine['cores']} cores"
    return "-".join(re.findall(r"[a-z0-9.]+", re.sub(r"\((r|tm)\)", "", name.lower())))


class Report:
    """Tables for the reader as they come, and every repetition for the JSON file."""

    def __init__(self, machine):
        self.machine, self.results = machine, []
        for key, value in machine.items():
            if value:
                print(f"{key}: {', '.join(map(' '.join, value.items())) if isinstance(value, dict) else value}")

    def table(self, part, work, rows, ratios=True):
        """Print a line for each contender: {name: row of measure}."""
        print(f"\n({part}) {work}\n")
        columns = ["contender", "median", "min–max", "first run", "ratio", "train / test accuracy"]
        lines, base = [], None
        for name, row in rows.items():
            self.results.append({"part": part, "work": work, "contender": name, **row})
            middle = median(row["seconds"])
            base = base or middle
            span = f"{duration(min(row['seconds']))} – {duration(max(row['seconds']))}"
            accuracy = " / ".join(f"{a:.4f}" for a in row["accuracies"][-1]) if "accuracies" in row else ""
            ratio = f"{middle / base:.2f}" if ratios else ""
            lines.append([name, duration(middle), span, duration(row["first"]), ratio, accuracy])
        print_columns(columns, lines)

    def grid(self, part, work, grid):
        """Print a line for each size: xpnet's time, and the others' as multiples of it."""
        print(f"\n({part}) {work}\n")
        lines = []
        for (hidden, batch), rows in grid.items():
            size = {"hidden": hidden, "batch": batch}
            self.results += [{"part": part, "work": work, **size, "contender": n, **r} for n, r in rows.items()]
            first, *others = (median(row["seconds"]) for row in rows.values())
            ratios = [f"{other / first:.2f}" for other in others]
            lines.append([hidden, batch, duration(first), duration(first / batch), *ratios])
        name, *others = next(iter(grid.values()))
        print_columns(["hidden", "batch", name, "per sample", *others], lines)

    def memory(self, part, work, peaks, base):
        """Print the highest of peaks, in bytes, beside what the work is about."""
        self.results.append({"part": part, "work": work, "bytes": peaks, "result bytes": base})
        peak = max(peaks)
        print(f"\n({part}) {work}: {peak / 1e6:.1f} MB, {peak / base:.2f} times the {base / 1e6:.1f} MB it is for")


def duration(seconds):
    """Return a time as text, three digits in the unit that suits it."""
    unit, size = next((u for u in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)) if seconds >= u[1]), ("ns", 1e-9))
    return f"{seconds / size:.{2 if seconds < 10 * size else 1 if seconds < 100 * size else 0}f} {unit}"


def print_columns(heads, lines):
    """Print a table that is also Markdown, without columns that hold nothing."""
    table = [list(map(str, line)) for line in [heads, *lines]]
    kept = [i for i in range(len(heads)) if any(line[i] for line in table[1:])]
    widths = {i: max(len(line[i]) for line in table) for i in kept}
    for number, line in enumerate(table):
        cells = [line[i].ljust(widths[i]) if i == 0 else line[i].rjust(widths[i]) for i in kept]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            print(f"|{'|'.join('-' * (widths[i] + 1) + ('-' if i == 0 else ':') for i in kept)}|")
