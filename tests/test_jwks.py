"""What the endpoint of a key set may answer, and how it is asked."""

import datetime
import gzip
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask import Flask

from tests.keyserver import Answer, Clock, KeyServer, flood, http, key_set, reset
from tests.people import SECRET
from tests.servers import PATIENCE
from tests.tokens import INVALID, ISSUER, NO_KEYS, USER, Members, ask, b64, dump, ed25519, me_app

ALWAYS: Members = {"exp": 253402300799}
GOOD = ed25519("good")
TOKEN, UNKNOWN = GOOD.token(claims=ALWAYS), ed25519("unknown").token(claims=ALWAYS)
GOOD_SET = dump({"keys": [GOOD.jwk()]})
KIB_64 = 64 * 1024


def _cut(server: KeyServer, connection: socket.socket) -> None:
    connection.sendall(http(GOOD_SET)[:-20])


def _gzipped(body: bytes) -> bytes:
    return http(body, "200 OK", "Content-Encoding: gzip")


ANSWERS: dict[str, Answer] = {
    "html": http(b"<!doctype html><title>Welcome</title>"),
    "nothing": b"",
    "reset-connection": reset,
    "half-a-body": _cut,
    "half-a-json": http(GOOD_SET[:-20]),
    "empty-body": http(b""),
    "status-204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status-500": http(GOOD_SET, "500 Internal Server Error"),
    "status-404": http(GOOD_SET, "404 Not Found"),
    "redirect": http(b"", "302 Found", "Location: /elsewhere"),
    "permanent-redirect": http(GOOD_SET, "308 Permanent Redirect", "Location: /elsewhere"),
    "no-http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "status-line-without-end": b"HTTP/1.1 200 " + b"O" * 70_000,
    "too-many-headers": http(GOOD_SET, "200 OK", *["X: y"] * 200),
    "65-kib": http(GOOD_SET + b" " * (65 * 1024 - len(GOOD_SET))),
    "one-byte-over-64-kib": http(GOOD_SET + b" " * (KIB_64 + 1 - len(GOOD_SET))),
    "no-utf-8": http(GOOD_SET.replace(b"good", b"\xff\xfe")),
    "deep": http(b"[" * 60_000),
    "gzip-cut": _gzipped(gzip.compress(GOOD_SET)[:-20]),
    "gzip-that-is-none": _gzipped(GOOD_SET),
    "gzip-one-byte-over-64-kib": _gzipped(gzip.compress(b" " * (KIB_64 + 1 - len(GOOD_SET)) + GOOD_SET)),
    "gzip-bomb": _gzipped(gzip.compress(b" " * 30_000_000 + GOOD_SET)),
    "compressed-otherwise": http(GOOD_SET[::-1], "200 OK", "Content-Encoding: br"),
    "list": http(dump([GOOD.jwk()])),
    "string": http(b'"keys"'),
    "null": http(b"null"),
    "number": http(b"1"),
    "one-key-alone": http(dump(GOOD.jwk())),
    "no-keys-member": http(b"{}"),
    "empty-set": key_set(),
    "keys-null": http(b'{"keys": null}'),
    "keys-number": http(b'{"keys": 1}'),
    "keys-text": http(b'{"keys": "abc"}'),
    "keys-object": http(dump({"keys": {"good": GOOD.jwk()}})),
    "no-usable-key": key_set(GOOD.jwk(alg="ES384"), {"kty": "oct", "k": b64(SECRET.encode())}, None),
}


@pytest.fixture
def server(clock: Clock) -> Iterator[KeyServer]:
    """The issuer's endpoint, which works at first."""
    with KeyServer(GOOD.jwk()) as server:
        yield server


