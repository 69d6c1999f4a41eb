"""What may be left out for each codec so that the pictures which are decoded stay exact to the bit.

Two things can be left out. Pictures that no other refers to: the decoder itself finds them (`skip_frame=NONREF`).
And everything between the last picture that is needed and the next picture from which decoding can start afresh.

h264   both; afresh only from IDR pictures, because a missing picture before a mere I picture is "concealed".
hevc   both; the first only without temporal sub-layers, where a "sub-layer non-reference" picture may be referred to
       from a higher layer; pictures that lead an IRAP picture are left out with what they refer to.
vp8, vp9, mpeg1video, mpeg2video, mpeg4   both.
av1    the second only: dav1d takes the choice of frames once, when it is opened.
mjpeg, prores, ...   every picture stands alone.
others every picture is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["Traits", "traits"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What holds for one stream.

    skips: NONREF leaves the others exact.
    afresh: whether decoding can start at the keyframe with these bytes as if nothing had been before.
    drops_leading: pictures after a keyframe that are shown before it may be left out with what was before it.
    """

    skips: bool
    afresh: Callable[[bytes], bool]
    drops_leading: bool = False


def always(_packet: bytes) -> bool:
    """Every keyframe of most codecs resets the decoder."""
    return True


PLAIN = {
    "vp8": Traits(True, always),
    "vp9": Traits(True, always),
    "mpeg1video": Traits(True, always, drops_leading=True),
    "mpeg2video": Traits(True, always, drops_leading=True),
    "mpeg4": Traits(True, always, drops_leading=True),
    "av1": Traits(False, always),
    "mjpeg": Traits(False, always),
    "prores": Traits(False, always),
    "dnxhd": Traits(False, always),
    "png": Traits(False, always),
}


def traits(codec: str, extradata: bytes | None) -> Traits | None:
    """What may be left out of a stream of this codec with this header; None: nothing."""
    header = extradata or b""
    if codec == "h264":
        # Decoder configuration, ISO/IEC 14496-15 section 5.3.3.1: version 1, then at byte 4 the length's width.
        width = (header[4] & 3) + 1 if len(header) > 4 and header[0] == 1 else 0
        return Traits(True, lambda packet: starts_with_idr(packet, width))
    if codec == "hevc":
        return Traits(temporal_layers(header) == 1, always, drops_leading=True)
    return PLAIN.get(codec)


def starts_with_idr(packet: bytes, width: int) -> bool:
    """Whether the first slice of an H.264 access unit is of an IDR picture (ITU-T H.264 table 7-1)."""
    for unit in units(packet, width):
        kind = unit & 31
        if 1 <= kind <= 5:
            return kind == 5
    return False


def units(packet: bytes, width: int) -> Iterator[int]:
    """The first byte of each NAL unit, after lengths of `width` bytes or, if 0, after start codes."""
    at = 0
    while width and at + width < len(packet):
        yield packet[at + width]
        at += width + int.from_bytes(packet[at : at + width], "big")
    while not width and (at := packet.find(b"\0\0\1", at) + 3) > 2 and at < len(packet):
        yield packet[at]


def temporal_layers(header: bytes) -> int:
    """How many temporal sub-layers an HEVC stream has; 0 where its header does not say.

    Sources: ISO/IEC 14496-15 section 8.3.3.1 (configuration record), ITU-T H.265 section 7.3.2.2 (parameter set).
    """
    if len(header) > 21 and header[0] == 1:
        return header[21] >> 3 & 7
    at = header.find(b"\0\0\1\x42\x01")
    return (header[at + 5] >> 1 & 7) + 1 if 0 <= at < len(header) - 5 else 0
