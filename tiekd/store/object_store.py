"""Object stores by URI: connection settings from the environment, and the storage backend for a bucket.

The server of an `s3://bucket/prefix` is AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, or AWS if neither is set. The region is
AWS_REGION or AWS_DEFAULT_REGION; if neither is set, it is us-east-1 at a custom endpoint, and otherwise the region that AWS
reports for the bucket. The URI's query overrides these with `endpoint_override`, `scheme` and `region`. Credentials are
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), the keys of a profile, or the machine's role.
"""

import configparser
import os
import re
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store, from_url
from pyarrow import fs

from tiekd.errors import StoreError, UserError, shorten, unknown

CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5.0, 60.0  # a request may be silent for the second
MAX_ATTEMPTS = 9  # per request, over about 20 s, so that a sweep survives a restart of the server
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0  # between attempts
FAIL_FAST_TIMEOUT_S, FAIL_FAST_ATTEMPTS = 4.0, 2  # for the first check, while the user waits at the terminal
PART_BYTES = 5 * 2**20  # contents up to this size are uploaded in one request, larger ones in parts
PARTS_AT_ONCE = 4
TOTAL_TIMEOUT = timedelta(hours=1)  # of a request that goes on: a large object over a slow line
QUERY = ("endpoint_override", "region", "scheme")


