"""A viewer's folder over HTTP, for this machine alone."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tiekd.errors import UserError

HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    """Without a line per request; a browser asks each time whether a file is a newer one."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def server_of(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server that is bound to loopback and not yet running; port 0 takes any that is free."""
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port}: cannot be listened on at {HOST}: {error}; 0 takes a free one") from None


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://{HOST}:{server.server_address[1]}/"
