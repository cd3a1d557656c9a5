"""In which order files of tests are taken, and what they counted: told at the end of a run, from all workers."""

from itertools import groupby

import pytest

LONGEST = (
    "test_interruptions.py",
    "test_interruptions_again.py",
    "test_operator_deaths.py",
    "test_operator_kills.py",
    "test_controller_alone.py",
    "builds.py",
)
"""With full counts, begun first: the last of them would be waited for alone."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of all folders side by side: some wait for a cluster while others compute."""
    files = dict.fromkeys(item.path for item in items)
    places = {}
    for _, found in groupby(files, lambda path: path.parent):
        folder = list(found)
        places |= {path: (number + 0.5) / len(folder) for number, path in enumerate(folder)}
    places |= {path: LONGEST.index(path.name) - len(LONGEST) for path in files if path.name in LONGEST}
    items.sort(key=lambda item: places[item.path])


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
