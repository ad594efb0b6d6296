"""One check for a table of wrong arguments: every call is refused, by the error that names what is wrong."""

import re


def assert_refused(cases, error=(ValueError, TypeError), *, run=lambda call: call()):
    """Hold `run(what)` of every case against its error, and name all cases that fail.

    Args:
        cases: `(what, message)` or `(what, error, message)`; the message is a pattern to search for.
        error: the kinds of errors that a case without its own may raise.
        run: what to do with `what`; by default it is a function without arguments.
    """
    faults = []
    for number, (what, *own, message) in enumerate(cases):
        wanted = own[0] if own else error
        try:
            got = f"no error but {run(what)!r}"
        except Exception as raised:
            if isinstance(raised, wanted) and re.search(message, str(raised)):
                continue
            got = f"{type(raised).__name__}: {raised}"
        faults.append(f"case {number}, wanted {message!r}, got {got}")
    assert not faults, "\n".join(faults)
