"""Object stores by URI, with endpoint, region and credentials from the environment.

An `s3://bucket/prefix` is sought at AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (AWS itself where neither is set), in the region
AWS_REGION or AWS_DEFAULT_REGION (where neither is set: us-east-1 at an endpoint of one's own, else the region that AWS names
for the bucket). The URI's query may say `endpoint_override`, `scheme` and `region` instead. Credentials are found as by every
AWS program: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), a profile, or the machine's role.
"""

import os
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from tiekd.errors import UserError, unknown

CONNECT_S, SILENT_S = 5.0, 30.0  # until a server counts as away
ATTEMPTS = 6  # of a request, over some 15 s (31 s at most) where a server refuses it: a restart need not end a sweep
QUICK_SILENT_S, QUICK_ATTEMPTS = 4.0, 2  # for a first look, to tell a mistake while its maker looks on
QUERY = ("endpoint_override", "region", "scheme")


def open_objects(uri: str, patient: bool = True, whole: bool = False) -> tuple[fs.FileSystem, str]:
    """The filesystem of a URI and the path in it. Raises UserError for what is no URI of an object store.

    `whole` uploads an object in one request when its stream is closed; only for contents of a few megabytes.
    """
    if urlsplit(uri).scheme != "s3":
        return _open_other(uri, patient)
    options, root = s3_options(uri)
    options["retry_strategy"] = fs.AwsStandardS3RetryStrategy(ATTEMPTS if patient else QUICK_ATTEMPTS)
    options["request_timeout"] = SILENT_S if patient else QUICK_SILENT_S
    # Not for large contents: where such an upload cannot begin, pyarrow puts an empty object in its place.
    options["allow_delayed_open"] = whole
    return fs.S3FileSystem(connect_timeout=CONNECT_S, **options), root


def _open_other(uri: str, patient: bool) -> tuple[fs.FileSystem, str]:
    address = uri
    if urlsplit(uri).scheme in ("gs", "gcs") and "retry_limit_seconds" not in uri:  # it would try for a quarter of an hour
        address += f"{'&' if '?' in uri else '?'}retry_limit_seconds={SILENT_S if patient else QUICK_SILENT_S:g}"
    try:
        filesystem, root = fs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"store {uri}: not a folder or a URI that pyarrow reads: {error}") from None
    return filesystem, root.rstrip("/")


def s3_options(uri: str) -> tuple[dict[str, Any], str]:
    """What an `s3://` URI and the environment say: arguments of pyarrow's S3FileSystem, and the path."""
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        where = parts.netloc.rpartition("@")[2]
        raise UserError(f"store s3://{where}{parts.path}: a store's name is written down with its runs; give no keys in it")
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
    """Where the objects of a URI are sought, for messages."""
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        return parts.scheme
    scheme, endpoint = _endpoint(dict(parse_qsl(parts.query)))
    return f"{scheme}://{endpoint}" if endpoint else "AWS"


def _endpoint(query: dict[str, str]) -> tuple[str, str]:
    """Scheme and host[:port] of the server; no host for AWS itself."""
    known = (query.get("endpoint_override"), os.environ.get("AWS_ENDPOINT_URL_S3"), os.environ.get("AWS_ENDPOINT_URL"))
    address = next(filter(None, known), "")
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
            f"store {uri}: AWS does not tell the region of bucket {bucket!r}: set AWS_REGION, or AWS_ENDPOINT_URL for another "
            f"server ({' '.join(str(error).split())})"
        ) from None
