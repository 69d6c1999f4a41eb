"""Every option is a flag, an environment variable and a line of the file, and says what is wrong with a value."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from matchcut.kernels.device import GPU_SCANS
from matchcut.kernels.native.shared_library import Library, load
from matchcut.server import config
from matchcut.server.errors import InvalidInput

EXAMPLES = {
    "listen": "0.0.0.0:1",
    "data": "/d",
    "cache": "/c",
    "encoder": "/e.onnx",
    "next_encoder": "/n.onnx",
    "engine": "openvino",
    "log_level": "debug",
    "tls_cert": "/t",
    "tls_key": "/t",
    "tls_client_ca": "/t",
    "token_file": "/t",
    "device": "cuda:1",
    "scan": "scalar",
    "metrics": "127.0.0.1:9464",
    "oip": "off",
    "users": "off",
    "users_ahead": "off",
    "vectors": "file",
    "profile": "edge",
    "precision": "int8",
    "model_control": "explicit",
}


def example(name: str) -> str:
    """A value that the option accepts and that is not its default."""
    return EXAMPLES.get(name, "1048577")


def flags(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    return vars(parser.parse_args(arguments))


@pytest.mark.parametrize("name", [declared.name for declared in fields(config.Config)])
def test_each_option_has_three_names(name: str, tmp_path: Path) -> None:
    value, flag = example(name), "--" + name.replace("_", "-")
    if name == "min_segment":
        value = "0.25"
    kind = type(getattr(config.Config(), name))
    file = tmp_path / "matchcut.toml"
    file.write_text(f"{name} = {value!r}\n" if kind in (str, type(Path())) else f"{name} = {value}\n")
    by_flag = config.load(flags(flag, value), {})
    by_variable = config.load({}, {f"MATCHCUT_{name.upper()}": value})
    by_file = config.load({"config": str(file)}, {})
    assert by_flag == by_variable == by_file
    assert getattr(by_flag, name) == kind(value) != getattr(config.Config(), name)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "matchcut.toml"
    file.write_text("batch = 2\nthreads = 2\nrate = 2\n")
    environ = {"MATCHCUT_CONFIG": str(file), "MATCHCUT_BATCH": "3", "MATCHCUT_THREADS": "3"}
    loaded = config.load(flags("--batch", "5"), environ)
    assert (loaded.batch, loaded.threads, loaded.rate) == (5, 3, 2.0)
    assert loaded.still == config.Config().still


def test_sizes_have_units() -> None:
    assert config.load(flags("--max-bytes", "3GiB"), {}).max_bytes == 3 << 30
    assert config.load(flags("--max-bytes", "5 MB"), {}).max_bytes == 5_000_000
    assert config.load(flags("--max-bytes", "77"), {}).max_bytes == 77


def test_folders_default_to_the_users_own() -> None:
    loaded = config.load({}, {})
    assert loaded.data.name == loaded.cache.name == "matchcut"
    assert loaded.encoder == config.NOT_GIVEN


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--batch", "0", "--batch: '0' is not at least 1"),
        ("--batch", "two", "--batch: 'two' is not a whole number"),
        ("--rate", "fast", "--rate: 'fast' is not a number"),
        ("--max-seconds", "inf", "--max-seconds: 'inf' is not a number"),
        ("--min-segment", "20", "min_segment 20 is above max_segment 10; choose a smaller one"),
        ("--rate", "nan", "--rate: 'nan' is not a number"),
        ("--rate", "0", "--rate: '0' is not at least 0.001"),
        (
            "--engine",
            "abacus",
            "--engine: 'abacus' is not one of auto, onnxruntime, onnxruntime-fp32, openvino, openvino-fp32, "
            "openvino-mixed50, openvino-mixed25, openvino-bf16, tensorrt, tensorrt-rtx",
        ),
        (
            "--scan",
            "gpu",
            "--scan: 'gpu' is not one of auto, numpy, amx, avx512vnni, avx2, i8mm, dotprod, scalar, int8, bf16, fp32",
        ),
        ("--device", "gpu", "--device: 'gpu' is not one of auto, cpu, cuda, cuda:N"),
        ("--device", "cuda:", "--device: 'cuda:' is not one of auto, cpu, cuda, cuda:N"),
        ("--device", "cuda:N", "--device: 'cuda:N' is not one of auto, cpu, cuda, cuda:N"),
        ("--scan-threads", "-1", "--scan-threads: '-1' is not at least 0"),
        ("--scan-from", "0", "--scan-from: '0' is not at least 1"),
        ("--max-bytes", "3 parsecs", "--max-bytes: '3 parsecs' is not a size such as 67108864 or 64MiB"),
        ("--max-message", "1KiB", "--max-message: '1KiB' is not at least 1048576"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(flag: str, value: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        config.load(flags(flag, value), {})
    assert caught.value.message == said
    assert caught.value.reason == "INVALID_OPTION"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bacth = 8\n", "there is no option 'bacth'; did you mean 'batch'?"),
        ("batch = 8.5\n", "batch: 8.5 is not a whole number"),
        ("batch = true\n", "batch: True is not of type int"),
        ("listen = 7411\n", "listen: 7411 is not of type str"),
        ("batch = \n", "is not TOML"),
        ("[serving]\nbatch = 8\n", "there is no option 'serving'"),
    ],
)
def test_a_wrong_file_is_told(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "matchcut.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        config.load({"config": str(file)}, {})
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read the config file"):
        config.load({"config": str(tmp_path / "none.toml")}, {})


def test_the_help_names_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "frames in one run of the engine at most [default: 4] [MATCHCUT_BATCH]" in shown
    assert "off by default [MATCHCUT_METRICS]" in shown


def test_every_scan_can_be_asked_for() -> None:
    library = load()
    assert isinstance(library, Library)
    choices = config.Config.__dataclass_fields__["scan"].metadata["choices"]
    assert {"auto", "numpy", *(variant.name for variant in library.variants), *GPU_SCANS} <= set(choices)
