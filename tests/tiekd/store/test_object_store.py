import pytest

from tiekd.store.object_store import describe_endpoint, s3_options

VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.mark.parametrize(
    ("uri", "environment", "expected"),
    [
        ("s3://b/p", {"AWS_REGION": "eu-west-1"}, {"scheme": "https", "region": "eu-west-1"}),
        ("s3://b/p", {"AWS_DEFAULT_REGION": "eu-west-1"}, {"scheme": "https", "region": "eu-west-1"}),
        ("s3://b/p?region=ap-east-1", {"AWS_REGION": "eu-west-1"}, {"scheme": "https", "region": "ap-east-1"}),
        (
            "s3://b/p/",
            {"AWS_ENDPOINT_URL": "http://minio:9000/"},
            {"scheme": "http", "region": "us-east-1", "endpoint_override": "minio:9000"},
        ),
        (
            "s3://b/p",
            {"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "https://objects"},
            {"scheme": "https", "region": "us-east-1", "endpoint_override": "objects"},
        ),
        (
            "s3://b/p?endpoint_override=minio:9000&scheme=http",
            {"AWS_ENDPOINT_URL": "https://all"},
            {"scheme": "http", "region": "us-east-1", "endpoint_override": "minio:9000"},
        ),
    ],
    ids=str,
)
def test_the_uri_and_the_environment_say_where_a_bucket_is(uri, environment, expected, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert s3_options(uri) == (expected, "b/p")
    where = expected.get("endpoint_override")
    assert describe_endpoint(uri) == (f"{expected['scheme']}://{where}" if where else "AWS")
