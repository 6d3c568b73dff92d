"""The keys that verify tokens: the shared secret, or a cached key set."""

import logging
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from math import inf
from threading import Lock, Thread
from time import monotonic, time

from jwt import PyJWK

from taskapi.auth.jwks import fetch, read_keys
from taskapi.errors import ApiError

Keys = tuple[PyJWK, ...]  # a new tuple for each generation

# Seconds between two fetches: before the first success, to renew keys, and when no key fits a token.
COOLDOWNS = {"first": 1, "renewal": 300, "unknown": 30}
STALE_LIMIT = 24 * 3600  # seconds that keys outlive their endpoint
WAIT_LIMIT = 3.0  # seconds that a request waits for a fetch

log = logging.getLogger(__name__)


class SharedSecret:
    """The one key of HS256 (RFC 7518 section 3.2)."""

    algorithms: tuple[str, ...] = ("HS256",)
    loaded_at: float | None = None  # it was not loaded from anywhere

    def __init__(self, secret: str) -> None:
        encoded = urlsafe_b64encode(secret.encode()).decode()
        self._keys = (PyJWK({"kty": "oct", "k": encoded}, "HS256"),)

    def keys(self) -> Keys:
        """Return the key."""
        return self._keys

    fresh_keys = keys


class KeySet:
    """The public keys at a URL (RFC 7517 section 5).

    A request with a known key waits for a fetch only if the last renewal is a day old. PyJWKClient makes
    every request wait for its fetch, and loses the keys when the endpoint is down.
    """

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self.url, self.algorithms = url, tuple(algorithms)
        self.loaded_at: float | None = None  # Unix time
        self._keys: Keys = ()
        self._skipped: set[str] = set()  # what the last fetch left out, to log it once
        self._begun = dict.fromkeys(COOLDOWNS, -inf)
        self._failing_since = inf
        self._fetch: Thread | None = None
        self._lock = Lock()  # guards the attributes above; not held while waiting

    def keys(self) -> Keys:
        """Return the usable keys, perhaps none, and begin their renewal if it is time."""
        if self._keys:
            is_old = monotonic() - self._begun["renewal"] > STALE_LIMIT  # a key may have been withdrawn meanwhile
            self._refresh("renewal", wait=is_old)
        return self._keys if self._are_usable() else ()

    def fresh_keys(self) -> Keys:
        """Return the keys of a fetch that begins now, if the cooldown allows; raise the 503 if there are none."""
        if not self._are_usable():
            self._refresh("first")
            if not self._are_usable():
                raise ApiError(503, message="The keys that verify tokens are not available. Try again.")
        elif self._refresh("unknown"):
            self._refresh("unknown")  # the fetch that was joined may have begun before the issuer changed its keys
        return self._keys

    def _are_usable(self) -> bool:
        return bool(self._keys) and monotonic() - self._failing_since <= STALE_LIMIT

    def _refresh(self, reason: str, wait: bool = True) -> bool:
        """Join a running fetch, or start one if the cooldown allows; return whether a joined one has ended."""
        with self._lock:
            thread, joined = self._fetch, self._fetch is not None
            if thread is None:
                if monotonic() - self._begun[reason] < COOLDOWNS[reason]:
                    return False
                self._begun[reason] = monotonic()
                thread = Thread(target=self._load, daemon=True)
                thread.start()  # raises RuntimeError where the system has no thread left
                self._fetch = thread
        if wait:
            thread.join(WAIT_LIMIT)
        return joined and not thread.is_alive()

    def _load(self) -> None:
        keys: list[PyJWK] = []
        skipped: set[str] = set()
        failure = "no usable key"
        try:
            for jwk in fetch(self.url):
                keys += read_keys(jwk, self.algorithms, skipped)
        except Exception as error:  # the endpoint may answer anything; the repr of some errors quotes all of it
            skipped, failure = self._skipped, f"{type(error).__name__}: {str(error)!r:.200}"
        for problem in sorted(skipped - self._skipped):
            log.warning("skipped a key of %s: %s", self.url, problem)
        with self._lock:
            self._fetch, self._skipped = None, skipped
            if keys:
                self._keys, self._failing_since = tuple(keys), inf
                self._begun["renewal"], self.loaded_at = monotonic(), time()
            elif self._failing_since == inf:
                self._failing_since = monotonic()
                log.warning("no keys from %s: %s", self.url, failure)
