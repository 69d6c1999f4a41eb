"""The gRPC services: protobuf in, records through the pipeline, protobuf out. Only this package knows the stubs."""

from __future__ import annotations

import grpc.aio

from matchcut.server.config import Config
from matchcut.server.ingest import Ingest, Pipelines
from matchcut.server.personal import Personal
from matchcut.server.service.calls import Calls
from matchcut.server.service.catalog import CatalogService
from matchcut.server.service.events import EventsService
from matchcut.server.service.events_requests import EventRequests
from matchcut.server.service.recommender import RecommenderService
from matchcut.server.service.requests import Requests
from matchcut.server.service.users import UserLists
from matchcut.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
)

__all__ = ["SERVICES", "Calls", "add_services"]

SERVICES = (
    catalog_pb2.DESCRIPTOR.services_by_name["Catalog"].full_name,
    recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].full_name,
    events_pb2.DESCRIPTOR.services_by_name["Events"].full_name,
)


def add_services(
    server: grpc.aio.Server, pipelines: Pipelines, ingest: Ingest, config: Config, personal: Personal
) -> Calls:
    """Adds matchcut's own services to a server; returns what must be closed after it."""
    calls, requests = Calls(config), Requests(config)
    events = EventRequests(config, requests)
    users = UserLists(personal, calls, events, requests.media)
    catalog_pb2_grpc.add_CatalogServicer_to_server(CatalogService(pipelines, ingest, calls, requests), server)
    recommender = RecommenderService(pipelines, calls, requests, users)
    recommender_pb2_grpc.add_RecommenderServicer_to_server(recommender, server)
    events_pb2_grpc.add_EventsServicer_to_server(EventsService(personal, calls, events), server)
    return calls
