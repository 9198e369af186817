"""Keys stay with their owner, and tokens say what they should. tests/deployment/test_gateway.py gives them to Envoy."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

from onmodel.cli.serve import app
from onmodel.core.errors import NotFoundError, UserError
from onmodel.serving.tokens import key_set, make_key, make_token, read_key


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_a_token_is_signed_by_the_key_in_the_set(tmp_path: Path) -> None:
    make_key(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    key = read_key(tmp_path / "key.pem")
    header, claims, signature = make_token(key, "anna", 30, now_s=1_000_000.7).split(".")
    (public,) = key_set([key.public_key()])["keys"]
    assert json.loads(decoded(header)) == {"alg": "EdDSA", "typ": "JWT", "kid": public["kid"]}
    said: dict[str, Any] = json.loads(decoded(claims))
    assert said == {
        "iss": "onmodel",
        "aud": "onmodel-services",
        "sub": "anna",
        "iat": 1_000_000,
        "exp": 1_000_000 + 30 * 86_400,
    }
    known = Ed25519PublicKey.from_public_bytes(decoded(public["x"]))
    known.verify(decoded(signature), f"{header}.{claims}".encode())
    assert "d" not in public


def test_no_key_is_lost_or_mistaken(tmp_path: Path) -> None:
    make_key(tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(UserError, match="is there already"):
        make_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before
    with pytest.raises(NotFoundError, match="onmodel serve key"):
        read_key(tmp_path / "none.pem")
    (tmp_path / "other.pem").write_text("nothing")
    with pytest.raises(UserError, match="cannot be read as a private key"):
        read_key(tmp_path / "other.pem")


@pytest.mark.parametrize(("subject", "days"), [("anna", 0), ("anna", 366), ("anna", float("nan")), (" ", 1)])
def test_tokens_for_nobody_or_for_ever_are_not_made(tmp_path: Path, subject: str, days: float) -> None:
    make_key(tmp_path / "key.pem")
    with pytest.raises(UserError):
        make_token(read_key(tmp_path / "key.pem"), subject, days)


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    for name in ("old.pem", "new.pem"):
        assert run(app, ["key", "--out", str(tmp_path / name)]).exit_code == 0
    out = tmp_path / "jwks.json"
    done = run(app, ["keys", str(tmp_path / "old.pem"), str(tmp_path / "new.pem"), "--out", str(out)])
    assert done.exit_code == 0 and "2 public keys" in done.output
    assert len({key["kid"] for key in json.loads(out.read_text())["keys"]}) == 2
    token = run(app, ["token", "--key", str(tmp_path / "new.pem"), "--for", "anna", "--days", "7"]).output
    assert len(token.strip().split(".")) == 3 and len(token.splitlines()) == 1
