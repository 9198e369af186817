"""What the services are started with."""

from typing import Any, Literal

from pydantic import Field

from onmodel.core.config import Config

SERVICERS = (
    "onmodel.serving.admission.add_detection",
    "onmodel.serving.admission.add_scoring",
    "onmodel.jobs.v1.jobs_pb2_grpc.add_JobServiceServicer_to_server",
)
"""What Serve's gRPC proxy is told of our contracts."""

CONTROL_SOCKET = "control.sock"
"""In a detached host's folder: where it takes further commands."""

AppName = Literal["detection", "scoring"]
APP_NAMES: tuple[AppName, ...] = ("detection", "scoring")


class StartOptions(Config):
    """A private Ray with Serve."""

    folder: str
    """Ray's session folder, removed at the end."""
    grpc_port: int = Field(ge=1, le=65535)
    http_port: int = Field(ge=1, le=65535)
    host: str = "127.0.0.1"
    """Interface of the gRPC port."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the loopback interface on which Prometheus finds the metrics; None = there are none."""
    request_timeout_s: float = Field(default=300.0, gt=0)
    num_cpus: int | None = Field(default=None, ge=1)
    """Ray's idea of this machine's CPUs; it sizes its pool of waiting workers by it."""
    object_store_bytes: int = 512 << 20
    detached: bool = False
    """Outlive the process that started it."""

    @property
    def connect_host(self) -> str:
        """An address that reaches `host` from this machine."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host


class LocalApp(Config):
    """One application as a verb starts it for itself."""

    name: AppName
    args: dict[str, Any]
    user_config: dict[str, Any]
    """Which model it runs."""
    replicas: int = Field(default=1, ge=1)
