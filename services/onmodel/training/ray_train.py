"""The thin Ray Train adapter: workers, devices and the driver's start and stop. All else is in `worker`."""

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import ray
import ray.train
import ray.train.torch
import ray.util
import torch
import torch.distributed as dist
from ray._private import auto_init_hook
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchConfig
from torch import Tensor

from onmodel.core.beside import beside
from onmodel.core.errors import InternalError, OnModelError, ResourceError, first_line
from onmodel.serving.cluster import wait_for_the_dead
from onmodel.serving.private_ray import private_ray
from onmodel.training.job import Job, threads_per_worker

if TYPE_CHECKING:
    from onmodel.training.loop import Workers


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


class _Group:
    """The processes of a torch.distributed group as the loop's `Workers`."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()

    def sum(self, tensor: Tensor) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


class _RayHost:
    """A Ray Train worker as the training process sees it."""

    def __init__(self) -> None:
        self.workers: Workers = _Group()
        self.device: torch.device = ray.train.torch.get_device()

    def report(self, metrics: dict[str, Any]) -> None:
        ray.train.report(metrics)


def _name_interface() -> None:
    """Tells gloo the network interface that Ray reaches this node at.

    By itself it takes the address that the machine's own name resolves to, which on many machines is a loopback
    address (Debian writes 127.0.1.1 into /etc/hosts), where no other node can connect.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(own.address == address for own in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


class _TorchBackend(TorchConfig().backend_cls):
    """Ray's, with the interface named before the process group is made."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_name_interface)
        super().on_start(worker_group, backend_config)


class _TorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _TorchBackend


def _train_loop(settings: dict[str, Any]) -> None:
    """Runs in every worker."""
    # Imported here: the controller unpickles this function too, and must not load what only workers need.
    from onmodel.training.worker import run_job

    # Ray pins OMP_NUM_THREADS to the CPUs a worker reserved; training takes the machine's cores.
    torch.set_num_threads(threads_per_worker(ray.train.get_context().get_local_world_size()))
    run_job(settings["job"], _RayHost())


@contextlib.contextmanager
def cluster() -> Generator[None, None, None]:
    """A Ray cluster: the one this process is connected to, or else a local one that ends with the block.

    Raises:
        ResourceError: Ray cannot be started.
    """
    if ray.is_initialized():
        yield
        return
    with contextlib.ExitStack() as stack:
        _start(stack)
        try:
            yield
        except BaseException:
            # The thread that an interrupt leaves behind (core.beside) goes on asking Ray, which would start or join one
            # for its answer.
            auto_init_hook.enable_auto_connect = False
            raise


def _start(stack: contextlib.ExitStack) -> None:
    try:
        for name, value in _START_TIMEOUT.items():
            os.environ.setdefault(name, value)
        if "RAY_ADDRESS" in os.environ:
            stack.callback(ray.shutdown)
            # As in a private Ray: a verb's answer stands on standard output alone.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
            return
        for name, value in _LOCAL_SETTINGS.items():
            os.environ.setdefault(name, value)
        stack.enter_context(private_ray(object_store_bytes=OBJECT_STORE_BYTES))
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


def fit(job: Job, num_workers: int, *, max_failures: int = 0, say: Callable[[str], None] = lambda text: None) -> None:
    """Train `job` with `num_workers` Ray Train workers; a cluster must be there (see `cluster`).

    Workers that died (killed, or lost with their machine) are started again up to `max_failures` times and go on from
    the last state, as many of them as can be had then: the batch is the job's and not theirs. What a worker raised
    would be raised again, so it ends the run.

    Args:
        say: gets a sentence each time that workers are started again.

    Raises:
        OnModelError: what a worker raised, or InternalError when workers died more often than that.
    """
    for failures in range(max_failures + 1):
        try:
            _fit_once(job, num_workers)
        except WorkerGroupError as error:
            if failures == max_failures or not _workers_died(error):
                raise _worker_error(error) from None
            num_workers = _still_there(num_workers)
            say(f"a training worker died; {num_workers} start again from the last state")
        else:
            return


def _fit_once(job: Job, num_workers: int) -> None:
    scaling = ScalingConfig(num_workers=num_workers, use_gpu=check_resources(num_workers))
    storage = job.trial_dir / ".ray"
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    # A name of its own for each attempt: resuming is by our own state, never by a reused Ray run.
    run = RunConfig(name=uuid4().hex, storage_path=str(storage.resolve()))
    trainer = ray.train.torch.TorchTrainer(
        _train_loop,
        train_loop_config={"job": job},
        torch_config=_TorchConfig(),
        scaling_config=scaling,
        run_config=run,
    )
    try:
        # In the main thread Ray would turn Ctrl-C into an exit of its own for good. The interrupt ends the wait; the
        # cluster's end, or the driver's, ends the workers.
        beside("ray-train-fit", trainer.fit)
    except WorkerGroupError:
        raise
    except TrainingFailedError as error:
        raise InternalError(f"Ray Train failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _workers_died(error: WorkerGroupError) -> bool:
    """Whether it failed for a worker whose process is gone, and not for what one found wrong."""
    failures = [_unwrap(failure) for failure in error.worker_failures.values()]
    return any(map(_died, failures)) and not any(isinstance(failure, OnModelError) for failure in failures)


def _died(failure: BaseException) -> bool:
    """Whether a worker's process is gone or silent, or lost the connection to one that is."""
    lost = ("connection", "closed by peer", "socket", "nccl", "gloo")
    return (
        isinstance(failure, RayError)
        or type(failure).__name__ == "WorkerHealthCheckTimeoutError"
        or (isinstance(failure, RuntimeError) and any(part in str(failure).lower() for part in lost))
    )


def _still_there(num_workers: int) -> int:
    """As many of `num_workers` as the cluster can have now, at least one."""
    wait_for_the_dead()
    resources = ray.cluster_resources()
    return max(1, min(num_workers, int(resources.get("GPU", 0) or resources.get("CPU", 1))))


def _worker_error(error: WorkerGroupError) -> OnModelError:
    """The exception for a person: an OnModelError of any worker before one that follows from it."""
    failures = [_unwrap(failure) for failure in error.worker_failures.values()]
    ours = [failure for failure in failures if isinstance(failure, OnModelError)]
    if ours:
        return ours[0]
    first = failures[0] if failures else error
    return InternalError(f"a training worker failed: {type(first).__name__}: {first}")


def _unwrap(failure: BaseException) -> BaseException:
    """The worker's own exception below Ray's wrappers."""
    for attribute in ("_base_exc", "cause", "health_check_failure"):
        inner = getattr(failure, attribute, None)
        if isinstance(inner, BaseException):
            return _unwrap(inner)
    return failure
