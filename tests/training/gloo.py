"""Training workers as processes that talk over gloo, without Ray: what stands between `run` and `worker` in tests."""

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from onmodel.training.job import Job
from onmodel.training.loop import Workers
from onmodel.training.worker import run_job


class _Group:
    """The processes of the default group as the loop's `Workers`."""

    def __init__(self) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def sum(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        dist.barrier()


class _Host:
    """One process as a training worker."""

    def __init__(self) -> None:
        self.workers: Workers = _Group()
        self.device = torch.device("cpu")

    def report(self, metrics: dict[str, Any]) -> None:
        dist.barrier()


def fit(job: Job, num_workers: int, max_failures: int, on_epoch: object) -> None:
    """Train `job` with so many processes; takes the place of `run._run`."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job").write_bytes(pickle.dumps(job))
        command = [sys.executable, __file__, folder, str(num_workers)]
        workers = [subprocess.Popen([*command, str(rank)]) for rank in range(num_workers)]
        try:
            assert [worker.wait(500) for worker in workers] == [0] * num_workers
        finally:
            for worker in workers:
                worker.kill()


def main(folder: Path, count: int, rank: int) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    run_job(pickle.loads((folder / "job").read_bytes()), _Host())
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
