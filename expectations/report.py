"""The validation report for people: one self-contained HTML page, or Markdown.

The page loads nothing: its style is inline, and its content policy forbids everything else.
Every value in it came from outside and is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape

from malearn.expectations.tally import Result, Tally, by_tool_type
from malearn.expectations.validation import ValidationResult
from malearn.kernel.records import RejectReason

__all__ = ["REASONS", "html_report", "markdown_report"]

#: What each reason code means.
REASONS: Mapping[RejectReason, str] = {
    RejectReason.INVALID_JSON: "the value is not valid JSON",
    RejectReason.NOT_AN_OBJECT: "the value is JSON, but not an object",
    RejectReason.NO_TIMES: "a start or end time is missing",
    RejectReason.BAD_TIMES: "the times are not finite, not in order, or too far apart",
    RejectReason.FUTURE_TIMES: "it ended minutes ahead of this clock: another zone, or other units",
    RejectReason.SKIPPED: "the task was skipped",
    RejectReason.SOFT_FAILED: "the status of the task says that it failed",
    RejectReason.NO_FEATURES: "neither the task nor its predecessors reported features",
    RejectReason.UNMAPPED_FUNCTION: "no tool type claims the function",
    RejectReason.INVALID_FEATURE: "a value breaks the contract",
    RejectReason.OUTLIER: "far from the recent durations of its function",
    RejectReason.PAST_RETENTION: "it ended before the retention limit of its dataset",
    RejectReason.DATASET_DAMAGED: "its dataset could not be read; retry it after the repair",
    RejectReason.DUPLICATE: "the same task is already known",
    RejectReason.BATCH_REFUSED: "part of a batch with too many bad rows",
}

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
code { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.failed code { display: inline-block; max-width: 100%; padding: 0 .45em; border-radius: 4px;
  background: var(--rail); margin: 0 .35em .25em 0; }
.share { white-space: nowrap; width: 9.5rem; font-variant-numeric: tabular-nums; }
.bar { display: inline-block; width: 5rem; height: .5rem; border-radius: 3px; overflow: hidden;
  background: var(--rail); vertical-align: middle; margin-right: .6rem; }
.bar i { display: block; height: 100%; background: var(--bad); min-width: 2px; }
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

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_report(
    batches: Iterable[ValidationResult | Tally],
    *,
    rejected: Mapping[str, int],
    time: datetime,
    versions: Mapping[str, int] | None = None,
    refused: Sequence[str] = (),
) -> str:
    """The page: the results of each tool type's suite, and all rejected records by reason.

    Batches of one tool type are added up; a `Tally` of each is enough, and is small.
    `rejected` counts records by reason code; `versions` gives the dataset version that the
    accepted rows went into, by tool type; `refused` the messages of rejected batches.
    """
    tallies = _added(batches)
    parts = [
        f"<header><h1>Validation report</h1><p class=quiet>{_text(_moment(time))}</p></header>",
        *(f"<section class=refused>{_text(sentence)}</section>" for sentence in refused),
        _tiles(tallies, rejected),
        *(_section(tally, (versions or {}).get(tally.tool_type)) for tally in tallies),
        _reasons(rejected),
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


def markdown_report(
    batches: Iterable[ValidationResult | Tally],
    *,
    rejected: Mapping[str, int],
    time: datetime,
    versions: Mapping[str, int] | None = None,
    refused: Sequence[str] = (),
) -> str:
    """The same, shorter, as Markdown for a Prefect artifact. Arguments as for `html_report`."""
    lines = ["# Validation report", "", _plain(_moment(time)), ""]
    lines += [f"> **Batch rejected.** {_plain(sentence)}\n" for sentence in refused]
    for tally in _added(batches):
        version = (versions or {}).get(tally.tool_type)
        lines += [f"## {_plain(tally.tool_type)}", "", f"{_summary(tally, version)}.", ""]
        failed = _worst_first(tally.results)
        if failed:
            lines += _rows(
                ("expectation", "checked", "failed", "share", "examples"),
                (
                    (
                        _plain(result.expectation),
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
            lines += [f"{_count(held, 'expectation')} passed for every row.", ""]
    if counts := _counts(rejected):
        lines += ["## Rejected records", ""]
        lines += _rows(
            ("reason", "records", "meaning"),
            ((_plain(code), f"{n:,}", _plain(_meaning(code))) for code, n in counts),
        )
    return "\n".join(lines).rstrip() + "\n"


def _added(batches: Iterable[ValidationResult | Tally]) -> list[Tally]:
    return by_tool_type(
        one.tally() if isinstance(one, ValidationResult) else one for one in batches
    )


def _tiles(tallies: Sequence[Tally], rejected: Mapping[str, int]) -> str:
    tiles = (
        (sum(tally.total for tally in tallies), "rows checked"),
        (sum(tally.accepted for tally in tallies), "accepted"),
        (sum(tally.quarantined for tally in tallies), "quarantined"),
        (sum(rejected.values()), "rejected in total"),
    )
    shown = (
        f"<div class=tile><b>{n:,}</b><span class=quiet>{what}</span></div>" for n, what in tiles
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
    return f"<b>{_text(result.column)}</b> is {_text(result.phrase)}"


def _held_list(results: Sequence[Result]) -> str:
    if not results:
        return ""
    rows = (
        f"<tr><td>{_expectation(result)}</td><td class=number>{result.checked:,}</td></tr>"
        for result in results
    )
    return (
        f"<details><summary>{_count(len(results), 'expectation')} passed for every row</summary>"
        "<div class=wide><table><thead><tr><th>Expectation</th><th class=number>Checked</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _reasons(rejected: Mapping[str, int]) -> str:
    counts = _counts(rejected)
    if not counts:
        return "<section><h2>Rejected records</h2><p class=quiet>None.</p></section>"
    total = sum(n for _, n in counts)
    rows = (
        f"<tr><td><code>{_text(code)}</code></td><td>{_text(_meaning(code))}</td>"
        f"<td class=number>{n:,}</td><td class=share>{_bar(n / total)}</td></tr>"
        for code, n in counts
    )
    return (
        "<section><h2>Rejected records</h2><p class=quiet>Kept with their reason; not trained on."
        "</p><div class=wide><table><thead><tr><th>RejectReason</th><th>Meaning</th>"
        "<th class=number>Records</th><th>Share</th></tr></thead>"
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


def _counts(rejected: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((str(c), n) for c, n in rejected.items() if n), key=lambda item: -item[1])


def _meaning(code: str) -> str:
    return next((words for reason, words in REASONS.items() if reason == code), "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _moment(time: datetime) -> str:
    return time.strftime("%A, %-d %B %Y, %H:%M:%S %Z").rstrip()


def _percent(share: float) -> str:
    """`share` in percent; small shares are never shown as 0, nor nearly all as 100."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{share:.1%}".replace("%", " %")


def _bar(share: float) -> str:
    width = f"{100 * share:.2f}"
    return f'<span class=bar><i style="width:{width}%"></i></span>{_text(_percent(share))}'


def _text(value: str) -> str:
    """`value` inside HTML; what cannot be encoded is replaced."""
    return escape(value.encode("utf-8", "replace").decode("utf-8"), quote=True)


def _plain(value: str) -> str:
    """`value` inside a Markdown line or table cell: no markup of its own, on one line."""
    one_line = " ".join(value.encode("utf-8", "replace").decode("utf-8").split())
    return re.sub(r"([\\`*_{}\[\]<>()#|~!&])", r"\\\1", one_line)
