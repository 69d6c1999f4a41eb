"""A config.pbtxt: what it says is read, what it says in vain is named, and nothing in one harms the server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.inference.model_config_pb2 import ModelConfig
from matchcut.server.errors import EngineFailed
from matchcut.server.oip import pbtxt
from matchcut.server.oip.unknown_fields import stripped
from matchcut.server.serving import Control, Declared, DeclaredState, DeclaredTensor, Signal

WHOLE = """
name: "m"  # a comment
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 8
default_model_filename: "net.onnx"
input [
  { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1 ] },
  { name: "s" data_type: TYPE_STRING dims: 1 reshape: { shape: [ ] } optional: false }
]
output { name: "y" data_type: TYPE_BF16 dims: [ 4 ] label_filename: "labels.txt" }
version_policy: { specific { versions: [ 1, 3 ] } }
sequence_batching {
  max_sequence_idle_microseconds: 2500000
  oldest { max_candidate_sequences: 4 preserve_ordering: true }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ -1, 0.5 ] } ] },
    { name: "END" control [ { kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] } ] },
    { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
  state [
    { input_name: "h" output_name: "h_next" data_type: TYPE_FP32 dims: [ 2 ]
      initial_state: { name: "zero" data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } }
  ]
}
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
optimization { execution_accelerators { gpu_execution_accelerator : [ {
  name : "tensorrt"
  parameters { key: "precision_mode" value: "FP16" } } ] } }
