import http.client
import threading

import pytest

from reports.viewer.serve import make_server

pytestmark = pytest.mark.slow


@pytest.fixture
def get(tmp_path):
    """Request a path from a server of a folder with a page, a secret beside it, and links to both."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text("page")
    (tmp_path / "secret").write_text("secret")
    (folder / "inside").symlink_to("index.html")
    (folder / "outside").symlink_to(tmp_path / "secret")
    (folder / "above").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    with make_server(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]

        def request(path: str, host: str | None = "127.0.0.1:{port}") -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.putrequest("GET", path, skip_host=True)
            if host is not None:
                connection.putheader("Host", host.format(port=port))
            connection.endheaders()
            response = connection.getresponse()
            assert b"secret" not in response.read().replace(b"/secret", b"")
            connection.close()
            return response.status

        yield request
        server.shutdown()


@pytest.mark.parametrize("path", ["/", "/index.html", "/inside"])
def test_files_of_the_folder_are_served(get, path):
    assert get(path) == 200


@pytest.mark.parametrize("path", ["/outside", "/above/secret", "/above/", "/circle", "/../secret", "/a%00b", "/" + "n" * 300])
def test_what_lies_outside_is_not_served(get, path):
    assert get(path) == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "", None, "127.0.0.1.evil.example"]
)
def test_other_hosts_are_refused(get, host):
    assert get("/", host) == 403


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1", "LOCALHOST"])
def test_this_machine_is_answered(get, host):
    assert get("/", host) == 200
