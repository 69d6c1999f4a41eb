"""Models, what they have done and where they are, as the protocol's messages."""

from __future__ import annotations

from collections.abc import Sequence

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import model_config_pb2
from matchcut.server.oip import declarations
from matchcut.server.serving import Durations, IndexEntry, Model, ModelState
from matchcut.server.tensors import TensorSpec

__all__ = ["config", "index", "metadata", "statistics"]

ON_GPU = ("cuda", "tensorrt")  # variants that begin so run there


def metadata(model: Model, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """What goes in and what comes out."""
    described = pb.ModelMetadataResponse
    return described(
        name=model.name,
        versions=versions,
        platform=model.platform,
        inputs=[described.TensorMetadata(name=s.name, datatype=s.dtype, shape=s.shape) for s in model.inputs],
        outputs=[described.TensorMetadata(name=s.name, datatype=s.dtype, shape=s.shape) for s in model.outputs],
    )


def config(model: Model, versions: Sequence[str]) -> model_config_pb2.ModelConfig:
    """How a model is served."""
    on_gpu = model.variant.startswith(ON_GPU)
    kind = model_config_pb2.ModelInstanceGroup.KIND_GPU if on_gpu else model_config_pb2.ModelInstanceGroup.KIND_CPU
    made = model_config_pb2.ModelConfig(
        name=model.name,
        platform=model.platform,
        backend=model.platform.partition("_")[0],
        max_batch_size=model.max_batch,
        input=[
            model_config_pb2.ModelInput(name=spec.name, data_type=data_type(spec), dims=dims(spec, model))
            for spec in model.inputs
        ],
        output=[
            model_config_pb2.ModelOutput(
                name=spec.name,
                data_type=data_type(spec),
                dims=dims(spec, model),
                label_filename="labels.txt" if model.labels.get(spec.name) else "",
            )
            for spec in model.outputs
        ],
        instance_group=[model_config_pb2.ModelInstanceGroup(name=model.name, count=1, kind=kind)],
    )
    made.parameters["variant"].string_value = model.variant
    if all(version.isdecimal() for version in versions):
        made.version_policy.specific.versions.extend(map(int, versions))
    if model.stateful:
        made.sequence_batching.oldest.SetInParent()
    elif model.max_batch:
        made.dynamic_batching.SetInParent()
    if model.declared is not None:
        declarations.complete(made, model.declared)
    return made


def data_type(spec: TensorSpec) -> str:
    """The type in the configuration's words."""
    return "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}"


def dims(spec: TensorSpec, model: Model) -> tuple[int, ...]:
    """The sizes of one row."""
    return spec.shape[1:] if model.max_batch else spec.shape


def statistics(model: Model) -> pb.ModelStatistics:
    """What a model has done since it was loaded."""
    counted = model.statistics()
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=counted.last_inference_ms,
        inference_count=counted.inferences,
        execution_count=counted.executions,
        inference_stats=pb.InferStatistics(
            success=duration(counted.success),
            fail=duration(counted.failure),
            queue=duration(counted.queue),
            compute_input=duration(counted.input),
            compute_infer=duration(counted.infer),
            compute_output=duration(counted.output),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size,
                compute_input=pb.StatisticDuration(count=runs.count),
                compute_infer=duration(runs),
                compute_output=pb.StatisticDuration(count=runs.count),
            )
            for size, runs in sorted(counted.batches.items())
        ],
    )


def duration(counted: Durations) -> pb.StatisticDuration:
    """How often, how long."""
    return pb.StatisticDuration(count=counted.count, ns=counted.total_ns)


def index(entries: Sequence[IndexEntry], *, ready: bool) -> pb.RepositoryIndexResponse:
    """The models that are known; only those that are ready where that is asked for."""
    listed = pb.RepositoryIndexResponse
    return listed(
        models=[
            listed.ModelIndex(name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason)
            for entry in entries
            if not ready or entry.state is ModelState.READY
        ]
    )
