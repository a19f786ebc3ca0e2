"""The ranks of a run over MPI: begun alike, in step with one another, and ended together by one message."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from . import watchdog
from .annotations import Array

STEPS = ("gradient", "numerical gradient", "loss", "accuracy", "comparison")
WORDS = 3  # at the head of what is summed: a number that belongs to the step, the weight, and how many are in trouble
NOTICE = 0.1  # seconds that a rank waits for the others before it tells the watchdog
STEPPING = 2.0  # seconds since the last step within which Ctrl-C waits for the next, where all ranks stop alike

_KEY = None  # under which a communicator keeps its Ranks


class RankError(RuntimeError):
    """A rank went wrong in a step that all took together: ``rank`` says which. All ranks raise it, so none waits."""

    def __init__(self, rank: int, size: int, what: str) -> None:
        super().__init__(f"rank {rank} of {size}: {what}")
        self.rank, self.what = rank, what


class Ranks:
    """The ranks of the communicator ``comm``, watched from now on; made once for a communicator, on all its ranks.

    A rank that fails outside a common step, is killed, leaves, or stays away for ``timeout`` seconds ends all ranks,
    with one message on rank 0's standard error. An exception that nobody catches becomes such a message. The first
    Ctrl-C is raised by all ranks in the same step.
    """

    @classmethod
    def of(cls, comm: Any, timeout: float = 60.0) -> Ranks:
        """Return the ranks of ``comm``; the first call makes them."""
        global _KEY
        if _KEY is None:
            _KEY = comm.Create_keyval()
        ranks = comm.Get_attr(_KEY)
        if ranks is None:
            ranks = cls(comm)
            comm.Set_attr(_KEY, ranks)
        ranks.timeout = timeout
        return ranks

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._in_place, self._host, self._abort = MPI.IN_PLACE, MPI.Get_processor_name(), MPI.COMM_WORLD.Abort
        self.comm, self.rank, self.size, self.timeout = comm.Dup(), comm.rank, comm.size, 60.0
        self._channels = {what: comm.Dup() for what in STEPS}
        self._steps, self._last = 0, float("-inf")
        self._now: tuple[float, int, str] | None = None  # when the step began, its number, its name
        self._interrupted, self._stopped, self._may_leave = False, float("-inf"), threading.Event()
        self._connect()
        self._process = os.getpid()
        self._say(process=self._process, host=self._host)
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._leave)
        sys.excepthook = self._uncaught
        if threading.current_thread() is threading.main_thread():
            self._on_interrupt = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._interrupt)

    def _connect(self):
        """Start the watchdog on rank 0 and connect every rank to it."""
        one_machine = len(set(self.comm.allgather(self._host))) == 1
        order = {"size": self.size, "token": secrets.token_hex(16), "address": "127.0.0.1" if one_machine else ""}
        port = _start_watchdog(order) if self.rank == 0 else None
        address, self._token = self.comm.bcast(((order["address"] or self._host, port), order["token"]))
        self._lock, reason = threading.Lock(), None
        try:
            self._connection = socket.create_connection(address, timeout=watchdog.PATIENCE / 2)
            self._connection.settimeout(None)
        except OSError as error:
            reason = str(error)
        reasons = self.comm.allgather(reason)
        if any(reasons):
            rank = next(rank for rank in range(self.size) if reasons[rank])
            raise ConnectionError(
                f"rank {rank} cannot reach the watchdog of rank 0, {address[0]} port {address[1]}: {reasons[rank]}. "
                "The machines of a run must let each other's processes connect"
            )

    def _say(self, **message):
        line = json.dumps({"rank": self.rank, "token": self._token, **message})
        with contextlib.suppress(OSError), self._lock:  # if the watchdog has ended, so will this rank
            self._connection.sendall(f"{line}\n".encode())

    def _listen(self):
        """Tell the watchdog when this rank waits, and end all ranks when it says so."""
        told = asked = 0
        while not select.select([self._connection], [], [], NOTICE)[0]:
            since, number, what = self._now or (time.monotonic(), 0, "")
            waited = time.monotonic() - since
            if waited > NOTICE and number > told:
                told = number
                self._say(waits=number, what=what)
            if waited > self.timeout and number > asked:
                asked = number
                self._say(waits=number, what=what, patience=self.timeout)
        with contextlib.suppress(OSError):
            if self._connection.recv(1) == watchdog.END:
                self._abort(1)
        self._may_leave.set()

    def _leave(self):
        """Wait, as MPI would, until all ranks have come to their end; if they wait for this one, that is said."""
        if os.getpid() == self._process:  # not a child of this rank
            self._say(left=self._steps)
            self._may_leave.wait()
            self._connection.close()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Any]:
        """Give the communicator of the common step ``what``, in which this rank waits for the others.

        Each kind of step has its own, so that ranks of different minds wait for each other, which is found, instead of
        adding up what does not belong together.
        """
        self._now = (time.monotonic(), self._steps + 1, what)
        try:
            yield self._channels[what]
        finally:
            self._steps += 1
            self._now, self._last = None, time.monotonic()

    def add_up(
        self,
        what: str,
        buffer: Array,
        weight: float,
        error: Exception | None = None,
        not_finite: str | None = None,
    ) -> None:
        """Sum ``buffer`` over all ranks, in place.

        Parameters
        ----------
        what : str
            The step, one of ``STEPS``.
        buffer : array
            What is summed, behind ``WORDS`` words, which are filled in here, but for the first.
        weight : float
            What this rank's part counts.
        error : Exception
            What this rank's part of the step raised.
        not_finite : str
            In words, that it came to NaN.

        Raises
        ------
        RankError
            On all ranks, if ``error`` or ``not_finite`` is given on one; what they all raised, if they did.
        KeyboardInterrupt
            On all ranks, after Ctrl-C on any of them.
        """
        kind = "stop" if self._interrupted else "error" if error else "not finite" if not_finite else None
        text = f"{type(error).__name__}: {error}" if error else not_finite
        buffer[1], buffer[2] = weight, float(kind is not None)
        float(buffer[2])  # of a GPU, waits until all is written that MPI will read
        with self.step(what) as channel:
            channel.Allreduce(self._in_place, buffer)
            reports = channel.allgather((kind, text, weight > 0)) if buffer[2] else ()
        if reports:
            self._raise_together(reports, error)

    def _raise_together(self, reports, error):
        """Raise on every rank what all of them reported: (kind, text, whether it had samples) of each."""
        kinds = [kind for kind, _, _ in reports]
        if "stop" in kinds:
            self._interrupted, self._stopped = False, time.monotonic()
            raise KeyboardInterrupt
        if error and all(kind == "error" for kind in kinds):
            raise error
        if "error" not in kinds and all(kind for kind, _, counts in reports if counts):
            return  # NaN on all alike: whoever called sees it in the numbers
        rank = kinds.index("error" if "error" in kinds else "not finite")
        raise RankError(rank, self.size, reports[rank][1]) from error

    def require_alike(self, facts: dict[str, Any], what: str) -> None:
        """Raise ValueError on all ranks, naming both sides, if ``facts``, a dict, are not those of rank 0."""
        with self.step("comparison") as channel:
            everyone = channel.allgather({name: str(fact) for name, fact in facts.items()})
        first = everyone[0]
        for rank, theirs in enumerate(everyone):
            names = [name for name in first | theirs if first.get(name) != theirs.get(name)][:3]
            if names:
                sides = (", ".join(f"{name} {side.get(name, 'missing')}" for name in names) for side in (theirs, first))
                here, there = sides
                raise ValueError(
                    f"rank {rank} {what} with {here}, but rank 0 with {there}; all ranks must have the same"
                )

    def fail(self, error: Any, trace: str = "") -> None:
        """End all ranks; ``error``, an exception or a text, is the message, unless there was one before."""
        if isinstance(error, RankError) and error.rank != self.rank:
            time.sleep(2 * watchdog.INTERVAL)  # while that rank says so
        what = getattr(error, "what", error if isinstance(error, str) else f"{type(error).__name__}: {error}")
        self._say(failed="stopped by Ctrl-C" if isinstance(error, KeyboardInterrupt) else f"{what}\n{trace}".rstrip())
        time.sleep(2 * watchdog.INTERVAL)  # the end comes sooner
        self._abort(1)

    def _uncaught(self, kind, error, trace):
        """Be the excepthook: one message for all ranks, from the one where it went wrong."""
        self.fail(error, "".join(traceback.format_exception(kind, error, trace)))

    def _interrupt(self, number, frame):
        """Handle Ctrl-C: if steps are being taken, the next one lets all ranks stop alike."""
        now = time.monotonic()
        if now < self._stopped + STEPPING:
            return  # the same Ctrl-C, which reaches the ranks one after the other
        if not self._interrupted and (self._now or now < self._last + STEPPING):
            self._interrupted = True
        elif callable(self._on_interrupt):
            self._on_interrupt(number, frame)


def _start_watchdog(order):
    """Return the port to which the ranks connect."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", watchdog.__file__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    process.stdin.write(f"{json.dumps(order)}\n".encode())
    process.stdin.close()
    port = int(process.stdout.readline())
    process.stdout.close()
    process.returncode = 0  # it outlives this process, which nobody needs to be warned of
    return port
