"""Films as they come: turned, of variable rate, cut off, without sound's picture, without an index, HDR."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.images import RGB
from onmodel.film.decode import Frame, Reader, pieces, probe

from .made import scene, write_film


def moving(count: int) -> list[RGB]:
    return [scene(1, step=n) for n in range(count)]


def frames_of(path: Path) -> list[Frame]:
    return [frame for frame, _ in Reader(probe(path)).read(0.0, 1e6)]


def test_pieces_together_are_the_whole_film(tmp_path: Path) -> None:
    film = probe(write_film(tmp_path / "film.mp4", moving(64)))
    whole = [frame for frame, _ in Reader(film).read(0.0, 1e6)]
    parts = pieces(film, 2.0)
    assert len(parts) == 3
    split = [(frame, beyond) for start, end in parts for frame, beyond in Reader(film).read(start, end, beyond=3)]
    inside = [frame for frame, beyond in split if not beyond]
    assert [f.time_s for f in inside] == [f.time_s for f in whole]
    assert all(np.array_equal(a.picture(), b.picture()) for a, b in zip(inside, whole, strict=True))
    assert [f.time_s for f, beyond in split if beyond] == pytest.approx([2.0, 2.1, 2.2, 4.0, 4.1, 4.2])


def test_the_display_matrix_turns_frames(tmp_path: Path) -> None:
    image = scene(2)
    image[:, :40] = (255, 0, 0)
    film = probe(write_film(tmp_path / "film.mp4", [image] * 5, rotation=90))
    picture = next(Reader(film).read(0.0, 1.0))[0].picture()
    assert (film.width, film.height, picture.shape) == (72, 128, (128, 72, 3))
    # A quarter turn against the clock brings the left side down.
    assert picture[110, 36, 0] > 200
    assert picture[110, 36, 1] < 60


def test_times_are_the_films_own(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 500, 540, 1500, 1540, 1580, 3000]
    times = [frame.time_s for frame in frames_of(write_film(tmp_path / "vfr.mkv", moving(9), stamps=stamps))]
    assert times == pytest.approx([s / 1000 for s in stamps], abs=2e-3)


def test_what_is_left_of_a_cut_off_film_is_used(tmp_path: Path) -> None:
    noisy = [np.random.default_rng(n).integers(0, 255, (72, 128, 3), dtype=np.uint8) for n in range(60)]
    whole = write_film(tmp_path / "whole.mkv", noisy)
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    film = probe(cut)
    assert 2.0 < film.duration_s < 4.0
    assert any("damaged or cut off" in note for note in film.notes)
    assert 20 <= len(frames_of(cut)) <= 40
    assert not probe(whole).notes


def test_a_film_without_its_index_at_the_end_is_refused(tmp_path: Path) -> None:
    data = write_film(tmp_path / "whole.mp4", moving(30)).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) - 600])
    with pytest.raises(UserError, match=r"cut\.mp4: .*(cut off|coded)"):
        probe(cut)
    cut.write_bytes(data[: len(data) // 3])
    with pytest.raises(UserError, match=r"cut\.mp4: cannot be read as a film .*cut off before its index"):
        probe(cut)


def test_damaged_packets_are_left_out(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mkv", moving(60))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(data))
    assert 15 <= len(frames_of(path)) < 60


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44100)
        for at in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match=r"sound\.mp4: holds sound alone \(aac\)"):
        probe(path)


def test_hdr_is_brought_to_sdr(tmp_path: Path) -> None:
    # 0.58 of full scale is 203 nits in PQ: white paper. Read without care it is a middling grey.
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx265", rate=10, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = 16, 9, 9
        for _ in range(5):
            grey = np.full((64, 64, 3), round(0.58 * 65535), np.uint16)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb48le").reformat(format="yuv420p10le")))
        container.mux(stream.encode(None))
    film = probe(path)
    assert film.hdr == "PQ"
    assert any("BT.709" in note for note in film.notes)
    (first, *_) = frames_of(path)
    assert first.picture().mean() > 230
    assert first.small.mean() > 230


def test_without_an_index_a_film_is_decoded_in_one_pass(tmp_path: Path) -> None:
    film = probe(write_film(tmp_path / "film.h264", moving(64)))
    assert not film.seekable
    assert any("no index" in note for note in film.notes)
    # Nor does it say its rate: FFmpeg takes 25 frames a second.
    reader = Reader(film)
    parts = pieces(film, 2.0)
    times = [[f.time_s for f, beyond in reader.read(*part, beyond=3) if not beyond] for part in parts]
    assert [len(part) for part in times] == [50, 14]
    # A run that goes on reads the same, from its beginning.
    assert [f.time_s for f, _ in Reader(film).read(*parts[1])] == times[1]


def test_rare_key_frames_do_not_make_long_parts(tmp_path: Path) -> None:
    film = probe(write_film(tmp_path / "film.mp4", moving(65), gop=1000))
    assert [round(end - start, 2) for start, end in pieces(film, 1.0)[:-1]] == [1.0] * 6
    (second, *_) = (frame for frame, _ in Reader(film).read(*pieces(film, 1.0)[1]))
    assert second.time_s == pytest.approx(1.0)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mkv", moving(5), sample_aspect_ratio=Fraction(4, 3))
    film = probe(path)
    assert (film.width, film.height) == (171, 72)
    assert frames_of(path)[0].picture().shape == (72, 171, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such film"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b"no film at all" * 50), "cannot be read as a film"),
        (lambda path: path.write_bytes(b""), "cannot be read as a film"),
    ],
)
def test_what_is_no_film_is_said(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "film.mp4"
    make(path)
    with pytest.raises((UserError, NotFoundError), match=message):
        probe(path)
