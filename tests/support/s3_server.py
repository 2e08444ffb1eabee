"""A real S3 server for tests, in a process of its own, and a gate in front of it that gets in the way of requests."""

import contextlib
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests", "AWS_REGION": "us-east-1"}
START_S = 60.0
PIECE = 4096  # bytes that pass the gate at once


class S3Server:
    """moto on a free port of this machine."""

    def __init__(self, folder: Path):
        self._log = folder / "moto.log"
        with self._log.open("w") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = self._wait_for_port()
        self.url = f"http://127.0.0.1:{self.port}"
        keys = {"aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"]}
        self.client = boto3.client("s3", endpoint_url=self.url, region_name=KEYS["AWS_REGION"], **keys)

    def _wait_for_port(self) -> int:
        end = time.monotonic() + START_S
        while not (found := re.search(r"Running on http://127\.0\.0\.1:(\d+)", self._log.read_text())):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, "the S3 server did not start"
            time.sleep(0.05)
        return int(found[1])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def environment(self, url: str = "") -> dict[str, str]:
        """What a process needs to find the server, or a gate to it."""
        return KEYS | {"AWS_ENDPOINT_URL": url or self.url, "AWS_EC2_METADATA_DISABLED": "true"}

    @contextlib.contextmanager
    def refusing_keys(self) -> Iterator[None]:
        """It knows no user, and so refuses every request."""
        self._let_through("0")
        try:
            yield
        finally:
            self._let_through("inf")

    def _let_through(self, requests: str) -> None:
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", requests.encode(), plain, method="POST")
        urllib.request.urlopen(request).close()

    def objects(self, bucket: str) -> dict[str, int]:
        """Every object of a bucket, also those that only stand for a folder: its size in bytes."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def requests(self) -> list[str]:
        """The requests so far, such as 'PUT /bucket/key'."""
        text = re.sub(r"\x1b\[\d*m", "", self._log.read_text())  # colours
        return re.findall(r"\"([A-Z]+ /\S*) HTTP", text)

    @contextlib.contextmanager
    def count(self) -> Iterator[Counter[str]]:
        """Count the requests of a block by method; GET of a bucket is LIST. The counts are there after the block."""
        before, counted = len(self.requests()), Counter[str]()
        yield counted
        for request in self.requests()[before:]:
            method, path = request.split(" ", 1)
            is_bucket = "/" not in path.partition("?")[0].strip("/")
            counted["LIST" if method == "GET" and is_bucket else method] += 1


class Gate:
    """A TCP proxy to a server, that can meet requests whose head holds some bytes in several ways, until it is told to `open`.

    Cut off: its head and a first piece go through and then nothing more. Refused: its connection ends. Delayed: it waits for
    `open`. `caught` is set when that has happened.
    """

    def __init__(self, port: int):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.caught, self._opened = threading.Event(), threading.Event()
        self.open()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_off(self, head: bytes) -> None:
        self._meet(head, self._cut_off)

    def refuse(self, head: bytes) -> None:
        self._meet(head, self._refuse)

    def delay(self, head: bytes) -> None:
        self._meet(head, self._delay)

    def disturb(self, head: bytes, busy: float, dropped: float) -> None:
        """Answer a share of the requests with 503, and end the connection of another share; the others go through."""
        chance = random.Random(0)

        def meet(client: socket.socket, server: socket.socket, data: bytes) -> None:
            which = chance.random()
            if which < busy:
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            if which < busy + dropped:
                self.caught.set()
                raise ConnectionResetError
            server.sendall(data)

        self._meet(head, meet)

    def open(self) -> None:
        self._head = b""
        self._opened.set()

    def close(self) -> None:
        self._listener.close()

    def _meet(self, head: bytes, how: Callable[[socket.socket, socket.socket, bytes], None]) -> None:
        self.caught.clear()
        self._opened.clear()
        self._head, self._how = head, how

    def _cut_off(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        server.sendall(data)
        server.sendall(client.recv(PIECE))
        self.caught.set()
        while client.recv(PIECE):
            pass
        raise ConnectionResetError

    def _refuse(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        self.caught.set()
        raise ConnectionResetError

    def _delay(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        self.caught.set()
        self._opened.wait()
        server.sendall(data)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._upwards, args=(client, server), daemon=True).start()
            threading.Thread(target=_relay, args=(server, client), daemon=True).start()

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        # A connection ends with a reset, lest the server take what it has got for the whole.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with client, server, contextlib.suppress(OSError):
            while data := client.recv(PIECE):
                if self._head and self._head in data:
                    self._how(client, server, data)
                else:
                    server.sendall(data)


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one of both has ended
        while data := source.recv(PIECE):
            target.sendall(data)
