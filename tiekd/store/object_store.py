"""Object stores by URI: connection settings from the environment, and the storage backend for a bucket.

The server of an `s3://bucket/prefix` is AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, or AWS if neither is set. The region is
AWS_REGION or AWS_DEFAULT_REGION; if neither is set, it is us-east-1 at a custom endpoint, and otherwise the region that AWS
reports for the bucket. The URI's query overrides these with `endpoint_override`, `scheme` and `region`. Credentials are found
as in every AWS program: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), a profile, or the machine's role.
"""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from tiekd.errors import StoreError, UserError, os_error_reason, shorten, unknown

CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5.0, 30.0
MAX_ATTEMPTS = 6  # per request, over 15 to 31 s, so that a sweep survives a restart of the server
FAIL_FAST_TIMEOUT_S, FAIL_FAST_ATTEMPTS = 4.0, 2  # for the first check, while the user waits at the terminal
SINGLE_REQUEST_BYTES = 5 * 2**20  # contents up to this size are uploaded in one request
QUERY = ("endpoint_override", "region", "scheme")


class ObjectStoreBackend:
    """A prefix of a bucket. An upload replaces its object only when it is complete."""

    def __init__(self, uri: str, check: bool = True):
        self.uri = uri
        if check:
            self._check_bucket()
        self.filesystem, self.root = open_object_store(uri)
        self._single_request, _ = open_object_store(uri, single_request=True)

    def _check_bucket(self) -> None:
        """Raise UserError unless the bucket exists and can be listed."""
        filesystem, root = open_object_store(self.uri, fail_fast=True)
        try:
            # A prefix without objects is reported as not found, like a missing bucket.
            found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
            bucket = root.split("/")[0]
            if not found and filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
                raise UserError(f"store {self.uri}: there is no bucket {bucket!r} at {describe_endpoint(self.uri)}")
        except OSError as error:
            raise UserError(self._connection_problem(error)) from None

    def _connection_problem(self, error: OSError) -> str:
        why = os_error_reason(error)
        hint = f"{describe_endpoint(self.uri)}, by AWS_ENDPOINT_URL" if "NETWORK_CONNECTION" in why else ""
        if "ACCESS_DENIED" in why or "HTTP status 403" in why or "INVALID_ACCESS_KEY_ID" in why or "SIGNATURE" in why:
            hint = "credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        return f"store {self.uri}: {why}" + (f" ({hint})" if hint else "")

    def check_writable(self) -> None:
        filesystem, root = open_object_store(self.uri, fail_fast=True, single_request=True)
        probe = f"{root}/.probe-{uuid.uuid4().hex}"
        try:
            _upload(filesystem, probe, b"")
            filesystem.delete_file(probe)
        except OSError as error:
            raise UserError(self._connection_problem(error)) from None

    def write(self, name: str, content: bytes) -> None:
        filesystem = self._single_request if len(content) <= SINGLE_REQUEST_BYTES else self.filesystem
        try:
            _upload(filesystem, f"{self.root}/{name}", content)
        except OSError as error:
            raise StoreError(f"cannot write {name} in store {self.uri}: {os_error_reason(error)}") from error

    def read(self, name: str) -> bytes | None:
        path = f"{self.root}/{name}"
        try:
            while True:
                with self.filesystem.open_input_file(path) as file:
                    content = file.read(file.size())  # with a size pyarrow sends one request instead of one per piece
                    version = file.metadata()
                # Size and content come from two requests. If the object was replaced in between, the content is truncated, or
                # pyarrow pads it with uninitialized memory. So compare versions and read again.
                with self.filesystem.open_input_file(path) as file:
                    if file.metadata() == version:
                        return content
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {name} in store {self.uri}: {os_error_reason(error)}") from error

    def delete(self, name: str) -> None:
        try:
            self.filesystem.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot delete {name} in store {self.uri}: {os_error_reason(error)}") from error

    def list_folders(self, name: str) -> list[str]:
        try:
            found = self.filesystem.get_file_info(fs.FileSelector(f"{self.root}/{name}", allow_not_found=True))
        except OSError as error:
            raise StoreError(f"cannot list {name} in store {self.uri}: {os_error_reason(error)}") from error
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def delete_partial_files(self, name: str) -> None:
        """Do nothing: an upload that is not complete leaves no object."""


