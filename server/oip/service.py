"""The service of the open inference protocol: each rpc in a few lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from importlib import metadata

import grpc

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import grpc_service_pb2_grpc
from matchcut.server.config import Config
from matchcut.server.errors import EngineFailed, InvalidInput, NotAllowed, NotFound, Unavailable, Unsupported
from matchcut.server.job import Job
from matchcut.server.oip import descriptions, replies
from matchcut.server.oip.framing import Received, received
from matchcut.server.oip.owners import Owner
from matchcut.server.oip.regions import Regions
from matchcut.server.oip.requests import inference, is_plain, served
from matchcut.server.oip.streams import Stream
from matchcut.server.service.calls import Calls, Context
from matchcut.server.service.status import unary
from matchcut.server.serving import Answer, Model, ModelState, Repository

__all__ = ["DESCRIPTOR", "InferenceService", "handlers"]

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
Infer = Callable[..., Answer | None]  # of a Model: infer, or at_once
STRICT = ("triton_grpc_error", "true")


class InferenceService(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """See grpc_service.proto.

    Args:
        ready: whether the server can do its work.
    """

    def __init__(
        self, repository: Repository, calls: Calls, regions: Regions, config: Config, ready: Callable[[], bool]
    ) -> None:
        self._repository = repository
        self._calls = calls
        self._regions = regions
        self._ready = ready
        self._control = config.model_control == "explicit"
        self._stream_requests = config.stream_requests
        self._most = config.max_message

    @unary
    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        """It answers, so it is."""
        return pb.ServerLiveResponse(live=True)

    @unary
    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether it can do its work."""
        return pb.ServerReadyResponse(ready=self._ready())

    @unary
    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Who it is."""
        extensions = ["classification", "sequence", "model_configuration", "statistics"]
        if self._control:
            extensions.append("model_repository")
        if self._regions.allowed:
            extensions.append("system_shared_memory")
        return pb.ServerMetadataResponse(name="matchcut", version=metadata.version("matchcut"), extensions=extensions)

    @unary
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether it can be used; asked by those who watch, so it is never refused for want of a place."""
        try:
            await asyncio.to_thread(self._repository.model, request.name, request.version)
        except (NotFound, Unavailable, EngineFailed):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._ready())

    @unary
    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Inputs and outputs."""

        def describe(_: Job) -> pb.ModelMetadataResponse:
            model = served(self._repository, request.name, request.version)
            return descriptions.metadata(model, self._repository.versions(request.name))

        return await self._calls.run(context, describe)

    @unary
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: N802
        """How it is served."""

        def describe(_: Job) -> pb.ModelConfigResponse:
            model = served(self._repository, request.name, request.version)
            config = descriptions.config(model, self._repository.versions(request.name))
            return pb.ModelConfigResponse(config=config)

        return await self._calls.run(context, describe)

    @unary
    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """What one model has done, or all that are ready."""

        def count(_: Job) -> pb.ModelStatisticsResponse:
            models = self._ready_models(request.name, request.version)
            return pb.ModelStatisticsResponse(model_stats=[descriptions.statistics(model) for model in models])

        return await self._calls.run(context, count)

    @unary
    async def ModelInfer(self, request: Received, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        """One request."""
        owner = Owner(("connection", context.peer()))
        answered = self._at_once(request, context, owner)
        return await self._infer(request, context, owner) if answered is None else answered

    @unary
    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Received], context: Context
    ) -> None:
        """Many requests. It writes instead of yielding, so that a lost caller is noticed here while it does."""
        stream = Stream(
            lambda request, owner: self._infer(request, context, owner),
            lambda request, owner: self._at_once(request, context, owner),
            context.write,
            most=self._stream_requests,
            strict=STRICT in tuple(context.invocation_metadata() or ()),
        )
        await stream.run(requests)

    @unary
    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """What there is."""
        check_repository(request.repository_name)
        return await self._calls.run(
            context, lambda _: descriptions.index(self._repository.index(), ready=request.ready)
        )

    @unary
    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Loads a model from the repository's folder."""
        self._check_control(request.repository_name)
        if request.parameters:
            raise InvalidInput(
                "a model's files and configuration come from the repository's folder only; load it without parameters",
                field="parameters",
            )
        await self._calls.run(context, lambda _: self._repository.load(request.model_name))
        return pb.RepositoryModelLoadResponse()

    @unary
    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Takes a model out of service."""
        self._check_control(request.repository_name)
        await self._calls.run(context, lambda _: self._repository.unload(request.model_name))
        return pb.RepositoryModelUnloadResponse()

    @unary
    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """The regions."""
        status = pb.SystemSharedMemoryStatusResponse
        regions = await self._calls.run(context, lambda _: self._regions.status(request.name))
        return status(
            regions={
                region.name: status.RegionStatus(
                    name=region.name, key=region.key, offset=region.offset, byte_size=region.size
                )
                for region in regions
            }
        )

    @unary
    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """One more region."""
        name, key, offset, size = request.name, request.key, request.offset, request.byte_size
        await self._calls.run(context, lambda _: self._regions.register(name, key, offset, size))
        return pb.SystemSharedMemoryRegisterResponse()

    @unary
    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """One region less, or all."""
        await self._calls.run(context, lambda _: self._regions.unregister(request.name))
        return pb.SystemSharedMemoryUnregisterResponse()

    @unary
    async def CudaSharedMemoryStatus(  # noqa: N802
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        """There are no such regions."""
        if request.name:
            raise NotFound(f"Unable to find CUDA shared memory region: '{request.name}'", reason="REGION_NOT_FOUND")
        return pb.CudaSharedMemoryStatusResponse()

    @unary
    async def CudaSharedMemoryRegister(  # noqa: N802
        self, request: pb.CudaSharedMemoryRegisterRequest, context: Context
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Refused."""
        raise Unsupported("CUDA shared memory is not supported; send tensors in the message or in system shared memory")

    @unary
    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """There are no such regions, so none is left, as asked."""
        return pb.CudaSharedMemoryUnregisterResponse()

    @unary
    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> pb.TraceSettingResponse:  # noqa: N802
        """Refused."""
        raise Unsupported("traces are not set by callers; each answer of matchcut.v1 has its stage times")

    @unary
    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:  # noqa: N802
        """Refused."""
        raise Unsupported("the log is not set by callers; start the server with --log-level")

    async def _infer(self, request: Received, context: Context, owner: Owner) -> pb.ModelInferResponse:
        began = time.monotonic()

        def work(job: Job) -> pb.ModelInferResponse:
            model = served(self._repository, request.message.model_name, request.message.model_version)
            response = self._answered(request, model, owner, job, began, model.infer)
            assert response is not None, "it waits for the answer"
            return response

        return await self._calls.run(context, work, job=self._calls.job(context, told=False))

    def _at_once(self, request: Received, context: Context, owner: Owner) -> pb.ModelInferResponse | None:
        """The same on the event loop, where that takes less time than to ask a thread; None where it would not."""
        model = self._repository.at_hand(request.message.model_name, request.message.model_version)
        if model is None or not model.brief or not is_plain(request, model):
            return None
        began, brief = time.monotonic(), model
        return self._calls.at_once(
            context, lambda job: self._answered(request, brief, owner, job, began, brief.at_once)
        )

    def _answered(
        self, request: Received, model: Model, owner: Owner, job: Job, began: float, infer: Infer
    ) -> pb.ModelInferResponse | None:
        """The response to a request that came at a time.monotonic(); None where `infer` gives none."""
        asked = inference(request, model, self._regions, self._most)
        if asked.parameters.timeout_us:
            until = began + asked.parameters.timeout_us / 1e6
            job.caller.deadline = min(until, job.caller.deadline or until)
        names = tuple(wanted.spec.name for wanted in asked.outputs) if request.message.outputs else ()
        with owner.step(model, asked.parameters) as step, job.clock("encode"):
            answer = infer(asked.inputs, caller=job.caller, wanted=names, step=step)
        if answer is None:
            return None
        job.clock.move(answer.queue_ns, "encode", "queue")
        job.clock.move(answer.input_ns, "encode", "preprocess")
        job.clock.note("encode", variant=model.variant, batched=answer.batch)
        return replies.inferred(request.message, asked, answer, self._regions)

    def _ready_models(self, name: str, version: str) -> list[Model]:
        """One model, or its versions, or all, as far as they are ready.

        Only for all is the folder of models looked at: load generators ask for one model's statistics while their
        requests run, and miss those that are answered meanwhile.
        """
        if name and version:
            return [served(self._repository, name, version)]
        if name:
            served(self._repository, name, "")
            known = [(name, each) for each in self._repository.versions(name)]
        else:
            known = [(one.name, one.version) for one in self._repository.index() if one.state is ModelState.READY]
        found: list[Model] = []
        for each in known:
            try:
                found.append(self._repository.model(*each))
            except (NotFound, Unavailable, EngineFailed):  # unloaded meanwhile, or it cannot be made
                continue
        return found

    def _check_control(self, repository: str) -> None:
        check_repository(repository)
        if not self._control:
            raise NotAllowed(
                "explicit model load / unload is not allowed; start the server with --model-control explicit"
            )


def handlers(service: InferenceService) -> grpc.GenericRpcHandler:
    """All rpcs for a server; what protoc generates would take no other way to read a request than its own."""
    made = {}
    for method in DESCRIPTOR.methods:
        takes, gives = (getattr(pb, kind.name) for kind in (method.input_type, method.output_type))
        read = received if takes is pb.ModelInferRequest else takes.FromString
        kind = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
        made[method.name] = kind(getattr(service, method.name), read, gives.SerializeToString)
    return grpc.method_handlers_generic_handler(DESCRIPTOR.full_name, made)


def check_repository(name: str) -> None:
    """Raises InvalidInput unless it is the one repository that there is, which has no name."""
    if name:
        raise InvalidInput("'repository_name' specification is not supported; leave it empty", field="repository_name")
