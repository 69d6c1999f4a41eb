"""What a classifier is worth on pictures that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.records import Floats

__all__ = ["confusion", "draw_confusion", "figures", "interval"]

MISSES = 100  # that are listed at most
LABELLED = 40  # classes whose names and counts can be read in the picture


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(classes, classes): how many of each class (row) were taken for each class (column)."""
    found = np.zeros((classes, classes), np.int64)
    np.add.at(found, (labels, predicted), 1)
    return found


def interval(right: int, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share, by E. B. Wilson (Journal of the American Statistical Association 22, 1927)."""
    if not count:
        return 0.0, 1.0
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def figures(
    probabilities: Floats, labels: NDArray[np.int64], classes: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """Accuracy with its interval, precision, recall and F1 of each class, the confusion matrix, and what was missed.

    Args:
        probabilities: (n, classes). names: where each picture is from.
    """
    predicted = probabilities.argmax(axis=1)
    matrix = confusion(labels, predicted, len(classes))
    right = int(np.trace(matrix))
    each = {}
    for label, name in enumerate(classes):
        hits, there, said = int(matrix[label, label]), int(matrix[label].sum()), int(matrix[:, label].sum())
        precision, recall = hits / said if said else 0.0, hits / there if there else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        each[name] = {"pictures": there, "precision": precision, "recall": recall, "f1": f1}
    missed = [int(row) for row in np.flatnonzero(predicted != labels)]
    missed.sort(key=lambda row: -float(probabilities[row, predicted[row]]))
    return {
        "pictures": len(labels),
        "accuracy": right / len(labels),
        "interval": list(interval(right, len(labels))),
        "classes": each,
        "confusion": matrix.tolist(),
        "missed": [
            {
                "picture": names[row],
                "class": classes[labels[row]],
                "taken_for": classes[predicted[row]],
                "probability": round(float(probabilities[row, predicted[row]]), 4),
            }
            for row in missed[:MISSES]
        ],
    }


def draw_confusion(path: Path, matrix: NDArray[np.int64], classes: Sequence[str], *, title: str) -> None:
    """Writes the matrix as a PNG; shades are shares of each row.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(classes)
    side = min(14.0, max(4.0, 1.8 + 0.42 * count))
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axis.set(xlabel="taken for", ylabel="class")
    axis.set_title(shown(title, 60), fontsize="medium")
    if count <= LABELLED:
        ticks = [shown(name, 20) for name in classes]
        turned = 90 if max(map(len, ticks)) > 2 else 0
        axis.set_xticks(range(count), ticks, rotation=turned, fontsize="small")
        axis.set_yticks(range(count), ticks, fontsize="small")
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def shown(text: str, most: int) -> str:
    """Text that matplotlib draws as it is; "$" would begin a formula."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("$", r"\$")
