"""The committed Serve config is whole, and mistakes in one are found that Serve would not see."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from onmodel.core.errors import NotFoundError, UserError
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.config import SERVICERS
from onmodel.serving.lifecycle import with_models
from onmodel.serving.serve_config import DEFAULT_CONFIG, check_serve_config, read_serve_config


@pytest.fixture
def config() -> dict[str, Any]:
    return read_serve_config(DEFAULT_CONFIG)


def test_the_committed_config_is_valid_and_bounded(config: dict[str, Any]) -> None:
    assert config["grpc_options"]["grpc_servicer_functions"] == list(SERVICERS)
    assert config["grpc_options"]["enable_reflection"] is False
    assert config["grpc_options"]["request_timeout_s"] > 0
    assert config["http_options"]["host"] == "127.0.0.1"
    for app in config["applications"]:
        for deployment in app["deployments"]:
            assert deployment["max_queued_requests"] > 0
            assert deployment["max_ongoing_requests"] > 0


def test_the_cluster_folder_shows_the_same_file() -> None:
    shown = Path(__file__).parents[2] / "cluster" / "serve.yaml"
    assert shown.read_text() == DEFAULT_CONFIG.read_text()


def change(config: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    inner: Any = config
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value


DEPLOYMENT = ("applications", 0, "deployments", 0)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("grpc_option",), {}, "did you mean `grpc_options`"),
        (("grpc_options", "timeout"), 3, "unknown key `grpc_options.timeout`"),
        ((*DEPLOYMENT, "autoscaling_config"), {"max_ongoing_requests": 9}, "autoscaling_config.max_ongoing_requests"),
        ((*DEPLOYMENT, "ray_actor_options"), {"num_cpu": 1}, "did you mean `num_cpus`"),
        ((*DEPLOYMENT, "num_replicas"), "many", "num_replicas"),
        ((*DEPLOYMENT, "user_config", "detector"), {"wieghts": "x"}, "did you mean `weights`"),
        ((*DEPLOYMENT, "user_config", "detector"), "tobox", "toybox"),
        ((*DEPLOYMENT, "user_config", "scorer"), "toybox", "unknown key `scorer`"),
        (("applications", 1, "deployments", 0, "user_config", "scorer", "batch_size"), 0, "batch_size"),
        (("applications", 0, "args", "detector"), "toybox", "unknown key `detector`"),
        (("applications", 1, "args", "intake", "roots"), [], "unknown key"),
        (("applications", 0, "route_prefix"), None, "no route_prefix"),
        (("applications", 0, "name"), "other", "no application is called `other`"),
        (("applications", 0, "import_path"), "os:system", "is not one of"),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], path: tuple[str | int, ...], value: Any, says: str) -> None:
    change(config, path, value)
    with pytest.raises(UserError, match=says):
        check_serve_config(config, "serve.yaml")


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_serve_config(tmp_path / "none.yaml")
    for text, says in (("a: [", "not valid YAML"), ("- a", "must hold a table"), ("a: 1", "unknown key `a`")):
        (tmp_path / "serve.yaml").write_text(text)
        with pytest.raises(UserError, match=says):
            read_serve_config(tmp_path / "serve.yaml")


def test_models_given_on_the_command_line_take_their_place(config: dict[str, Any]) -> None:
    changed = with_models(config, DetectorConfig.preset("film"), ScorerConfig(model="ViT-B-32", pretrained="openai"))
    check_serve_config(yaml.safe_load(yaml.safe_dump(changed)), "changed")
    detection, scoring = changed["applications"]
    assert detection["deployments"][0]["user_config"]["detector"]["weights"] == "yolox_nano"
    assert detection["args"] == config["applications"][0]["args"]
    assert scoring["deployments"][0]["user_config"]["scorer"]["pretrained"] == "openai"
    listed = config["applications"][0]["deployments"][0]
    assert detection["deployments"][0]["max_queued_requests"] == listed["max_queued_requests"]
