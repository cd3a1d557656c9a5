"""The report: one or two run folders come in, one HTML page goes out that needs nothing but a browser.

It refuses to know how a run was trained: it reads what the run left, also of versions other than this one.
"""

from trainer.report.command import main

__all__ = ["main"]
