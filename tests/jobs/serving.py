"""Puts the job service on the cluster that RAY_ADDRESS names: `python serving.py PORT HTTP_PORT ALLOWED_ROOT`.

It ends with its input. With what a Serve config says, and nothing of Serve's command line, which starts a process more.
"""

import contextlib
import os
import sys

import ray
from ray import serve
from ray.exceptions import RayError

from onmodel.jobs.app import NAME, build
from onmodel.jobs.service import JobsArgs
from onmodel.serving.config import SERVICERS

ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
# It waits a minute for the proxy, which can take longer; below it is waited for as long as it takes.
with contextlib.suppress(RayError, TimeoutError):
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": int(sys.argv[2])},
        grpc_options={
            "port": int(sys.argv[1]),
            "grpc_servicer_functions": list(SERVICERS),
            # Shorter than a job: following has to go on in the next stream.
            "request_timeout_s": 8,
            "enable_reflection": False,
        },
    )
serve.run(build(JobsArgs(allowed_roots=(sys.argv[3],), accept_code=False)), name=NAME, route_prefix=f"/{NAME}")
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.read()
serve.shutdown()
