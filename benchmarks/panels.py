"""A dashboard drawn from what its queries returned: one page of HTML without a script.

It stands in for Grafana where there is none: the same titles, places, units and legends.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from benchmarks.prometheus import Board, Prometheus

__all__ = ["WIDTH", "height", "page"]

WIDTH = 1440
_ROW = 34  # pixels of one row of Grafana's grid, which is 24 columns wide
_COLOURS = ("#3274d9", "#e0752d", "#37872d", "#c4162a", "#8f3bb8", "#1f9e9e", "#b8860b", "#707070")
_STYLE = """
body { margin: 0; background: #f4f5f5; font: 12px sans-serif; color: #24292e; position: relative }
h1 { font-size: 18px; margin: 0; padding: 14px 12px; height: 22px }
section { position: absolute; background: white; border: 1px solid #d8d9da; border-radius: 3px;
          box-sizing: border-box; padding: 8px 10px; overflow: hidden }
h2 { font-size: 13px; margin: 0 0 4px } .stat { font-size: 22px; margin-right: 18px;
     display: inline-block; color: #37872d } .stat small { display: block; font-size: 11px;
     color: #555 } .legend { line-height: 1.35; max-height: 56px; overflow: hidden }
.legend span { margin-right: 10px; white-space: nowrap } svg text { font-size: 10px; fill: #666 }
"""


def height(board: Board) -> int:
    """The height of the page, in pixels."""
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board.panels)
    return 60 + _ROW * int(rows)


def page(board: Board, prometheus: Prometheus) -> str:
    """The page of `board`, with all that its queries return."""
    drawn = "".join(_panel(panel, prometheus) for panel in board.panels)
    title = html.escape(board.title)
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style><h1>{title}</h1>{drawn}"


def _panel(panel: Mapping[str, Any], prometheus: Prometheus) -> str:
    grid, unit = panel["gridPos"], panel["fieldConfig"]["defaults"].get("unit", "short")
    left, top = grid["x"] * WIDTH // 24 + 4, 50 + grid["y"] * _ROW
    wide, high = grid["w"] * WIDTH // 24 - 8, grid["h"] * _ROW - 8
    place = f"left:{left}px;top:{top}px;width:{wide}px;height:{high}px"
    draw = _stats if panel["type"] == "stat" else _lines
    inside = draw(panel["targets"], prometheus, unit, wide - 22, high - 96)
    return f'<section style="{place}"><h2>{html.escape(panel["title"])}</h2>{inside}</section>'


def _stats(targets: Any, prometheus: Prometheus, unit: str, *_: int) -> str:
    return "".join(
        f'<div class="stat">{_number(float(one["value"][1]), unit)}'
        f"<small>{_legend(target, one['metric'])}</small></div>"
        for target in targets
        for one in prometheus.values(target["expr"])
    )


def _lines(targets: Any, prometheus: Prometheus, unit: str, wide: int, high: int) -> str:
    series = [
        (_legend(target, one["metric"]), [(float(t), float(v)) for t, v in one["values"]])
        for target in targets
        for one in prometheus.history(target["expr"])
    ]
    series = [(name, [p for p in points if p[1] == p[1]]) for name, points in series]
    # What moves comes first: of many lines at 0 the legend shows as many as there is room for.
    series.sort(key=lambda one: -max((v for _, v in one[1]), default=0.0))
    points = [point for _, values in series for point in values]
    if not points:
        return "No data"
    begin, end = min(t for t, _ in points), max(t for t, _ in points)
    low, top = min(0.0, *(v for _, v in points)), max(v for _, v in points) or 1.0
    drawn = [
        f'<text x="0" y="10">{_number(top, unit)}</text><text x="0" y="{high}">'
        f'{_number(low, unit)}</text><path d="M52 4V{high}H{wide}" stroke="#ccc" fill="none"/>'
    ]
    legend = []
    for number, (name, values) in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(
            f"{52 + (wide - 56) * (t - begin) / max(end - begin, 1.0):.1f},"
            f"{high - (high - 6) * (v - low) / max(top - low, 1e-12):.1f}"
            for t, v in values
        )
        drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        legend.append(f'<span style="color:{colour}">▬ {name}</span>')
    picture = f'<svg width="{wide}" height="{high + 2}">{"".join(drawn)}</svg>'
    return f'{picture}<div class="legend">{" ".join(legend)}</div>'


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Grafana's legend: names of labels in double braces."""
    form = target.get("legendFormat") or target["expr"]
    return html.escape(re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: labels.get(m[1], ""), form))


def _number(value: float, unit: str) -> str:
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1e3:,.3g} ms"
    text = f"{value * 100:,.3g} %" if unit == "percentunit" else f"{value:,.4g}"
    return text + {"s": " s", "ops": "/s"}.get(unit, "")
