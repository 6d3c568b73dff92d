"""What a token costs by the kind of its signature; and whether a flood of unknown key ids holds up the others."""

import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from benchmarks.load import GET, REQUESTS, Client, Request, Run, at_work, percentile, ratios, run, seen, spread, table
from benchmarks.service import OWNER, SECRET, Options, create, fill, folder, migrate, postgresql, progress, service
from benchmarks.service import taskapi, until

ISSUER = "https://issuer.example.com"
TASKS, SEEN = 10_000, 100
MOST = 5_000  # requests per second: enough tokens for a run in which each comes once
FIRST_TIME, AGAIN = "for the first time", "seen before"

THREADS, REQUESTS_PER_THREAD = 8, 1_250
PACE = 0.02  # seconds between two requests of a thread: 400 requests/s in all, which leaves the CPU to breathe


class Issuer(ThreadingHTTPServer):
    """Publishes a key of each kind, and counts how often that is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        rsa, ec, ed = generate_rsa_key(65537, 2048), generate_ec_key(SECP256R1()), Ed25519PrivateKey.generate()
        self.keys: dict[str, Any] = {"HS256": SECRET, "RS256": rsa, "ES256": ec, "EdDSA": ed}
        published: list[tuple[str, dict[str, Any]]] = [
            ("RS256", RSAAlgorithm.to_jwk(rsa.public_key(), as_dict=True)),
            ("ES256", ECAlgorithm.to_jwk(ec.public_key(), as_dict=True)),
            ("EdDSA", OKPAlgorithm.to_jwk(ed.public_key(), as_dict=True)),
        ]
        self.document = orjson.dumps({"keys": [jwk | {"kid": name, "use": "sig"} for name, jwk in published]})
        self.asked = 0

    @property
    def settings(self) -> dict[str, str]:
        """What has the service verify by this issuer's keys."""
        url = f"http://127.0.0.1:{self.server_port}/jwks"
        return {"JWT_SECRET": "", "JWT_JWKS_URL": url, "JWT_ISSUER": ISSUER}

    def token(self, algorithm: str, kid: str | None = None) -> str:
        """Return a token of its own that is right but, perhaps, for its key id."""
        claims = {"iss": ISSUER, "sub": OWNER, "exp": int(time.time()) + 86400, "jti": secrets.token_hex(8)}
        return jwt.encode(claims, self.keys[algorithm], algorithm=algorithm, headers={"kid": kid or algorithm})


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.document)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer on a port of the kernel's choice."""
    with Issuer() as issuer:
        Thread(target=issuer.serve_forever, daemon=True).start()
        try:
            yield issuer
        finally:
            issuer.shutdown()


def measure(options: Options) -> str:
    """Return a table of what a get costs with a token of each kind, seen before or not."""
    runs: dict[tuple[str, str], list[Run]] = defaultdict(list)
    ours = taskapi(options.of)
    with issuing() as issuer, postgresql() as (path, servers):
        url = create(servers, "taskapi", options.of)
        fill(url, TASKS, TASKS)
        progress("signing")
        tokens = {
            (algorithm, when): [issuer.token(algorithm) for _ in range(count)]
            for algorithm in issuer.keys
            for when, count in ((AGAIN, SEEN), (FIRST_TIME, MOST * options.seconds))
        }
        with service(ours, url, path) as by_secret, service(ours, url, path, **issuer.settings) as by_keys:
            for number in range(options.rounds + 1):
                for algorithm, when in sorted(tokens, reverse=number % 2 == 1):  # who goes first takes turns
                    progress(f"round {number} of {options.rounds}: {algorithm}, {when}")
                    served = by_secret if algorithm == "HS256" else by_keys
                    duration = options.seconds if number else 1
                    measured = run(served, REQUESTS[GET], duration, TASKS, tokens[algorithm, when])
                    if number:  # the first is for warming up
                        runs[algorithm, when].append(measured)
    rows = [
        [f"{algorithm}, {when}"]
        + [spread([getattr(each, value) for each in runs[algorithm, when]]) for value in ("rate", "cpu")]
        + [spread(ratios(runs[algorithm, when], runs["HS256", when], "cpu"), ".2f")]
        for when in (AGAIN, FIRST_TIME)
        for algorithm in issuer.keys
    ]
    return table(["get one, token", "requests/s", "CPU per request, µs", "of HS256's"], rows)


def flood(options: Options) -> str:
    """Return how often the issuer was asked, and the median of a good token's requests with and without a flood."""
    share = options.count(REQUESTS_PER_THREAD)
    with issuing() as issuer, folder() as path:
        url = f"sqlite:///{path}/keys.sqlite3"
        migrate(options.of, url)
        settings = issuer.settings | {"WEB_CONCURRENCY": "1"}
        with service(taskapi(options.of), url, path, **settings) as served:
            until(served.is_ready)
            good = Request("GET", "/api/tasks?limit=1", token=issuer.token("EdDSA"))

            def unknown() -> Request:
                return good._replace(token=issuer.token("EdDSA", kid=secrets.token_hex(8)))

            warm_up, before, after = (Client(served, lambda: good, 0.002, most) for most in (500, 1000, 1000))
            during = Client(served, lambda: good, 0.002)
            strangers = [Client(served, unknown, PACE, share) for _ in range(THREADS)]
            warm_up.run()
            before.run()
            asked = issuer.asked
            with at_work([during]):
                for each in strangers:
                    each.start()
                for each in strangers:
                    each.join()
            after.run()
        fetches = issuer.asked - asked
    refused, taken = seen(strangers), seen([before, during, after])
    if refused.keys() != {"401"} or taken.keys() != {"200"}:
        raise RuntimeError(f"unknown key ids got {refused}, good ones {taken}")
    measured = {"before": before, "during the flood": during, "after": after}
    medians = [f"{percentile([each], 50):.2f} ms {when}" for when, each in measured.items()]
    count = f"{THREADS * share:,} unknown key ids from {THREADS} threads"
    return f"{count}: {fetches} fetches of the key set; a good token's requests: {', '.join(medians)}."
