"""Requests for inference, understood and checked against the model that they are for.

What is refused, and the class of words in which, is as in Triton: infer_request.cc and grpc/infer_handler.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import ref

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.oip import parameters
from matchcut.server.oip.elements import from_contents, from_raw
from matchcut.server.oip.framing import Received
from matchcut.server.oip.parameters import RequestParameters
from matchcut.server.oip.regions import Place, Regions
from matchcut.server.serving import Model, Repository
from matchcut.server.tensors import DTYPES, Tensor, TensorSpec

__all__ = ["Inference", "Wanted", "inference", "is_plain", "served"]

PLAIN = 64 << 10  # bytes of a request that is small
SHAPE_SHOWN = 16  # sizes of a shape that a message repeats


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for. classes: so many of its highest values instead, where not 0."""

    spec: TensorSpec
    classes: int = 0
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Inference:
    """What a request asks for."""

    model: Model
    inputs: dict[str, Tensor]
    outputs: list[Wanted]
    parameters: RequestParameters


def served(repository: Repository, name: str, version: str) -> Model:
    """The model of that name.

    Raises:
        NotFound: there is none, or not in that version.
        Unavailable: it is not loaded.
    """
    try:
        return repository.model(name, version)
    except NotFound as error:
        which = f"'{name}' version {version}" if version else f"'{name}'"
        raise NotFound(
            f"Request for unknown model: {which} is not found; RepositoryIndex lists those that are there",
            reason="MODEL_NOT_FOUND",
            field="model_name",
        ) from error


def inference(received: Received, model: Model, regions: Regions, most: int) -> Inference:
    """What the request asks for; its inputs are views of what was received where they can be.

    Args:
        model: the one that it names.
        most: bytes that all inputs in shared memory may have together.

    Raises:
        InvalidInput: a parameter, or a tensor's name, type, shape or number of bytes is wrong.
        NotFound: a region of shared memory is not there.
        NotAllowed: shared memory is off.
    """
    known = understood(received, model)
    if known is not None:
        name, what = known.spec.name, known.what
        inputs = {name: from_raw(received.raws[0], known.spec.dtype, known.shape, what)}
        return Inference(model, inputs, known.outputs, known.parameters)
    request = received.message
    given = RequestParameters.of(request.parameters)
    if model.stateful and given.sequence_id is None:
        raise InvalidInput(
            f"inference request to model '{model.name}' must specify a non-zero or non-empty correlation ID; set "
            "sequence_id",
            field="parameters.sequence_id",
        )
    specs = {spec.name: spec for spec in model.inputs}
    check_names(request, specs, model.name)
    outputs = list(wanted(request, model, regions))
    inputs = dict(tensors(received, specs, model, regions, most))
    check_rows(inputs, model)
    asked = Inference(model, inputs, outputs, given)
    if received.head is not None and is_plain(received, model) and len(inputs) == 1:
        (spec,) = model.inputs
        what, shape = f"input '{spec.name}' for model '{model.name}'", inputs[spec.name].shape
        received.head.understood = Understood(ref(model), spec, shape, what, outputs, given)
    return asked


@dataclass(frozen=True, slots=True)
class Understood:
    """What came of a request with one plain tensor, for others with the same head: only its elements differ."""

    model: ref[Model]
    spec: TensorSpec
    shape: tuple[int, ...]
    what: str
    outputs: list[Wanted]
    parameters: RequestParameters


def understood(received: Received, model: Model) -> Understood | None:
    """What came of an earlier request to this very model with the same head; None where there was none."""
    known = None if received.head is None else received.head.understood
    return known if known is not None and known.model() is model else None


def is_plain(received: Received, model: Model) -> bool:
    """Whether a request is small and simple: to understand it, and to answer it, takes next to no time.

    Few tensors, packed in the message; no shared memory, no classes.
    """
    if understood(received, model) is not None:
        return True
    message = received.message
    return (
        received.size <= PLAIN
        and len(message.inputs) <= len(model.inputs)
        and len(message.outputs) <= len(model.outputs)
        and not any(tensor.parameters or tensor.HasField("contents") for tensor in message.inputs)
        and not any(tensor.parameters for tensor in message.outputs)
    )


def check_names(request: pb.ModelInferRequest, specs: dict[str, TensorSpec], model: str) -> None:
    """Raises InvalidInput unless each of the model's inputs is there once, and nothing else."""
    names: list[str] = []
    for tensor in request.inputs:
        if tensor.name in names:
            raise InvalidInput(f"input '{tensor.name}' already exists in request", field="inputs")
        if tensor.name not in specs:
            raise InvalidInput(
                f"unexpected inference input '{tensor.name}' for model '{model}'; it takes {', '.join(specs)}",
                field="inputs",
            )
        names.append(tensor.name)
    if len(names) != len(specs):
        missing = [name for name in specs if name not in names]
        raise InvalidInput(
            f"expected {len(specs)} inputs but got {len(names)} inputs for model '{model}'. Got input(s) {names}, but "
            f"missing required input(s) {missing}. Please provide all required input(s).",
            field="inputs",
        )


