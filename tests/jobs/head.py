"""`ray start` with the parts of the dashboard that jobs need: `python head.py start --head …`.

Eight more processes of the dashboard, the autoscaler's and the log's monitor and the server of Ray's own client have no
use here, and each costs seconds of a busy core to start.
"""

import sys
from typing import Any

from ray._private import services
from ray._private.parameter import RayParams
from ray.scripts.scripts import main

start, make = services.start_ray_process, RayParams.__init__


def start_lean(command: list[str], process_type: str, *rest: Any, **more: Any) -> Any:
    wanted = ["--modules-to-load=JobHead,NodeHead"] if process_type == "dashboard" else []
    return start([*command, *wanted], process_type, *rest, **more)


def make_lean(self: Any, *rest: Any, **settings: Any) -> None:
    make(self, *rest, **{**settings, "no_monitor": True, "include_log_monitor": False, "ray_client_server_port": None})


services.start_ray_process = start_lean
RayParams.__init__ = make_lean
sys.argv[0] = "ray"
main()
