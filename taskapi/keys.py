"""Where verification keys come from."""

from typing import Any

import jwt


class SharedSecret:
    """The one key of HS256 (RFC 7518 section 3.2)."""

    def __init__(self, secret: str) -> None:
        self._algorithm = jwt.get_algorithm_by_name("HS256")
        self._key = self._algorithm.prepare_key(secret)

    def verify(self, header: dict[str, Any], signing_input: bytes, signature: bytes) -> bool:
        """Say whether the signature is the secret's; any other algorithm's never is."""
        return header.get("alg") == "HS256" and self._algorithm.verify(signing_input, self._key, signature)