def tensors(
    received: Received, specs: dict[str, TensorSpec], model: Model, regions: Regions, most: int
) -> Iterator[tuple[str, Tensor]]:
    """The inputs by name."""
    raws, raw_given, room = iter(received.raws), len(received.raws), most
    for tensor in received.message.inputs:
        what = f"input '{tensor.name}' for model '{model.name}'"
        shape = checked_shape(tensor, specs[tensor.name], model)
        place = parameters.place(tensor.parameters, tensor.name)
        explicit = tensor.HasField("contents")
        if place is not None:
            if explicit:
                raise InvalidInput(f"unexpected 'content' provided when using shared memory for {what}", field="inputs")
            regions.check(place)
            room -= place.size
            if room < 0:
                raise InvalidInput(
                    f"the inputs in shared memory have more than {most} bytes together; send less, or raise "
                    "--max-message",
                    field="inputs",
                )
            yield tensor.name, from_raw(regions.read(place), tensor.datatype, shape, what)
        elif explicit and raw_given:
            raise InvalidInput(
                f"contents field must not be specified when using raw_input_contents for {what}", field="inputs"
            )
        elif explicit:
            yield tensor.name, from_contents(tensor.contents, tensor.datatype, shape, what)
        else:
            raw = next(raws, None)
            if raw is None:
                raise InvalidInput(f"unable to find data for {what} in request", field="raw_input_contents")
            yield tensor.name, from_raw(raw, tensor.datatype, shape, what)
    if next(raws, None) is not None:
        raise InvalidInput(
            f"the request has {raw_given} raw_input_contents, more than inputs for model '{model.name}' that need one",
            field="raw_input_contents",
        )


def checked_shape(tensor: pb.ModelInferRequest.InferInputTensor, spec: TensorSpec, model: Model) -> tuple[int, ...]:
    """The tensor's shape. Raises InvalidInput where it or the type is not the model's."""
    if tensor.datatype != spec.dtype:
        dtype = tensor.datatype if tensor.datatype in DTYPES else "<invalid>"
        raise InvalidInput(
            f"inference input '{spec.name}' data-type is '{dtype}', but model '{model.name}' expects '{spec.dtype}'",
            field="inputs.datatype",
        )
    if len(tensor.shape) > SHAPE_SHOWN and len(tensor.shape) > len(spec.shape):
        raise InvalidInput(
            f"unexpected shape for input '{spec.name}' for model '{model.name}'. Expected {sizes(spec.shape)}, got "
            f"{len(tensor.shape)} sizes",
            field="inputs.shape",
        )
    shape = tuple(tensor.shape)
    if model.max_batch and not shape:
        raise InvalidInput(
            f"input '{spec.name}' has no shape but model requires batch dimension for '{model.name}'",
            field="inputs.shape",
        )
    if min(shape, default=0) < 0:
        raise InvalidInput(
            f"All input dimensions should be specified for input '{spec.name}' for model '{model.name}', got "
            f"{sizes(shape)}",
            field="inputs.shape",
        )
    if not spec.takes(shape):
        raise InvalidInput(
            f"unexpected shape for input '{spec.name}' for model '{model.name}'. Expected {sizes(spec.shape)}, got "
            f"{sizes(shape)}",
            field="inputs.shape",
        )
    return shape


def check_rows(inputs: dict[str, Tensor], model: Model) -> None:
    """Raises InvalidInput unless all inputs of a model that batches have as many rows, and those are not too many."""
    if not model.max_batch:
        return
    rows: int | None = None
    for name, tensor in inputs.items():
        if rows is not None and len(tensor) != rows:
            raise InvalidInput(
                f"input '{name}' batch size does not match other inputs for '{model.name}'", field="inputs.shape"
            )
        rows = len(tensor)
    if rows is not None and not 1 <= rows <= model.max_batch:
        raise InvalidInput(
            f"inference request batch-size must be <= {model.max_batch} and at least 1 for '{model.name}', not {rows}",
            field="inputs.shape",
        )


def wanted(request: pb.ModelInferRequest, model: Model, regions: Regions) -> Iterator[Wanted]:
    """The outputs that are asked for, all where none is named."""
    if not request.outputs:
        yield from map(Wanted, model.outputs)
        return
    specs = {spec.name: spec for spec in model.outputs}
    seen = dict[str, pb.ModelInferRequest.InferRequestedOutputTensor]()
    for output in request.outputs:
        if output.name not in specs:
            raise InvalidInput(
                f"unexpected inference output '{output.name}' for model '{model.name}'; it gives {', '.join(specs)}",
                field="outputs",
            )
        if output.name in seen:
            if output == seen[output.name]:  # Triton answers once, too
                continue
            raise InvalidInput(f"output '{output.name}' already exists in request", field="outputs")
        seen[output.name] = output
        place = parameters.place(output.parameters, output.name)
        classes = parameters.classes(output.parameters, output.name)
        if place is not None and classes:
            raise InvalidInput("output can't set both 'shared_memory_region' and 'classification'", field="outputs")
        if place is not None:
            regions.check(place)  # before the work, not after it
        yield Wanted(specs[output.name], classes, place)


def sizes(shape: tuple[int, ...]) -> str:
    """[1,3,224,224]"""
    return f"[{','.join(map(str, shape))}]"
