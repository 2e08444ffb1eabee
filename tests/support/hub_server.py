"""A server that speaks the Hugging Face hub's protocol, as far as a download does, over folders of models."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """The hub's own protocol, as far as a download speaks it, over folders by model name; it remembers what was fetched."""

    def __init__(self, models: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), _HubRequest)
        self.models, self.fetched = models, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def go_away(self) -> None:
        self.shutdown()
        self.server_close()


class _HubRequest(BaseHTTPRequestHandler):
    def do_GET(self):
        if "/resolve/" not in self.path:
            return self._tell()
        path = self._file()
        self.server.fetched.append(path.name)
        self._answer(path.read_bytes(), path)

    def do_HEAD(self):
        self._answer(b"", self._file())

    def _tell(self):
        """What the hub knows of a model, or the list of its files."""
        name, _, rest = self.path.removeprefix("/api/models/").partition("?")[0].partition("/tree/")
        name, _, revision = name.partition("/revision/")
        if revision not in ("", "main", REVISION):
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if name not in self.server.models:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        files = sorted(self.server.models[name].iterdir())
        if rest:
            listed = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": etag(f)} for f in files]
        else:
            listed = {"id": name, "sha": REVISION, "siblings": [{"rfilename": f.name} for f in files]}
        self._answer(json.dumps(listed).encode())

    def _file(self) -> Path:
        name, _, file = self.path.lstrip("/").partition(f"/resolve/{REVISION}/")
        return self.server.models[name] / file

    def _answer(self, content: bytes, path: Path | None = None):
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size if path else len(content)))
        if path:
            self.send_header("ETag", f'"{etag(path)}"')
            self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_words):
        pass


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
