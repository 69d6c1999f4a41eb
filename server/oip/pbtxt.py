"""Reads a config.pbtxt, in which Triton's users say how a model is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format

from matchcut.inference import model_config_pb2
from matchcut.inference.model_config_pb2 import ModelConfig
from matchcut.server.errors import EngineFailed
from matchcut.server.oip.unknown_fields import stripped
from matchcut.server.serving import Control, Declared, DeclaredState, DeclaredTensor, Signal
from matchcut.server.tensors import DTYPES

__all__ = ["read"]

BACKEND, PLATFORM, ENSEMBLE = "onnxruntime", "onnxruntime_onnx", "ensemble"
LATEST = 1  # versions, where nothing is said, as with Triton
SHOWN = 300  # characters of the parser's message
SHORT = 80  # characters of a name
# What is followed; anything else that a file says is told to the log. What would be wrong to ignore is refused below.
FOLLOWED = {
    *("name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "default_model_filename"),
    *("dynamic_batching", "sequence_batching"),
}
FALSE_TRUE = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}
LAYOUTS = {1: "NHWC", 2: "NCHW"}  # by ModelInput.Format
NUMBERS = ("INT32", "INT64", "UINT32", "UINT64", "BYTES")  # types of a sequence's id


def read(content: bytes) -> Declared:
    """What a config.pbtxt says.

    Raises:
        EngineFailed: it is no such file, or asks for what this server cannot do; the message says where and what to do.
    """
    config, ignored = parsed(content)
    if config.platform == ENSEMBLE or "ensemble_scheduling" in ignored:
        raise wrong(
            "it is an ensemble, which is not here: have callers ask its models one after the other, export them as one "
            "ONNX file, or leave this model to Triton"
        )
    check_backend(config)
    for field in ("batch_input", "batch_output"):
        if field in ignored:
            raise wrong(f"{field} is not supported: leave this model to Triton, or export one that does without it")
    batching = config.sequence_batching if config.HasField("sequence_batching") else None
    dynamic = config.dynamic_batching
    if config.max_batch_size < 0:
        raise wrong(f"max_batch_size is {config.max_batch_size}: it must be 0 or more")
    if batching is not None and batching.iterative_sequence:
        raise wrong("iterative_sequence is not supported: leave it out, and let callers send each step")
    return Declared(
        name=config.name,
        file=config.default_model_filename,
        max_batch=config.max_batch_size,
        inputs=tuple(tensor("input", one) for one in config.input),
        outputs=tuple(tensor("output", one) for one in config.output),
        **versions(config.version_policy),
        sequential=batching is not None,
        states=() if batching is None else tuple(map(state, batching.state)),
        controls=() if batching is None else tuple(controls(batching.control_input)),
        idle_timeout=0.0 if batching is None else batching.max_sequence_idle_microseconds / 1e6,
        queue=dynamic.default_queue_policy.max_queue_size,
        delayed=bool(dynamic.max_queue_delay_microseconds),
        ignored=ignored,
    )


def parsed(content: bytes) -> tuple[Any, tuple[str, ...]]:
    """The file as a message, and the fields in it that are not followed."""
    try:
        text = content.decode("utf-8-sig")  # editors of Windows put a mark before it
    except UnicodeDecodeError as error:
        raise wrong(f"it is not text: byte {error.start} is not UTF-8") from None
    config = ModelConfig()
    known, unknown = stripped(text, ModelConfig)
    try:
        text_format.Parse(known, config, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise wrong(located(error, known.split("\n"))) from None
    except RecursionError:
        raise wrong("it is nested too deep") from None
    except (ValueError, TypeError, OverflowError) as error:  # of values that no field can hold
        raise wrong(f"it cannot be read: {clean(str(error))}") from None
    ignored = [field.name for field, _ in config.ListFields() if field.name not in FOLLOWED]
    if any(one.optional for one in config.input):  # ONNX files do not run without, also in Triton
        ignored.append("input.optional")
    return config, tuple(dict.fromkeys([*ignored, *(clean(path[:SHORT]) for path in unknown)]))


def located(error: text_format.ParseError, lines: list[str]) -> str:
    """The parser's message, without the line that it repeats before it."""
    line, column = error.GetLine(), error.GetColumn()
    message = str(error)
    if line is None:
        return clean(message)
    message = message.removeprefix(f"{line}:{column} : ")
    if 0 < line <= len(lines):
        message = message.removeprefix(f"'{lines[line - 1]}': ")
    return f"line {line}, column {column}: {clean(message)}"


def clean(message: str) -> str:
    """A message of a length and of characters that can be shown."""
    shown = "".join(each if each.isprintable() else "?" for each in message[:SHOWN])
    return shown + ("..." if len(message) > SHOWN else "")


