"""Config errors name the file, the key, the nearest known key and the cause."""

from pathlib import Path

import pytest

from onmodel.core.config import Config, load
from onmodel.core.errors import NotFoundError, UserError


class Network(Config):
    network_dim: int = 32
    network_alpha: float = 16


class Trial(Config):
    network: Network = Network()
    epochs: int


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "trial.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(Trial, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_good_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "trial.toml"
    path.write_text("epochs = 3\n[network]\nnetwork_dim = 64\n")
    assert load(Trial, path).network.network_dim == 64


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    said = refused(tmp_path, "epochs = 3\n[network]\nnetwork_dims = 64\n")
    assert "`network.network_dims`" in said and "did you mean `network_dim`" in said


def test_unknown_key_far_from_all_lists_the_known(tmp_path: Path) -> None:
    assert "known keys here: epochs, network" in refused(tmp_path, "epochs = 3\nzzz = 1\n")


def test_wrong_type_shows_what_was_given(tmp_path: Path) -> None:
    said = refused(tmp_path, "epochs = 'many'\n")
    assert "`epochs`" in said and "'many'" in said


def test_missing_key(tmp_path: Path) -> None:
    assert "key `epochs` is missing" in refused(tmp_path, "")


def test_broken_toml_and_missing_file(tmp_path: Path) -> None:
    assert "not valid TOML" in refused(tmp_path, "epochs = = 3")
    with pytest.raises(NotFoundError, match="no such file"):
        load(Trial, tmp_path / "none.toml")
