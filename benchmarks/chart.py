"""Results as charts: what each operation takes in a large database against a small one; and what threads bring."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

# What differs from another row by no more than its length or its place.
VARIANTS = re.compile(r"(sort|=|by|of|due|overdue|tag|completed|search|trash).*, 1000$|sort=.*middle")
SMALL, LARGE, LIMIT = "#8aa4c8", "#1f4e8c", "#c0392b"


def draw(results: dict[str, Any], path: Path) -> None:
    """Write an SVG to `path`: for each operation two bars, and the ratio beside them."""
    rows = [one for one in results["results"] if one["kept"] and not VARIANTS.search(one["name"])][::-1]
    figure, axes = new((9, 1 + 0.2 * len(rows)))
    for kind, colour, shift in (("small", SMALL, 0.2), ("ordinary", LARGE, -0.2)):
        count = results["tasks"]["small" if kind == "small" else "large"]
        places = [number + shift for number in range(len(rows))]
        axes.barh(places, [one["times"][kind]["request"] for one in rows], 0.4, color=colour, label=f"{count:,} tasks")
    for number, one in enumerate(rows):
        colour = LIMIT if one["broken"] else "black"
        place = max(one["times"][kind]["request"] for kind in ("small", "ordinary"))
        axes.annotate(
            f"× {one['ratios']['request']:.2f}",
            (place, number),
            (3, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    axes.set_yticks(range(len(rows)), [one["name"] for one in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("milliseconds a request, without the network; median, for a user with the same number of tasks")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    save(figure, path)


def draw_threads(measured: dict[str, Any], path: Path) -> None:
    """Write an SVG to `path`: requests a second by the number of threads, and by the number of connections that the
    most threads have; a line for each place of the database.
    """
    results = measured["results"]
    most = max(one["threads"] for one in results)
    figure, both = new((8, 3.6), columns=2)
    shown = [
        ([one for one in results if one["threads"] == one["pool"]], "threads", "threads, a connection for each"),
        ([one for one in results if one["threads"] == most], "pool", f"connections of {most} threads"),
    ]
    for axes, (ones, x, title) in zip(both, shown, strict=True):
        for (place, trip), colour in zip(measured["round_trip"].items(), (LARGE, SMALL, LIMIT), strict=True):
            points = [(one[x], one["per_second"]) for one in ones if one["place"] == place]
            label = f"database {trip} ms away" if x == "threads" else None
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label)
        numbers = sorted({one[x] for one in ones})
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.set_ylim(0)
        axes.set_xlabel(f"{title}, of each process")
        axes.grid(axis="y", color="#dddddd")
    both[0].set_ylabel("requests a second")
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    save(figure, path)


def new(size: tuple[float, float], columns: int = 1) -> Any:
    """A figure and its axes (an array, if there are more columns).

    On white, which is legible whatever the page has behind it.
    """
    # No ids of the run, so that the same results give the same file.
    plt.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 8}
    figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", facecolor="white", sharey=True)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
