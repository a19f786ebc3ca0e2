"""Test and measure xpnet on a GPU in one command: captured steps, trainings, gradients, memory, waits, the suite.

    python gpu.py FOLDER                             everything, at most ten minutes
    python gpu.py FOLDER --only capture,steps        the parts whose names begin so, in this order
    python gpu.py FOLDER --minutes 4 --quick         tiny sizes, to see that it runs

It needs CuPy and a GPU; PyTorch and JAX are measured beside it where they are installed for CUDA. Each part (they are
in gpu_parts.py) is a process of its own with a limit of time. FOLDER gets gpu.json with every number, gpu.md with a
table and gpu.log with what the parts said; they are written anew after every number, so that a run cut short keeps what
it has.
"""

# ruff: noqa: D102
import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

HERE = Path(__file__).resolve().parent
# in order of worth, with the seconds each may take on a GPU; the rest of the name is the library whose process it is
LIMITS = {
    "machine": 40,
    "capture-cupy": 90,
    "train-cupy": 60,
    "steps-cupy": 60,
    "as-typed": 60,
    "steps-torch": 60,
    "steps-jax": 60,
    "gradients-cupy": 60,
    "memory-cupy": 40,
    "suite": 240,
    "parity-cupy": 40,
    "chapter4-cupy": 60,
    "train-torch": 90,
    "train-jax": 60,
    "train-numpy": 40,
    "capture-torch": 90,
    "capture-jax": 60,
    "gradients-numpy": 30,
    "examples": 120,
}


class Results:
    """Rows as they come, written into the folder after each."""

    def __init__(self, folder, options):
        self.folder, self.rows, self.lock = folder, [], threading.Lock()
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.head = {"began": self.began, "command": " ".join(["python", *sys.argv]), "quick": options.quick}

    def add(self, row):
        with self.lock:
            self.rows.append(row)
            print(f"{row['part']:16} {row['what']}: {row['value']}", flush=True)
            self.write("gpu.json", json.dumps({**self.head, "rows": self.rows}, indent=1))
            self.write("gpu.md", self.table())

    def table(self):
        lines = [
            f"xpnet on a GPU, {self.began}, `{self.head['command']}`",
            "",
            "| part | what | result |",
            "|---|---|--:|",
        ]
        for row in self.rows:
            cells = (str(row[key]).replace("|", "/").replace("\n", " ") for key in ("part", "what", "value"))
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def write(self, name, text):
        new = self.folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        os.replace(new, self.folder / name)


def command(part, quick, limit):
    """Return the command of a part and the environment it runs in."""
    paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, "XPNET_BACKEND": "cupy", "PYTHONUNBUFFERED": "1"}
    if part == "suite":
        tests = ["tests/test_layers.py", "tests/test_losses.py"] if quick else []
        return [sys.executable, str(HERE / "gpu_suite.py"), f"{max(limit - 10, 5):.0f}", *tests], environment
    return [sys.executable, str(HERE / "gpu_parts.py"), part, *(["--quick"] if quick else [])], environment


def run_part(part, limit, options, results, log):
    """Run one part, at most ``limit`` seconds, and add its rows as they come; return how it ended."""
    arguments, environment = command(part, options.quick, limit)
    log.write(f"\n=== {part}: {' '.join(arguments)}\n")
    log.flush()
    process = subprocess.Popen(
        arguments,
        cwd=HERE.parent,
        env=environment,
        text=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
    )

    def read():
        for line in process.stdout:
            if line.startswith('{"part"'):
                results.add(json.loads(line))
            else:
                log.write(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        code = process.wait(timeout=limit)
        status = "done" if code == 0 else f"ended with {code}"
    except subprocess.TimeoutExpired:
        status = f"stopped after {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGTERM)  # the suite ends its files
            process.wait(timeout=3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    reader.join(timeout=5)
    log.flush()
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where gpu.json, gpu.md and gpu.log go")
    parser.add_argument("--only", default="", help="parts to run, by the beginnings of their names: capture,steps")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long all of it may take (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    wanted = tuple(filter(None, options.only.split(",")))
    chosen = [part for name in wanted for part in LIMITS if part.startswith(name)]  # in the order asked for
    parts = list(dict.fromkeys(chosen if wanted else LIMITS))
    if not parts:
        parser.error(f"--only {options.only} names no part; they are {', '.join(LIMITS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part in hand is ended too
    options.folder.mkdir(parents=True, exist_ok=True)
    results, end = Results(options.folder, options), monotonic() + 60 * options.minutes
    with open(options.folder / "gpu.log", "w", encoding="utf-8") as log:
        for part in parts:
            left = end - monotonic()
            if left < 5:
                results.add({"part": part, "what": "part", "value": "not begun, the time was over"})
                continue
            start = monotonic()
            status = run_part(part, min(left, LIMITS[part]), options, results, log)
            results.add({"part": part, "what": "part", "value": f"{status}, {monotonic() - start:.0f} s"})


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
