"""Show the built book in the browser, from this machine only.

Usage: python tools/serve.py [port]     8000 unless given, or the next free one
"""

import functools
import sys
import webbrowser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not print every request."""

    def log_message(self, format, *args) -> None:
        """Say nothing."""


def bind(port: int) -> ThreadingHTTPServer:
    """Return a server on the first free port of ten."""
    for number in range(port, port + 10):
        try:
            return ThreadingHTTPServer(("127.0.0.1", number), functools.partial(Quiet, directory=str(HTML)))
        except OSError:
            continue
    raise SystemExit(f"ports {port} to {port + 9} are taken: make serve PORT=…")


def main() -> None:
    """Serve until Ctrl-C."""
    if not (HTML / "index.html").exists():
        raise SystemExit("The book is not built yet: make book")
    server = bind(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    address = f"http://localhost:{server.server_port}/"
    print(f"The book is at {address}   (Ctrl-C ends this)", flush=True)
    webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
