"""Coded rows on the device: the codes of kernels/codes.py in rows rather than blocks, and the rows themselves.

The certificate is that of the CPU's scan, as the codes are the same ones; only their order in memory differs. A GPU
reads whole rows of codes, 128 at a time, straight into its tensor cores.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows
from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.launcher import Context
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.launch.scans import DEPTH, Kind
from matchcut.kernels.native.shared_library import CHUNK, LEVEL
from matchcut.kernels.preprocess import bfloat16_bits

_PITCH = DEPTH  # values; rows are padded with zeros to a multiple
_SLAB = 32  # chunks uploaded at a time
_ITEM = {"int8": 1, "bf16": 2, "fp32": 4}

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """Device arrays of the first `count` rows; later rows may lie behind them.

    rows: float32 (count, pitch), padded with zeros. codes: (count, width) of `kind`, the dense part, padded
    with zeros. scale: float32
    (count,), of the dense part. beyond: float32 (count,), the norm beyond it. tail: int8 (count, levels * 64).
    tail_scale: float32 (count,). Where there are no levels, beyond, tail and tail_scale are `scale`, which is read with
    factors of zero. ones: uint8 (count,), the mask of all rows.
    """

    kind: Kind
    count: int
    dimensions: int
    pitch: int
    width: int
    levels: int
    rows: Buffer
    codes: Buffer
    scale: Buffer
    beyond: Buffer
    tail: Buffer
    tail_scale: Buffer
    ones: Buffer


class Mirror:
    """The device's copy of rows that grow at their end; safe for several threads.

    Args:
        context: whose memory holds it.
        kind: how rows are scanned: by their int8 codes, or themselves in bfloat16 or float32.
    """

    def __init__(self, context: Context, kind: Kind) -> None:
        self._context = context
        self.kind: Kind = kind
        self._lock = Lock()
        self._now: Resident | None = None
        self._room = 0

    def resident(self, lane: Lane, rows: Floats, coded: CodedRows) -> Resident:
        """The rows on the device, after uploading those that are not there yet.

        Args:
            rows: (n, dimensions) float32, the rows that `coded` codes; those that were uploaded are not looked at.

        Raises:
            OutOfDeviceMemory: there is no room; what was there stays.
        """
        with self._lock:
            done = 0 if self._now is None else self._now.count
            if self._now is None or done < coded.count:
                now, room = self._roomy(lane, coded)
                self._upload(lane, now, rows, coded, done)
                self._now, self._room = _at(now, coded.count), room  # both, and only now that nothing can fail
            return self._now if self._now.count == coded.count else _at(self._now, coded.count)

    def _roomy(self, lane: Lane, coded: CodedRows) -> tuple[Resident, int]:
        """Device arrays with room for all rows, with what was there before; and for how many."""
        if self._now is not None and coded.count <= self._room:
            return self._now, self._room
        basis = coded.basis
        room = max(coded.count, self._room + self._room // 2)
        room = -(-room // CHUNK) * CHUNK
        pitch = -(-basis.dimensions // _PITCH) * _PITCH
        coded_here = self.kind == "int8"
        width = -(-basis.dense // DEPTH) * DEPTH if coded_here else pitch
        levels = basis.levels if coded_here else 0

        def new(per_row: int) -> Buffer:
            return self._context.allocate(room * per_row)

        rows = new(4 * pitch)
        scale = new(4)
        now = Resident(
            kind=self.kind,
            count=0 if self._now is None else self._now.count,
            dimensions=basis.dimensions,
            pitch=pitch,
            width=width,
            levels=levels,
            rows=rows,
            codes=rows if self.kind == "fp32" else new(_ITEM[self.kind] * width),
            scale=scale,
            beyond=new(4) if levels else scale,
            tail=new(LEVEL * levels) if levels else scale,
            tail_scale=new(4) if levels else scale,
            ones=new(1),
        )
        lane.fill(now.rows, 0, room * 4 * pitch)
        lane.fill(now.scale, 0, room * 4)
        lane.fill(now.ones, 1, room)
        if self._now is not None:
            self._carry(lane, self._now, now)
        lane.synchronize()  # before anything of the old arrays is let go
        return now, room

    def _carry(self, lane: Lane, old: Resident, new: Resident) -> None:
        """Copies what was there on the device."""
        sizes = {"rows": 4 * old.pitch, "scale": 4}
        if old.kind != "fp32":
            sizes["codes"] = _ITEM[old.kind] * old.width
        if old.levels:
            sizes |= {"beyond": 4, "tail": LEVEL * old.levels, "tail_scale": 4}
        for name, size in sizes.items():
            lane.copy(getattr(old, name), 0, getattr(new, name), 0, old.count * size)

    def _upload(self, lane: Lane, now: Resident, rows: Floats, coded: CodedRows, done: int) -> None:
        """Uploads rows and codes from the chunk in which row `done` lies."""
        step = CHUNK * _SLAB
        for start in range(done // CHUNK * CHUNK, coded.count, step):
            stop = min(start + step, coded.count)
            piece = rows[start:stop]
            if now.pitch != now.dimensions:
                piece = np.pad(piece, ((0, 0), (0, now.pitch - now.dimensions)))
            lane.upload(np.ascontiguousarray(piece), now.rows, start * 4 * now.pitch)
            if now.kind == "bf16":
                lane.upload(bfloat16_bits(piece), now.codes, start * 2 * now.width)
            elif now.kind == "int8":
                self._upload_codes(lane, now, coded, start, stop)
            lane.synchronize()  # staging is reused

    def _upload_codes(self, lane: Lane, now: Resident, coded: CodedRows, start: int, stop: int) -> None:
        read = [_read(coded, chunk) for chunk in range(start // CHUNK, -(-stop // CHUNK))]
        columns = [np.concatenate(column)[: stop - start] for column in zip(*read, strict=True)]
        codes, scale, beyond, tail, tail_scale = columns
        if now.width != codes.shape[1]:
            codes = np.pad(codes, ((0, 0), (0, now.width - codes.shape[1])))
        lane.upload(codes, now.codes, start * now.width)
        lane.upload(scale, now.scale, start * 4)
        if now.levels:
            lane.upload(beyond, now.beyond, start * 4)
            lane.upload(tail, now.tail, start * LEVEL * now.levels)
            lane.upload(tail_scale, now.tail_scale, start * 4)


def _at(resident: Resident, count: int) -> Resident:
    """The same arrays for so many rows."""
    fields = {name: getattr(resident, name) for name in Resident.__dataclass_fields__}
    return Resident(**{**fields, "count": count})


def _read(coded: CodedRows, chunk: int) -> tuple[NDArray[np.generic], ...]:
    """One chunk as native/scan.h lays it out: codes (1024, dense) int8, scale, norm beyond, tail, tail's scale."""
    dense, levels = coded.basis.dense, coded.basis.levels
    record = (8 + levels + 3) // 4 * 4 if levels else 0
    size = CHUNK * (dense + LEVEL * levels + 8 + record)
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(coded.table[chunk])))
    signed = raw[: CHUNK * (dense + LEVEL * levels)] ^ np.uint8(128)  # a code plus 128, less the 128
    blocks = signed[: CHUNK * dense].reshape(CHUNK // 16, dense // 4, 16, 4)
    codes = blocks.transpose(0, 2, 1, 3).reshape(CHUNK, dense).view(np.int8)
    at = CHUNK * (dense + LEVEL * levels)
    tail = (
        signed[CHUNK * dense :]
        .reshape(levels, CHUNK, LEVEL)
        .transpose(1, 0, 2)
        .reshape(CHUNK, LEVEL * levels)
        .view(np.int8)
    )
    floats = raw[at : at + 8 * CHUNK].view(np.float32)
    tail_scale = np.zeros(CHUNK, np.float32)
    if levels:
        records = raw[at + 8 * CHUNK :].reshape(CHUNK, record)
        tail_scale = np.ascontiguousarray(records[:, 4:8]).view(np.float32)[:, 0]
    return codes, floats[:CHUNK].copy(), floats[CHUNK:].copy(), tail, tail_scale
