"""Whether a pod's container is ready: at once where it has no probe, else when its page says so."""

import time
import urllib.error
import urllib.request
from typing import Any

EVERY_SECONDS = 0.5
Body = dict[str, Any]


class Readiness:
    """Only `httpGet` is known, asked every half second whatever the probe's own period is."""

    def __init__(self, container: Body, address: str) -> None:
        get: Body = container.get("readinessProbe", {}).get("httpGet", {})
        ports = {port.get("name"): port["containerPort"] for port in container.get("ports", ())}
        self._url = f"http://{address}:{ports.get(get['port'], get['port'])}{get.get('path', '/')}" if get else None
        self._asked = 0.0
        self.holds = self.at_once = self._url is None

    def changed(self) -> bool:
        """Asks the page when it is time; whether `holds` is another now."""
        if self._url is None or time.monotonic() - self._asked < EVERY_SECONDS:
            return False
        before, self.holds = self.holds, _answers(self._url)
        self._asked = time.monotonic()
        return self.holds != before


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False
