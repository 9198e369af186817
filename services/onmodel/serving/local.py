"""The services a verb needs: those at an address, or its own for as long as it runs."""

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

from onmodel.common.pictures import Intake
from onmodel.core.progress import console
from onmodel.detection.client import DetectionClient
from onmodel.detection.config import DetectorConfig
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.config import AppName, LocalApp, StartOptions
from onmodel.serving.private_ray import free_port, private_folder
from onmodel.serving.process import HostProcess
from onmodel.serving.state import log_folder

TIMEOUT_S = 120.0


class Services:
    """Clients of detection and scoring. Local services start at the first use of a client that needs them."""

    def __init__(
        self, address: str | None, plan: dict[AppName, LocalApp], timeout_s: float, *, together: bool = False
    ) -> None:
        self._address = address
        self._plan = plan
        self._together = together
        self._timeout_s = timeout_s
        self._host: HostProcess | None = None
        self._running: set[AppName] = set()
        self._clients: dict[AppName, DetectionClient | ScoringClient] = {}
        self._lock = threading.RLock()

    @property
    def detection(self) -> DetectionClient:
        """The detection service. Raises ServiceError when it cannot be started."""
        client = self._client("detection")
        assert isinstance(client, DetectionClient)
        return client

    @property
    def scoring(self) -> ScoringClient:
        """The scoring service. Raises ServiceError when it cannot be started."""
        client = self._client("scoring")
        assert isinstance(client, ScoringClient)
        return client

    @property
    def address(self) -> str | None:
        """HOST:PORT of the gRPC proxy; None before local services are started."""
        return self._address

    def start(self, *names: AppName) -> None:
        """Start several at once, which is quicker than one after the other. Does nothing for those that run."""
        with self._lock:
            if self._host is None and self._address is not None:
                return
            missing: list[AppName] = [name for name in names if name not in self._running]
            if not missing:
                return
            if "scoring" in missing:
                # Cheap, and a mistyped name is answered before half a minute of starting.
                ScorerConfig.model_validate(self._plan["scoring"].user_config["scorer"]).folder()
            with console.status(f"starting the {' and '.join(missing)} service on this machine"):
                self._deploy(missing)

    def _deploy(self, names: list[AppName]) -> None:
        if self._host is None:
            options = StartOptions(folder=str(private_folder()), grpc_port=free_port(), http_port=free_port())
            self._host = HostProcess(options, log_folder() / f"services-{os.getpid()}.log")
        apps = [self._plan[name].model_dump() for name in names]
        self._host.command({"applications": apps})
        self._running.update(names)
        self._address = f"{self._host.options.connect_host}:{self._host.options.grpc_port}"

    def _client(self, name: AppName) -> DetectionClient | ScoringClient:
        with self._lock:
            if name not in self._clients:
                self.start(*(self._plan if self._together else (name,)))
                assert self._address is not None
                kind = DetectionClient if name == "detection" else ScoringClient
                self._clients[name] = kind(self._address, timeout_s=self._timeout_s)
            return self._clients[name]

    def close(self) -> None:
        """Close the clients and end what was started."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
            if self._host is not None:
                host, self._host, self._address = self._host, None, None
                failed = not self._running
                self._running.clear()
                host.stop()
                # Kept only where it may say why nothing ran.
                if not failed:
                    with suppress(OSError):
                        host.log.unlink()


def plan_apps(
    detector: DetectorConfig | None, scorer: ScorerConfig | None, detection_replicas: int = 1
) -> dict[AppName, LocalApp]:
    """Each application as this machine would run it: its cores are shared out among the replicas."""
    threads = max(1, (os.cpu_count() or 1) // detection_replicas)
    return {
        "detection": LocalApp(
            name="detection",
            args={"intake": Intake(model_threads=threads).model_dump()},
            user_config={"detector": (detector or DetectorConfig.preset("toybox")).model_dump(mode="json")},
            replicas=detection_replicas,
        ),
        "scoring": LocalApp(
            name="scoring",
            args={"intake": Intake().model_dump()},
            user_config={"scorer": (scorer or ScorerConfig()).model_dump(mode="json")},
        ),
    }


@contextmanager
def open_services(
    address: str | None,
    *,
    detector: DetectorConfig | None = None,
    scorer: ScorerConfig | None = None,
    detection_replicas: int = 1,
    together: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Generator[Services]:
    """Clients of the services at `address` (HOST:PORT), or of ones that live as long as the block.

    Without an address nothing starts until a client is first asked for. What was started ends with the block,
    however it is left; should this process be killed, the services notice and end by themselves. A Ray cluster
    that RAY_ADDRESS names is left alone: its services are reached by their address.

    Args:
        address: the gRPC proxy of running services, or None.
        detector: for local detection; None = the bundled detector.
        scorer: for local scoring; None = the bundled CLIP model.
        detection_replicas: processes of local detection.
        together: both will be needed, so both start when one is.
        timeout_s: deadline of each request.

    Raises:
        UserError: `address` does not read HOST:PORT.
        ServiceError: from a client's use, when a service cannot be started or does not answer.
    """
    services = Services(address, plan_apps(detector, scorer, detection_replicas), timeout_s, together=together)
    try:
        yield services
    finally:
        services.close()