class ObjectStoreBackend:
    """A prefix of a bucket. Each read, write or list of up to 1000 files is one request; an upload is complete or not there."""

    def __init__(self, uri: str, check: bool = True):
        parts = urlsplit(uri)
        self.uri, self.root = uri, f"{parts.netloc}{parts.path}".rstrip("/")
        if check:
            self._check_bucket()
        self._objects = _connect(uri)

    def _check_bucket(self) -> None:
        """Raise UserError unless the bucket exists and can be listed."""
        try:
            obstore.list_with_delimiter(_connect(self.uri, fail_fast=True))
        except (BaseError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                bucket = urlsplit(self.uri).netloc
                raise UserError(f"store {self.uri}: there is no bucket {bucket!r} at {describe_endpoint(self.uri)}") from None
            raise UserError(self._connection_problem(error)) from None

    def _connection_problem(self, error: Exception) -> str:
        why = _reason(error)
        hint = f"{describe_endpoint(self.uri)}, by AWS_ENDPOINT_URL" if NO_ANSWER in why else ""
        if re.search(r"40[13] ", why):
            hint = "credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        return f"store {self.uri}: {why}" + (f" ({hint})" if hint else "")

    def check_writable(self) -> None:
        objects, probe = _connect(self.uri, fail_fast=True), f".probe-{uuid.uuid4().hex}"
        try:
            obstore.put(objects, probe, b"")
            obstore.delete(objects, probe)
        except (BaseError, FileNotFoundError) as error:
            raise UserError(self._connection_problem(error)) from None

    def write(self, name: str, content: bytes) -> None:
        try:
            obstore.put(self._objects, name, memoryview(content), chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
        except (BaseError, FileNotFoundError) as error:
            raise self._failure("write", name, error) from error

    def create(self, name: str, content: bytes) -> bool:
        try:
            obstore.put(self._objects, name, memoryview(content), mode="create", use_multipart=False)
        except AlreadyExistsError:
            return self.read(name) == content  # an earlier attempt of this request, whose answer was lost
        except (BaseError, FileNotFoundError) as error:
            raise self._failure("write", name, error) from error
        return True

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._objects, name).bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._failure("read", name, error) from error
            return None
        except BaseError as error:
            raise self._failure("read", name, error) from error

    def delete(self, name: str) -> None:
        try:
            obstore.delete(self._objects, name)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise self._failure("delete", name, error) from error

    def list_folders(self, name: str) -> list[str]:
        try:
            found = obstore.list_with_delimiter(self._objects, name)["common_prefixes"]
        except (BaseError, FileNotFoundError) as error:
            raise self._failure("list", name, error) from error
        return sorted(prefix.rpartition("/")[2] for prefix in found)

    def list_files(self, name: str) -> dict[str, float]:
        try:
            found = obstore.list_with_delimiter(self._objects, name)["objects"]
        except (BaseError, FileNotFoundError) as error:
            raise self._failure("list", name, error) from error
        return {item["path"].rpartition("/")[2]: item["last_modified"].timestamp() for item in found}

    def list_below(self, name: str) -> list[str]:
        """Return the names of all files in a folder and its subfolders."""
        try:
            return [item["path"] for batch in obstore.list(self._objects, name, chunk_size=1000) for item in batch]
        except (BaseError, FileNotFoundError) as error:
            raise self._failure("list", name, error) from error

    def _failure(self, verb: str, name: str, error: Exception) -> StoreError:
        return StoreError(f"cannot {verb} {name} in store {self.uri}: {_reason(error)}")

    def delete_partial_files(self, name: str) -> None:
        """Do nothing: an upload that is not complete leaves no object."""


NO_ANSWER = "no connection, or no answer in time"


def _reason(error: Exception) -> str:
    """Return why a request has failed, on one line: the server's own message, or that there was none."""
    text = str(error).partition("\n\nDebug source")[0]
    if found := re.search(
        r"status code: ([^<\n]*?):? *(?:<.*?<Code>(.*?)</Code>.*?<Message>(.*?)</Message>|$)", text, re.DOTALL
    ):
        return ": ".join(filter(None, found.groups()))
    if text.endswith("HTTP error: error sending request"):
        return NO_ANSWER
    return shorten(" ".join(text.split()))


# -- connections -----------------------------------------------------------------------------------------------------------


def _connect(uri: str, fail_fast: bool = False) -> obstore.store.ObjectStore:
    """Connect to the prefix of a URI. Raises UserError if `uri` is not an object store. `fail_fast` gives up after seconds."""
    attempts = FAIL_FAST_ATTEMPTS if fail_fast else MAX_ATTEMPTS
    silence = timedelta(seconds=FAIL_FAST_TIMEOUT_S if fail_fast else REQUEST_TIMEOUT_S)
    waits = {"init_backoff": timedelta(seconds=FIRST_WAIT_S), "max_backoff": timedelta(seconds=LONGEST_WAIT_S), "base": 2}
    how: dict[str, Any] = {
        "client_options": {
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": silence,
            "timeout": silence if fail_fast else TOTAL_TIMEOUT,
        },
        "retry_config": {"max_retries": attempts - 1, "retry_timeout": attempts * silence, "backoff": waits},
    }
    if urlsplit(uri).scheme != "s3":
        try:
            return from_url(uri, **how)
        except (BaseError, ValueError) as error:
            why = shorten(" ".join(str(error).partition("\n\nDebug source")[0].split()))
            raise UserError(f"store {uri}: not a folder or the URI of an object store (s3, gs, az): {why}") from None
    options, root = s3_options(uri)
    bucket, _, prefix = root.partition("/")
    how["client_options"]["allow_http"] = options["scheme"] == "http"
    settings: Any = {"region": options["region"], **profile_keys()}
    if "endpoint_override" in options:
        settings["endpoint"] = f"{options['scheme']}://{options['endpoint_override']}"
    return S3Store(bucket, prefix=prefix or None, **settings, **how)


def profile_keys() -> dict[str, str]:
    """Return the keys of the profile of AWS programs, unless the environment has keys; {} leaves the machine's role."""
    profile = os.environ.get("AWS_PROFILE")
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    known = configparser.ConfigParser(interpolation=None)
    known.read(file)
    section = dict(known.items(profile or "default")) if known.has_section(profile or "default") else {}
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    keys = {name.removeprefix("aws_"): section[name] for name in names if name in section}
    if profile and not keys:
        raise UserError(
            f"AWS_PROFILE={profile}: has no keys in {file}; valid: a profile with keys, or keys in the environment "
            f"(aws configure export-credentials --profile {profile} --format env)"
        )
    return keys


def s3_options(uri: str) -> tuple[dict[str, Any], str]:
    """Return scheme, region and server (if not AWS) of an `s3://` URI by the URI and the environment, and bucket and prefix."""
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