def _upload(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    """Upload one object.

    pyarrow completes an upload whenever its stream is closed, even if an exception closes it half written. So the content is
    checked before the stream is opened, and the upload runs in a thread, where no signal handler can raise an exception.
    """
    buffer = pa.py_buffer(content)

    def upload() -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(buffer)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(upload).result()


# -- connections -----------------------------------------------------------------------------------------------------------


def open_object_store(uri: str, fail_fast: bool = False, single_request: bool = False) -> tuple[fs.FileSystem, str]:
    """Open the filesystem of a URI; returns it with the path in it. Raises UserError if `uri` is not an object store.

    `fail_fast` gives up after a few seconds. `single_request` uploads an object in one request when its stream is closed; it is
    for contents of a few megabytes only.
    """
    if urlsplit(uri).scheme != "s3":
        return _open_other(uri, fail_fast)
    options, root = s3_options(uri)
    options["retry_strategy"] = fs.AwsStandardS3RetryStrategy(FAIL_FAST_ATTEMPTS if fail_fast else MAX_ATTEMPTS)
    options["request_timeout"] = FAIL_FAST_TIMEOUT_S if fail_fast else REQUEST_TIMEOUT_S
    # Not for large contents: if such an upload cannot start, pyarrow leaves an empty object in its place.
    options["allow_delayed_open"] = single_request
    return fs.S3FileSystem(connect_timeout=CONNECT_TIMEOUT_S, **options), root


def _open_other(uri: str, fail_fast: bool) -> tuple[fs.FileSystem, str]:
    address = uri
    if urlsplit(uri).scheme in ("gs", "gcs") and "retry_limit_seconds" not in uri:  # the default is 15 minutes
        limit = FAIL_FAST_TIMEOUT_S if fail_fast else REQUEST_TIMEOUT_S
        address += f"{'&' if '?' in uri else '?'}retry_limit_seconds={limit:g}"
    try:
        filesystem, root = fs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"store {uri}: not a folder or a URI that pyarrow reads: {shorten(' '.join(str(error).split()))}"
        ) from None
    return filesystem, root.rstrip("/")


def s3_options(uri: str) -> tuple[dict[str, Any], str]:
    """Return the arguments of pyarrow's S3FileSystem for an `s3://` URI and the environment, and the path."""
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        where = parts.netloc.rpartition("@")[2]
        raise UserError(f"store s3://{where}{parts.path}: the store's URI is saved with its runs, so it must not contain keys")
    if not parts.netloc:
        raise UserError(f"store {uri}: needed s3://BUCKET/PREFIX")
    query = dict(parse_qsl(parts.query))
    for key in query:
        if key not in QUERY:
            raise UserError(f"store {uri}: {unknown('query', key, QUERY)}")
    scheme, endpoint = _endpoint(query)
    options = {"scheme": scheme, "region": _region(uri, query, parts.netloc, endpoint)}
    if endpoint:
        options["endpoint_override"] = endpoint
    return options, f"{parts.netloc}{parts.path}".rstrip("/")


def describe_endpoint(uri: str) -> str:
    """Name the server of a URI for messages."""
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        return parts.scheme
    scheme, endpoint = _endpoint(dict(parse_qsl(parts.query)))
    return f"{scheme}://{endpoint}" if endpoint else "AWS"


def _endpoint(query: dict[str, str]) -> tuple[str, str]:
    """Scheme and host[:port] of the server; the host is empty for AWS."""
    known = (query.get("endpoint_override"), os.environ.get("AWS_ENDPOINT_URL_S3"), os.environ.get("AWS_ENDPOINT_URL"))
    address = next((address for address in known if address), "")
    scheme, separator, host = address.rpartition("://")
    return query.get("scheme") or (scheme if separator else "https"), host.rstrip("/")


def _region(uri: str, query: dict[str, str], bucket: str, endpoint: str) -> str:
    region = query.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region or endpoint:
        return region or "us-east-1"
    try:
        return fs.resolve_s3_region(bucket)
    except OSError as error:
        raise UserError(
            f"store {uri}: cannot find the region of bucket {bucket!r}: set AWS_REGION, or AWS_ENDPOINT_URL for another server "
            f"({' '.join(str(error).split())})"
        ) from None
