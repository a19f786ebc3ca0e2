"""How benchmark.py reports: tables show medians, JSON keeps everything."""

import datetime
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

import xpnet


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
        self.machine, self.results, self.failures = machine, [], []
        for key, value in machine.items():
            if value:
                print(f"{key}: {', '.join(map(' '.join, value.items())) if isinstance(value, dict) else value}")

    def everything(self):
        """Return what the JSON file is to hold."""
        return {"machine": self.machine, "results": self.results, "failed": self.failures}

    def table(self, part, work, rows, failed=None, ratios=True):
        """Print a line for each contender, {name: row of measure}, and why others ``failed``, {name: why}."""
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
        self.tell(failed or {}, part=part, work=work)

    def grid(self, part, work, grid, failed=None):
        """Print a line for each size: xpnet's time, and the others' as multiples of it, none where they failed."""
        print(f"\n({part}) {work}\n")
        lines, (name, *others) = [], dict.fromkeys(name for rows in grid.values() for name in rows)
        for (hidden, batch), rows in grid.items():
            size = {"hidden": hidden, "batch": batch}
            self.results += [{"part": part, "work": work, **size, "contender": n, **r} for n, r in rows.items()]
            middles = {n: median(row["seconds"]) for n, row in rows.items()}
            first = middles.get(name)
            times = [duration(first), duration(first / batch)] if first else ["–", "–"]
            ratios = [f"{middles[other] / first:.2f}" if first and other in middles else "–" for other in others]
            lines.append([hidden, batch, *times, *ratios])
        print_columns(["hidden", "batch", name, "per sample", *others], lines)
        for (hidden, batch), why in (failed or {}).items():
            self.tell(why, part=part, work=work, hidden=hidden, batch=batch)

    def tell(self, failed, **where):
        """Say which contenders failed at what, and why."""
        size = " ".join(f"{name} {where[name]:,}" for name in ("hidden", "batch") if name in where)
        for name, why in failed.items():
            self.failures.append({**where, "contender": name, "why": why})
            print(f"\n{name}{f', {size}' if size else ''}: not measured, {why}")

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
