"""Whether every node of the cluster sees the places that a job names, asked before its work begins."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import what_exists

TIMEOUT_S = 60.0


def check_here(places: dict[str, bool]) -> None:
    """Refuse a place that this node does not see: an input that is missing, an output that cannot be written.

    `places`: absolute paths, each with whether it is an output.

    Raises:
        NotFoundError: an input is missing.
        UserError: an output's folder cannot be written.
    """
    for name, written in places.items():
        path = Path(name)
        if path.exists():
            if written and not os.access(path, os.W_OK):
                raise UserError(f"{name}: this node of the cluster may not write there; check its permissions")
        elif not written:
            raise NotFoundError(
                f"{name}: the cluster does not see it (node {_host()}); put it in a folder that all nodes have, or at s3://"
            )
        elif not (place := what_exists(path)).is_dir() or not os.access(place, os.W_OK):
            raise UserError(
                f"{name}: cannot be made, {place} is no folder that the cluster may write in (node {_host()})"
            )


def check_everywhere(places: dict[str, bool]) -> None:
    """Refuse a place that some other node of the cluster does not see, or sees another folder at.

    Joins the cluster that RAY_ADDRESS names and leaves it again. Nodes that join later are not asked.

    Raises:
        UserError: naming the place and the node.
        ServiceError: the cluster does not answer.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        here = ray.get_runtime_context().get_node_id()
        nodes = {
            node["NodeID"]: node["NodeManagerAddress"]
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] != here and _works(node)
        }
        if not nodes:
            return
        with _probes([Path(name) for name, written in places.items() if written]) as probes:
            wanted = [*(name for name, written in places.items() if not written), *probes]
            asked: dict[Any, str] = {}
            for node, address in nodes.items():
                strategy = NodeAffinitySchedulingStrategy(node, soft=False)
                task = ray.remote(num_cpus=0, max_retries=0)(missing).options(scheduling_strategy=strategy)
                asked[task.remote(wanted)] = address
            answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_S)
            for answer in answered:
                # A node that died or is slow is the scheduler's business; its answer is not needed.
                with contextlib.suppress(RayError):
                    for name in ray.get(answer):
                        raise UserError(
                            f"{probes.get(name, name)}: node {asked[answer]} of the cluster sees nothing there, or "
                            "another folder; put it in one that all nodes share, or at s3://"
                        )
    finally:
        ray.shutdown()


def missing(names: Sequence[str]) -> list[str]:
    """Which of `names` are not there, on the node that is asked."""
    return [name for name in names if not Path(name).exists()]


@contextlib.contextmanager
def _probes(outputs: Sequence[Path]) -> Any:
    """An empty file beside each output while the others look for it: probe -> the output as it was named."""
    made: dict[str, str] = {}
    try:
        for output in outputs:
            at = what_exists(output)
            folder = at if at.is_dir() else at.parent
            handle, name = tempfile.mkstemp(dir=folder, prefix=".onmodel-probe-", suffix=".part")
            os.close(handle)
            made[name] = str(output)
        yield made
    finally:
        for name in made:
            Path(name).unlink(missing_ok=True)


def _works(node: dict[str, Any]) -> bool:
    return any(node["Resources"].get(kind, 0) > 0 for kind in ("CPU", "GPU"))


def _host() -> str:
    return os.uname().nodename
