"""The page behind nginx with TLS, configured as docs/how-to/serve.md shows it."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from support.served_study import Client, serving, study_file

import hyperzero_torch as hz

pytest.importorskip("fastapi", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx2", reason="the client of the tests is not installed")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"
NAME = "hz.example.com"


def shown_configuration():
    """The server that the page shows for nginx."""
    return re.search(r"```nginx\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def nginx(folder, behind, change=lambda text: text):
    """nginx before the server at a port; gives its own port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("no nginx or no openssl is installed (apt: nginx-light openssl)")
    folder.mkdir()
    port = free_port()
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    files = ["-keyout", "hz.key", "-out", "hz.pem", "-subj", f"/CN={NAME}"]
    subprocess.run([*certificate, *files], cwd=folder, check=True, capture_output=True)
    shown = change(shown_configuration())
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("http://127.0.0.1:8765", f"http://127.0.0.1:{behind}"),
        (f"/etc/ssl/{NAME}.pem", f"{folder}/hz.pem"),
        (f"/etc/ssl/{NAME}.key", f"{folder}/hz.key"),
    ):
        assert old in shown, old
        shown = shown.replace(old, new)
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {places}\n{shown}\n}}\n",
        encoding="utf-8",
    )
    run = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "error.log"]
    process = subprocess.Popen(run, stderr=subprocess.PIPE)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextlib.contextmanager
def behind_nginx(folder, change=lambda text: text):
    """A study with a round, served behind nginx; gives a browser's client and the tokens."""
    from hyperzero_torch.integrations.http.files import places

    with serving(places([study_file(folder)]), folder) as (address, secrets):
        with httpx.Client(base_url=address) as direct:
            Client(direct, secrets).play(1)
        inner = int(address.rpartition(":")[2])
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with (
            nginx(folder / "nginx", inner, change) as port,
            httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting) as http,
        ):
            http.headers["Host"] = NAME
            yield http, secrets


def browser_headers(newer):
    """What a browser sends with a form, after 2023 or before."""
    old = {"Origin": f"https://{NAME}"}
    return old | {"Sec-Fetch-Site": "same-origin"} if newer else old


def log_in(http, secret, newer=True):
    return http.post("/login", data={"token": secret}, headers=browser_headers(newer))


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
@pytest.mark.parametrize("newer", [True, False])
def test_login_and_buttons_work_behind_nginx_as_the_page_shows_it(tmp_path, newer):
    with behind_nginx(tmp_path) as (http, secrets):
        answer = log_in(http, secrets["operator"], newer)
        assert answer.status_code == 303, answer.text
        assert "Secure" in answer.headers["set-cookie"]  # it is known that TLS is spoken
        cookie = answer.headers["set-cookie"].partition(";")[0]
        page = http.get("/studies/feed", headers={"Cookie": cookie}).text
        key = re.search(r'name="key" value="([^"]+)"', page)[1]
        done = http.post(
            "/studies/feed/do/pause",
            data={"key": key, "reason": "a release until Friday"},
            headers=browser_headers(newer) | {"Cookie": cookie},
        )
        assert done.status_code == 303, done.text
        headers = browser_headers(newer) | {"Cookie": cookie, "Origin": "https://evil.example"}
        headers |= {"Sec-Fetch-Site": "cross-site"} if newer else {}
        form = {"key": key, "reason": "an attack"}
        assert http.post("/studies/feed/do/resume", data=form, headers=headers).status_code == 403
        big = b" " * (2 * 2**20)  # nginx alone takes one megabyte
        bearer = {"Authorization": f"Bearer {secrets['platform']}"}
        told = http.post("/v1/studies/feed/tell", content=big + b'{"rows": []}', headers=bearer)
        assert told.status_code != 413
    paused = hz.Tuner.resume(f"sqlite:///{tmp_path}/feed.db", "feed").history.status.switches
    assert paused.mode == "paused"


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_without_the_header_host_old_browsers_are_told_and_new_ones_work(tmp_path):
    def forget(text):
        line = "proxy_set_header Host $http_host;"
        assert line in text
        return text.replace(line, "")

    with behind_nginx(tmp_path, forget) as (http, secrets):
        assert log_in(http, secrets["operator"], newer=True).status_code == 303
        answer = log_in(http, secrets["operator"], newer=False)
        assert answer.status_code == 403
        assert "let it pass on the header Host" in answer.text


@pytest.mark.filterwarnings("ignore::hyperzero_torch.TunerWarning")
def test_wrong_tokens_of_one_person_hold_up_nobody_behind_the_same_proxy(tmp_path):
    with behind_nginx(tmp_path) as (http, secrets):
        # A client cannot take another's name: the proxy writes the header itself.
        guess = {"Authorization": "Bearer hz_guess", "X-Forwarded-For": "10.1.1.1"}
        statuses = [http.get("/v1/studies", headers=guess).status_code for _ in range(25)]
        assert 429 in statuses
        right = {"Authorization": f"Bearer {secrets['viewer']}"}
        assert http.get("/v1/studies", headers=right).status_code == 200
        assert log_in(http, secrets["viewer"]).status_code == 303
        assert log_in(http, "hz_guess").status_code == 429
