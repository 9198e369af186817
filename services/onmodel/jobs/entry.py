"""A job's command on its node: `python -m onmodel.jobs.entry job.json`, in the job's own folder.

Checks the places that the job names, brings what lies at s3://, and becomes the verb. Where something has to be sent
back, it stays beside the verb instead, sends every INTERVAL_S what is new, and once more at the end.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from onmodel.common.trace import JOB_CONFIG
from onmodel.core.config import load
from onmodel.core.errors import OnModelError, UserError, exit_code
from onmodel.core.files import content_hash, user_cache, write_text
from onmodel.core.progress import bar
from onmodel.core.roots import S3, AllowedRoots
from onmodel.jobs.reach import check_everywhere, check_here
from onmodel.jobs.request import JobRequest
from onmodel.jobs.shipping import placed, places, relative_to_job, words_of
from onmodel.jobs.storage import Open, Storage, open_s3

INTERVAL_S = 30.0
"""How often outputs at s3:// are sent while the verb runs."""
VERB = ("-m", "onmodel")


def main() -> None:
    """Run the job that the first argument describes; ends with the verb's exit code."""
    try:
        sys.exit(run(load(JobRequest, Path(sys.argv[1]))))
    except OnModelError as error:
        sys.stderr.write(f"onmodel: {error}\n")
        sys.exit(exit_code(error))


def run(request: JobRequest, open_: Open = open_s3) -> int:
    """Do a job here; gives the verb's exit code, or does not return where nothing has to be sent back.

    Raises:
        OnModelError: a place that cannot be reached, before the verb is started.
    """
    named = _named(request)
    environment = _environment(request, one_node=False)
    on_disk = {place: written for place, written in named.items() if not place.startswith(S3)}
    check_here(on_disk)
    in_store = {place: written for place, written in named.items() if place.startswith(S3)}
    if on_disk and not (in_store and request.scratch is None) and os.environ.get("RAY_ADDRESS"):
        check_everywhere(on_disk)
    home = Path.cwd()
    at = relative_to_job(request.files, home / "files")
    if not in_store:
        command, folder = _laid_out(request, at, home), Path(request.workspace or home)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        os.execve(sys.executable, command, environment)
    with _own_folder(request, in_store) as own:
        storage = Storage(own, in_store, open_)
        at |= storage.at
        with bar("bringing files", None) as shown:
            storage.bring(shown.advance)
        command = _laid_out(request, at, home)
        folder = Path(placed(request.workspace, at)) if request.workspace else home
        folder.mkdir(parents=True, exist_ok=True)
        environment = _environment(request, one_node=request.scratch is None)
        return _beside(command, folder, environment, storage.send)


@contextlib.contextmanager
def _own_folder(request: JobRequest, in_store: dict[str, bool]) -> Generator[Path]:
    """An empty folder for what lies in the store, removed at the end.

    It is called by the places and not by the job: a trial's config names its folders, so a job that takes up what
    another left must see the same ones.

    Raises:
        UserError: another job uses the same places here.
    """
    scratch = Path(request.scratch) if request.scratch else user_cache()
    own = scratch / "jobs" / content_hash("\n".join(sorted(in_store)).encode())[:16]
    own.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(own.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{next(iter(in_store))}: another job here reads and writes the same places; wait for its end, or stop it"
        ) from None
    try:
        shutil.rmtree(own, ignore_errors=True)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.release()


def _named(request: JobRequest) -> dict[str, bool]:
    """The places that a job names. Raises ForbiddenError for one outside the roots that its service set."""
    check_roots(request)
    named = places(request.arguments, request.files, results=False)
    if request.workspace is not None:
        named[request.workspace.rstrip("/")] = True
    if request.scratch is not None:
        named[request.scratch] = True
    return named


def check_roots(request: JobRequest) -> None:
    """Refuse a request that names a place outside of its roots; nothing where it has none.

    Raises:
        ForbiddenError: it is outside, or a link leads outside.
        UserError: as `places`.
    """
    if request.roots is None:
        return
    roots = AllowedRoots(request.roots, advice="choose a place below one that its allowed_roots name")
    own = (place for place in (request.workspace, request.scratch) if place is not None)
    for place in (*places(request.arguments, request.files), *own):
        roots.check(place)
    if request.workspace is not None and not request.workspace.startswith(S3):
        # Any word may be a path from there, and a link in it may lead anywhere.
        for word, _ in words_of(request.arguments, request.files):
            if not word.startswith(("/", S3)):
                roots.file(Path(request.workspace) / word, word)


def _laid_out(request: JobRequest, at: dict[str, str], home: Path) -> list[str]:
    """Write the configs, with places here in them, and give the verb's command line."""
    for name, text in request.files.items():
        write_text(home / "files" / name, placed(text, at))
    return [sys.executable, *VERB, *(placed(word, at) for word in request.arguments)]


def _environment(request: JobRequest, *, one_node: bool) -> dict[str, str]:
    environment = dict(os.environ)
    # A log has no width; tables need some.
    environment.setdefault("COLUMNS", "140")
    # Ray sets it by the share of a CPU that the command holds, 1 for none, and a verb would compute on one thread.
    environment.pop("OMP_NUM_THREADS", None)
    if request.resources.num_cpus >= 1:
        environment["OMP_NUM_THREADS"] = str(int(request.resources.num_cpus))
    if one_node:
        # What lies in this node's cache is not seen by others: the verb has a Ray of its own here.
        for name in ("RAY_ADDRESS", JOB_CONFIG):
            environment.pop(name, None)
    return environment


def _beside(command: list[str], folder: Path, environment: dict[str, str], send: Callable[[], int]) -> int:
    """Run the verb and send what it writes, until it ends."""
    process = subprocess.Popen(command, cwd=folder, env=environment)
    ended = threading.Event()

    def stop(number: int, _: Any) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def sending() -> None:
        while not ended.wait(INTERVAL_S):
            try:
                send()
            except OnModelError as error:
                # It is tried again; the last time counts.
                sys.stderr.write(f"onmodel: not sent yet: {error}\n")

    sender = threading.Thread(target=sending, name="send-outputs", daemon=True)
    sender.start()
    code = process.wait()
    ended.set()
    sender.join()
    started = time.monotonic()
    sent = send()
    sys.stderr.write(f"sent {sent} file(s) in {time.monotonic() - started:.1f} s\n")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
