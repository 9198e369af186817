"""Films made for tests, and a stand-in for the models that needs no weights."""

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from onmodel.common.convert import ModelInfo
from onmodel.core.images import RGB
from onmodel.core.vocabulary import Box, Detections, Instance
from onmodel.detection.config import DetectorConfig, ShotConfig
from onmodel.detection.convert import Detected
from onmodel.detection.rules import decide
from onmodel.film.look import Embeddings

SHOTS = DetectorConfig.preset("toybox").shots


def scene(seed: int, *, width: int = 128, height: int = 72, step: int = 0) -> RGB:
    """A busy picture with a light disc that stands further to the right with each step."""
    noise = np.random.default_rng(seed).integers(0, 120, (9, 16, 3), dtype=np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    image[::4] //= 2
    cv2.circle(image, (10 + 4 * step, height // 2), height // 4, (250, 250, 250), -1)
    return image


def write_film(
    path: Path,
    frames: Iterable[RGB],
    *,
    rate: int = 10,
    stamps: Sequence[int] | None = None,
    rotation: int = 0,
    gop: int = 10,
    **codec: Any,
) -> Path:
    """Encode frames as nearly lossless H.264 in the container that the suffix names.

    Args:
        path: the file to write.
        frames: uint8 RGB pictures of one even size.
        rate: frames a second.
        stamps: time stamp of each frame in thousandths of a second; None = a constant rate.
        rotation: degrees that the display matrix says.
        gop: frames from one key frame to the next.
        codec: attributes to set on the stream's codec context.
    """
    with av.open(str(path), "w") as container:
        options = {"crf": "6", "preset": "ultrafast", "threads": "1", "sc_threshold": "0"}
        stream: Any = None
        for number, image in enumerate(frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options=options)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = gop
                for name, value in codec.items():
                    setattr(stream.codec_context, name, value)
                if stamps is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if stamps is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), stamps[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class LightLook:
    """Finds the light thing in a picture by its brightness; embeds pictures as their mean colours. Deterministic."""

    detector = ModelInfo("light", "1" * 64, DetectorConfig.preset("toybox").hash)
    models = "light"
    thresholds: ShotConfig = SHOTS

    def detect(self, images: Sequence[RGB]) -> list[Detected]:
        return [self._one(image) for image in images]

    def _one(self, image: RGB) -> Detected:
        height, width = image.shape[:2]
        light = (image.min(axis=2) > 150).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(light)
        instances: list[Instance] = []
        if count > 1:
            x, y, w, h, _ = (float(v) for v in stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())])
            if w * h > 0.01 * width * height:
                instances.append(Instance(Box(x, y, x + w, y + h), 0.9, "light"))
        found = Detections(width, height, tuple(instances))
        return Detected(found, decide(image, found, SHOTS))

    def embed(self, images: Sequence[RGB]) -> Embeddings:
        rows = [cv2.resize(i, (4, 4), interpolation=cv2.INTER_AREA).reshape(-1).astype(np.float32) + 1 for i in images]
        stacked = np.stack(rows)
        return (stacked / np.linalg.norm(stacked, axis=1, keepdims=True)).astype(np.float32)

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        rows = [np.random.default_rng(len(text)).normal(size=48) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def cut_references(spec: Path, film: Path, folder: Path) -> Path:
    """Cut the pictures that a JSON file names by time and box (x0, y0, x1, y1 in pixels) out of a film."""
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        for number, given in enumerate(json.loads(spec.read_text())["references"]):
            # From the key frame before: decoding all that lies between takes longer than everything else.
            container.seek(int(given["time_s"] / stream.time_base), stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.time + 1e-6 >= given["time_s"])
            name = f"{round(given['time_s'] * 1000):09d}_{number}.png"
            frame.to_image().crop(given["box"]).save(folder / name)
    return folder


def cut(film: Path, target: Path, from_s: float, to_s: float) -> Path:
    """An excerpt of a film, from the last key frame before `from_s` on, its packets copied."""
    with av.open(str(film)) as source, av.open(str(target), "w") as copy:
        stream = source.streams.video[0]
        made = copy.add_stream_from_template(stream)
        assert stream.time_base is not None
        source.seek(round(from_s / stream.time_base), stream=stream)
        start = None
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None:
                continue
            start = packet.pts if start is None else start
            if (packet.pts - start) * stream.time_base >= to_s - from_s:
                break
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, made
            copy.mux(packet)
    return target
