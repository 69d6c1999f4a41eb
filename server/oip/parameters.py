"""The values that stand by name beside a request or a tensor, with the types that the protocol gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.errors import InvalidInput
from matchcut.server.oip.regions import Place

__all__ = ["Parameters", "RequestParameters", "classes", "place"]

Parameters = Mapping[str, pb.InferParameter]
Value = bool | int | str | float


def given(parameters: Parameters, name: str, *kinds: str, of: str = "") -> Value | None:
    """A parameter's value; None where it is not there.

    Args:
        kinds: fields of InferParameter that it may have.
        of: the tensor that it stands beside, for the message.

    Raises:
        InvalidInput: it has another type.
    """
    if name not in parameters:
        return None
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        where = f" for tensor '{of}'" if of else ""
        raise InvalidInput(
            f"invalid value type for '{name}' parameter{where}, expected {' or '.join(kinds)}",
            field=f"parameters.{name}",
        )
    value: Value = getattr(parameter, kind)
    return value


def flag(parameters: Parameters, name: str) -> bool:
    """A bool; False where it is not there."""
    return bool(given(parameters, name, "bool_param"))


ID_BYTES = 256  # of a sequence's name, as of all ids of matchcut


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """What stands beside a request.

    sequence_id: None where it belongs to no sequence. timeout_us: 0 where there is none. final: the answer shall say
    that it is the only one.
    """

    sequence_id: int | str | None
    start: bool
    end: bool
    timeout_us: int
    final: bool

    @classmethod
    def of(cls, parameters: Parameters) -> RequestParameters:
        """Reads and checks what this server knows; names that it does not know are left alone.

        Raises:
            InvalidInput: a value has the wrong type, or is negative where that means nothing.
        """
        if not parameters:
            return NONE_GIVEN
        sequence_id = given(parameters, "sequence_id", "int64_param", "string_param")
        timeout = given(parameters, "timeout", "int64_param") or 0
        priority = given(parameters, "priority", "uint64_param", "int64_param") or 0
        assert isinstance(sequence_id, int | str | None)
        if isinstance(sequence_id, str) and len(sequence_id.encode()) > ID_BYTES:
            raise InvalidInput(
                f"'sequence_id' is longer than {ID_BYTES} bytes; choose a shorter one", field="parameters.sequence_id"
            )
        for name, value in (("timeout", timeout), ("priority", priority)):
            if not isinstance(value, int) or value < 0:
                raise InvalidInput(
                    f"invalid value for '{name}' parameter, expected value >= 0", field=f"parameters.{name}"
                )
        return cls(
            sequence_id=sequence_id or None,
            start=flag(parameters, "sequence_start"),
            end=flag(parameters, "sequence_end"),
            timeout_us=int(timeout),
            final=flag(parameters, "triton_enable_empty_final_response"),
        )


NONE_GIVEN = RequestParameters(sequence_id=None, start=False, end=False, timeout_us=0, final=False)


def classes(parameters: Parameters, output: str) -> int:
    """How many classes of an output are wanted; 0: the output itself is.

    Raises:
        InvalidInput: of another type, or below 1.
    """
    if not parameters:
        return 0
    count = given(parameters, "classification", "int64_param", of=output)
    if count is None:
        return 0
    if not isinstance(count, int) or count < 1:
        raise InvalidInput(
            f"invalid value for 'classification' parameter for tensor '{output}', expected value >= 1",
            field="parameters.classification",
        )
    return count


def place(parameters: Parameters, tensor: str) -> Place | None:
    """Where in shared memory a tensor lies; None where it lies in the message.

    Raises:
        InvalidInput: a value has the wrong type, or the size is missing, or there is no region to which it belongs.
    """
    if not parameters:
        return None
    region = given(parameters, "shared_memory_region", "string_param", of=tensor)
    offset = given(parameters, "shared_memory_offset", "int64_param", of=tensor)
    size = given(parameters, "shared_memory_byte_size", "int64_param", of=tensor)
    if region is None:
        for name, value in (("shared_memory_offset", offset), ("shared_memory_byte_size", size)):
            if value is not None:
                raise InvalidInput(
                    f"'{name}' can not be specified without 'shared_memory_region' parameter for tensor '{tensor}'",
                    field=f"parameters.{name}",
                )
        return None
    if size is None:
        raise InvalidInput(
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor "
            f"'{tensor}'",
            field="parameters.shared_memory_byte_size",
        )
    return Place(str(region), int(offset or 0), int(size))
