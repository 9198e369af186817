"""The thin Ray Train adapter: a group of workers and their devices. All else is in `worker`."""

import logging
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import ray
import ray.train
import ray.train.torch
import ray.util
import torch
import torch.distributed as dist
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchConfig
from torch import Tensor

from onmodel.core.beside import beside
from onmodel.core.errors import InternalError, OnModelError
from onmodel.core.imports import collector_paused
from onmodel.serving.cluster import wait_for_the_dead
from onmodel.training.job import Job, threads_per_worker
from onmodel.training.ray_cluster import check_resources

if TYPE_CHECKING:
    from onmodel.training.loop import Workers


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
    with collector_paused():
        from onmodel.training.worker import run_job

    # Ray pins OMP_NUM_THREADS to the CPUs a worker reserved; training takes the machine's cores.
    torch.set_num_threads(threads_per_worker(ray.train.get_context().get_local_world_size()))
    run_job(settings["job"], _RayHost())


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
