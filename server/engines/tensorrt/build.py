"""Builds a TensorRT engine from an ONNX file: strongly typed, for several kinds of GPU, for a range of batch sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matchcut.server.engines.tensorrt.library import Library, logger
from matchcut.server.engines.tensorrt.manifest import Batch, capability
from matchcut.server.errors import EngineFailed, InvalidInput

__all__ = ["Phase", "build"]

# Told the name of a phase of the build, how many of its steps are done and how many there are.
Phase = Callable[[str, int, int], None]


def build(
    onnx: bytes,
    library: Library,
    *,
    targets: tuple[int, ...] = (),
    batch: Batch = Batch(),  # noqa: B008  # frozen
    first_output_only: bool = False,
    phase: Phase = lambda name, done, steps: None,
) -> bytes:
    """The serialised engine of an ONNX model.

    Args:
        onnx: the model in one piece, its precision written into it. The first size of its inputs is the batch, all
            others are given.
        targets: compute capabilities, as 10 * major + minor; () stands for the GPU at hand, where the library builds
            for no other.
        first_output_only: leaves out what only the other outputs need.

    Raises:
        InvalidInput: the library does not build for one of the targets.
        EngineFailed: the model is not understood, which names the node, or cannot be built.
    """
    check(library, targets)
    outcome = attempt(onnx, library, targets, batch, first_output_only, phase)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def attempt(
    onnx: bytes,
    library: Library,
    targets: tuple[int, ...],
    batch: Batch,
    first_output_only: bool,
    phase: Phase,
) -> bytes | BaseException:
    """See build(); an error is returned, not raised.

    The frames of one that is raised would keep the library's objects until the garbage collector comes by. Where it
    comes while TensorRT for RTX (1.7) holds its own lock and calls the logger, freeing them waits for that lock, for
    ever. So they go here, at once, in the order in which they depend on each other.
    """
    trt, log, monitor = library.module, logger(library), monitored(library, phase)
    builder = network = parser = config = None
    try:
        builder = trt.Builder(log)
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind one day
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, log)
        parsed(parser, onnx)
        if first_output_only:
            for number in range(network.num_outputs - 1, 0, -1):
                network.unmark_output(network.get_output(number))
        config = builder.create_builder_config()
        if targets and library.targets:
            config.num_compute_capabilities = len(targets)
            for place, target in enumerate(targets):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target}"), place)
        config.add_optimization_profile(profile(builder, network, batch))
        config.progress_monitor = monitor
        made = builder.build_serialized_network(network, config)
        if monitor.failure is not None:
            failure: BaseException = monitor.failure
            return failure
        if made is None:
            return EngineFailed(f"{library} cannot build the engine: {last(log.faults)}", reason="ENGINE_NOT_BUILT")
        return bytes(made)
    except BaseException as error:
        return error.with_traceback(None)
    finally:
        made = config = parser = network = None
        builder = None


def check(library: Library, targets: tuple[int, ...]) -> None:
    """Raises InvalidInput where the library does not build for one of the targets."""
    if not library.targets:
        if len(targets) > 1:
            raise InvalidInput(
                f"{library} builds for the GPU at hand only; leave --target out, or take --library tensorrt_rtx",
                reason="INVALID_OPTION",
                field="target",
            )
        return
    if not targets:
        raise InvalidInput(
            f"{library} has to be told what to build for; give --target, of {listed(library.targets)}",
            reason="INVALID_OPTION",
            field="target",
        )
    for target in targets:
        if target not in library.targets:
            raise InvalidInput(
                f"{library} does not build for compute capability {capability(target)}, only for "
                f"{listed(library.targets)}",
                reason="INVALID_OPTION",
                field="target",
            )


def listed(targets: tuple[int, ...]) -> str:
    return ", ".join(map(str, targets))


def parsed(parser: Any, onnx: bytes) -> None:
    """Reads the model into the network.

    Raises:
        EngineFailed: naming the first node that is not understood.
    """
    if parser.parse(onnx):
        return
    faults = [parser.get_error(number) for number in range(parser.num_errors)]
    named = next((fault for fault in faults if fault.node_name()), None)
    if named is not None:
        raise EngineFailed(
            f"the node {named.node_name()!r} ({named.node_operator()}) is not understood: {named.desc()}; export the "
            "model without it",
            reason="ENGINE_NOT_BUILT",
        )
    raise EngineFailed(
        f"the ONNX file is not understood: {last([fault.desc() for fault in faults])}", reason="ENGINE_NOT_BUILT"
    )


def profile(builder: Any, network: Any, batch: Batch) -> Any:
    """One optimisation profile: the range of the batch for every input.

    Raises:
        EngineFailed: another size than the batch is open.
    """
    made = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        first, *rest = tuple(tensor.shape)
        if first != -1 or min(rest, default=1) < 1:
            raise EngineFailed(
                f"the input {tensor.name!r} has shape {tuple(tensor.shape)}; its first size has to be open (-1) and no "
                "other",
                reason="ENGINE_NOT_BUILT",
            )
        made.set_shape(tensor.name, *((size, *rest) for size in batch))
    return made


def monitored(library: Library, phase: Phase) -> Any:
    """A progress monitor; what `phase` raises ends the build, and is kept in `failure`."""
    return monitor_class(library.module)(phase)


@functools.cache
def monitor_class(module: Any) -> Any:
    """The library's kind of progress monitor, which can only be derived from once the library is there."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self, phase: Phase) -> None:
            module.IProgressMonitor.__init__(self)
            self.phase = phase
            self.steps: dict[str, int] = {}
            self.failure: BaseException | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.steps[name] = steps
            self.told(name, 0)

        def step_complete(self, name: str, step: int) -> bool:
            self.told(name, step + 1)
            return self.failure is None

        def phase_finish(self, name: str) -> None:
            self.told(name, self.steps.get(name, 0))

        def told(self, name: str, done: int) -> None:
            # The library swallows what is raised in here, and calls on; also after Ctrl-C, which is meant to end it.
            try:
                self.phase(name, done, self.steps.get(name, 0))
            except BaseException as error:
                self.failure = self.failure or error.with_traceback(None)

    return Monitor


def last(faults: Sequence[str]) -> str:
    """The newest message of the library, which is the one that matters."""
    return faults[-1] if faults else "it does not say why"


def content(path: Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        EngineFailed: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineFailed(f"{path} cannot be read: {error.strerror}", reason="ENCODER_MISSING") from error
