"""Run the tests on CuPy for gpu.py: each file a process of its own, several at a time, and what was seen is kept.

    python gpu_suite.py SECONDS             every file of tests, and the examples in docstrings
    python gpu_suite.py SECONDS FILE ...    these

It prints a JSON row for each file and each failure as they come, and the sum at the end. Nothing but pytest is needed;
plugins that happen to be installed stay out. At the end of the time every process is ended, and its counts are told.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent
KEPT = 1500  # characters of a failure, its last ones
# the suite is about CuPy: other libraries stay on the processor, and leave the GPU's memory alone
ENVIRONMENT = {
    "XPNET_BACKEND": "cupy",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "MPLBACKEND": "agg",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Open MPI 4 and 5 refuse root, as which containers run, and more ranks than cores
    **dict.fromkeys((f"{mpi}_ALLOW_RUN_AS_ROOT{more}" for mpi in ("OMPI", "PRTE") for more in ("", "_CONFIRM")), "1"),
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


class File:
    """One file of tests in a process: its counts, its failures and the test in hand, as far as it has come."""

    def __init__(self, name):
        self.name, self.counts, self.failures, self.at, self.process = name, Counter(), [], None, None

    def run(self, end):
        """Run it until ``end`` at the latest; return how it ended."""
        start = monotonic()
        if start > end - 1:
            return "not begun, the time was over"
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--one", self.name],
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT},
                text=True,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            ending = threading.Timer(end - start, self.kill)
            ending.start()
            for line in self.process.stdout:
                self.hear(*json.loads(line))
            code = self.process.wait()
            ending.cancel()
            self.kill()  # what its tests have left running
            log.seek(0)
            sys.stderr.write(f"\n--- {self.name}\n{log.read()}")
        took = f"{monotonic() - start:.0f} s"
        if code in (0, 1):
            return took
        return f"stopped after {took} in {self.at}" if code == -signal.SIGKILL else f"ended with {code} after {took}"

    def hear(self, outcome, test, text):
        """Take what the process says of a test."""
        self.at = test
        if outcome:
            self.counts[outcome] += 1
        if outcome == "failed":
            self.failures.append((test, text))

    def kill(self):
        """End its process, and what that has started."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def told(counts):
    return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items())) or "nothing"


def add(what, value, **more):
    print(json.dumps({"part": "suite", "what": what, "value": value, **more}), flush=True)


def run_all(seconds, names):
    """Run the files, the largest first, and print a row for each as it ends."""
    end, lock = monotonic() + seconds, threading.Lock()
    names = names or [str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py")] + ["xpnet"]
    names = sorted(names, key=lambda name: (ROOT / name).stat().st_size, reverse=True)
    files, unfinished = [File(name) for name in names], []

    def stop(*_):
        for file in files:
            file.kill()
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)

    def run(file):
        how = file.run(end)
        with lock:
            add(file.name, f"{told(file.counts)}; {how}", counts=file.counts)
            for test, text in file.failures:
                reasons = [line for line in text.splitlines() if line.startswith("E ")]
                add(test, " ".join((reasons or text.splitlines()[-1:])[:3]), failed=text)
            if not how[0].isdigit():
                unfinished.append(file.name)

    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 2)) as pool:
        list(pool.map(run, files))
    counts = sum((file.counts for file in files), Counter())
    left = f"; not to the end: {', '.join(unfinished)}" if unfinished else ""
    add("XPNET_BACKEND=cupy python -m pytest", f"{told(counts)}, {len(files)} files{left}", counts=counts)


def run_one(name):
    """Run a file with pytest, and say each outcome on the standard output as it comes; pytest's own lines go aside."""
    import pytest

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path[0] = str(ROOT)  # as python -m pytest has it

    def say(outcome, test, text=""):
        out.write(json.dumps([outcome, test, text[-KEPT:]]) + "\n")

    class Outcomes:
        def pytest_runtest_logstart(self, nodeid):
            say("", nodeid)

        def pytest_runtest_logreport(self, report):
            if report.when == "call" or not report.passed:
                say(report.outcome, report.nodeid, report.longreprtext if report.failed else "")

        def pytest_collectreport(self, report):
            if report.failed:
                say("failed", report.nodeid, report.longreprtext)

    plugins = ["-p", "_hypothesis_pytestplugin"] if find_spec("_hypothesis_pytestplugin") else []
    return pytest.main([name, "-q", "--tb=short", "-p", "no:cacheprovider", *plugins], plugins=[Outcomes()])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.exit(int(run_one(sys.argv[2])))
    command_line = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command_line.add_argument("seconds", type=float, help="every process is ended at the end of this time")
    command_line.add_argument(
        "files", nargs="*", help="files of tests; without, every one and the examples in docstrings"
    )
    arguments = command_line.parse_args()
    run_all(arguments.seconds, arguments.files)