@pytest.fixture
def app(server: KeyServer) -> Flask:
    """It takes the issuer's tokens."""
    return me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the beginning of each WARNING about an outage."""
    messages = [record.getMessage() for record in caplog.records if record.name == "taskapi.auth.keys"]
    return [message[:13] for message in messages if not message.startswith("skipped a key of ")]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_bad_answer_is_survived(
    app: Flask, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    """Without keys the first requests get 503; later ones go on with the old keys, and each outage is logged once."""
    server.answer = answer
    assert [ask(app, TOKEN).json for clock.now in (0, 1, 2)] == [NO_KEYS] * 3
    assert _warnings(caplog) == ["no keys from "]

    server.publish(GOOD.jwk())
    clock.now = 3
    assert ask(app, TOKEN).status_code == 200

    server.answer = answer
    clock.now = 400
    assert [ask(app, UNKNOWN).json, ask(app, TOKEN).json] == [INVALID, {"id": USER, "email": None}]
    clock.now = 800
    assert [ask(app, UNKNOWN).json, ask(app, TOKEN).json] == [INVALID, {"id": USER, "email": None}]
    assert _warnings(caplog) == ["no keys from "] * 2
    assert set(server.asked) == {"/keys"}  # no redirect was followed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (key_set(), "no usable key"),
        (http(b"{}", "404 Not Found"), "HTTPError: 'HTTP Error 404"),
        (http(b"", "302 Found", "Location: /elsewhere"), "HTTPError: 'HTTP Error 302"),
        (http(GOOD_SET + b" " * KIB_64), "ValueError: 'too long or too slow'"),
        (http(b"{}"), "KeyError: \"'keys'\""),
    ],
)
def test_outage_is_logged_with_its_reason(
    app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture, answer: Answer, reason: str
) -> None:
    """The log tells the URL, and the status or what else was wrong with the answer."""
    server.answer = answer

    assert ask(app, TOKEN).json == NO_KEYS
    [line] = [record.getMessage() for record in caplog.records if record.name == "taskapi.auth.keys"]
    assert line.startswith(f"no keys from {server.url}: {reason}")


def test_answer_is_not_logged(app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """An answer may hold a private key by mistake, so that the reason of an outage does not quote it."""
    server.answer = http(b'{"keys": [{"kty": "OKP", "d": "not-for-the-log"}]}\xff')

    assert ask(app, TOKEN).json == NO_KEYS
    assert "UnicodeDecodeError" in caplog.text
    assert "not-for-the-log" not in caplog.text


@pytest.mark.slow
def test_no_more_is_read_than_the_limit(app: Flask, server: KeyServer) -> None:
    """An endpoint that sends without end does not fill the memory."""
    server.answer = flood

    assert ask(app, TOKEN).json == NO_KEYS
    assert server.left.wait(PATIENCE)


SPACED = b" " * (KIB_64 - len(GOOD_SET)) + GOOD_SET
FORMS: dict[str, bytes] = {
    "64-kib": http(SPACED),
    "gzip": _gzipped(gzip.compress(GOOD_SET)),
    "gzip-of-64-kib": _gzipped(gzip.compress(SPACED)),
    "byte-order-mark": http(b"\xef\xbb\xbf" + GOOD_SET),
    "gzip-with-byte-order-mark": _gzipped(gzip.compress(b"\xef\xbb\xbf" + GOOD_SET)),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
               % (len(GOOD_SET), GOOD_SET),
    "until-the-connection-ends": b"HTTP/1.0 200 OK\r\n\r\n" + GOOD_SET,
    "another-media-type": http(GOOD_SET, "200 OK", "Content-Type: text/html; charset=latin-1"),
    "more-members": http(dump({"keys": [GOOD.jwk()], "issuer": None, "x": [{}]})),
}


@pytest.mark.parametrize("answer", FORMS.values(), ids=FORMS)
def test_good_answer_is_taken(app: Flask, server: KeyServer, answer: bytes) -> None:
    """The limit counts the bytes of JSON, and how they are sent does not matter."""
    server.answer = answer

    assert ask(app, TOKEN).status_code == 200


@pytest.mark.parametrize(("no_proxy", "is_asked"), [("", True), ("127.0.0.1", False)])
def test_proxy_of_the_environment_is_asked(
    app: Flask, server: KeyServer, monkeypatch: pytest.MonkeyPatch, no_proxy: str, is_asked: bool
) -> None:
    """A company's network may have no other way out; no_proxy names the exceptions."""
    with KeyServer(GOOD.jwk()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        monkeypatch.setenv("no_proxy", no_proxy)

        assert ask(app, TOKEN).status_code == 200
        assert (proxy.asked, server.asked) == (([server.url], []) if is_asked else ([], ["/keys"]))


def test_request_says_no_more_than_it_has_to(app: Flask, server: KeyServer) -> None:
    """The request has a User-Agent, without which some firewalls refuse it, and nothing of the user or the token."""
    assert ask(app, TOKEN).status_code == 200
    [head] = server.heads
    assert (head[0], {*head[1:]}) == ("GET /keys HTTP/1.1", {
        f"Host: {server.origin.removeprefix('http://')}", "Accept-Encoding: identity", "Accept: application/json",
        "User-Agent: taskapi", "Connection: close",
    })


def _certify(folder: Path, name: x509.GeneralName) -> tuple[ssl.SSLContext, Path]:
    """Return the TLS of a server with this name, and the file of the local authority that says so."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(hours=1)
    )
    certificate = certificate.add_extension(x509.SubjectAlternativeName([name]), critical=True)
    path = folder / "authority.pem"
    path.write_bytes(certificate.sign(key, SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path, folder / "key.pem")
    return tls, path


OWN_NAME, OTHER_NAME = x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("issuer.example.com")


@pytest.mark.parametrize(
    ("name", "is_trusted", "status"), [(OWN_NAME, True, 200), (OWN_NAME, False, 503), (OTHER_NAME, True, 503)]
)
def test_certificate_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: x509.GeneralName, is_trusted: bool, status: int
) -> None:
    """Keys over https come from a server whose certificate the system trusts (SSL_CERT_FILE), for the URL's host."""
    tls, authority = _certify(tmp_path, name)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with KeyServer(GOOD.jwk(), tls=tls) as server:
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)

        assert ask(app, TOKEN).status_code == status
        assert server.asked == (["/keys"] if status == 200 else [])


def test_https_is_not_given_up_for_http(server: KeyServer) -> None:
    """A server without TLS at an https URL is not asked."""
    app = me_app(JWT_JWKS_URL=server.url.replace("http:", "https:"), JWT_ISSUER=ISSUER)

    assert (ask(app, TOKEN).status_code, server.asked) == (503, [])


def test_query_of_the_url_is_sent(server: KeyServer) -> None:
    """The URL's path and query are sent, without its fragment."""
    app = me_app(JWT_JWKS_URL=f"{server.origin}/a/b%20c?d=e&f=%2F#g", JWT_ISSUER=ISSUER)
    bare = me_app(JWT_JWKS_URL=server.origin, JWT_ISSUER=ISSUER)

    assert [ask(app, TOKEN).status_code, ask(bare, TOKEN).status_code] == [200, 200]
    assert server.asked == ["/a/b%20c?d=e&f=%2F", "/"]
