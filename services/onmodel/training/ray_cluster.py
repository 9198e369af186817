"""The Ray that trials are trained on, and what it has. Imports no torch, which a driver does not need."""

import contextlib
import logging
import os
import sys
from collections.abc import Generator

import ray
from ray._private import auto_init_hook

from onmodel.core.errors import ResourceError, first_line
from onmodel.serving.private_ray import private_ray

# What a private cluster of one machine has no use for costs a process each, and a process some seconds to start.
_LOCAL_SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # How often the controller looks after the workers, and so how soon it sees that they are done.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
# Workers import torch and diffusers as they start; on a busy machine that can pass Ray's 60 s.
_START_TIMEOUT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}
OBJECT_STORE_BYTES = 256 * 2**20
"""Workers read pictures and caches from disk; what passes through Ray is metrics."""


@contextlib.contextmanager
def cluster() -> Generator[bool]:
    """A Ray cluster: the one this process is connected to or RAY_ADDRESS names, or else one of this machine alone that
    ends with the block; gives whether it is that.

    Raises:
        ResourceError: Ray cannot be started.
    """
    if ray.is_initialized():
        yield False
        return
    with contextlib.ExitStack() as stack:
        private = _start(stack)
        try:
            yield private
        except BaseException:
            # The thread that an interrupt leaves behind (core.beside) goes on asking Ray, which would start or join one
            # for its answer.
            auto_init_hook.enable_auto_connect = False
            raise


def _start(stack: contextlib.ExitStack) -> bool:
    try:
        for name, value in _START_TIMEOUT.items():
            os.environ.setdefault(name, value)
        if "RAY_ADDRESS" in os.environ:
            stack.callback(ray.shutdown)
            # As in a private Ray: a verb's answer stands on standard output alone.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
            return False
        for name, value in _LOCAL_SETTINGS.items():
            os.environ.setdefault(name, value)
        stack.enter_context(private_ray(object_store_bytes=OBJECT_STORE_BYTES))
        return True
    except Exception as error:  # Ray raises bare exceptions here
        reason = first_line(error)
        raise ResourceError(f"Ray cannot be started ({reason}); close other programs, or check RAY_ADDRESS") from None


def check_resources(num_workers: int) -> bool:
    """Whether the workers get a GPU each. Impossible demands are refused here, since Ray would wait for ever.

    Raises:
        ResourceError: more workers than the cluster has GPUs (where it has some) or CPUs.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if gpus and num_workers > gpus:
        raise ResourceError(f"{num_workers} workers need a GPU each and the cluster has {gpus}; lower --num-workers")
    if num_workers > cpus:
        raise ResourceError(f"{num_workers} workers need a CPU each and the cluster has {cpus}; lower --num-workers")
    return gpus > 0
