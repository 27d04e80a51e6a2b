"""Queries: every selector is narrowed to the chosen job and instance, every range is that of the graph."""

CHOSEN = 'job=~"$job", instance=~"$instance"'


def select(name: str, match: str = "") -> str:
    """A metric of the chosen gateways; `match` adds to the selector."""
    return f"{name}{{{CHOSEN}{', ' if match else ''}{match}}}"


def over(aggregation: str, by: str, expr: str) -> str:
    """`sum (...)` or, with labels, `sum by (...) (...)`."""
    return f"{aggregation} by ({by}) ({expr})" if by else f"{aggregation} ({expr})"


def gauge(name: str, by: str = "", match: str = "", aggregation: str = "sum") -> str:
    """A gauge of the chosen gateways together, or by labels."""
    return over(aggregation, by, select(name, match))


def rate(name: str, by: str = "", match: str = "", aggregation: str = "sum") -> str:
    """What a counter grows by in a second."""
    return over(aggregation, by, f"rate({select(name, match)}[$__rate_interval])")


def increase(name: str, by: str = "", match: str = "") -> str:
    """What a counter grew by in a step of the graph."""
    return over("sum", by, f"increase({select(name, match)}[$__rate_interval])")


def quantile(q: float, name: str, by: str = "", match: str = "") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, {rate(f'{name}_bucket', f'{by}, le' if by else 'le', match)})"


def mean(name: str, by: str = "", match: str = "") -> str:
    """The mean of what a histogram collected."""
    return f"{rate(f'{name}_sum', by, match)} / {rate(f'{name}_count', by, match)}"


def share(part: str, whole: str, by: str = "") -> str:
    """One query as a share of another; the labels are those that both have."""
    return f"{part} / on ({by}) {whole}" if by else f"{part} / {whole}"
