"""Plain loops in shares: the same numbers from processes, ranks of MPI and Dask; what goes wrong there is said here."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from running import environment
from work import Holder, Net, changing, cubes, cubes_of, failing, killing

from xpnet import check_gradients, numerical_gradient, workers
from xpnet.workers import shared_out

ROOT = Path(__file__).parent.parent
X, T = np.random.default_rng(0).random((5, 6)), np.arange(5) % 3


@pytest.fixture(scope="module")
def pool():
    """Two processes that begin with one BLAS thread each."""
    kept = {name: os.environ.get(name) for name in workers.THREADS}
    os.environ.update(dict.fromkeys(workers.THREADS, "1"))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(int, "12"))
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        yield pool


def verdicts(check):
    """Return what a check says, but for how long it took."""
    return re.sub(r"[\d.]+ (ms|s)$", "", str(check), flags=re.MULTILINE)


class TestChecks:
    def test_a_foreign_network_is_judged_as_without_workers(self, pool):
        for mistake in (0.0, 1e-3):
            net = Net(6, 4, 3, mistake=mistake)
            kept = {name: value.copy() for name, value in net.params.items()}
            alone, shared = check_gradients(net, X, T), check_gradients(net, X, T, map=pool.map)
            assert bool(shared) is (not mistake)
            assert verdicts(shared) == verdicts(alone)
            assert all(np.array_equal(net.params[name], value) for name, value in kept.items())

    def test_progress_counts_every_entry_of_all_workers(self, pool):
        counted = []
        shared_out(pool.map, count_places, None, list(range(300)), counted.append)
        assert sum(counted) == 300
        assert len(counted) > 50

    def test_a_network_that_cannot_be_sent_is_refused_in_words(self, pool):
        class Inside(Net):
            pass

        with pytest.raises(TypeError, match=r"cannot be sent to other processes.*top level of a module"):
            check_gradients(Inside(6, 4, 3), X, T, map=pool.map)

    def test_what_is_no_map_is_refused(self):
        with pytest.raises(TypeError, match=r"map is 4; it must be a function such as the map of"):
            check_gradients(Net(6, 4, 3), X, T, map=4)


class TestNumericalGradients:
    @pytest.mark.parametrize("options", [{}, {"h": 1e-4}, {"points": True}])
    def test_they_are_those_of_one_process_to_the_last_bit(self, pool, options):
        x = np.random.default_rng(1).standard_normal((3, 4))
        expected = numerical_gradient(cubes, x, **options)
        assert np.array_equal(numerical_gradient(cubes, x, map=pool.map, **options), expected)

    def test_arrays_of_every_library(self, pool, case):
        if case.guarded:
            pytest.skip("a guard of these tests, which other processes cannot import")
        x = case.asarray(np.random.default_rng(1).standard_normal((3, 4)))
        found, expected = numerical_gradient(cubes_of, x, map=pool.map), numerical_gradient(cubes_of, x)
        case.assert_ours(found, (3, 4))
        assert np.array_equal(case.host(found), case.host(expected))

    def test_a_function_that_holds_the_array_itself(self, pool):
        for w in (np.asarray([1.0, 2.0, 3.0]), np.zeros(3)):
            assert np.allclose(numerical_gradient(Holder(w), w, map=pool.map), 2 * w)

    def test_one_that_holds_a_view_of_it_is_said_to_ignore_its_argument(self, pool):
        w = np.asarray([1.0, 2.0, 3.0])
        with pytest.raises(ValueError, match=r"f ignores its argument\. Other processes call it"):
            numerical_gradient(Holder(w), w[:], map=pool.map)

    def test_one_that_changes_its_argument_is_told(self, pool):
        with pytest.raises(ValueError, match="f changes its argument"):
            numerical_gradient(changing, np.ones(3), map=pool.map)

    def test_a_lambda_is_refused_in_words(self, pool):
        with pytest.raises(TypeError, match=r"cannot be sent to other processes .*no lambda"):
            numerical_gradient(lambda x: x.sum(), np.ones(3), map=pool.map)

    def test_an_exception_of_the_function_arrives(self, pool):
        with pytest.raises(LookupError, match="a planted mistake"):
            numerical_gradient(failing, np.ones(3), map=pool.map)

    def test_stacks_and_a_map_do_not_go_together(self, pool):
        with pytest.raises(ValueError, match="give one of the two"):
            numerical_gradient(cubes, np.ones(3), stacked=True, map=pool.map)


def count_places(thing, part):
    return len(part)


def threads_and_cores(thing, part):
    return os.getpid()


class TestShares:
    def test_the_thing_is_pickled_once_and_unpickled_once_in_each_worker(self, pool, tmp_path):
        thing = Counted(tmp_path)
        shared_out(pool.map, count_places, thing, list(range(200)))
        assert thing.pickled == 1
        assert 1 <= len(list(tmp_path.iterdir())) <= 2

    def test_fewer_places_than_shares(self, pool):
        assert shared_out(pool.map, count_places, None, [1, 2, 3]) == [1, 1, 1]

    def test_too_many_threads_for_the_cores_are_told(self, monkeypatch):
        loads = {("here", 1): (2, 2), ("here", 2): (2, 2), ("there", 3): (8, 4), ("far", 4): (1, 2), ("far", 5): (1, 2)}
        told = list(workers._too_many_threads(loads))
        assert len(told) == 1
        assert "2 workers compute with 4 BLAS threads on the 2 cores of here" in told[0]

    @pytest.mark.parametrize(("variable", "threads"), [("3", 3), ("", None)])
    def test_threads_are_those_of_the_environment_where_nothing_else_tells(self, monkeypatch, variable, threads):
        monkeypatch.setitem(sys.modules, "threadpoolctl", None)
        for name in workers.THREADS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
        assert workers.blas_threads() == (threads or workers._cores())

    def test_a_worker_that_is_killed_ends_the_work(self):
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool, pytest.raises(BrokenProcessPool):
            shared_out(pool.map, run_each, killing, [X])

    def test_what_has_not_begun_is_cancelled_when_one_share_fails(self, pool):
        begun = time.perf_counter()
        with pytest.raises(LookupError, match="a planted mistake"):
            shared_out(pool.map, slowly_then, failing, list(range(128)))
        list(pool.map(int, "12"))
        assert time.perf_counter() - begun < 128 * 0.2  # and not after all of them

    def test_futures_are_waited_for_and_cancelled_likewise(self):
        with ThreadPoolExecutor(1) as pool:

            def map(function, *iterables):
                return [pool.submit(function, *arguments) for arguments in zip(*iterables, strict=True)]

            assert sum(shared_out(map, count_places, None, list(range(300)))) == 300
            with pytest.raises(LookupError):
                shared_out(map, slowly_then, failing, list(range(128)))


class Counted:
    """Counts how often it is pickled, and notes in a folder how often it is unpickled."""

    def __init__(self, folder):
        self.folder, self.pickled = folder, 0

    def __getstate__(self):
        self.pickled += 1
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        (self.folder / f"{os.getpid()}-{time.perf_counter_ns()}").touch()


def run_each(thing, part):
    return [thing(place) for place in part]


def slowly_then(thing, part):
    time.sleep(0.2)
    return thing(part)


MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
ON_WORKERS = ROOT / "tests" / "check_on_workers.py"
WAYS = {
    "processes": ([sys.executable], None),
    "mpi": ([MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures"], "mpi4py"),
    "dask": ([sys.executable], "distributed"),
}


def start(way, script, *arguments):
    """Start a script as its users do, with one BLAS thread each; skip the test if what it needs is not installed."""
    command, needed = WAYS[way]
    if (needed and not find_spec(needed)) or not all(command):
        pytest.skip(f"no {needed}; run: pip install {'mpi4py mpich' if way == 'mpi' else 'distributed'}")
    return subprocess.Popen(
        [*command, script, *arguments],
        env=environment(**dict.fromkeys(workers.THREADS, "1")),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


class TestAsAUserStartsIt:
    @pytest.mark.parametrize("way", WAYS)
    def test_the_numbers_are_those_without_workers(self, way):
        with start(way, ON_WORKERS, way) as process:
            out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "as without workers\n"), err

    @pytest.mark.parametrize(
        ("file", "way"), [("check.py", "processes"), ("check_mpi.py", "mpi"), ("check_dask.py", "dask")]
    )
    def test_the_pages_examples_find_that_the_network_is_right(self, tmp_path, file, way):
        page = (ROOT / "docs" / "parallel.md").read_text(encoding="utf-8")
        for name, code in re.findall(r"(?ms)^```python\n# (\w+\.py)\n(.*?)^```$", page):
            (tmp_path / name).write_text(code, encoding="utf-8")
        with start(way, tmp_path / file) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "84 entries agree" in out

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups that share Ctrl-C like this")
    def test_ctrl_c_ends_all_processes(self):
        with start("processes", ON_WORKERS, "slow") as process:
            assert process.stdout.readline() == "begun\n"
            time.sleep(2)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            begun = time.perf_counter()
            _, err = process.communicate(timeout=60)
        assert time.perf_counter() - begun < 20  # of 100 s that the work takes
        assert process.returncode != 0
        assert "KeyboardInterrupt" in err
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
