"""All checks, one after the other."""

from collections.abc import Iterator
from pathlib import Path

from onmodel.doctor.finding import Finding
from onmodel.doctor.installation import check_models, check_versions
from onmodel.doctor.machine import check_clock, check_cluster, check_gpus, check_memory, check_storage
from onmodel.doctor.services import check_services


def examine(*, services: str | None, out: Path, constraints: Path | None = None) -> Iterator[Finding]:
    """Check this installation, a finding at a time.

    Args:
        services: address of services that must answer, or None.
        out: folder that outputs are meant for.
        constraints: file of pins that the installed packages are compared with.

    Raises:
        UserError: `constraints` cannot be read, or `services` is no address.
    """
    yield from check_versions(constraints)
    yield check_models()
    yield check_gpus()
    yield from check_memory()
    yield from check_storage(out)
    yield check_clock()
    yield check_cluster()
    yield from check_services(services)
