"""What a model's config.pbtxt says, told to callers who ask how the model is served."""

from __future__ import annotations

from typing import Any

from matchcut.inference import model_config_pb2
from matchcut.server.models.description import IDLE_TIMEOUT
from matchcut.server.serving import Control, Declared, DeclaredState, DeclaredTensor, Signal

__all__ = ["complete"]

LAYOUTS = {"NHWC": model_config_pb2.ModelInput.FORMAT_NHWC, "NCHW": model_config_pb2.ModelInput.FORMAT_NCHW}
Batching = model_config_pb2.ModelSequenceBatching
Tensor = model_config_pb2.ModelInput | model_config_pb2.ModelOutput
FALSE_TRUE = {"INT32": "int32_false_true", "FP32": "fp32_false_true", "BOOL": "bool_false_true"}


def complete(made: model_config_pb2.ModelConfig, said: Declared) -> None:
    """Adds it to the configuration that an answer has already. What is not followed is not told either."""
    for taken in made.input:
        one = found(said.inputs, taken.name)
        if one.layout:
            taken.format = LAYOUTS[one.layout]
        reshape(taken, one)
    for given in made.output:
        one = found(said.outputs, given.name)
        given.label_filename = one.labels
        reshape(given, one)
    made.ClearField("version_policy")
    if said.only is not None:
        made.version_policy.specific.versions.extend(sorted(map(int, said.only)))
    elif said.keep:
        made.version_policy.latest.num_versions = said.keep
    else:
        made.version_policy.all.SetInParent()
    made.default_model_filename = said.file
    if said.sequential:
        made.sequence_batching.max_sequence_idle_microseconds = round((said.idle_timeout or IDLE_TIMEOUT) * 1e6)
        made.sequence_batching.state.extend(map(state, said.states))
        made.sequence_batching.control_input.extend(map(control, said.controls))
    elif said.queue and made.HasField("dynamic_batching"):
        made.dynamic_batching.default_queue_policy.max_queue_size = said.queue


def found(tensors: tuple[DeclaredTensor, ...], name: str) -> DeclaredTensor:
    """What is said of an input or output."""
    return next((one for one in tensors if one.name == name), DeclaredTensor(name))


def reshape(made: Tensor, said: DeclaredTensor) -> None:
    """Adds what the graph has for it."""
    if said.reshape is not None:
        made.reshape.SetInParent()  # also where it has no sizes
        made.reshape.shape.extend(said.reshape)


def state(said: DeclaredState) -> Batching.State:
    """A state."""
    made = Batching.State(
        input_name=said.input, output_name=said.output, data_type=number(said.dtype), dims=said.sizes or ()
    )
    if said.file:
        made.initial_state.add(name=said.file, data_type=made.data_type, dims=made.dims, data_file=said.file)
    return made


def control(said: Control) -> Batching.ControlInput:
    """An input that the server fills."""
    made = Batching.ControlInput(name=said.input)
    one = made.control.add(kind=said.signal.value)
    if said.signal is Signal.CORRID:
        one.data_type = number(said.dtype)
    else:
        field = getattr(one, FALSE_TRUE[said.dtype])
        field.extend([type_of(said.dtype)(said.off), type_of(said.dtype)(said.on)])
    return made


def type_of(dtype: str) -> Any:
    """What Python has for a control's values."""
    return {"INT32": int, "FP32": float, "BOOL": bool}[dtype]


def number(dtype: str) -> Any:
    """A type's number in the file; 0 where none is said."""
    names = {"": "TYPE_INVALID", "BYTES": "TYPE_STRING"}
    return model_config_pb2.DataType.Value(names.get(dtype, f"TYPE_{dtype}"))
