"""What a run gave, as the protocol's messages."""

from __future__ import annotations

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import InvalidInput
from matchcut.server.oip.classes import top
from matchcut.server.oip.elements import to_raw
from matchcut.server.oip.regions import Place, Regions
from matchcut.server.oip.requests import Inference, Wanted
from matchcut.server.serving import Answer, Model
from matchcut.server.tensors import Tensor

__all__ = ["failed", "inferred"]


def inferred(
    request: pb.ModelInferRequest, asked: Inference, answer: Answer, regions: Regions
) -> pb.ModelInferResponse:
    """The answer to a request; outputs that shall lie in shared memory are written there.

    Raises:
        InvalidInput: an output does not fit where it shall lie, or has no classes.
        NotFound: a region of shared memory was unregistered meanwhile.
    """
    model = asked.model
    reply = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    if asked.parameters.final:
        reply.parameters["triton_final_response"].bool_param = True
    for wanted in asked.outputs:
        tensor, dtype = shown(answer.outputs[wanted.spec.name], wanted, model)
        output = reply.outputs.add(name=wanted.spec.name, datatype=dtype, shape=tensor.shape)
        raw = to_raw(tensor, dtype)
        if wanted.place is None:
            reply.raw_output_contents.append(raw)
            continue
        put(raw, wanted.spec.name, wanted.place, regions)
        reply.raw_output_contents.append(b"")  # clients find an output's elements by its index
        output.parameters["shared_memory_region"].string_param = wanted.place.region
        output.parameters["shared_memory_offset"].int64_param = wanted.place.offset
        output.parameters["shared_memory_byte_size"].int64_param = len(raw)
    return reply


def failed(request: pb.ModelInferRequest, message: str) -> pb.ModelStreamInferResponse:
    """The answer on a stream to a request that could not be answered, from which the caller knows which it was."""
    reply = pb.ModelInferResponse(id=request.id, model_name=request.model_name, model_version=request.model_version)
    return pb.ModelStreamInferResponse(error_message=message, infer_response=reply)


def shown(tensor: Tensor, wanted: Wanted, model: Model) -> tuple[Tensor, str]:
    """An output and its type, as it was asked for."""
    if not wanted.classes:
        return tensor, wanted.spec.dtype
    labels = model.labels.get(wanted.spec.name, ())
    batched = model.max_batch > 0
    return top(tensor, wanted.spec.dtype, wanted.classes, labels=labels, batched=batched), "BYTES"


def put(raw: bytes, output: str, place: Place, regions: Regions) -> None:
    """Writes an output into shared memory."""
    if len(raw) > place.size:
        raise InvalidInput(
            f"shared memory size specified with the request for output '{output}' ({place.size} bytes) should be at "
            f"least {len(raw)} bytes to hold the results",
            field="outputs",
        )
    regions.write(place, raw)
