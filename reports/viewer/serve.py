"""Serve a folder over HTTP, on this machine only."""

import io
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from tiekd.errors import UserError

HOST = "127.0.0.1"
LOCAL_NAMES = (HOST, "localhost")


class _Handler(SimpleHTTPRequestHandler):
    """Serves the files of its folder to pages of this machine; makes browsers check for newer files; logs no requests.

    A web page whose host name is made to point at this machine (DNS rebinding) sends its own name as Host, and is refused.
    Links that lead out of the folder are refused, too. `more_headers` are those of every response.
    """

    def __init__(self, *arguments: Any, more_headers: Mapping[str, str], **options: Any):
        self._more_headers = more_headers
        super().__init__(*arguments, **options)

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host.lower() not in LOCAL_NAMES:
            self.send_error(HTTPStatus.FORBIDDEN, "This server answers to localhost only")
            return False
        return True

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        try:
            inside = Path(self.translate_path(self.path)).resolve().is_relative_to(Path(self.directory).resolve())
        except (OSError, ValueError, RuntimeError):  # a name that is too long or holds NUL, a circle of links
            inside = False
        if not inside:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        for name, value in (("Cache-Control", "no-cache"), *self._more_headers.items()):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def make_server(folder: Path, port: int, more_headers: Mapping[str, str] | None = None) -> ThreadingHTTPServer:
    """Bind a server to the loopback interface, without starting it; port 0 selects a free port."""
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder), more_headers=more_headers or {}))
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port}: cannot listen on {HOST}: {error}; use 0 for a free port") from None


def server_url(server: ThreadingHTTPServer, page: str = "") -> str:
    """Return the address of a page."""
    return f"http://{HOST}:{server.server_address[1]}/{page}"
