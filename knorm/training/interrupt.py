"""SIGINT, SIGTERM and SIGUSR1 end a run between two steps, so what is saved is a whole step."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME_REQUEST = 3.0  # seconds; a launcher passes on the signal that the terminal already sent


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop."""

    def __init__(self, number: int, *, whole: bool = True):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.whole = whole
        """whether it came between two steps; otherwise nothing that is half done may be saved"""
        self.exit_code = 128 + number


class Stop:
    """Remembers the first signal; one that comes seconds later takes effect at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0

    def __call__(self, number: int, frame: object) -> None:
        if self.number is None:
            self.number, self.since = number, time.monotonic()
        elif time.monotonic() - self.since > SAME_REQUEST:
            raise Interrupted(self.number, whole=False)

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextmanager
def stop_on_signal(*, leader: bool) -> Iterator[Stop]:
    """Inside, signals are remembered; whoever trains calls `check` where stopping is safe.

    Only the leader (the process that saves) stops by itself. The others go on until it leaves
    them, for a process that stopped one step earlier would keep the leader waiting for ever.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop if leader else Stop()
    except RuntimeError:  # a collective failed: the leader has left
        if not leader:
            stop.check()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
