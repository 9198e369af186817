"""A client made of the .proto files alone: `python bare_client.py PROTOS ADDRESS PICTURE COUNT…`.

Compiles the protos anew and imports nothing of onmodel. For each COUNT it sends that many pictures, the
second of them broken, to both services and prints what came back as JSON.
"""

import importlib
import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
from grpc_tools import protoc


def compiled(protos: Path) -> tuple[Any, Any, Any]:
    out = tempfile.mkdtemp()
    # Names that cannot be confused with the installed package's: only its protos are at stake here.
    common = [f"--proto_path={protos}", f"--proto_path={files('grpc_tools') / '_proto'}"]
    sources = [str(path) for path in protos.rglob("*.proto")]
    assert protoc.main(["protoc", *common, f"--python_out={out}", f"--grpc_python_out={out}", *sources]) == 0
    sys.path.insert(0, out)
    load = importlib.import_module
    return (
        load("onmodel.common.v1.common_pb2"),
        (load("onmodel.detection.v1.detection_pb2"), load("onmodel.detection.v1.detection_pb2_grpc")),
        (load("onmodel.scoring.v1.scoring_pb2"), load("onmodel.scoring.v1.scoring_pb2_grpc")),
    )


def main() -> None:
    protos, address, picture, *counts = sys.argv[1:]
    common, (detection, detection_grpc), (scoring, scoring_grpc) = compiled(Path(protos))
    data = Path(picture).read_bytes()
    channel = grpc.insecure_channel(
        address, options=[("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    )
    answers: dict[str, Any] = {}
    for count in map(int, counts):
        images = [common.Image(data=data) for _ in range(count)]
        if count > 1:
            images[1] = common.Image(data=data[: len(data) // 2])
        found = detection_grpc.DetectionServiceStub(channel).Detect(
            detection.DetectRequest(images=images), timeout=120, metadata=[("application", "detection")]
        )
        embedded = scoring_grpc.ScoringServiceStub(channel).EmbedImages(
            scoring.EmbedImagesRequest(images=images), timeout=120, metadata=[("application", "scoring")]
        )
        answers[str(count)] = {
            "detect": [result.WhichOneof("outcome") for result in found.results],
            "sizes": [[r.detections.width_px, r.detections.height_px] for r in found.results],
            "embed": [result.WhichOneof("outcome") for result in embedded.results],
            "widths": sorted({len(result.embedding.values) for result in embedded.results}),
            "codes": [r.error.code for r in embedded.results if r.WhichOneof("outcome") == "error"],
        }
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