def check_backend(config: Any) -> None:
    """Raises EngineFailed where another backend than ours is wanted."""
    asked = next((one for one in (config.backend, config.platform) if one not in ("", BACKEND, PLATFORM)), None)
    if asked is not None or config.backend == PLATFORM or config.platform == BACKEND:
        asked = asked or config.backend or config.platform
        raise wrong(
            f"it wants the backend {clean(asked[:SHORT])!r}, which is not here: export the model to ONNX and say "
            f'backend: "{BACKEND}", or leave this model to Triton'
        )


def versions(policy: Any) -> dict[str, Any]:
    """Which versions are served."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return {"keep": 0}
    if choice == "specific":
        return {"keep": 0, "only": frozenset(map(str, policy.specific.versions))}
    return {"keep": policy.latest.num_versions or LATEST}


def tensor(role: str, said: Any) -> DeclaredTensor:
    """An input or output."""
    what = f"{role} {clean(said.name[:SHORT])!r}"
    if not said.name:
        raise wrong(f"an {role} has no name: give it the graph's")
    dims = sizes(said.dims, what)
    shape = (sizes(said.reshape.shape, what) or ()) if said.HasField("reshape") else None
    if shape is not None and dims is None:
        raise wrong(f"{what} has a reshape, but no dims: say both")
    for field in ("is_shape_tensor", "allow_ragged_batch"):
        if getattr(said, field, False):
            raise wrong(f"{what} has {field}, which is not supported: say false")
    kind = dtype(said, what)
    if role == "output":
        return DeclaredTensor(said.name, kind, dims, shape, labels=said.label_filename)
    return DeclaredTensor(said.name, kind, dims, shape, layout=LAYOUTS.get(said.format, ""))


def state(said: Any) -> DeclaredState:
    """A state, which begins with zeros or with a file."""
    if not said.input_name or not said.output_name:
        raise wrong("a state needs an input_name and an output_name")
    what = f"state {clean(said.input_name[:SHORT])!r}"
    if len(said.initial_state) > 1:
        raise wrong(f"{what} has more than one initial_state: leave one")
    for one in said.initial_state:
        dtype(one, what)
        sizes(one.dims, what)
    file = next((one.data_file for one in said.initial_state), "")
    return DeclaredState(said.input_name, said.output_name, dtype(said, what), sizes(said.dims, what), file)


def controls(said: Any) -> Iterator[Control]:
    """The inputs that the server fills."""
    seen = set[Signal]()
    for one in said:
        what = f"control_input {clean(one.name[:SHORT])!r}"
        if not one.name or len(one.control) != 1:
            raise wrong(f"{what} needs a name and one control")
        control = one.control[0]
        if control.kind not in [signal.value for signal in Signal]:
            raise wrong(f"{what} is of an unknown kind, {control.kind}")
        signal = Signal(control.kind)
        if signal in seen:
            raise wrong(f"{what} is CONTROL_SEQUENCE_{signal.name} as another is: leave one")
        seen.add(signal)
        yield identity(one.name, control, what) if signal is Signal.CORRID else switch(one.name, signal, control, what)


def identity(name: str, control: Any, what: str) -> Control:
    """The input that is told a sequence's id."""
    found = dtype(control, what)
    if found not in NUMBERS:
        raise wrong(f"{what} needs a data_type: TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING")
    return Control(name, Signal.CORRID, found)


def switch(name: str, signal: Signal, control: Any, what: str) -> Control:
    """An input with one value for True and one for False."""
    given = [(kind, list(getattr(control, field))) for field, kind in FALSE_TRUE.items() if getattr(control, field)]
    if len(given) != 1 or len(given[0][1]) != 2:
        raise wrong(f"{what} needs one of {', '.join(FALSE_TRUE)}, with two values")
    kind, (off, on) = given[0]
    return Control(name, signal, kind, off, on)


def dtype(said: Any, what: str) -> str:
    """A type in our words; "" where none is said."""
    if not said.data_type:
        return ""
    known = model_config_pb2.DataType.DESCRIPTOR.values_by_number.get(said.data_type)
    name = "" if known is None else known.name.removeprefix("TYPE_")
    name = "BYTES" if name == "STRING" else name
    if name not in DTYPES:
        raise wrong(f"{what} has the data_type {said.data_type}, which is none")
    return name


def sizes(dims: Any, what: str) -> tuple[int, ...] | None:
    """The sizes of one row; None where none are said."""
    bad = next((size for size in dims if size == 0 or size < -1), None)
    if bad is not None:
        raise wrong(f"{what} has {bad} in its dims: a size is 1 or more, or -1 where it is open")
    return tuple(dims) or None


def wrong(what: str) -> EngineFailed:
    return EngineFailed(f"config.pbtxt: {what}", reason="MODEL_INVALID")
