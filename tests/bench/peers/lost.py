"""A caller that begins a sequence on a stream and holds it until it is killed. `lost.py ADDRESS REQUEST_IN_HEX`"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import grpc

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def main(address: str, request: bytes) -> None:
    """Prints a line when the first answer is there."""

    def requests() -> Iterator[bytes]:
        yield request
        threading.Event().wait()

    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(STREAM)(requests())  # gRPC cancels a call that nobody holds
        next(call)
        print("holds it", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], bytes.fromhex(sys.argv[2]))
