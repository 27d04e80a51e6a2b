"""Panels, and how they are laid out on a dashboard."""

from dataclasses import dataclass, field
from typing import Any

from board.promql import increase, quantile

Json = dict[str, Any]

SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24

# Of what the alerts say: orange is where they begin to look, red where they fire.
NEAR_LIMIT = ((0.7, "orange"), (0.85, "red"))
BUSY = ((0.7, "orange"), (0.9, "red"))
LATE = ((0.1, "orange"), (0.25, "red"))
ANY = ((1e-9, "red"),)
SOME = ((1e-9, "orange"),)


@dataclass(frozen=True)
class Query:
    """A PromQL query and what its series are called."""

    expr: str
    legend: str = ""
    # The interval at which the metric is scraped, where that is not the data source's.
    interval: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel without its place."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()
    # As `format` and `instant` of each target.
    form: str = "time_series"
    instant: bool = False

    def to_json(self, number: int, x: int, y: int) -> Json:
        """The panel as Grafana reads it."""
        panel: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {
                "defaults": {"unit": self.unit, **self.defaults},
                "overrides": list(self.overrides),
            },
            "options": self.options,
            "targets": [self._target(index, query) for index, query in enumerate(self.queries)],
        }
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        return panel

    def _target(self, index: int, query: Query) -> Json:
        target: Json = {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "format": self.form,
            "instant": self.instant,
            "range": not self.instant,
        }
        if query.interval:
            target["interval"] = query.interval
        return target


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, from left to right; they break into lines by themselves."""

    title: str
    panels: tuple[Panel, ...]


Steps = tuple[tuple[float, str], ...]


def thresholds(steps: Steps) -> Json:
    """Green below the first step; without steps no colour at all."""
    base = "green" if steps else "text"
    rest = [{"color": color, "value": value} for value, color in steps]
    return {"mode": "absolute", "steps": [{"color": base, "value": None}, *rest]}


def stat(title: str, description: str, unit: str, expr: str, steps: Steps = (), width: int = 4) -> Panel:
    """One number."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(expr),),
        width=width,
        height=4,
        defaults={"thresholds": thresholds(steps)},
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
        },
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = (),
    stack: bool = False,
    highest: float | None = None,
    width: int = 8,
) -> Panel:
    """Lines over time; `steps` are drawn where there is a limit."""
    defaults: Json = {
        "min": 0,
        "custom": {
            "lineWidth": 1,
            "fillOpacity": 25 if stack else 10,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if steps else "off"},
        },
        "thresholds": thresholds(steps),
    }
    if highest is not None:
        defaults["max"] = highest
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=8,
        defaults=defaults,
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def quantiles(
    title: str,
    description: str,
    unit: str,
    name: str,
    match: str = "",
    steps: Steps = (),
    width: int = 8,
) -> Panel:
    """Median, p90 and p99 of a histogram."""
    lines = (Query(quantile(q, name, match=match), f"p{round(q * 100)}") for q in (0.5, 0.9, 0.99))
    return graph(title, description, unit, *lines, steps=steps, width=width)


def heatmap(title: str, description: str, unit: str, name: str, match: str = "", width: int = 12) -> Panel:
    """How often each bucket of a histogram was hit, over time."""
    return Panel(
        kind="heatmap",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(increase(f"{name}_bucket", "le", match), "{{le}}"),),
        width=width,
        height=9,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"unit": unit, "axisPlacement": "left"},
        },
        form="heatmap",
    )


def bars(title: str, description: str, unit: str, *queries: Query, steps: Steps = (), width: int = 8) -> Panel:
    """The present values beside each other."""
    defaults: Json = {"min": 0, "thresholds": thresholds(steps)}
    if unit == "percentunit":
        defaults["max"] = 1
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=8,
        defaults=defaults,
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "valueMode": "color",
        },
        instant=True,
    )


@dataclass(frozen=True)
class Column:
    """A column of a table: the query, its heading, its unit."""

    query: Query
    title: str
    unit: str


def table(title: str, description: str, keys: dict[str, str], *columns: Column, width: int = WIDTH) -> Panel:
    """The present values of several queries, joined by their labels; `keys` are those labels and their headings."""
    letters = [chr(ord("A") + index) for index in range(len(columns))]
    headings = {f"Value #{letter}": column.title for letter, column in zip(letters, columns, strict=True)}
    if len(columns) == 1:
        headings = {"Value": columns[0].title}
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit="short",
        queries=tuple(column.query for column in columns),
        width=width,
        height=9,
        overrides=tuple(
            {
                "matcher": {"id": "byName", "options": column.title},
                "properties": [{"id": "unit", "value": column.unit}],
            }
            for column in columns
        ),
        options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": columns[0].title, "desc": True}]},
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": {**keys, **headings}},
            },
        ),
        form="table",
        instant=True,
    )


def dashboard(name: str, title: str, description: str, *rows: Row) -> Json:
    """A whole dashboard; `name` is its file's, and part of its address."""
    return {
        "uid": f"fanfare-{name}",
        "title": f"Fanfare / {title}",
        "description": description,
        "tags": ["fanfare", "websocket"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Fanfare",
                "tags": ["fanfare"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "templating": {"list": _variables()},
        "panels": _lay_out(rows),
    }


def _variables() -> list[Json]:
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
    }
    job = _variable("job", "label_values(fanfare_build_info, job)")
    instance = _variable("instance", 'label_values(fanfare_build_info{job=~"$job"}, instance)')
    return [source, job, instance]


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _lay_out(rows: tuple[Row, ...]) -> list[Json]:
    laid: list[Json] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        heading = {"id": len(laid) + 1, "type": "row", "title": row.title, "collapsed": False}
        laid.append({**heading, "gridPos": place, "panels": []})
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            laid.append(panel.to_json(len(laid) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return laid
