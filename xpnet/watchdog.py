"""The watchdog of a run on several ranks: a process of its own that says once which rank failed, and ends all.

Every rank holds a connection to it. A rank that is killed cannot speak, but the system closes its connection; and a
launcher that kills all ranks when one dies leaves none of them time to say which was the first. So rank 0 starts it in
a session of its own, where it outlives every rank by a moment, and it reads connections in the order in which they
ended. It imports nothing of this package, so that it starts in an instant.
"""

import contextlib
import hmac
import json
import os
import selectors
import socket
import sys
import time

PATIENCE = 60.0  # seconds for all ranks to connect, and then to end
END, LEAVE = b"E", b"L"  # what it tells the ranks: one to end all of them, all that they may leave
FORWARDING = 0.3  # seconds for the launcher to show the message: when a rank ends all, it may drop what it was sent
INTERVAL = 1.0  # seconds between asking one rank to end all and asking the next


class Judge:
    """What is known of the ranks, and the verdict, once there is one: a text that names the rank and the cause."""

    def __init__(self, size):
        self.size, self.names, self.waiting, self.left = size, {}, {}, {}
        self.verdict = None

    def hear(self, rank, message):
        """Take what a rank says: who it is, that it failed, that it waits for the others, or that it leaves."""
        if "process" in message:
            self.names[rank] = f"rank {rank} of {self.size} (process {message['process']} on {message['host']})"
        if "failed" in message:
            self._decide(rank, f": {message['failed']}")
        if "left" in message:
            self.left[rank] = message["left"]
        if "waits" in message:
            self.waiting[rank] = (message["waits"], message["what"])
        self._compare()
        if "patience" in message and not self.verdict:
            absent = [r for r in self.names if self.waiting.get(r, (0,))[0] < message["waits"]]
            if absent:
                self._decide(
                    absent[0],
                    f" has not come for {message['patience']:g} s to the {message['what']}, in which rank {rank} waits "
                    "for it: it is busy elsewhere, or left the loop. If it only needs longer, give a larger timeout",
                )

    def lose(self, rank):
        """Take note that the connection of a rank has ended."""
        if rank in self.left or self.verdict:
            return
        if self.left:
            first = min(self.left, key=self.left.get)
            self._decide(first, f" left after {_times(self.left[first])}, then rank {rank} was killed or crashed")
        else:
            self._decide(rank, " was killed or crashed: it ended without a word")

    def _compare(self):
        """Find a rank that others wait for in vain."""
        for rank, (number, what) in sorted(self.waiting.items()):
            for other, count in self.left.items():
                if count < number:
                    self._decide(other, f" left after {_times(count)}, but rank {rank} waits for it in its next {what}")
            for other, (their_number, theirs) in self.waiting.items():
                if rank < other and number == their_number and what != theirs:  # whose mistake it is nobody can tell
                    self._decide(
                        rank, f" asks for the {what}, and rank {other} for the {theirs}; all must ask the same in order"
                    )

    def _decide(self, rank, what):
        if not self.verdict:
            self.verdict = f"xpnet: {self.names[rank]}{what}"


def _times(count):
    return "one step together" if count == 1 else f"{count} steps together"


class Connections:
    """The connections of all ranks, and what comes over them in the order in which it came."""

    def __init__(self, listener, size, token):
        self.listener, self.size, self.token = listener, size, token
        self.selector = selectors.DefaultSelector()  # epoll lists what is ready in the order in which it became so
        self.selector.register(listener, selectors.EVENT_READ)
        self.ranks, self.received = {}, {}

    def events(self, timeout):
        """Yield (rank, message) and, for a connection that ended, (rank, None)."""
        for key, _ in self.selector.select(timeout):
            if key.fileobj is self.listener:
                connection = self.listener.accept()[0]
                connection.settimeout(PATIENCE)
                self.received[connection] = b""
                self.selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj
            try:
                data = connection.recv(2**16)
            except OSError:  # reset by a process that was killed
                data = b""
            *lines, self.received[connection] = (self.received[connection] + data).split(b"\n")
            for line in lines:
                if connection in self.ranks or self._is_rank(connection, line):
                    yield self.ranks[connection], json.loads(line)
            if not data:
                self.selector.unregister(connection)
                connection.close()
                if connection in self.ranks:
                    yield self.ranks.pop(connection), None

    def _is_rank(self, connection, line):
        """Return whether the first line of a connection comes from a rank; nobody else is listened to."""
        try:
            message = json.loads(line)
            if not hmac.compare_digest(message["token"], self.token):
                return False
            self.ranks[connection] = message["rank"]
        except (ValueError, TypeError, KeyError):
            return False
        if len(self.ranks) == self.size:
            self.selector.unregister(self.listener)
            self.listener.close()
        return True

    def tell(self, ranks, word):
        """Send a word to some ranks."""
        for connection, rank in self.ranks.items():
            if rank in ranks:
                with contextlib.suppress(OSError):  # it may have ended already
                    connection.sendall(word)


def watch(listener, size, token, say):
    """Listen to ``size`` ranks until their connections have ended; at the first failure, ``say`` it and end all."""
    connections, judge, started = Connections(listener, size, token), Judge(size), time.monotonic()
    while not judge.verdict:
        if len(judge.names) < size:
            if time.monotonic() > started + PATIENCE:
                return
        elif not connections.ranks:
            return
        for rank, message in connections.events(INTERVAL):
            if message is None:
                judge.lose(rank)
            else:
                judge.hear(rank, message)
        if len(judge.left) == size and not judge.verdict:
            connections.tell(range(size), LEAVE)
    say(judge.verdict)
    end_all(connections)


def end_all(connections):
    """Ask one rank after the other to end all ranks, until none is left: one is enough, unless it is stuck."""
    asked, until = set(), time.monotonic() + FORWARDING
    while connections.ranks:
        if time.monotonic() >= until:
            rank = min(set(connections.ranks.values()) - asked, default=None)
            connections.tell({rank}, END)
            asked.add(rank)
            until = time.monotonic() + INTERVAL
        for _ in connections.events(max(0.0, until - time.monotonic())):
            pass  # those that have ended are forgotten


def main():
    """Read from the standard input what to do, answer with the port to connect to, then watch."""
    order = json.loads(sys.stdin.readline())
    with socket.create_server((order["address"], 0), backlog=order["size"]) as listener:
        print(listener.getsockname()[1], flush=True)
        sys.stdout.close()
        watch(listener, order["size"], order["token"], lambda text: os.write(2, f"{text}\n".encode()))


if __name__ == "__main__":
    main()
