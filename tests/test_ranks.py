"""Ranks over MPI, as a user starts them: what they reach together, and how they end when one goes wrong."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from running import environment

from xpnet import load_training

ROOT = Path(__file__).parent.parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
MISSING = [what for what, found in (("mpi4py", find_spec("mpi4py")), ("mpiexec", MPIEXEC)) if not found]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)}; run: pip install mpi4py mpich")
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SECONDS = 20  # from a failure to the end of all ranks; it takes less than one on an idle machine


def run(ranks, *command, timeout=120):
    """Start Python on ranks, as the documentation does, with one BLAS thread each."""
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py", *map(str, command)],
        env=environment(**ONE_THREAD),
        capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip


def processes(file):
    """Return the command lines of processes that name ``file``, where the system tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(file) in line:
            found.append(line)
    return found


KILLED = "was killed or crashed: it ended without a word"
FAULTS = [
    ("killed in a step", 1, KILLED),
    ("killed between steps", 1, KILLED),
    ("killed between steps", 0, KILLED),
    ("killed in a checkpoint", 0, KILLED),
    ("exception", 1, "LookupError: a planted mistake"),
    ("exception between steps", 1, "LookupError: a planted mistake"),
    ("leaves the loop", 1, r"left after \d+ steps together, but rank \d waits for it in its next gradient"),
    ("leaves with 0", 1, r"left after \d+ steps together, but rank \d waits for it"),
    ("leaves with 3", 1, r"left after \d+ steps together, but rank \d waits for it"),
    ("another question", 1, "asks for the (gradient, and rank 1 for the accuracy|accuracy, and rank 2 for the)"),
    ("stuck", 1, "has not come for 3 s to the gradient, in which rank . waits for it"),
    ("nan", 1, "samples from sample [1-9]\\d* on, became NaN or infinite, and on other ranks it did not"),
    ("full disk", 0, "could not be written, and what was there is unchanged: No space left on device"),
]


class TestTogether:
    @pytest.mark.parametrize("ranks", [2, 3])
    def test_ranks_do_what_one_process_does(self, ranks):
        ended = run(ranks, ROOT / "tests" / "together.py")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "as one process\n", "")

    def test_any_number_of_ranks_goes_on_from_what_any_number_saved(self, tmp_path):
        rng, train = np.random.default_rng(0), ROOT / "examples" / "train.py"
        for part, n in (("train", 250), ("t10k", 100)):
            head = struct.pack(">4I", 0x803, n, 4, 4)
            (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(head + rng.bytes(16 * n))
            labels = (np.arange(n) % 4).astype("uint8").tobytes()
            (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + labels)
        options = ("--data", tmp_path, "--dtype", "float64", "--hidden", 8)
        file = tmp_path / "saved.npz"
        for ranks, epochs, more in ((2, 1, ()), (3, 2, ("--resume",)), (1, 3, ("--resume",))):
            ended = run(ranks, train, "--distributed", "--epochs", epochs, "--checkpoint", file, *more, *options)
            assert ended.returncode == 0, ended.stderr
            first, *lines = ended.stdout.splitlines()
            assert f"{ranks} rank{'s' if ranks > 1 else ''} on 1 machine, " in first
            assert first.endswith("sums through host memory")
            assert len(lines) == 2, ended.stdout  # one epoch and the last line, by rank 0 alone
        alone = tmp_path / "alone.npz"
        assert run(1, train, "--epochs", 3, "--checkpoint", alone, *options).returncode == 0
        for name, value in load_training(alone).parameters.items():
            np.testing.assert_allclose(load_training(file).parameters[name], value, rtol=0, atol=1e-15)
        shared = run(3, train, "--distributed", "--by-share", "--batch-size", 99, "--epochs", 2, *options)
        assert shared.returncode == 0, shared.stderr
        refused = run(2, train, "--distributed", "--by-share", "--batch-size", 99, *options)
        assert refused.returncode != 0
        assert refused.stderr.count("--batch-size 99 cannot be shared equally by 2 ranks") == 1

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to one process")
    def test_ctrl_c_stops_all_ranks_in_the_same_step_and_says_how_to_go_on(self, tmp_path):
        command = [sys.executable, "-m", "mpi4py", ROOT / "examples" / "train.py", "--distributed"]
        with subprocess.Popen(
            [MPIEXEC, "-n", "2", *command, "--checkpoint", tmp_path / "saved.npz", "--iterations", "1000000"],
            env=environment(**ONE_THREAD),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            process.stdout.readline()
            assert process.stdout.readline().startswith("epoch   1")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "stopped by Ctrl-C; the network as it is now:\ntest accuracy 0.9" in out
        assert "to go on: mpiexec -n 2 python -m mpi4py" in out
        assert "xpnet:" not in err
        assert load_training(tmp_path / "saved.npz").records


class TestFailures:
    @pytest.mark.parametrize("ranks", [2, 3])
    @pytest.mark.parametrize(("fault", "who", "cause"), FAULTS, ids=[f"{fault}-{who}" for fault, who, _ in FAULTS])
    def test_all_ranks_end_with_one_message_that_names_the_rank_and_the_cause(self, tmp_path, ranks, fault, who, cause):
        file = tmp_path / "checkpoint.npz"
        ended = run(ranks, ROOT / "tests" / "on_ranks.py", fault, who, file)
        took = time.time() - float(re.findall(r"planted at (\S+)", ended.stdout)[0])
        assert ended.returncode != 0
        assert "trained to the end" not in ended.stdout
        messages = re.findall(r"(?m)^xpnet: .*", ended.stderr)
        assert len(messages) == 1, ended.stderr
        named = "." if fault == "another question" else who  # two ranks differ: which is wrong, nobody can tell
        assert re.match(rf"xpnet: rank {named} of {ranks} \(process \d+ on \S+\)", messages[0])
        assert re.search(cause, messages[0])
        assert ended.stderr.count("Traceback") <= 2  # one, and the exception that caused it
        assert took < SECONDS
        state = load_training(file)
        assert len(state.records) == (2 if "checkpoint" in fault or "disk" in fault else 7 if "loop" in fault else 6)
        for _ in range(100):
            if not processes(file):
                break
            time.sleep(0.05)
        assert not processes(file)

    def test_a_run_in_which_nothing_is_planted_comes_to_its_end(self, tmp_path):
        ended = run(3, ROOT / "tests" / "on_ranks.py", "nothing", 0, tmp_path / "checkpoint.npz")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "trained to the end\n", "")
        assert len(load_training(tmp_path / "checkpoint.npz").records) == 30
