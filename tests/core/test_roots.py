"""What lies below an allowed root, and what only looks so."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.errors import ForbiddenError, UserError
from onmodel.core.roots import AllowedRoots


def test_folders_and_prefixes_below_a_root_are_allowed(tmp_path: Path) -> None:
    roots = AllowedRoots([str(tmp_path), "s3://studio/zibo/"])
    roots.check(str(tmp_path / "not" / "there" / "yet"))
    roots.check(str(tmp_path))
    roots.check("s3://studio/zibo")
    roots.check("s3://studio/zibo/set/a.png")


@pytest.mark.parametrize(
    "place",
    [
        "/etc/passwd",
        "{0}/../x",
        "{0}_not/x",
        "s3://studio/zibo_not",
        "s3://studio",
        "s3://studio/zibo/../x",
        "{0}/a\0b",
    ],
)
def test_what_is_outside_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(ForbiddenError, match="not below a"):
        AllowedRoots([str(tmp_path), "s3://studio/zibo"]).check(place.format(tmp_path))


@pytest.mark.parametrize("place", ["relative/path", "file:///etc/passwd", "http://host/a", ""])
def test_other_kinds_of_places_are_errors(place: str) -> None:
    with pytest.raises(UserError, match="neither an absolute path nor"):
        AllowedRoots(["/"]).check(place)


def test_a_link_that_leads_outside_is_refused_at_any_depth(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "deep").mkdir()
    (inside / "deep" / "again").symlink_to("../link")
    for name in ("link", "link/new/file", "deep/again/file"):
        with pytest.raises(ForbiddenError):
            AllowedRoots([str(inside)]).check(str(inside / name))


@given(st.lists(st.sampled_from(["a", "..", ".", "b c", "", "in", "~", "%2e%2e"]), max_size=6))
def test_no_spelling_of_a_path_leaves_the_root(parts: list[str]) -> None:
    place = "/in/" + "/".join(parts)
    try:
        AllowedRoots(["/in"]).check(place)
    except ForbiddenError:
        assert ".." in parts
    else:
        # As the system would read it.
        assert Path(place).resolve().is_relative_to("/in")
