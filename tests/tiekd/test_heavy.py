import sys

from tiekd.heavy import without


def test_a_package_is_missing_only_inside_and_never_where_it_is_loaded():
    with without("wsgiref"), without("json"):
        import json

        assert sys.modules["wsgiref"] is None
    assert "wsgiref" not in sys.modules
    assert json.loads("1") == 1
