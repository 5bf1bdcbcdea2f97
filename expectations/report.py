"""The validation report for people: one self-contained HTML page, or Markdown.

The page loads nothing: its style is inline, and its content policy forbids everything else.
Every value in it came from outside and is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape

from malearn.expectations.findings import Findings
from malearn.expectations.reasons import meaning
from malearn.expectations.tally import Result, Tally
from malearn.kernel import text

__all__ = ["html_report", "markdown_report"]

#: The sections of what was kept out: whether its reasons are normal, title and explanation.
_KEPT_OUT = (
    (False, "Rejected records to look at", "Kept with their reason, and not trained on."),
    (True, "Rejected records that are normal", "Every healthy log holds some; nothing is wrong."),
)

_STYLE = """
:root { color-scheme: light dark; --ground: #fbfbf9; --card: #fff; --ink: #22262b;
  --quiet: #666d76; --line: #e4e5e1; --good: #2e7d5b; --bad: #b3482f; --rail: #ecedea; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181b; --card: #1d2024;
  --ink: #e3e5e8; --quiet: #9aa1aa; --line: #30343a; --good: #62b890; --bad: #e58a70;
  --rail: #2c3036; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; font-weight: 600; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
p { margin: .25rem 0 0; } .quiet { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr));
  gap: .75rem; margin: 1.5rem 0; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: .8rem 1rem; } .tile b { display: block; font-size: 1.5rem; font-weight: 600; }
section { padding: 1.1rem 1.25rem 1.25rem; margin-top: 1rem; }
.head { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline;
  justify-content: space-between; }
.refused { border-left: 4px solid var(--bad); padding: .8rem 1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin-top: .75rem; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 500; font-size: .8rem; color: var(--quiet); }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; } tr:last-child td { border-bottom: 0; }
td b { font-weight: 600; } .failed td:first-child { min-width: 15rem; width: 34%; }
.failed td:last-child { min-width: 13rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  white-space: nowrap; }
.failed code { display: inline-block; max-width: 100%; padding: 0 .45em; border-radius: 4px;
  white-space: normal;
  background: var(--rail); margin: 0 .35em .25em 0; }
.share { white-space: nowrap; width: 9.5rem; font-variant-numeric: tabular-nums; }
.bar { display: inline-block; width: 5rem; height: .5rem; border-radius: 3px; overflow: hidden;
  background: var(--rail); vertical-align: middle; margin-right: .6rem; }
.bar i { display: block; height: 100%; background: var(--bad); min-width: 2px; }
.bar .fine { background: var(--quiet); }
.split { display: flex; height: .5rem; margin-top: .75rem; border-radius: 3px; overflow: hidden;
  background: var(--rail); gap: 1px; }
.split i { background: var(--good); } .split i + i { background: var(--bad); min-width: 3px; }
details { margin-top: .75rem; } summary { cursor: pointer; color: var(--quiet); }
@media (max-width: 42rem) {
  .failed thead { display: none; } .failed tr { display: grid; padding: .5rem 0;
    grid-template-columns: auto auto 1fr; border-bottom: 1px solid var(--line); }
  .failed tr:last-child { border-bottom: 0; }
  .failed td { border: 0; padding: .1rem .9rem .1rem 0; text-align: left; }
  .failed td:first-child, .failed td:last-child { grid-column: 1 / -1; width: auto; }
  .failed td:nth-child(2)::after { content: " checked"; color: var(--quiet); }
  .failed td:nth-child(3)::after { content: " failed"; color: var(--quiet); } }
