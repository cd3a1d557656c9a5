"""What tests counted is told at the end of a run: what `record_property` was given, from all workers."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    counted = [
        (report.nodeid, name, value)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
    ]
    if counted:
        terminalreporter.section("counted")
    for test, name, value in counted:
        terminalreporter.line(f"{test}: {name} {value}")
