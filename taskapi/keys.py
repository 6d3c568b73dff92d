"""Where verification keys come from: the shared secret, or a cached key set."""

import logging
from collections.abc import Mapping, Sequence
from math import inf
from threading import Lock, Thread, current_thread
from time import monotonic, time
from typing import Any

import jwt
from flask import Flask

from taskapi.errors import ApiError
from taskapi.jwks import FETCH_LIMIT, Key, fetch_keys

# Seconds between two fetches for a reason: nothing has been loaded yet, the keys are to be renewed, no key fits.
INTERVALS = {"first": 1, "renewal": 300, "unknown": 30}
STALE_LIMIT = 24 * 3600  # seconds that keys outlive their endpoint


class SharedSecret:
    """The one key of HS256 (RFC 7518 section 3.2)."""

    loaded_at: float | None = None  # it was not loaded from anywhere

    def __init__(self, secret: str) -> None:
        self._algorithm = jwt.get_algorithm_by_name("HS256")
        self._material = self._algorithm.prepare_key(secret)

    def verify(self, header: Mapping[str, Any], signed: bytes, signature: bytes) -> bool:
        """Say whether the signature is the secret's; any other algorithm's never is."""
        return header.get("alg") == "HS256" and self._algorithm.verify(signed, self._material, signature)


class KeySet:
    """The public keys at a URL (RFC 7517 section 5).

    A request whose key is known waits for no fetch, but where nobody has asked for the keys for a day; any other joins
    the fetch under way, or begins one if the last in vain was long enough ago. PyJWT's own PyJWKClient keeps everybody
    waiting while it fetches, and forgets the keys that it has when the endpoint is down.
    """

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self._url, self._algorithms = url, algorithms
        self._lock = Lock()  # guards what is below, and is never held while anybody waits
        self.loaded_at: float | None = None  # Unix time
        self._keys: list[Key] = []
        self._failing_since: float | None = None
        self._begun = dict.fromkeys(INTERVALS, -inf)
        self._forgiven = -inf
        self._fetch: Thread | None = None
        self._deadline = 0.0

    def verify(self, header: Mapping[str, Any], signed: bytes, signature: bytes) -> bool:
        """Say whether the signature is that of the one key that fits; raise the 503 where there are no keys at all."""
        if header.get("alg") not in self._algorithms:
            return False
        has_waited = self._ensure_keys()
        if self._is_signed(header, signed, signature):
            return True
        # A fetch that was under way already may be older than the key. For two fetches a request waits, and no more.
        for _ in range(1 if has_waited else 2):
            self._refresh("unknown")
            if self._is_signed(header, signed, signature):
                self._forgive()
                return True
        return False

    def _ensure_keys(self) -> bool:
        """Load or renew the keys if it is time to, and say whether that was waited for; raise the 503."""
        if not self._has_keys():
            self._refresh("first")
            if not self._has_keys():
                raise ApiError(503, "INTERNAL_ERROR", "There are no keys to verify tokens with; try again.")
            return True
        # Beside the request, unless the keys were last seen so long ago that they may well have been withdrawn.
        is_old = monotonic() - self._begun["renewal"] > STALE_LIMIT
        self._refresh("renewal", wait=is_old)
        return is_old

    def _forgive(self) -> None:
        """Let the next new key come at once: the last fetch was not in vain.

        Once in a while, or an endpoint that shows different keys in turn would be asked for every request.
        """
        with self._lock:
            if monotonic() - self._forgiven >= INTERVALS["unknown"]:
                self._forgiven, self._begun["unknown"] = monotonic(), -inf

    def _has_keys(self) -> bool:
        is_stale = self._failing_since is not None and monotonic() - self._failing_since > STALE_LIMIT
        return bool(self._keys) and not is_stale

    def _is_signed(self, header: Mapping[str, Any], signed: bytes, signature: bytes) -> bool:
        # The keys of the token's algorithm and, where it names one, of its key id.
        fitting = [key for key in self._keys if key.alg == header["alg"] and key.kid == header.get("kid", key.kid)]
        if "kid" not in header and len(fitting) > 1:
            return False  # a token that could be anyone's
        return any(key.algorithm.verify(signed, key.material, signature) for key in fitting)

    def _refresh(self, reason: str, wait: bool = True) -> None:
        """Join the fetch under way, or begin one unless the last for this reason was too short a time ago."""
        with self._lock:
            now = monotonic()
            if self._fetch is None or now > self._deadline:
                if now - self._begun[reason] < INTERVALS[reason]:
                    return
                self._begun[reason] = now
                self._deadline = now + FETCH_LIMIT
                self._fetch = Thread(target=self._load, daemon=True)
                self._fetch.start()
            fetch = self._fetch
        if wait:
            fetch.join(FETCH_LIMIT)

    def _load(self) -> None:
        try:
            keys, failure = fetch_keys(self._url, self._algorithms), "no usable key"
        except Exception as error:  # whatever the endpoint answers is survived
            keys, failure = [], f"{error!r:.200}"
        with self._lock:
            if self._fetch is current_thread():
                self._fetch = None
            elif self._has_keys():
                return  # too late: another fetch has taken over, and what is there may be newer
            if keys:
                self._keys, self._failing_since = keys, None
                self._begun["renewal"], self.loaded_at = monotonic(), time()
            elif self._failing_since is None:
                self._failing_since = monotonic()
                logging.getLogger(__name__).warning("no keys from %s: %s", self._url, failure)


def init_app(app: Flask) -> None:
    """Give the app its keys; none are fetched yet."""
    secret, url = app.config["JWT_SECRET"], app.config["JWT_JWKS_URL"]
    app.extensions["taskapi.keys"] = SharedSecret(secret) if secret else KeySet(url, app.config["JWT_ALGORITHMS"])