@media print { details > * { display: block; } section { break-inside: avoid; } }
"""

#: Who reported a feature, by what its column begins with.
_VIEWS = {"serve_": "(as its predecessors reported)", "ran_": "(as the task itself reported)"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_report(found: Findings) -> str:
    """The page."""
    tallies = found.tallies
    parts = [
        f"<header><h1>Validation report</h1><p class=quiet>{_text(_moment(found.time))}</p>"
        "</header>",
        *(f"<section class=refused>{_text(sentence)}</section>" for sentence in found.refused),
        _tiles(found),
        *(_section(tally, found.versions.get(tally.tool_type)) for tally in tallies),
        *(_kept_out(found, *section) for section in _KEPT_OUT),
        _logs(found.sources),
    ]
    body = "\n".join(parts)
    return (
        # The policy stands before the title and the style, as it holds for what follows it.
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>Validation report</title><style>{_STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def markdown_report(found: Findings) -> str:
    """The same, shorter, as Markdown for a Prefect artifact."""
    lines = ["# Validation report", "", _plain(_moment(found.time)), ""]
    lines += [f"> **Batch rejected.** {_plain(sentence)}\n" for sentence in found.refused]
    numbers = " · ".join(f"{n:,} {what}" for n, what in _numbers(found))
    lines += [_plain(numbers), ""]
    for tally in found.tallies:
        version = found.versions.get(tally.tool_type)
        lines += [f"## {_plain(tally.tool_type)}", "", f"{_summary(tally, version)}.", ""]
        failed = _worst_first(tally.results)
        if failed:
            lines += _rows(
                ("expectation", "checked", "failed", "share", "examples"),
                (
                    (
                        _plain(_expected(result)),
                        f"{result.checked:,}",
                        f"{result.failed:,}",
                        _percent(result.share),
                        ", ".join(_plain(example) for example in result.examples),
                    )
                    for result in failed
                ),
            )
        held = len(tally.results) - len(failed)
        if held:
            lines += [f"{text.counted(held, 'expectation')} passed for every row.", ""]
    for normal, title, _ in _KEPT_OUT:
        if counts := found.reasons(normal=normal):
            lines += [f"## {title}", ""]
            lines += _rows(
                ("reason", "records", "meaning", "functions"),
                (
                    (
                        _plain(code),
                        f"{n:,}",
                        _plain(meaning(code)),
                        _plain(", ".join(found.functions_of(code))),
                    )
                    for code, n in counts
                ),
            )
    if found.sources:
        lines += ["## Logs read", ""]
        sources = found.sources.items()
        lines += _rows(("log", "records"), ((_plain(log), f"{n:,}") for log, n in sources))
    return "\n".join(lines).rstrip() + "\n"


def _numbers(found: Findings) -> list[tuple[int, str]]:
    """Everything that was read, and what became of it."""
    normal = sum(n for _, n in found.reasons(normal=True))
    other = sum(n for _, n in found.reasons(normal=False))
    return [
        (found.records, "record read" if found.records == 1 else "records read"),
        (found.records - normal - other, "accepted"),
        (other, "rejected, to look at"),
        (normal, "rejected, as is normal"),
    ]


def _tiles(found: Findings) -> str:
    shown = (
        f"<div class=tile><b>{n:,}</b><span class=quiet>{what}</span></div>"
        for n, what in _numbers(found)
    )
    return f"<div class=tiles>{''.join(shown)}</div>"


def _section(tally: Tally, version: int | None) -> str:
    failed = _worst_first(tally.results)
    held = [result for result in tally.results if not result.failed]
    accepted = 100 * tally.accepted / max(tally.total, 1)
    # Hidden, not left out: the style takes the second element for the quarantined ones.
    split = f'<i style="width:{accepted:.2f}%"></i>' if tally.accepted else "<i hidden></i>"
    if tally.quarantined:
        split += f'<i style="width:{100 - accepted:.2f}%"></i>'
    return (
        f"<section><div class=head><h2>{_text(tally.tool_type)}</h2>"
        f"<span class=quiet>{_text(_summary(tally, version))}</span></div>"
        f"<div class=split>{split if tally.total else ''}</div>"
        f"{_failed_table(failed) if failed else ''}{_held_list(held)}</section>"
    )


def _failed_table(results: Iterable[Result]) -> str:
    rows = (
        f"<tr><td>{_expectation(result)}</td><td class=number>{result.checked:,}</td>"
        f"<td class=number>{result.failed:,}</td><td class=share>{_bar(result.share)}</td>"
        f"<td>{''.join(f'<code>{_text(example)}</code>' for example in result.examples)}</td></tr>"
        for result in results
    )
    return (
        "<div class=wide><table class=failed><thead><tr><th>Expectation</th>"
        "<th class=number>Checked</th><th class=number>Failed</th><th>Share</th>"
        "<th>Examples</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _expectation(result: Result) -> str:
    name, view = _column(result)
    return f"<b>{_text(name)}</b> is {_text(result.phrase)} <span class=quiet>{_text(view)}</span>"


def _expected(result: Result) -> str:
    name, view = _column(result)
    return f"{name} is {result.phrase} {view}".rstrip()


def _column(result: Result) -> tuple[str, str]:
    """The feature that is checked, and who reported it."""
    for prefix, view in _VIEWS.items():
        if result.column.startswith(prefix):
            return result.column.removeprefix(prefix), view
    return result.column, ""


def _held_list(results: Sequence[Result]) -> str:
    if not results:
        return ""
    rows = (
        f"<tr><td>{_expectation(result)}</td><td class=number>{result.checked:,}</td></tr>"
        for result in results
    )
    expectations = text.counted(len(results), "expectation")
    return (
        f"<details><summary>{expectations} passed for every row</summary>"
        "<div class=wide><table><thead><tr><th>Expectation</th><th class=number>Checked</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _kept_out(found: Findings, normal: bool, title: str, explanation: str) -> str:
    counts = found.reasons(normal=normal)
    if not counts:
        return f"<section><h2>{title}</h2><p class=quiet>None.</p></section>"
    total = max(found.records, sum(n for _, n in counts))
    rows = (
        f"<tr><td><code>{_text(code)}</code></td><td>{_text(meaning(code))}"
        f"<p class=quiet>{_text(', '.join(found.functions_of(code)))}</p></td>"
        f"<td class=number>{n:,}</td><td class=share>{_bar(n / total, normal)}</td></tr>"
        for code, n in counts
    )
    return (
        f"<section><h2>{title}</h2><p class=quiet>{explanation}"
        "</p><div class=wide><table><thead><tr><th>Reason</th><th>Meaning, and functions</th>"
        "<th class=number>Records</th><th>Share of all</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _logs(sources: Mapping[str, int]) -> str:
    if not sources:
        return ""
    rows = (
        f"<tr><td>{_text(log)}</td><td class=number>{n:,}</td></tr>" for log, n in sources.items()
    )
    return (
        "<section><h2>Logs read</h2><div class=wide><table><thead><tr><th>Log</th>"
        "<th class=number>Records</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _summary(tally: Tally, version: int | None) -> str:
    into = "" if version is None else f" · dataset version {version}"
    return f"{tally.accepted:,} accepted · {tally.quarantined:,} quarantined{into}"


def _worst_first(results: Iterable[Result]) -> list[Result]:
    return sorted((result for result in results if result.failed), key=lambda r: -r.share)


def _moment(time: datetime) -> str:
    return time.strftime("%A, %-d %B %Y, %H:%M:%S %Z").rstrip()


def _percent(share: float) -> str:
    """`share` in percent; small shares are never shown as 0, nor nearly all as 100."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share:.1%}".replace("%", " %")


def _bar(share: float, normal: bool = False) -> str:
    width, kind = f"{100 * share:.2f}", " class=fine" if normal else ""
    return f'<span class=bar><i{kind} style="width:{width}%"></i></span>{_text(_percent(share))}'


def _text(value: str) -> str:
    """`value` inside HTML; what cannot be encoded is replaced."""
    return escape(value.encode("utf-8", "replace").decode("utf-8"), quote=True)


def _plain(value: str) -> str:
    """`value` inside a Markdown line or table cell: no markup of its own, on one line."""
    one_line = " ".join(value.encode("utf-8", "replace").decode("utf-8").split())
    return re.sub(r"([\\`*_{}\[\]<>()#|~!&])", r"\\\1", one_line)
