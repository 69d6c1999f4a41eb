"""Content vectors from words, where there is no picture: what little a film's title, year and genres say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from matchcut.server.evaluation.movielens import Film
from matchcut.server.records import EncoderIdentity, Floats

__all__ = ["DIMENSIONS", "film_vectors", "words_of"]

DIMENSIONS = 64
COMMON = {"a", "an", "and", "de", "in", "la", "of", "on", "the", "to"}


def words_of(film: Film) -> list[str]:
    """Words of the title, genres, and the year in steps of one, five and twenty years."""
    title = "".join(c if c.isalnum() else " " for c in film.title.lower()).split()
    years = [f"year:{span}:{film.year // span}" for span in (1, 5, 20)] if film.year else []
    return [f"word:{word}" for word in title if word not in COMMON] + [f"genre:{g}" for g in film.genres] + years


def film_vectors(films: Mapping[str, Film], dimensions: int = DIMENSIONS) -> tuple[dict[str, Floats], EncoderIdentity]:
    """A vector of unit length for each film of which a word is known: TF-IDF of the words, reduced by an SVD.

    Words of a single film tell nothing of others and are left out.
    """
    told = {item: words_of(film) for item, film in films.items()}
    rows, _ = latent(list(told.values()), dimensions)
    found = {item: row for item, row in zip(told, rows, strict=True) if np.linalg.norm(row) > 0}
    return found, EncoderIdentity("film-words", "1", "film-words-1", rows.shape[1])


def latent(documents: Sequence[Sequence[str]], dimensions: int) -> tuple[Floats, list[str]]:
    """(n, at most `dimensions`) rows of unit length or zero, and the words that counted."""
    often = Counter(word for document in documents for word in set(document))
    words = sorted(word for word, count in often.items() if count > 1)
    number = {word: at for at, word in enumerate(words)}
    table = np.zeros((len(documents), len(words)))
    for at, document in enumerate(documents):
        for word in document:
            if word in number:
                table[at, number[word]] += np.log(len(documents) / often[word])
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    table = np.divide(table, norms, out=np.zeros_like(table), where=norms > 0)
    left, sizes, right = np.linalg.svd(table, full_matrices=False)
    kept = min(dimensions, len(sizes))
    # An SVD leaves the sign of each direction open: it is the one in which the largest word counts above 0.
    signs = np.sign(right[np.arange(kept), np.abs(right[:kept]).argmax(axis=1)])
    rows = left[:, :kept] * sizes[:kept] * signs
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    whole = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-9)
    return whole.astype(np.float32), words
