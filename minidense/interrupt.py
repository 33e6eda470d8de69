"""Ctrl-C, once: finish the step at hand and save. Twice: stop at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Stopping:
    """Whether somebody asked to stop; looked at between two steps."""

    asked = False


class Stopped(Exception):
    """Somebody asked to stop, and the step at hand is finished."""


@contextmanager
def stop_on_ctrl_c() -> Iterator[Stopping]:
    """Turn the first Ctrl-C into a request, so that no step is cut in two; the second one stops at once."""
    stopping = Stopping()
    # Only the main thread may listen to signals; a process started to ignore Ctrl-C (nohup, a shell's &) goes on ignoring it.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield stopping
        return

    def ask(signum, frame):
        if stopping.asked:
            raise KeyboardInterrupt
        stopping.asked = True
        with suppress(RuntimeError):  # a print may be what was interrupted, and cannot be entered twice
            print("\nFinishing this step and saving; Ctrl-C again stops at once.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, before)
