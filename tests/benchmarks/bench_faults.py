"""A node that dies, or is cut off, in the middle of each verb: does it end with the undisturbed result, and how late?

A local cluster of a head without CPUs and two workers of one CPU; each verb runs undisturbed, then with the node killed
that works for it when it is half done, then with that node's network cable pulled. Then a second cluster, whose GCS
keeps what it knows in Redis: its head is killed and started again while a client asks the services on the workers.

`bench_faults.py [kill|cut|head|training|ablation|extraction|evaluation]…` runs a part. Without root nothing can be
cut off, and that part is left out.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from onmodel.core.errors import OnModelError
from onmodel.scoring.client import ScoringClient
from onmodel.serving import local_cluster
from onmodel.serving.local_cluster import LocalCluster
from onmodel.serving.local_node import HEAD, LocalConfig
from onmodel.training.config import load_train_config
from onmodel.training.run import train
from serving.breaking import CHECKPOINTS, Ended, Work, World, mend, run

DEPLOYING = Path(__file__).parents[1] / "serving" / "deploying.py"
PORT = 9000
VERBS = ("training", "training", "ablation", "extraction", "evaluation")
FAULTS = {"kill": "node killed", "cut": "node cut off"}


def row(name: str, value: str, target: str, met: bool | None) -> None:
    """One line of the table, at once."""
    print(f"{name} | {value} | {target} | {'-' if met is None else 'met' if met else 'not met'}", flush=True)


@contextlib.contextmanager
def cluster(*, redis: bool = False) -> Generator[LocalCluster]:
    """A local cluster for the block."""
    started = local_cluster.up(LocalConfig(name=f"b{os.getpid() % 10**7}", workers=2, cpus=1, redis=redis))
    try:
        yield started
    finally:
        started.down()


def works(world: World) -> list[Callable[[Path], Work]]:
    """What is disturbed; each gets the folder of results so far."""

    def evaluation(results: Path) -> Work:
        lora = next(results.rglob(CHECKPOINTS), None)
        if lora is None:
            out = results / "lora"
            out.mkdir(parents=True)
            file = world.config(out, batch=4, epochs=1, half=1)
            lora = train(load_train_config(file), num_workers=0).checkpoints[-1]
        return world.evaluation(lora)

    return [
        lambda results: world.training(1),
        lambda results: world.training(2),
        lambda results: world.ablation(),
        lambda results: world.extraction(),
        evaluation,
    ]


def disturb(folder: Path, faults: list[str], wanted: list[str]) -> None:
    """Each verb undisturbed and with each fault."""
    world = World(folder / "world")
    with cluster() as nodes:
        for number, make in enumerate(works(world)):
            results = folder / "results"
            if wanted and VERBS[number] not in wanted:
                continue
            work = make(results)
            plain = run(nodes, work, results / f"{number}-plain")
            if plain.code:
                row(f"{work.name}, undisturbed", f"exit code {plain.code}", "0", False)
                print(plain.output[-3000:], file=sys.stderr)
                continue
            row(f"{work.name}, undisturbed", f"{plain.seconds:.0f} s", "-", None)
            for fault in faults:
                ended = run(nodes, work, results / f"{number}-{fault}", fault)
                say(work, fault, plain, ended, results / f"{number}-{fault}", results / f"{number}-plain")
                mend(nodes, ended.victim)


def say(work: Work, fault: str, plain: Ended, ended: Ended, mine: Path, theirs: Path) -> None:
    """The lines of one disturbed run."""
    name = f"{work.name}, {FAULTS[fault]}"
    if ended.victim is None:
        row(name, "the node could not be caught at work", "caught", False)
    elif ended.code:
        row(name, f"exit code {ended.code}", "0", False)
    else:
        same = work.same(mine, theirs)
        row(name, "the same result" if same else "another result", "the same result", same)
        row(f"{name}, later than undisturbed", f"{ended.seconds - plain.seconds:.0f} s", "-", None)
    if ended.code or ended.victim is None:
        print(ended.output[-3000:], file=sys.stderr)


class _Client(threading.Thread):
    """Asks a proxy again and again, and remembers what failed and how long an answer took."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self.stop = threading.Event()
        self.answers = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0

    def run(self) -> None:
        with ScoringClient(self._address, timeout_s=20) as client:
            while not self.stop.is_set():
                start = time.monotonic()
                try:
                    client.embed_texts(["a boy"])
                    self.answers += 1
                    self.slowest_s = max(self.slowest_s, time.monotonic() - start)
                except OnModelError as error:
                    self.failures.append(str(error))
                time.sleep(0.1)


def on_head(nodes: LocalCluster, *arguments: str) -> str:
    """What `deploying.py` prints, run on the head."""
    argv = nodes.command([sys.executable, str(DEPLOYING), *arguments])
    done = subprocess.run(argv, env=nodes.environment(), capture_output=True, text=True, timeout=600, check=False)
    return done.stdout.strip() or done.stderr[-2000:]


def kill_head() -> None:
    """Services answer while the head is gone, and it knows of them when it is back."""
    with cluster(redis=True) as nodes:
        workers = [nodes.address_of(node) for node in nodes.config.nodes[1:]]
        print(on_head(nodes, "deploy", str(PORT), *workers), file=sys.stderr)
        clients = [_Client(f"{address}:{PORT}") for address in workers]
        for client in clients:
            client.start()
        time.sleep(10)
        before = sum(client.answers for client in clients)
        nodes.kill(HEAD)
        start = time.monotonic()
        time.sleep(20)
        without = sum(client.answers for client in clients) - before
        nodes.start(HEAD)
        gone = time.monotonic() - start
        time.sleep(30)
        for client in clients:
            client.stop.set()
            client.join()
        failures = [text for client in clients for text in client.failures]
        total = sum(client.answers for client in clients) + len(failures)
        row("head killed and started again: it was gone for", f"{gone:.0f} s", "-", None)
        row("answers in the 20 s without a head", str(without), "> 0", without > 0)
        row("requests that failed, of all", f"{len(failures)} of {total}", "0", not failures)
        row("slowest answer", f"{max(client.slowest_s for client in clients):.1f} s", "-", None)
        status = on_head(nodes, "check", str(PORT))
        row("what the new head says of the services", status, "RUNNING", "RUNNING" in status)
        for text in dict.fromkeys(failures):
            print(text, file=sys.stderr)


def main() -> None:
    """All parts, or those that are named."""
    os.nice(5)
    able = local_cluster.can_isolate()
    named = sys.argv[1:]
    parts = [part for part in named if part not in VERBS] or ["kill", "cut", "head"]
    if not able and "cut" in parts:
        print("no network namespaces here: nothing can be cut off", file=sys.stderr)
        parts.remove("cut")
    print("name | value | target | met", flush=True)
    with tempfile.TemporaryDirectory(prefix="onmodel-faults-") as folder:
        if faults := [part for part in parts if part in FAULTS]:
            disturb(Path(folder), faults, [part for part in named if part in VERBS])
        if "head" in parts:
            kill_head()


if __name__ == "__main__":
    main()
