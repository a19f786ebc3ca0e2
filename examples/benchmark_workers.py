"""Processes for the contenders of benchmark.py, one each, that take turns: no library's threads slow another's.

A worker is told what to run, then to repeat it, and answers with the seconds; one works, the others wait for a message.
What ends a worker ends no other: it is told, and the next thing to run gets a new process.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from time import perf_counter, process_time, sleep
from typing import NamedTuple

LONG = 5.0  # a first run of so many seconds needs no warm-up and is the only one


class WorkerError(RuntimeError):
    """A contender that raised an error or whose process ended; the message says which."""


class Run(NamedTuple):
    """``work`` is timed; ``prepare`` goes before and is not; ``warm_up`` goes first of all, else ``work`` does.

    A work that does a part of what its time stands for names the factor, ``scale``.
    """

    work: Callable
    prepare: Callable = lambda: None
    warm_up: Callable | None = None
    scale: float = 1.0


class Workers:
    """A process for each name that is asked, from the first time to the end of a ``with`` block."""

    def __init__(self):
        self.context, self.running = multiprocessing.get_context("spawn"), {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, pipe in self.running.values():
            process.terminate()
            process.join()
            pipe.close()

    def ask(self, name, make=None):
        """Return what the worker ``name`` answers: to a function that makes its next Run, to None one repetition.

        Raises WorkerError.
        """
        if name not in self.running:
            pipe, other = self.context.Pipe()
            process = self.context.Process(target=serve, args=(other,), name=name, daemon=True)
            process.start()
            other.close()
            self.running[name] = process, pipe
        process, pipe = self.running[name]
        try:
            pipe.send(make)
            answer, error = pipe.recv()
        except (EOFError, OSError):
            process.join()
            del self.running[name]
            raise WorkerError(f"its process ended with exit code {process.exitcode}") from None
        if error:
            raise WorkerError(error)
        return answer


def serve(pipe):
    """Be a worker: make a Run and warm it up, or repeat the last, for each message, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    run = None
    while True:
        try:
            make = pipe.recv()
        except EOFError:
            return
        try:
            if make:
                run = None  # its arrays make room
                run = make()
            answer = timed(run, (make and run.warm_up) or run.work), None
        except Exception as error:
            answer = None, f"{type(error).__name__}: {error}"
        settle()
        pipe.send(answer)


def timed(run, work):
    """Return {"seconds": …, "result": …} of a work of ``run``, with what ``measure`` must know of the run."""
    run.prepare()
    start = perf_counter()
    result = work()
    seconds = perf_counter() - start
    return {"seconds": seconds, "result": result, "scale": run.scale, "whole": work is run.work}


def settle():
    """Return when no thread of this process computes: those of OpenBLAS look out for work some 25 ms longer."""
    used = -1.0
    while process_time() - used > 1e-3:
        used = process_time()
        sleep(0.01)


def measure(workers, runs, repetitions):
    """Time {name: function that makes a Run} in turns; return rows and, for those that failed, {name: why}.

    A row is {"seconds": […], "scale": …, "first": seconds, "result": …}: ``seconds`` holds every repetition, already
    multiplied by ``scale``, and ``first`` is what the warm-up took.
    """
    rows, failed = {}, {}

    def turn(name, make=None):
        try:
            answer = workers.ask(name, make)
        except WorkerError as error:
            rows.pop(name, None)
            failed[name] = str(error)
            return None
        if answer["seconds"] > 1:
            print(f"  {name}: {answer['seconds']:.1f} s", file=sys.stderr, flush=True)
        return answer

    for name, make in runs.items():
        if answer := turn(name, make):
            first, scale = answer["seconds"], answer["scale"]
            alone = answer["whole"] and first > LONG
            rows[name] = {"seconds": [first * scale] if alone else [], "scale": scale, "first": first}
            rows[name]["result"] = answer["result"]
    waiting = [name for name, row in rows.items() if not row["seconds"]]
    for _ in range(repetitions):
        for name in waiting:
            if name in rows and (answer := turn(name)):
                rows[name]["seconds"].append(answer["seconds"] * answer["scale"])
                rows[name]["result"] = answer["result"]
    return rows, failed
