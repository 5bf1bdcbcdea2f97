"""The plots of two versions side by side, and the page that holds them with their table."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from matplotlib.figure import Figure

from malearn.learning import version_comparison
from malearn.learning.titled_figure import INK, titled
from malearn.learning.version_comparison import PairedErrors, VersionComparison

__all__ = ["of_versions", "page"]

_FIRST, _SECOND, _SOFT = "#d55e00", "#0072b2", "#8a8a8a"
_MOST = 15  # functions
_LEAST = 1e-3  # seconds: errors below are drawn here

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; background: #fff; margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } .quiet { color: #666d76; }
table { border-collapse: collapse; width: 100%; } th { font-weight: 500; color: #666d76; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid #e4e5e1;
  font-variant-numeric: tabular-nums; } th:first-child, td:first-child { text-align: left; }
.better { font-weight: 600; } img { max-width: 100%; margin-top: 1rem; }
"""


def of_versions(comparison: VersionComparison) -> dict[str, Figure]:
    """Every figure of a comparison, by the name that it has in MLflow."""
    return {"difference": _difference(comparison), "errors": _errors(comparison)}


def page(comparison: VersionComparison, figures: Mapping[str, Figure], time: datetime) -> str:
    """One HTML page that loads nothing: result, tables and figures."""
    first, second = comparison.versions
    head = (
        "<tr><th>{}</th><th>rows</th>"
        f"<th>MAE v{first}, s</th><th>MAE v{second}, s</th><th>difference, s</th><th>95 %</th>"
        f"<th>median error v{first}</th><th>v{second}</th><th>p</th></tr>"
    )
    parts = [
        f"<h1>{_text(comparison.tool_type)}: version {first} against version {second}</h1>",
        f"<p class=better>{_text(_sentence(comparison.verdict))}</p>",
        f"<p class=quiet>{_text(_notes(comparison, time))}</p>",
    ]
    sections: Sequence[tuple[str, Sequence[PairedErrors]]] = (
        ("All rows", [comparison.overall]),
        ("By function", [g for g in comparison.groups if g.kind == "function"]),
        ("By what predictions stood on", [g for g in comparison.groups if g.kind == "state"]),
    )
    for title, groups in sections:
        rows = "".join(_row(group) for group in groups)
        parts.append(f"<h2>{title}</h2><table>{head.format(title.lower())}{rows}</table>")
    parts += [f"<img alt={name} src='{_image(figure)}'>" for name, figure in figures.items()]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>Comparison</title>"
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _difference(comparison: VersionComparison) -> Figure:
    """The second's error less the first's per group, as a share of the first's, with intervals."""
    first, second = comparison.versions
    groups = [
        comparison.overall,
        *[g for g in comparison.groups if g.kind == "state"],
        *[g for g in comparison.groups if g.kind == "function"][:_MOST],
        # Matplotlib draws from the bottom up: what is named first is to stand on top.
    ][::-1]
    figure, axes = titled(
        f"{comparison.tool_type}: how much lower the error of v{second} is than v{first}'s",
        (9.0, 1.6 + 0.38 * len(groups)),
    )
    axes.axvline(0.0, color=_SOFT, lw=1)
    for at, group in enumerate(groups):
        # Relative to the first version's error, since durations of groups differ widely.
        ends = np.array([group.difference, group.low, group.high]) / max(group.mae[0], _LEAST)
        colour = {None: _SOFT, 0: _FIRST, 1: _SECOND}[group.better]
        axes.plot(ends[1:], [at, at], color=colour, lw=2)
        axes.plot(ends[0], at, "o", color=colour, ms=7)
    axes.set_yticks(range(len(groups)), [f"{g.name}, n={g.n}" for g in groups])
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:+.0%}")
    axes.set_xlabel(f"difference in mean absolute error, 95 % interval (left: v{second} is better)")
    return figure


def _errors(comparison: VersionComparison) -> Figure:
    """The absolute errors of both on each row, on logarithmic axes."""
    first, second = comparison.versions
    figure, axes = titled(f"{comparison.tool_type}: errors on the same tasks", (6.4, 5.8))
    x, y = (
        np.maximum(np.abs(predicted - comparison.actual), _LEAST)
        for predicted in comparison.predicted
    )
    ends = [float(min(x.min(), y.min())) / 1.3, float(max(x.max(), y.max())) * 1.3]
    axes.plot(ends, ends, color=_SOFT, lw=1)
    axes.scatter(x, y, s=20, alpha=0.5, color=_SECOND, linewidths=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set_xlabel(f"absolute error of v{first}, s")
    axes.set_ylabel(f"absolute error of v{second}, s")
    better = float((y < x).mean())
    axes.annotate(
        f"v{second} is closer on {better:.0%}", (0.97, 0.04), xycoords="axes fraction",
        ha="right", color=INK,
    )  # fmt: skip
    return figure


def _row(group: PairedErrors) -> str:
    marks = ["", ""]
    if group.better is not None:
        marks[group.better] = " class=better"
    p_value = "–" if group.p_value is None else f"{group.p_value:.2g}"
    return (
        f"<tr><td>{_text(group.name.replace('_', ' ') if group.kind == 'state' else group.name)}"
        f"</td><td>{group.n:,}</td><td{marks[0]}>{group.mae[0]:.3g}</td>"
        f"<td{marks[1]}>{group.mae[1]:.3g}</td><td>{group.difference:+.3g}</td>"
        f"<td>{group.low:+.3g} to {group.high:+.3g}</td><td>{group.median_ape[0]:.0%}</td>"
        f"<td>{group.median_ape[1]:.0%}</td><td>{p_value}</td></tr>"
    )


def _notes(comparison: VersionComparison, time: datetime) -> str:
    return f"{comparison.note} {version_comparison.TEST}. {time:%Y-%m-%d %H:%M} UTC."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _image(figure: Figure) -> str:
    # In the page itself: MLflow shows artifacts without the files beside them.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
