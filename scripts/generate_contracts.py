"""Write the Python code of protos/ into services/: `python scripts/generate_contracts.py [--out DIR]`.

The code is committed, because a Ray job ships the working tree and the cluster has no protoc. A test
generates it anew and compares.
"""

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"


def generate(out: Path) -> list[Path]:
    """Compile every .proto below protos/ into `out`; gives the files written, sorted."""
    sources = sorted(PROTOS.rglob("*.proto"))
    out.mkdir(parents=True, exist_ok=True)
    arguments = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *(str(source) for source in sources),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused the protos; its message is above")
    written = sorted(out.glob("onmodel/*/v1/*_pb2*.py*"))
    # A proto without a service gets an empty gRPC module: nothing to commit.
    services = {source.stem for source in sources if "\nservice " in source.read_text(encoding="utf-8")}
    for file in [f for f in written if f.name.endswith("_pb2_grpc.py")]:
        if file.name.removesuffix("_pb2_grpc.py") not in services:
            file.unlink()
            written.remove(file)
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "services")
    for file in generate(parser.parse_args().out):
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
