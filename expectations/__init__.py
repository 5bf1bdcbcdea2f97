"""Data contracts: executions in, the accepted and the quarantined out, and a report of it.

The only place that knows Great Expectations and pandas; importing it imports neither.
"""

from malearn.expectations.contract import suite
from malearn.expectations.findings import Findings
from malearn.expectations.report import html_report, markdown_report
from malearn.expectations.tally import Result, Tally
from malearn.expectations.validation import ValidationResult, validate

__all__ = [
    "Findings",
    "Result",
    "Tally",
    "ValidationResult",
    "html_report",
    "markdown_report",
    "suite",
    "validate",
]
