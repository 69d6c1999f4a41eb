"""Power that goes in the midst of an ingest, and a full disk: what was acknowledged stays, all else leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from matchcut.client import Client, Error, Retry
from matchcut.server import models
from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.errors import EngineFailed, StoreFailed
from matchcut.server.records import EncoderIdentity, Item, Outcome, Segment, TagFilter, TimeRange

ENCODER = EncoderIdentity("torn", "1", "torn", 64)


@contextmanager
def serving(folder: Path, encoder: Path, cache: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, with the profile for boards; gives it and its address, and ends it."""
    command = [sys.executable, "-m", "matchcut.server", "serve", "--profile", "edge", "--listen", "127.0.0.1:0"]
    command += ["--data", str(folder), "--cache", str(cache), "--encoder", str(encoder), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = next((line for line in process.stdout if "serving on " in line), "")
            assert line, process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()


def whole(client: Client) -> dict[str, int]:
    """Each item with its number of segments; all that is listed can be got and asked with."""
    found = {}
    for item in client.items():
        found[item.id] = len(client.get(item.id).segments)
        assert any(match.item.id for match in client.recommend(items=[item.id], limit=3).matches) or len(found) == 1
    return found


def slowly(path: Path, reached: Callable[[int], None]) -> Iterator[bytes]:
    """A file's bytes in pieces; `reached` is told after each how many went."""
    content = path.read_bytes()
    step = max(1, len(content) // 8)
    for start in range(0, len(content), step):
        yield content[start : start + step]
        reached(start + step)


def test_a_server_that_loses_power_in_the_midst_of_an_ingest(media: Path, small_encoder: Path, tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    acknowledged: dict[str, int] = {}
    killed: list[str] = []
    for point in ("in the first piece", "in the middle", "at the end", "once it is acknowledged"):
        with (
            serving(data, small_encoder, cache) as (process, address),
            Client(address, retry=Retry(attempts=1)) as client,
        ):
            assert whole(client) == acknowledged
            done = client.ingest(f"before {point}", media / "a.mp4")
            assert done.outcome.name == "CREATED"
            size = (media / "bikes.mp4").stat().st_size
            limit = {"in the first piece": 1, "in the middle": size // 2, "at the end": size}.get(point, size * 9)

            def reached(sent: int, limit: int = limit, pid: int = process.pid, point: str = point) -> None:
                if sent >= limit and point not in killed:
                    killed.append(point)
                    os.kill(pid, signal.SIGKILL)

            with suppress(Error):
                client.ingest(point, slowly(media / "bikes.mp4", reached))
                acknowledged[point] = -1
            if point not in killed:
                killed.append(point)
                process.kill()
            process.wait()
        with closing(open_catalog(data)) as catalog:  # nobody has closed it, and nothing has to be repaired by hand
            there = {item.item_id for item in catalog.page("", after="", size=99, tags=TagFilter())[0]}
            assert {f"before {point}", *acknowledged} <= there
            assert there - acknowledged.keys() <= {f"before {point}", point}
            for item_id in there:
                stored = catalog.get("", item_id)
                assert stored is not None
                assert stored.segments
                acknowledged[item_id] = len(stored.segments)
    assert killed == ["in the first piece", "in the middle", "at the end", "once it is acknowledged"]
    assert "once it is acknowledged" in acknowledged
    assert not {"in the first piece", "in the middle"} & acknowledged.keys()


def put(catalog: Catalog, number: int) -> Outcome:
    """An item of some pages, which says its number everywhere."""
    parts = [Segment(TimeRange(at, at + 1), np.full(64, number, np.float32)) for at in range(1 + number % 40)]
    return catalog.put("", Item(f"{number:03}", str(number)), parts, ENCODER, str(number).encode())


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue's files as they lie on the disk while forty items are in the log and not in the file."""
    folder, copy = tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("crashed") / "data"
    with closing(open_catalog(folder)) as catalog:
        for number in range(40):
            put(catalog, number)
        shutil.copytree(folder, copy)
    assert (copy / "catalog.sqlite-wal").stat().st_size > 100_000
    return copy


@pytest.mark.parametrize("damage", ["cut off", "zeros", "noise"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.77, 0.9999])
def test_a_torn_end_of_the_log_takes_back_whole_items_only(
    crashed: Path, tmp_path: Path, damage: str, share: float
) -> None:
    """What had not reached the disk when the power went: none of it was acknowledged, as commits wait for the disk."""
    data = shutil.copytree(crashed, tmp_path / "data")
    log = data / "catalog.sqlite-wal"
    content = bytearray(log.read_bytes())
    kept = int(len(content) * share)
    if damage == "cut off":
        del content[kept:]
    else:
        noise = np.random.default_rng(kept).bytes(len(content) - kept)
        content[kept:] = noise if damage == "noise" else bytes(len(content) - kept)
    log.write_bytes(content)
    (data / "catalog.sqlite-shm").unlink(missing_ok=True)
    with closing(open_catalog(data)) as catalog:
        found = catalog.page("", after="", size=99, tags=TagFilter())[0]
        assert [item.item_id for item in found] == [f"{number:03}" for number in range(len(found))], "a prefix"
        assert len(found) in range(int(40 * share * 0.4), 41)
        for number in range(len(found)):
            stored = catalog.get("", f"{number:03}")
            assert stored is not None
            assert len(stored.segments) == 1 + number % 40
            assert all((segment.vector == number).all() for segment in stored.segments)
        assert put(catalog, 41) is Outcome.CREATED
    with closing(open_catalog(data)) as catalog:
        assert catalog.count("") == len(found) + 1


def test_a_catalogue_whose_file_is_cut_off_says_so(crashed: Path, tmp_path: Path) -> None:
    """Not a power cut, as SQLite syncs the file before it reuses the log, but what a broken card does."""
    data = shutil.copytree(crashed, tmp_path / "data")
    open_catalog(data).close()  # all of the log is in the file now
    with (data / "catalog.sqlite").open("r+b") as file:
        file.truncate(file.seek(0, 2) * 2 // 3 // 4096 * 4096)
    with pytest.raises(StoreFailed) as caught:
        open_catalog(data)
    assert caught.value.reason == "STORE_CORRUPT"
    assert str(data) in caught.value.message


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here, so that none can be filled: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leaves not a byte free on the disk of that folder; the file that takes it."""
    hog = folder / "hog"
    with hog.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return hog


def test_a_server_on_a_full_disk(tiny_disk: Path, media: Path, small_encoder: Path, tmp_path: Path) -> None:
    with serving(tiny_disk / "data", small_encoder, tmp_path / "cache") as (process, address):
        with Client(address, retry=Retry(attempts=1)) as client:
            client.ingest("first", media / "a.mp4")
            hog = fill(tiny_disk)
            for number in range(200):  # what the file and the log had still room for
                try:
                    client.ingest(f"more {number}", media / "a.mp4", title="x" * 1000)
                except Error as error:
                    refused = error
                    break
            else:
                pytest.fail("the disk does not become full")
            assert refused.reason == "STORE_FULL"
            assert "remove items" in str(refused)
            there = whole(client)
            assert "first" in there, "reading goes on"
            assert f"more {number}" not in there
            client.remove("first")
            hog.unlink()
            assert client.ingest("after", media / "bikes.mp4").outcome.name == "CREATED"
            there = whole(client)
        process.terminate()
        process.wait(20)
    with closing(open_catalog(tiny_disk / "data")) as catalog:
        assert {item.item_id for item in catalog.page("", after="", size=999, tags=TagFilter())[0]} == there.keys()


def test_an_encoder_that_does_not_fit_into_the_cache_leaves_nothing(tiny_disk: Path) -> None:
    (tiny_disk / "taken").write_bytes(bytes(12 << 20))
    with pytest.raises(EngineFailed) as caught:
        models.default_encoder(tiny_disk / "cache")
    assert caught.value.reason == "CACHE_FAILED"
    assert "No space left on device" in caught.value.message
    assert not list((tiny_disk / "cache").iterdir()), "what was begun is gone"
    assert models.load(models.default_encoder(tiny_disk / "cache", bits="int8")).identity.dimensions == 1280


OFFLINE = """
import sys
from pathlib import Path
from matchcut.client import Client
from test_edge_power import serving

folder, media = Path(sys.argv[1]), Path(sys.argv[2])
with serving(folder / "data", Path(sys.argv[3]), folder / "cache") as (_, address), Client(address) as client:
    client.ingest("bikes", media / "bikes.mp4")
    print(client.recommend(clip=media / "bikes.mp4", limit=1).matches[0].item.id)
"""


def test_it_works_without_a_network(media: Path, small_encoder: Path, tmp_path: Path) -> None:
    """In a namespace that has no network but itself."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "ip", "link"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here (unshare -rn ip link)")
    inside = 'ip link set lo up && exec "$0" -c "$@"'
    command = [unshare, "-rn", "sh", "-c", inside, sys.executable, OFFLINE, *map(str, (tmp_path, media, small_encoder))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=120)
    assert done.stdout == "bikes\n", done.stderr
