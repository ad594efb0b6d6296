"""Ctrl-C during long work: it waits for the next moment at which nothing compiled is at work.

XLA compiles and computes in threads of its own. A KeyboardInterrupt raised while it does leaves it at work,
and where it then still is when Python ends, it reads what is no longer there: the process ends with SIGSEGV
(seen in jaxlib 0.10, whose wait for the compiler can be interrupted).
"""

import contextlib
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator

_SECONDS = 0.5  # of compiled work between two safe points

_waiting: list[int] = []


def _note(number: int, frame: types.FrameType | None) -> None:
    """Let the first Ctrl-C wait; whoever sends a second one means at once."""
    if _waiting:
        _waiting.clear()
        signal.default_int_handler(number, frame)
    _waiting.append(number)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Keep Ctrl-C for the next `safe_point`, or for the end of this block.

    Only in the main thread, and only where Ctrl-C does what Python lets it do: a handler of the user's, or
    one of an outer block, stays. Also a decorator.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _waiting.clear()
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        safe_point()


def safe_point() -> None:
    """Raise the KeyboardInterrupt that waits, if one does; only the main thread does."""
    if _waiting and threading.current_thread() is threading.main_thread():
        _waiting.clear()
        raise KeyboardInterrupt


def waits() -> bool:
    """Whether Ctrl-C waits for a safe point."""
    return bool(_waiting)


def in_short_loops(advance: Callable[[int, int], bool | None], first: int, last: int, size: int = 1) -> int:
    """Call `advance(first, stop)` for parts of a long loop, each short enough for Ctrl-C.

    Args:
        advance: does the steps first, ..., stop − 1 and waits for them; what is true ends the loop.
        first: the first step.
        last: the one after the last.
        size: steps of the first part; it is doubled while a part is quick.

    Returns:
        Steps of the next part, for a loop that goes on.
    """
    while first < last:
        stop = min(first + size, last)
        begin = time.perf_counter()
        ended = advance(first, stop)
        seconds = time.perf_counter() - begin
        safe_point()
        if ended:
            break
        if stop - first == size and seconds < _SECONDS / 2:
            size *= 2
        elif seconds > 2 * _SECONDS:
            size = max(1, size // 2)
        first = stop
    return size
