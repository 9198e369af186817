"""Who may come in, what is answered, and what a wrong request is told."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.core.vocabulary import CATEGORIES
from onmodel.curation.app import create_app
from onmodel.curation.guard import Access
from onmodel.curation.server import listen
from onmodel.curation.session import Session
from onmodel.curation.targets import from_composition, from_recommended
from onmodel.dataset.composition import load_composition
from onmodel.dataset.recommended import RECOMMENDED

from .made import fresh, ids, session_of

LOCAL = "http://127.0.0.1:8420"
WRITE = {"x-onmodel": "1"}


@pytest.fixture
def client(session: Session) -> Generator[TestClient]:
    with TestClient(create_app(session, Access(8420, None)), base_url=LOCAL) as opened:
        yield opened


def action(session: Session, **fields: Any) -> dict[str, Any]:
    return {
        "client": "c",
        "token": content_hash(repr(fields).encode()),
        "since": session.store.revision,
        "kind": "keep",
        **fields,
    }


def test_only_by_the_loopback_interfaces_names(client: TestClient) -> None:
    for host in ("127.0.0.1:8420", "localhost:9999", "[::1]:8420", "localhost"):
        assert client.get("/", headers={"host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8420", "127.0.0.1.evil.example", "192.168.0.4:8420", ""):
        assert client.get("/api/everything", headers={"host": host}).status_code == 403


def test_only_the_page_may_change_anything(client: TestClient, session: Session) -> None:
    body = action(session, pictures=ids(session.catalogue, "zibo")[:1])
    refused: list[dict[str, str]] = [
        {},
        {**WRITE, "origin": "http://evil.example"},
        {**WRITE, "origin": "null"},
        {**WRITE, "origin": "http://127.0.0.1:9999"},
        {**WRITE, "sec-fetch-site": "cross-site"},
    ]
    for headers in refused:
        for path in ("/api/actions", "/api/undo", "/api/export"):
            assert client.post(path, json=body, headers=headers).status_code == 403
    assert session.store.revision == 0
    assert client.post("/api/actions", json=body, headers={**WRITE, "origin": LOCAL}).status_code == 200


def test_a_browser_is_kept_in_bounds(client: TestClient, session: Session) -> None:
    picture = ids(session.catalogue, "zibo")[0]
    for path in ("/", "/api/everything", f"/thumbnail/{picture}", "/pages/main.js", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    page = client.get("/").text
    assert "//" not in page.replace("http://www.w3.org", "")


def test_elsewhere_a_token_is_asked_for(session: Session) -> None:
    app = create_app(session, Access(8420, "secret"))
    with TestClient(app, base_url="http://192.168.0.4:8420") as client:
        for path in ("/", "/api/everything", "/?token=wrong", "/?token="):
            assert client.get(path).status_code == 401
        assert client.post("/api/export", headers=WRITE).status_code == 401
        client.cookies.set("onmodel_curate_8420", "wrong")
        assert client.get("/").status_code == 401
        client.cookies.clear()
        answer = client.get("/?token=secret&a=1", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/?a=1")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/api/everything").status_code == 200
        assert client.post("/api/export").status_code == 403


def test_a_host_that_others_reach_gets_a_token() -> None:
    local, open_to_all = listen("127.0.0.1", 0), listen("0.0.0.0", 0)
    try:
        assert local.access.token is None
        assert local.url == f"http://127.0.0.1:{local.access.port}/"
        assert open_to_all.access.token is not None
        assert len(open_to_all.access.token) >= 32
        assert open_to_all.url.endswith(f"/?token={open_to_all.access.token}")
        with pytest.raises(UserError, match=r"is in use; choose another with --port"):
            listen("127.0.0.1", local.access.port)
        with pytest.raises(UserError, match="is no address of this machine"):
            listen("203.0.113.7", 0)
    finally:
        local.socket.close()
        open_to_all.socket.close()


def test_pictures_come_by_id_alone(client: TestClient, session: Session) -> None:
    entry = session.catalogue.entries[0]
    thumbnail = client.get(f"/thumbnail/{entry.id}?side=256")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert "immutable" in thumbnail.headers["cache-control"]
    picture = client.get(f"/picture/{entry.id}")
    assert picture.content == entry.path.read_bytes()
    assert picture.headers["content-type"] == "image/png"
    for name in ("nothing", entry.hash, "..%2f..%2fetc%2fpasswd", entry.path.name):
        assert client.get(f"/picture/{name}").status_code == 404
    assert client.get("/pages/../app.py").status_code == 404
    assert client.get("/pages/%2e%2e/app.py").status_code == 404
    assert client.get(f"/thumbnail/{entry.id}?side=9999").status_code == 400


def test_a_picture_that_is_gone(made: Path, tmp_path: Path) -> None:
    folder = fresh(made, tmp_path / "set")
    with (
        session_of(folder, tmp_path / "out") as session,
        TestClient(create_app(session, Access(8420, None)), base_url=LOCAL) as client,
    ):
        seen, unseen = session.catalogue.entries[:2]
        assert client.get(f"/thumbnail/{seen.id}").status_code == 200
        seen.path.unlink()
        unseen.path.unlink()
        assert client.get(f"/thumbnail/{seen.id}").status_code == 200
        answer = client.get(f"/thumbnail/{unseen.id}")
        assert answer.status_code == 410
        assert "cannot be read" in answer.json()["error"]
        assert client.get(f"/picture/{seen.id}").status_code == 410


def test_actions_are_answered_with_all_that_is_new(client: TestClient, session: Session) -> None:
    one, two, three = ids(session.catalogue, "zibo")[:3]
    body = action(session, pictures=[one], duplicates=[two, three])
    answer = client.post("/api/actions", json=body, headers=WRITE).json()
    (told,) = answer["actions"]
    assert told["text"] == "kept 1 picture, rejected 2 near-duplicates"
    assert {name: state[0] for name, state in told["states"].items()} == {one: "keep", two: "reject", three: "reject"}
    assert client.post("/api/actions", json=body, headers=WRITE).json()["revision"] == answer["revision"]
    turn = {"client": "c", "token": "u", "since": 0, "target": answer["undo"]["revision"]}
    undone = client.post("/api/undo", json=turn, headers=WRITE).json()
    assert [each["kind"] for each in undone["actions"]] == ["keep", "undo"]
    assert undone["undo"] is None
    assert undone["redo"]["text"] == told["text"]
    conflict = client.post("/api/undo", json={**turn, "token": "v"}, headers=WRITE)
    assert conflict.status_code == 409
    assert "nothing is left to undo" in conflict.json()["error"]
    redone = client.post("/api/redo", json={**turn, "token": "w"}, headers=WRITE).json()
    assert redone["undo"]["text"] == told["text"]


@pytest.mark.parametrize(
    ("fields", "status", "what"),
    [
        ({"pictures": []}, 422, "pictures"),
        ({"pictures": ["nothing"]}, 404, "no such picture"),
        ({"kind": "burn"}, 422, "kind"),
        ({"colour": "red"}, 422, "colour"),
        ({"kind": "label"}, 400, "a label needs a shot type or an attribute"),
        ({"kind": "label", "shot_type": "wide"}, 422, "shot_type"),
        ({"kind": "move"}, 400, "a cluster needs a name"),
        ({"kind": "move", "group": "../up"}, 400, "cannot be a folder's name"),
        ({"kind": "move", "group": ".hidden"}, 400, "cannot be a folder's name"),
        ({"kind": "move", "group": "x" * 81}, 400, "80 characters"),
    ],
)
def test_a_wrong_request_is_told_why(
    client: TestClient, session: Session, fields: dict[str, Any], status: int, what: str
) -> None:
    body = action(session, **{"pictures": ids(session.catalogue, "zibo")[:1], **fields})
    answer = client.post("/api/actions", json=body, headers=WRITE)
    assert answer.status_code == status
    assert what in answer.json()["error"]
    assert session.store.revision == 0


def test_everything_is_told_once(client: TestClient, session: Session) -> None:
    everything = client.get("/api/everything").json()
    assert [each["id"] for each in everything["pictures"]] == [entry.id for entry in session.catalogue.entries]
    assert everything["groups"] == ["zibo", "cluster_01", "outliers"]
    assert [goal["category"] for goal in everything["target"]["goals"]] == list(CATEGORIES)
    assert client.get("/api/changes?since=0").json()["actions"] == []
    assert client.get("/api/changes?since=-1").status_code == 422


def test_targets() -> None:
    shares = from_recommended(RECOMMENDED, 1000)
    assert (shares.total, shares.unit) == (475, "percent")
    assert from_recommended(RECOMMENDED, 40).total == 40
    mix = from_composition(load_composition("default"), "default")
    assert (mix.total, mix.unit) == (370, "pictures")
    assert {goal.category: (goal.low, goal.high) for goal in mix.goals} == {
        "close_up": (140, 140),
        "medium": (100, 100),
        "full_body": (100, 100),
        "far": (30, 30),
        "multi_character": (60, 60),
    }
    ranges = {goal.category: goal for goal in from_composition(load_composition("balanced"), "balanced").goals}
    assert (ranges["occlusion"].low, ranges["occlusion"].high) == (30, 44)
