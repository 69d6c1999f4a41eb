"""The open inference protocol (https://github.com/kserve/open-inference-protocol), with Triton's extensions.

It gives standard clients, such as tritonclient, the models of a repository. The generated messages have the protocol's
own names, as other packages' have: a process that imports this package cannot import tritonclient too.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from matchcut.server.config import Config
from matchcut.server.oip.pbtxt import read as read_config
from matchcut.server.oip.regions import Regions
from matchcut.server.oip.service import DESCRIPTOR, InferenceService, handlers
from matchcut.server.oip.together import Together
from matchcut.server.service.calls import Calls
from matchcut.server.serving import Repository

__all__ = ["SERVICE", "Together", "add_service", "read_config"]

SERVICE: str = DESCRIPTOR.full_name


def add_service(
    server: grpc.aio.Server, repository: Repository, calls: Calls, config: Config, *, ready: Callable[[], bool]
) -> Regions:
    """Adds the protocol to a server; returns what must be closed after it.

    Args:
        ready: whether the server can do its work.
    """
    regions = Regions(config.shared_memory)
    service = InferenceService(repository, calls, regions, config, ready)
    server.add_generic_rpc_handlers((handlers(service),))
    return regions