model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value: { data_type: TYPE_FP32 dims: 3 zero_data: true } } } ]
parameters: { key: "k" value: { string_value: "1" } }
"""


def refused(content: str | bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(EngineFailed) as caught:
        pbtxt.read(content if isinstance(content, bytes) else content.encode())
    assert caught.value.reason == "MODEL_INVALID"
    assert caught.value.message.startswith("config.pbtxt: ")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 700
    return caught.value.message.removeprefix("config.pbtxt: ")


def test_all_is_read() -> None:
    assert pbtxt.read(WHOLE.encode()) == Declared(
        name="m",
        file="net.onnx",
        max_batch=8,
        inputs=(
            DeclaredTensor("x", "FP32", (3, -1), layout="NCHW"),
            DeclaredTensor("s", "BYTES", (1,), reshape=()),
        ),
        outputs=(DeclaredTensor("y", "BF16", (4,), labels="labels.txt"),),
        keep=0,
        only=frozenset({"1", "3"}),
        sequential=True,
        states=(DeclaredState("h", "h_next", "FP32", (2,)),),
        controls=(
            Control("START", Signal.START, "INT32", 0, 1),
            Control("READY", Signal.READY, "FP32", -1, 0.5),
            Control("END", Signal.END, "BOOL", False, True),
            Control("ID", Signal.CORRID, "UINT64"),
        ),
        idle_timeout=2.5,
        ignored=(
            "instance_group",
            "parameters",
            "sequence_batching.oldest.preserve_ordering",
            "optimization",
            "model_warmup",
        ),
    )


def test_nothing_is_said() -> None:
    assert pbtxt.read(b"") == pbtxt.read(b"# nothing\n") == Declared()
    assert Declared().keep == 1, "the latest version, as with Triton"


def test_an_input_that_may_be_left_out_is_one_that_callers_send() -> None:
    """As ONNX Runtime has it behind Triton: it does not run without."""
    said = pbtxt.read(b'input { name: "x" optional: true } input { name: "y" optional: false }')
    assert said == Declared(inputs=(DeclaredTensor("x"), DeclaredTensor("y")), ignored=("input.optional",))


def test_files_of_windows_are_read() -> None:
    assert pbtxt.read('\ufeffname: "m"  # ä\r\nodd { a: 1 }\r\n'.encode()) == Declared(name="m", ignored=("odd",))
    assert refused("\ufeff\r\nname: 1\r\n").startswith("line 2, column 7: Expected string")


@pytest.mark.parametrize(
    ("policy", "keep", "only"),
    [
        ("latest { }", 1, None),
        ("latest { num_versions: 3 }", 3, None),
        ("all { }", 0, None),
        ("specific { versions: [ 7 ] }", 0, frozenset({"7"})),
        ("specific { }", 0, frozenset()),
    ],
)
def test_policies(policy: str, keep: int, only: frozenset[str] | None) -> None:
    said = pbtxt.read(f"version_policy: {{ {policy} }}".encode())
    assert (said.keep, said.only) == (keep, only)


def test_dynamic_batching() -> None:
    said = pbtxt.read(
        b"dynamic_batching { max_queue_delay_microseconds: 5 preferred_batch_size: [4]"
        b" default_queue_policy { max_queue_size: 16 timeout_action: REJECT } }"
    )
    assert (said.queue, said.delayed, said.sequential) == (16, True, False)
    assert said.ignored == ("dynamic_batching.default_queue_policy.timeout_action",)


@pytest.mark.parametrize("said", ['backend: "onnxruntime"', 'platform: "onnxruntime_onnx"', ""])
def test_backends_that_are_here(said: str) -> None:
    assert pbtxt.read(said.encode()) == Declared()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('backend: "python"', "python"),
        ('platform: "tensorrt_plan"', "tensorrt_plan"),
        ('platform: "onnxruntime_onnx" backend: "tensorrt"', "tensorrt"),
        ('backend: "onnxruntime_onnx"', "onnxruntime_onnx"),
        ('platform: "onnxruntime"', "onnxruntime"),
    ],
)
def test_other_backends_are_refused_with_advice(said: str, name: str) -> None:
    assert refused(said) == (
        f"it wants the backend {name!r}, which is not here: export the model to ONNX and say "
        'backend: "onnxruntime", or leave this model to Triton'
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('max_batch_size: "8"', "line 1, column 17: Couldn't parse integer"),
        ('name: "m"\ninput [\n  { name: x }\n]', "line 3, column 11: Expected string but found: 'x'"),
        ("max_batch_size: 1\nmax_batch_size: 2", "line 2, column 17: .*should not have multiple"),
        ("max_batch_size: 3000000000", "line 1, column 17: Value out of range: 3000000000"),
        ("input { dims: 9223372036854775808 }", "line 1, column 15: Value out of range"),
        ("input { data_type: TYPE_COMPLEX }", "line 1, column 20: .*no value named TYPE_COMPLEX"),
        ("input: 5", 'line 1, column 8: Expected "{"'),
        ("input {", "line 1, column 7: "),
        ("name: 'm", "line 1, column 7: "),
        ("[matchcut.v1.Item] { }", "line 1, column .*does not have extensions"),
        ("dynamic_batching { } sequence_batching { }", "line 1, column 22: .*scheduling_choice|line 1, column 21: "),
        ("\0" * 50, "line 1, column 1: "),
        (b"name: 'm' \xff\xfe", "it is not text: byte 10 is not UTF-8"),
        (b"\x08\x01\x12\x04\x80\x81", "it is not text"),
        ('name: "\\377"', "line 1, column 13: "),
        ('name: "\\ud800"', "line 1, column 7: "),
        ("x {" * 5000, "it is nested too deep"),
        ("max_batch_size: " + "9" * 5000, "line 1, column 17: Couldn't parse integer: 9{100}"),
        ("name: '" + "x" * 100_000, "line 1, column 7: String missing ending quote"),
        ("a" * 100_000, "line 1, column "),
        ("max_batch_size: -1", "max_batch_size is -1: it must be 0 or more"),
        ("input { }", "an input has no name"),
        ('input { name: "x" data_type: 99 }', "input 'x' has the data_type 99, which is none"),
        ('input { name: "x" dims: -2 }', "input 'x' has -2 in its dims: a size is 1 or more, or -1"),
        ('output { name: "x" dims: [ 2, 0 ] }', "output 'x' has 0 in its dims"),
        ('input { name: "x" dims: -9223372036854775808 }', "input 'x' has -9223372036854775808 in its dims"),
        ('input { name: "x" reshape { shape: 1 } }', "input 'x' has a reshape, but no dims"),
        ('input { name: "x" dims: 1 reshape { shape: -7 } }', "input 'x' has -7 in its dims"),
        ('input { name: "x" allow_ragged_batch: true }', "input 'x' has allow_ragged_batch, which is not supported"),
        ('output { name: "x" is_shape_tensor: true }', "output 'x' has is_shape_tensor, which is not supported"),
        ('batch_input { kind: BATCH_ITEM_SHAPE target_name: "x" }', "batch_input is not supported"),
        ("ensemble_scheduling { step { } }", "it is an ensemble, which is not here: have callers ask its models one"),
        ('platform: "ensemble" backend: "onnxruntime"', "it is an ensemble, which is not here"),
        ("sequence_batching { iterative_sequence: true }", "iterative_sequence is not supported"),
        ('sequence_batching { state { input_name: "h" } }', "a state needs an input_name and an output_name"),
        (
            'sequence_batching { state { input_name: "h" output_name: "n" initial_state { } initial_state { } } }',
            "state 'h' has more than one initial_state: leave one",
        ),
        ('sequence_batching { control_input { name: "c" } }', "control_input 'c' needs a name and one control"),
        ("sequence_batching { control_input { control { } } }", "control_input '' needs a name and one control"),
        (
            'sequence_batching { control_input { name: "c" control { kind: 9 } } }',
            "control_input 'c' is of an unknown kind, 9",
        ),
        (
            'sequence_batching { control_input { name: "c" control { fp32_false_true: 1 } } }',
            "control_input 'c' needs one of int32_false_true, fp32_false_true, bool_false_true, with two values",
        ),
        (
            'sequence_batching { control_input { name: "c" control { fp32_false_true: [0, 1] int32_false_true: [0, 1] '
            "} } }",
            "control_input 'c' needs one of",
        ),
        (
            'sequence_batching { control_input { name: "c" control { kind: CONTROL_SEQUENCE_CORRID '
            "data_type: TYPE_FP32 } } }",
            "control_input 'c' needs a data_type: TYPE_UINT64",
        ),
        (
            "sequence_batching { "
            + 'control_input { name: "c" control { bool_false_true: [false, true] } } ' * 2
            + "}",
            "control_input 'c' is CONTROL_SEQUENCE_START as another is",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_place(said: str | bytes, message: str) -> None:
    assert re.match(message, refused(said)), refused(said)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100) | st.text(alphabet='aname:{}[]<>",-1\n#\\ ', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        found = pbtxt.read(content).name
    except EngineFailed as error:
        found = error.message
    assert found.isprintable() or found.encode() in content


def test_fields_that_are_not_known_are_taken_out_and_named_wherever_they_stand() -> None:
    text = """
    input [ { name: "a: {" dims: [1, 2], odd: 1, }, { odd { more: ['x', {}] } name: 'b' } ] # input { c: 1 }
    input < name: "c", strange [ { a: 1 }, { a: 2 } ]; dims: -1 more: "1" '2' >
    output { name: "}" "]" , n: - 5 label_filename: "l" ; x: true; }
    other { input { name: "x" } } max_batch_size: 1
    """
    known, unknown = stripped(text, ModelConfig)
    assert unknown == [
        *("input.odd", "input.odd", "input.strange", "input.more", "output.n", "output.x", "other"),
    ]
    assert len(known) == len(text)
    assert known.splitlines()[1].startswith('    input [ { name: "a: {" dims: [1, 2],         }, {  ')
    assert text_format.Parse(known, ModelConfig()) == text_format.Parse(
        """
        input { name: "a: {" dims: 1 dims: 2 } input { name: "b" } input { name: "c" dims: -1 }
        output { name: "}]" label_filename: "l" } max_batch_size: 1
        """,
        ModelConfig(),
    )


@pytest.mark.parametrize(
    "text",
    [
        *(
            "odd",
            "odd:",
            "odd {",
            "odd { ]",
            "odd: [ { } }",
            "odd: ?",
            "{",
            "}",
            "input { } }",
            "name { }",
            'odd: "',
            "odd ]",
        )
    ],
)
def test_what_is_no_text_of_a_message_is_left_to_the_parser(text: str) -> None:
    assert stripped(text, ModelConfig) == (text, [])
    assert refused(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.text(alphabet="a:{}[]<>,;\"'\\\n# -", max_size=60))
def test_whatever_is_taken_out_places_stay(odd: str, text: str) -> None:
    for each in (odd, text, f"odd {{ {odd} }} name: 'm'"):
        known, unknown = stripped(each, ModelConfig)
        assert len(known) == len(each)
        assert known.count("\n") == each.count("\n")
        assert (known == each) == (not unknown)


def test_the_readme_s_file_is_read() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```protobuf\n(platform.*?)^```$", readme, flags=re.M | re.S)
    said = pbtxt.read(shown.encode())
    assert (said.max_batch, said.inputs[0].layout, said.outputs[0].labels) == (8, "NCHW", "labels.txt")
    assert said.ignored == ("instance_group",)


THEIRS = """
import json
from tritonclient.grpc import model_config_pb2
told, todo = {}, [model_config_pb2.ModelConfig.DESCRIPTOR]
while todo:
    found = todo.pop()
    if found.full_name in told: continue
    told[found.full_name] = {
        f.name: [f.number, f.type, f.is_repeated, getattr(f.message_type or f.enum_type, "full_name", ""),
                 f.containing_oneof.name if f.containing_oneof else ""]
        for f in found.fields
    }
    for f in found.fields:
        if f.message_type: todo.append(f.message_type)
        if f.enum_type: told[f.enum_type.full_name] = {v.name: v.number for v in f.enum_type.values}
print(json.dumps(told))
"""


def test_the_message_of_a_file_is_triton_s() -> None:
    """Of what we know, names, numbers and types are those of the standard client; it lives in a process of its own."""
    done = subprocess.run([sys.executable, "-c", THEIRS], check=True, capture_output=True, text=True)
    theirs: dict[str, Any] = json.loads(done.stdout)
    found, todo = set[str](), [ModelConfig.DESCRIPTOR]
    while todo:
        message = todo.pop()
        if message.full_name in found:
            continue
        found.add(message.full_name)
        for one in message.fields:
            kind = one.message_type or one.enum_type
            oneof = one.containing_oneof.name if one.containing_oneof else ""
            told = [one.number, one.type, one.is_repeated, kind.full_name if kind else "", oneof]
            assert told == theirs[message.full_name][one.name], one.full_name
            if one.message_type:
                todo.append(one.message_type)
            if one.enum_type:
                names = {value.name: value.number for value in one.enum_type.values}
                assert names.items() <= theirs[one.enum_type.full_name].items()
    assert {f"inference.ModelSequenceBatching.{name}" for name in ("State", "ControlInput", "InitialState")} <= found
