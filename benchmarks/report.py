"""The tables, in Markdown, and the chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.load import REQUESTS, Run
from benchmarks.round_trips import Observed
from benchmarks.servers import BARE, COMMANDS, FASTAPI, TASKAPI

# Per endpoint and service, a run per round.
Runs = Mapping[tuple[str, str], Sequence[Run]]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return the median and, in brackets, the least and the most."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that reads well as text too."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines
    )


def compare(runs: Runs, observed: Mapping[str, Mapping[str, Observed]]) -> str:
    """Return what was measured, and the ratios; each ratio is that of one round."""
    measured = [
        [
            endpoint,
            name,
            spread([run.rate for run in runs[endpoint, name]]),
            spread([run.cpu for run in runs[endpoint, name]]),
            f"{median(run.p50 for run in runs[endpoint, name]) / 1000:.1f}",
            f"{median(run.p99 for run in runs[endpoint, name]) / 1000:.1f}",
            f"{observed[name][endpoint].round_trips:g}",
        ]
        for endpoint in REQUESTS
        for name in COMMANDS
    ]
    compared = [
        [endpoint, *(_ratios(runs, endpoint, other, value) for other in (FASTAPI, BARE) for value in ("rate", "cpu"))]
        for endpoint in REQUESTS
    ]
    head = ["", "service", "requests/s", "CPU per request, µs", "p50, ms", "p99, ms", "round trips"]
    ratios = [f"{what}, of {name}'s" for name in (FASTAPI, BARE) for what in ("requests/s", "CPU per request")]
    return table(head, measured) + "\n\n" + table([f"{TASKAPI}'s", *ratios], compared)


def _ratios(runs: Runs, endpoint: str, other: str, value: str) -> str:
    pairs = zip(runs[endpoint, TASKAPI], runs[endpoint, other], strict=True)
    return spread([getattr(ours, value) / getattr(theirs, value) for ours, theirs in pairs], ".2f")


def draw(runs: Runs, path: Path) -> None:
    """Write the chart as a PNG: medians as bars, the least and the most as whiskers."""
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    from matplotlib import pyplot

    figure, (rates, cpus) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for axes, title, value in (rates, "Requests per second", "rate"), (cpus, "Server CPU per request, µs", "cpu"):
        for index, name in enumerate(COMMANDS):
            values = [[getattr(run, value) for run in runs[endpoint, name]] for endpoint in REQUESTS]
            middle = [median(each) for each in values]
            whiskers = [
                [each - min(all_) for each, all_ in zip(middle, values)],
                [max(all_) - each for each, all_ in zip(middle, values)],
            ]
            places = [place + (index - 1) * 0.27 for place in range(len(REQUESTS))]
            axes.bar(places, middle, 0.25, yerr=whiskers, capsize=3, label=name)
        axes.set_title(title)
        axes.set_xticks(range(len(REQUESTS)), list(REQUESTS))
        axes.spines[["top", "right"]].set_visible(False)
    rates.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
