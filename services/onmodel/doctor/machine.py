"""Does this machine have what work needs?"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

import onmodel
from onmodel.core.files import user_cache, what_exists
from onmodel.doctor.finding import Finding, ok, warning, wrong

GIB = 1 << 30
DISK_WRONG, DISK_WARNING = 1 * GIB, 10 * GIB
"""A LoRA trial with its full states takes some GiB; the weights of a base model 4 to 25."""
MEMORY_WRONG, MEMORY_WARNING = 2 * GIB, 6 * GIB
"""The services with small models take about 2 GiB, training the bundled pipeline another."""
SHARED_WARNING = 1 * GIB
"""Ray keeps its objects in /dev/shm, which containers limit to 64 MB by default."""
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_gpus() -> Finding:
    """GPUs that torch can use, and a driver that is there without them."""
    import torch

    driver = _driver()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        kinds = [torch.cuda.get_device_properties(index) for index in range(count)]
        shown = ", ".join(f"{kind.name} {kind.total_memory / GIB:.0f} GiB" for kind in kinds)
        return ok("gpu", f"{shown}; driver {driver or 'unknown'}, torch for CUDA {torch.version.cuda}")
    if driver is not None:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
        return wrong(
            "gpu",
            f"driver {driver} is there, but torch {torch.__version__} (made for {built}) cannot use it",
            "install a torch made for CUDA, or a driver new enough for it; in a container, pass the GPU in",
        )
    return warning("gpu", "none", "the bundled models do without; training Stable Diffusion takes days then")


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def check_storage(out: Path) -> Iterator[Finding]:
    """The cache and the output folder can be written, and have room."""
    for checked, folder, setting in (
        ("cache folder", user_cache(), "set ONMODEL_CACHE to a folder that can be written"),
        ("output folder", out, "choose another with --out, or mend its permissions"),
    ):
        yield _writable(checked, folder, setting)
    for checked, folder in (("disk for the cache", user_cache()), ("disk for outputs", out)):
        free = shutil.disk_usage(what_exists(folder)).free
        yield _amount(checked, f"{free / GIB:.1f} GiB free", free, (DISK_WRONG, DISK_WARNING), "free some disk space")


def _writable(checked: str, folder: Path, remedy: str) -> Finding:
    place = what_exists(folder)
    if not place.is_dir():
        return wrong(checked, f"{place} is a file", remedy)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".onmodel-doctor-") as probe:
            probe.write(b"x")
    except OSError as error:
        return wrong(checked, f"{folder} cannot be written ({error.strerror})", remedy)
    return ok(checked, f"{folder} can be written" if folder.is_dir() else f"{folder} can be made")


def check_memory() -> Iterator[Finding]:
    """Memory that is free, within a container's limit, and the shared memory that Ray uses."""
    free = psutil.virtual_memory().available
    for file in CGROUP_LIMITS:
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            free = min(free, int(text))
    advice = "end other programs, or use smaller batches and images"
    yield _amount("memory", f"{free / GIB:.1f} GiB free", free, (MEMORY_WRONG, MEMORY_WARNING), advice)
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).free
        advice = "give the container more (docker run --shm-size=2g): Ray is slow without"
        yield _amount("shared memory", f"{room / GIB:.1f} GiB free in {shared}", room, (0, SHARED_WARNING), advice)


def _amount(checked: str, found: str, value: int, limits: tuple[int, int], advice: str) -> Finding:
    if value < limits[0]:
        return wrong(checked, found, advice)
    return warning(checked, found, advice) if value < limits[1] else ok(checked, found)


def check_clock() -> Finding:
    """The clock is not before the files of this installation: tokens and certificates are judged by it."""
    newest = max(path.stat().st_mtime for path in Path(onmodel.__file__).parent.glob("*.py"))
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now + 60 < newest:
        return wrong("clock", f"{shown}, before OnModel was installed", "set the clock, or run an NTP client")
    return ok("clock", shown)


def check_cluster() -> Finding:
    """The Ray cluster that RAY_ADDRESS names answers."""
    from onmodel.serving.cluster import knock

    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        return ok("ray cluster", "RAY_ADDRESS is not set; work stays on this machine")
    try:
        knock(address)
    except (OSError, ValueError) as error:
        reason = f"RAY_ADDRESS={address}: nothing answers there ({error})"
        return wrong("ray cluster", reason, "start the cluster, mend the address, or unset RAY_ADDRESS")
    return ok("ray cluster", f"RAY_ADDRESS={address} answers")
