"""Full ranking of the next item: of a network under training, and of any session model that a server could run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from matchcut.server.evaluation.metrics import Bools, Doubles, Indices, at_k, ranks
from matchcut.server.evaluation.splits import chronological
from matchcut.server.records import Floats
from matchcut.server.session.contract import SessionModel
from matchcut.server.training.session.batches import Histories
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.network import Network

__all__ = ["Answers", "Held", "Split", "histories", "model_answers", "network_answers", "parted", "values"]

AT_ONCE = 64  # histories
LEAST = 3  # events of a user of whom one is held out for validation and one for the test


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Histories and, of each, the item that came next. targets: (n,) int64. users: (n,) whose they are, of `whole`."""

    histories: Histories
    targets: Indices
    users: Indices

    def seen(self, rows: slice, items: int) -> Bools:
        """(n, items) True for what is in these histories and does not come again."""
        made = np.zeros((len(self.targets[rows]), items), bool)
        for at, (found, _) in enumerate(self.histories[rows]):
            made[at, found] = True
        made[np.arange(len(made)), self.targets[rows]] = False
        return made

    def some(self, most: int, seed: int) -> Held:
        """At most so many of them, drawn by the seed."""
        if len(self.targets) <= most:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.targets), most, replace=False))
        return Held([self.histories[at] for at in rows], self.targets[rows], self.users[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model says after n histories. queries: (n, d). vectors: (items, d). known: (items,) False for items of
    which nothing is known, neither content nor id: no list has them, as a score of 0 would be a guess."""

    queries: Floats
    vectors: Floats
    known: Bools

    def scores(self, rows: slice = slice(None)) -> Floats:
        """(n, items) of some of the histories."""
        found: Floats = self.queries[rows] @ self.vectors.T
        found[:, ~self.known] = -np.inf
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Leave-one-out by time: each user's last item is for the test, the one before for validation.

    Users with fewer than three events are learnt from and not tested. Ties go by the order of recording.
    """

    train: Histories
    validation: Held
    test: Held


def histories(data: Dataset) -> Histories:
    """Items and strengths of each user who has any event, oldest first."""
    events, rows = data.events, chronological(data.events)
    if not len(rows):
        return []
    begins = np.flatnonzero(np.diff(events.users[rows], prepend=-1))
    parts = np.split(rows, begins[1:])
    return [(events.items[part], events.weights[part].astype(np.float32)) for part in parts]


def parted(whole: Histories) -> Split:
    """See Split."""

    def held(back: int) -> Held:
        users = np.array([user for user, (items, _) in enumerate(whole) if len(items) >= LEAST], np.int64)
        tested = [whole[user] for user in users]
        targets = np.array([items[-back] for items, _ in tested], np.int64)
        return Held([(items[:-back], strengths[:-back]) for items, strengths in tested], targets, users)

    train = [(i[:-2], s[:-2]) if len(i) >= LEAST else (i, s) for i, s in whole]
    return Split(train, held(2), held(1))


def network_answers(network: Network, before: Histories, *, most: int = 0) -> Answers:
    """What the network says after each history.

    Args:
        most: events that are looked back on; 0: all of a GRU's, the window of SASRec's.
    """
    if network.settings.kind == "sasrec":
        most = min(most or network.settings.window, network.settings.window)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            vectors = network.items()
            queries = grouped(before, most, lambda part: wanted(network, vectors, part), network.settings.dimensions)
            return Answers(queries, vectors.numpy(), (vectors != 0).any(dim=1).numpy())
    finally:
        network.train(training)


def wanted(network: Network, vectors: torch.Tensor, part: Histories) -> Floats:
    """The queries after a few histories."""
    lengths = np.array([len(items) for items, _ in part])
    which, strengths = np.zeros((len(part), lengths.max()), np.int64), np.ones((len(part), lengths.max()), np.float32)
    for at, (items, own) in enumerate(part):
        which[at, : len(items)], strengths[at, : len(items)] = items, own
    given = vectors[torch.from_numpy(which)]
    all_of = network.wanted(given, torch.from_numpy(strengths), bool((strengths == 1).all()))
    found: Floats = all_of[torch.arange(len(part)), torch.from_numpy(lengths - 1)].numpy()
    return found


def grouped(before: Histories, most: int, run: Callable[[Histories], Floats], size: int) -> Floats:
    """Rows for each history, made for some of like length at a time; an empty history has zeros."""
    made = np.zeros((len(before), size), np.float32)
    order = [at for at in np.argsort([len(items) for items, _ in before], kind="stable") if len(before[at][0])]
    for begin in range(0, len(order), AT_ONCE):
        rows = order[begin : begin + AT_ONCE]
        made[rows] = run([(before[at][0][-most:], before[at][1][-most:]) for at in rows])
    return made


def model_answers(model: SessionModel, data: Dataset, before: Histories) -> Answers:
    """What a session model says after each history, all of it folded event by event as a server does."""
    vectors = model.items(data.events.item_ids, data.content)

    def run(part: Histories) -> Floats:
        # Longest first, so that those who still have events are always the first rows.
        order = np.argsort([-len(items) for items, _ in part], kind="stable")
        lengths = np.array([len(part[at][0]) for at in order])
        states = model.begin(len(part))
        for step in range(lengths.max()):
            active = int((lengths > step).sum())
            items = vectors[[part[at][0][step] for at in order[:active]]]
            strengths = np.array([part[at][1][step] for at in order[:active]], np.float32)
            states[:active] = model.step(items, states[:active], strengths)
        found = np.empty((len(part), vectors.shape[1]), np.float32)
        found[order] = model.queries(states)
        return found

    return Answers(grouped(before, 0, run, vectors.shape[1]), vectors, (vectors != 0).any(axis=1))


def values(answers: Answers, held: Held, *, k: int = 10, seen: bool = True) -> dict[str, Doubles]:
    """What each history adds to Recall, MRR and NDCG at k; all items are candidates, ties have the mean rank.

    Args:
        seen: items of the history are candidates, too; else only if they come again.
    """
    places = np.empty(len(held.targets))
    for begin in range(0, len(places), AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        scores, targets = answers.scores(rows), held.targets[rows]
        exclude = None if seen else held.seen(rows, scores.shape[1])
        places[rows] = ranks(scores, targets, exclude=exclude)
    return at_k(places, k)
