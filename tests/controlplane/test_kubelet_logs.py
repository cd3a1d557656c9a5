"""The logs of the kubelet of processes, as the API server gets them."""

import subprocess
import sys
from datetime import datetime

from tests.controlplane.containerlogs import PORT
from tests.controlplane.operating import Operating, said
from tests.controlplane.world import NODE_ADDRESS, World


def test_the_api_server_gets_logs_from_the_kubelet(operating: Operating) -> None:
    """`kubectl logs`: whole, the last lines, with their times, and followed to the container's end."""
    operating.start()
    operating.apply("says", [["say:50 0"]])
    operating.wait_phase("says", "Running", "Succeeded")
    pod = operating.pods("says")[0]["metadata"]["name"]

    def logs(*flags: str) -> list[str]:
        told = operating.world.kubectl("-n", operating.namespace, "logs", pod, *flags)
        assert told.returncode == 0, told.stderr
        return told.stdout.splitlines()

    assert logs("-f") == said(0, 0, 50)
    assert logs("--tail=2") == said(0, 0, 50)[-2:]
    stamps, lines = zip(*(line.split(" ", 1) for line in logs("--timestamps")), strict=True)
    assert list(lines) == said(0, 0, 50)
    assert sorted(stamps) == list(stamps)
    middle = datetime.fromisoformat(stamps[25]).replace(microsecond=0).isoformat()
    assert 25 <= len(logs(f"--since-time={middle}")) <= 50


def test_a_kubelet_gives_logs_to_nobody_without_a_certificate(world: World) -> None:
    """Who has none of the cluster's authority is cut off before a request is read."""
    program = f"""
import ssl, urllib.request
context = ssl.create_default_context(cafile={str(world.authority)!r})
urllib.request.urlopen("https://{NODE_ADDRESS}:{PORT}/containerLogs/a/b/c", context=context, timeout=10)
"""
    asked = subprocess.run(world.inside(sys.executable, "-c", program), capture_output=True, text=True, check=False)
    assert "CERTIFICATE_REQUIRED" in asked.stderr
