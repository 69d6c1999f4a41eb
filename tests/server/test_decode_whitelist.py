"""No upload makes the decoder open a file, an address, or a demuxer that is not on the list."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import av
import pytest

from matchcut.server.decode import pictures
from matchcut.server.errors import UnreadableMedia
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Sampling


def read(synth: ModuleType, data: bytes, format: str = "") -> None:
    source, size = synth.Source(data), InputSize(96, 72)
    for _ in pictures(
        source, size=size, sampling=Sampling(5.0), limits=MediaLimits(), report=MediaReport(), format=format
    ):
        pass


def refused(synth: ModuleType, data: bytes, format: str = "") -> UnreadableMedia:
    with pytest.raises(UnreadableMedia) as caught:
        read(synth, data, format)
    return caught.value


class Trap:
    """A file that notices when anybody in the system, C code included, opens it."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        path.write_bytes(data)
        self._libc = ctypes.CDLL(None)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._watch, os.fsencode(path), 0x20) > 0  # IN_OPEN

    def sprung(self) -> bool:
        try:
            return bool(os.read(self._watch, 4096))
        except BlockingIOError:
            return False


@pytest.fixture
def trap(synth: ModuleType, tmp_path: Path) -> Iterator[Trap]:
    set_up = Trap(tmp_path / "secret.mp4", synth.clip(frames=3))
    yield set_up
    with av.open(str(set_up.path)):
        assert set_up.sprung()  # it would have noticed


@pytest.mark.parametrize("format", ["", "mp4", "mpegts"])
@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile {path}\n",
        "ffconcat version 1.0\nfile 'file:{path}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>',
    ],
)
def test_a_playlist_opens_nothing(synth: ModuleType, trap: Trap, playlist: str, format: str) -> None:
    refused(synth, playlist.format(path=trap.path).encode(), format)
    assert not trap.sprung()


def test_an_index_that_points_to_another_file_opens_nothing(synth: ModuleType, trap: Trap) -> None:
    """A data reference with a location, in place of the flag that says "in this file"."""
    data = synth.clip(frames=3)
    local = struct.pack(">I4sI", 12, b"url ", 1)
    place = f"file://{trap.path}".encode() + b"\0"
    assert local in data
    outside = struct.pack(">I4sI", 12 + len(place), b"url ", 0) + place
    grown, at = bytearray(data.replace(local, outside)), data.index(local)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = grown.rindex(box, 0, at) - 4
        size = struct.unpack(">I", grown[start : start + 4])[0]
        grown[start : start + 4] = struct.pack(">I", size + len(place))
    with contextlib.suppress(UnreadableMedia):
        read(synth, bytes(grown))
    assert not trap.sprung()


@pytest.mark.parametrize("name", ["concat", "hls", "sdp", "lavfi", "image2", "mp4,concat", "x" * 1000])
def test_other_formats_cannot_be_named(synth: ModuleType, name: str) -> None:
    assert refused(synth, b"x", name).reason == "UNSUPPORTED_FORMAT"
