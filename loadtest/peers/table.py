"""From single runs to one table: medians, and how Fanfare stands beside each other server."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from harness import Case, Figure, Outcome

OURS = "fanfare"
NOTES = {
    "*": "the client was the bottleneck in some run: the server can do more",
    "!": "faults in some run (see above): the figure is not to be trusted",
    "-": "the server cannot do this, or has shown no figure",
}


@dataclass(frozen=True)
class Run:
    """One run of a case against a server."""

    round: int
    case: Case
    server: str
    outcome: Outcome


def rows(cases: Iterable[Case], servers: list[str], runs: list[Run]) -> list[list[str]]:
    """The table with its head: a row for each figure of each case, a column for each server."""
    table = [["case", "median of", *servers]]
    for case in cases:
        for figure in case.figures:
            of_server = {name: [run for run in runs if (run.case, run.server) == (case, name)] for name in servers}
            cells = [cell(figure, of_server[name], of_server.get(OURS, [])) for name in servers]
            table.append([case.title, figure.title, *cells])
    return table


def cell(figure: Figure, runs: list[Run], ours: list[Run]) -> str:
    """The median, its marks, and in brackets how many times better Fanfare is."""
    outcomes = [run.outcome for run in runs]
    marks = "*" if any(outcome.client_bound for outcome in outcomes) else ""
    marks += "!" if any(outcome.trouble for outcome in outcomes) else ""
    values = of_rounds(figure, runs)
    if not values:
        return "-" + marks
    text = number(median(values.values())) + marks
    if runs is ours:
        return text
    ratios = [better(figure, mine, values[round_]) for round_, mine in of_rounds(figure, ours).items() if values.get(round_)]
    return f"{text} ({median(ratios):.2f})" if ratios else text


def of_rounds(figure: Figure, runs: list[Run]) -> dict[int, float]:
    """The figure in each round that has it."""
    return {run.round: run.outcome.figures[figure.name] for run in runs if figure.name in run.outcome.figures}


def better(figure: Figure, ours: float, theirs: float) -> float:
    """Compared within one round: a machine that is shared may be another one in the next."""
    return ours / theirs if figure.more_is_better else theirs / max(ours, 1e-9)


def number(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.3g}{unit}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def text(table: list[list[str]]) -> str:
    """The table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = []
    for row in table:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2])]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:])]
        lines.append("  ".join(left + right).rstrip())
    return "\n".join(lines)


def markdown(table: list[list[str]]) -> str:
    head, *body = table
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def notes(table: list[list[str]]) -> str:
    """What the brackets and marks in this table mean."""
    cells = [cell for row in table[1:] for cell in row[2:]]
    used = [f"{mark} {note}" for mark, note in NOTES.items() if any(mark in cell.split(" ")[0] for cell in cells)]
    return "\n".join(["(n): how many times better Fanfare is, the median of the rounds; above 1 it is better, below 1 the other", *used])
