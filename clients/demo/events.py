"""Writes what 120 made-up users did with the demo's clips last week, for the README's walk to a personalised list.

Three tastes, each with a habit: who likes traffic watches `bikes` and then `carphone`, who likes films watches
`bigbuckbunny` and then `a` or `b`, who likes pictures of the world watches `world` and then anything. One in ten does
something else. So there is something to learn, and something to get wrong.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections.abc import Iterator
from pathlib import Path

USERS = 120
DAY = 86_400
HABITS = {
    "traffic": ("bikes", "carphone", "bikes", "world"),
    "films": ("bigbuckbunny", "a", "b", "bigbuckbunny"),
    "world": ("world", "carphone", "a", "world"),
}
CLIPS = ("a", "b", "bigbuckbunny", "bikes", "carphone", "world")
COLUMNS = ("user", "item", "kind", "time", "fraction")


def visits(begin: int, seed: int = 7) -> Iterator[tuple[str, str, str, int, str]]:
    """One row an event, in the order of time within a user; begin: in seconds since the Unix epoch."""
    chance = random.Random(seed)
    for number in range(USERS):
        habit = HABITS[tuple(HABITS)[number % 3]]
        now = begin + chance.randrange(3 * DAY)
        for step in range(chance.randint(4, 12)):
            clip = chance.choice(CLIPS) if chance.random() < 0.1 else habit[step % len(habit)]
            now += chance.randint(60, 6 * 3600)
            if chance.random() < 0.2:
                yield f"user{number:03}", f"{clip}.mp4", "like", now, ""
            else:
                yield f"user{number:03}", f"{clip}.mp4", "watch", now, f"{chance.uniform(0.3, 1):.2f}"


def main() -> None:
    """Writes the file that the command line names."""
    parser = argparse.ArgumentParser(
        description="Writes what 120 made-up users did with the demo's clips, for `matchcut events`."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the CSV file to write, e.g. events.csv")
    with parser.parse_args().file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(visits(int(time.time()) // DAY * DAY - 8 * DAY))


if __name__ == "__main__":
    main()
