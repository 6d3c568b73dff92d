"""Does a flood of tokens with unknown key ids hold up those with a good one, or the issuer?"""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from threading import Event, Thread

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from benchmarks.faults import is_ready, until
from benchmarks.servers import TASKAPI, folder, migrate, service

THREADS, REQUESTS = 8, 10_000
PACE = 0.02  # seconds between two requests of a thread: 400 requests/s in all, which leaves the CPU to breathe
ISSUER = "https://issuer.example.com"


class Issuer(ThreadingHTTPServer):
    """Publishes one key, and counts who asks for it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = Ed25519PrivateKey.generate()
        jwk = OKPAlgorithm.to_jwk(self.key.public_key(), as_dict=True) | {"kid": "known"}
        self.document = orjson.dumps({"keys": [jwk]})
        self.asked = 0

    def token(self, kid: str) -> str:
        """Return a token that is right but, perhaps, for its key id."""
        claims = {"iss": ISSUER, "sub": "auth0|ana", "exp": int(time.time()) + 3600}
        return jwt.encode(claims, self.key, algorithm="EdDSA", headers={"kid": kid})


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.document)

    def log_message(self, *args: object) -> None:
        pass


def flood() -> str:
    """Return how often the issuer was asked, and the median of a good token's requests with and without a flood."""
    with folder() as path, Issuer() as issuer:
        Thread(target=issuer.serve_forever, daemon=True).start()
        url = f"sqlite:///{path}/keys.sqlite3"
        migrate(url)
        settings = {
            "JWT_SECRET": "",
            "JWT_JWKS_URL": f"http://127.0.0.1:{issuer.server_port}/jwks",
            "JWT_ISSUER": ISSUER,
            "WEB_CONCURRENCY": "1",
        }
        with service(TASKAPI, url, path, **settings) as served, ThreadPoolExecutor(THREADS + 1) as pool:
            until(lambda: is_ready(served.port))
            token, enough = issuer.token("known"), Event()
            ask(served.port, lambda: token, 500, 0.002)
            before = ask(served.port, lambda: token, 1000, 0.002)
            asked = issuer.asked
            during = pool.submit(ask, served.port, lambda: token, 10_000, 0.002, enough)
            share = REQUESTS // THREADS
            unknown = [
                pool.submit(ask, served.port, lambda: issuer.token(secrets.token_hex(8)), share, PACE, None, 401)
                for _ in range(THREADS)
            ]
            for each in unknown:
                each.result()
            enough.set()
            after = ask(served.port, lambda: token, 1000, 0.002)
        issuer.shutdown()
        medians = ", ".join(
            f"{median(times) * 1000:.2f} ms {when}"
            for times, when in ((before, "before"), (during.result(), "during"), (after, "after"))
        )
        fetches = issuer.asked - asked
        return f"{REQUESTS:,} unknown key ids from {THREADS} threads: fetches {fetches}; a good token: {medians}"


def ask(
    port: int, token: Callable[[], str], count: int, pace: float, enough: Event | None = None, status: int = 200
) -> list[float]:
    """Return the seconds of requests one after another; raise RuntimeError for an answer of another status."""
    times = []
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        while len(times) < count and not (enough and enough.is_set()):
            headers = {"Authorization": f"Bearer {token()}"}
            began = time.perf_counter()
            connection.request("GET", "/api/tasks?limit=1", headers=headers)
            response = connection.getresponse()
            response.read()
            times.append(time.perf_counter() - began)
            if response.status != status:
                raise RuntimeError(f"{response.status}, not {status}")
            time.sleep(pace)
    return times
