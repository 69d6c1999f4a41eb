"""The matrix of clients/README.md tells the truth: "yes" where a client has what it takes, "no" where it has not."""

from __future__ import annotations

import re

import pytest

from support.processes import ROOT

LANGUAGES = ("Python", "Go", "C++", "Node", "Java")
SOURCES = {
    "Python": ("clients/python", "*.py"),
    "Go": ("clients/go", "*.go"),
    "C++": ("clients/cpp/include/matchcut", "*.h"),
    "Node": ("clients/node/src", "*.ts"),
    "Java": ("clients/java/src/main/java/matchcut/client", "*.java"),
}

# What shows that a client has it: a pattern in its public sources. All of a row's must be there.
PROOF: dict[str, dict[str, tuple[str, ...]]] = {
    "ingest a file, bytes, a stream, with progress": {
        "Python": (r"def ingest\(", r"progress: Progress"),
        "Go": (r"\) Ingest\(", r"func File\(", r"func Bytes\(", r"func Reader\(", r"Progress"),
        "C++": (r" ingest\(", r"std::filesystem::path", r"static Media bytes\(", r"static Media stream\(", r"progress"),
        "Node": (r"async ingest\(", r"onProgress\?: Progress"),
        "Java": (
            r" ingest\(String",
            r"static Media of\(Path|static Media file\(",
            r"static Media .*InputStream",
            r"Progress",
        ),
    },
    "ingest frames and pictures": {
        "Python": (r"def ingest_frames\(", r"def ingest_pictures\("),
        "Go": (r"func Frames\(", r"func Pictures\("),
        "C++": (r"static Media frames\(", r"static Media pictures\("),
        "Node": (r"ingestFrames\(", r"ingestPictures\("),
        "Java": (r"static Media frames\(", r"static Media pictures\("),
    },
    "ingest vectors": {
        "Python": (r"def ingest_vectors\(",),
        "Go": (r"\) IngestVectors\(",),
        "C++": (r" ingest_vectors\(",),
        "Node": (r"ingestVectors\(",),
        "Java": (r" ingestVectors\(",),
    },
    "get, list all pages, remove": {
        "Python": (r"def get\(", r"def items\(", r"def remove\("),
        "Go": (r"\) Get\(", r"\) List\(", r"\) Remove\("),
        "C++": (r" get\(", r" items\(", r" remove\("),
        "Node": (r" get\(", r"async \*items\(", r"async remove\("),
        "Java": (r" get\(String", r"Stream<Item> items\(", r" remove\("),
    },
    "query by items, vector, clip": {
        "Python": (r"def recommend\(", r"vector: Iterable", r"clip: ContainerSource"),
        "Go": (r"func LikeItems\(", r"func LikeVector\(", r"\) RecommendClip\("),
        "C++": (r"static Query items\(", r"static Query vector\(", r"static Query clip\("),
        "Node": (r"async recommend\(", r"vector\?: ArrayLike", r"clip\?: ContainerSource"),
        "Java": (r" recommend\(Query", r" recommend\(Media"),
    },
    "live: container, frames, pictures": {
        "Python": (r"def live\(", r"def live_frames\(", r"def live_pictures\("),
        "Go": (r"\) Live\(", r"func Frames\(", r"func Pictures\("),
        "C++": (r" live\(Media",),
        "Node": (r"async \*live\(", r"liveFrames\(", r"livePictures\("),
        "Java": (r" live\(Media",),
    },
    "record events in batches, count, forget": {
        "Python": (r"def record\(", r"BATCH = 500", r"def count_events\(", r"def forget\("),
        "Go": (r"\) Record\(", r"= 500\b", r"\) CountEvents\(", r"\) Forget\("),
        "C++": (r" record\(", r" count_events\(", r" forget\("),
        "Node": (r"async record\(", r"countEvents\(", r"forget\("),
        "Java": (r" record\(Iterable", r" countEvents\(", r" forget\("),
    },
    "lists for a user, or for a history": {
        "Python": (r"def recommend_for\(", r"history: Events"),
        "Go": (r"\) RecommendFor\(",),
        "C++": (r" recommend_for\(", r"history"),
        "Node": (r"async recommendFor\(", r"history\?: EventInput"),
        "Java": (r" recommendFor\(RecommendForUserRequest",),
    },
    "live lists for a user": {
        "Python": (r"def recommend_live_for\(",),
        "Go": (r"\) LiveFor\(",),
        "C++": (r" recommend_live_for\(",),
        "Node": (r"async recommendLiveFor\(",),
        "Java": (r" recommendLiveFor\(",),
    },
    "switch the encoder, health": {
        "Python": (r"def switch_encoder\(", r"def health\("),
        "Go": (r"\) SwitchEncoder\(", r"\) Health\("),
        "C++": (r" switch_encoder\(", r" health\("),
        "Node": (r"switchEncoder\(", r"async health\("),
        "Java": (r" switchEncoder\(", r" health\("),
    },
    "TLS, client certificate, token": {
        "Python": (r"tls: bool", r"certificate: tuple", r"token: str"),
        "Go": (r"TLS", r"Certificate", r"Token"),
        "C++": (r"tls", r"certificate", r"token"),
        "Node": (r"tls\?: boolean", r"certificate\?:", r"token\?: string"),
        "Java": (r" tls\(", r" certificate\(", r" token\("),
    },
    "retries as the server asks, one deadline for all": {
        "Python": (r"class Retry", r"retry_after", r"timeout: float"),
        "Go": (r"type Retry ", r"RetryAfter", r"Timeout"),
        "C++": (r"struct Retry", r"retry_after", r"timeout"),
        "Node": (r"Retry\b", r"retryAfter", r"timeoutMs"),
        "Java": (r"(class|record) Retry", r"retryAfter", r"timeout\("),
    },
    "cancellation": {
        "Python": (r"call\.cancel\(\)",),
        "Go": (r"ctx context\.Context",),
        "C++": (r"std::stop_token",),
        "Node": (r"signal\?: AbortSignal",),
        "Java": (r"cancel\(|InterruptedException",),
    },
    "hedged reads": {
        "Python": (r"hedge: float",),
        **dict.fromkeys(("Go", "C++", "Node", "Java"), (r"(?i)\bhedge",)),
    },
    "calls that do not block a thread": {
        "Python": (r"class AsyncClient",),
        "Go": (r"ctx context\.Context",),  # goroutines are no threads
        "C++": (r"std::future|co_await",),
        "Node": (r"async recommend\(",),
        "Java": (r"CompletableFuture|ListenableFuture",),
    },
    "frames straight from arrays, sizes told from them": {
        "Python": (r"class FramePacker",),
        **dict.fromkeys(("Go", "C++", "Node", "Java"), (r"FramePacker",)),
    },
    "the open inference protocol": dict.fromkeys(LANGUAGES, (r"GRPCInferenceService|ModelInfer",)),
}


def matrix() -> dict[str, dict[str, str]]:
    """Row and language to "yes" or "no"."""
    text = (ROOT / "clients" / "README.md").read_text(encoding="utf-8")
    section = text.split("## What each can do", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    head, _, *body = rows
    assert tuple(head[1:]) == LANGUAGES
    return {row[0]: dict(zip(LANGUAGES, row[1:], strict=True)) for row in body}


def sources(language: str) -> str:
    """All of a client's own sources in one text, tests and examples left out."""
    folder, pattern = SOURCES[language]
    paths = [path for path in sorted((ROOT / folder).glob(pattern)) if "_test" not in path.name]
    assert paths
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def test_every_row_has_a_proof() -> None:
    assert matrix().keys() == PROOF.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_promised_is_there(language: str) -> None:
    text = sources(language)
    has = {row: "yes" if all(re.search(one, text) for one in by[language]) else "no" for row, by in PROOF.items()}
    assert has == {row: cells[language] for row, cells in matrix().items()}
