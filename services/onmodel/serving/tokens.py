"""Keys and tokens for the gateway: what `onmodel serve key`, `keys` and `token` make.

A token is a JWT (RFC 7519) signed with Ed25519 (RFC 8037): who it is for, and until when it counts. Whoever signs keeps
the private key; Envoy gets the public ones as a key set (RFC 7517) and holds nothing that could be stolen from it.
"""

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import content_hash, write_aside

ISSUER = "onmodel"
AUDIENCE = "onmodel-services"
DAY_S = 86_400
MAX_DAYS = 365
"""Envoy takes none that counts longer: cluster/serving/envoy.yaml."""


def make_key(path: Path) -> None:
    """Write a new private key that its owner alone may read. Raises UserError where one is already."""
    if path.exists():
        raise UserError(f"{path}: is there already; choose another name, so that no key is lost")
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with write_aside(path) as aside:
        aside.write_bytes(pem)
    path.chmod(0o600)


def read_key(path: Path) -> Ed25519PrivateKey:
    """A private key that `make_key` wrote. Raises NotFoundError or UserError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such key; make one with `onmodel serve key`") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a private key ({type(error).__name__}); check the file") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path}: is not an Ed25519 key; make one with `onmodel serve key`")
    return key


def key_set(keys: list[Ed25519PublicKey]) -> dict[str, Any]:
    """The public keys as Envoy reads them."""
    return {
        "keys": [
            {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": _key_id(key), "x": _text(_raw(key))}
            for key in keys
        ]
    }


def make_token(key: Ed25519PrivateKey, subject: str, days: float, now_s: float | None = None) -> str:
    """A token for `subject` that counts for `days` from now. Raises UserError for more than MAX_DAYS or no subject."""
    if not 0 < days <= MAX_DAYS:
        raise UserError(f"--days: must be above 0 and at most {MAX_DAYS} (given: {days:g})")
    if not subject.strip():
        raise UserError("--for: names nobody; say who the token is for")
    issued = int(time.time() if now_s is None else now_s)
    header = {"alg": "EdDSA", "typ": "JWT", "kid": _key_id(key.public_key())}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": issued, "exp": issued + int(days * DAY_S)}
    signed = ".".join(_text(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{signed}.{_text(key.sign(signed.encode()))}"


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _key_id(key: Ed25519PublicKey) -> str:
    return content_hash(_raw(key))[:16]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
