"""How a pod learns where to report: rendered where the installation has an endpoint, and nowhere else."""

from collections.abc import Callable
from typing import Any

from controller.render import Manifests
from controller.settings import Settings
from trainer.contract.report import AUDIENCE

URL = "https://grpo-operator-progress.grpo-system.svc:443/progress"


def _pod(manifests: Manifests) -> Any:
    return manifests.job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_without_an_endpoint_nothing_is_rendered_of_it(render_job: Callable[..., Manifests]) -> None:
    """What `grpoctl render` prints asks for no token and names no address."""
    assert "progress" not in str(render_job().job_set).lower()


def test_a_pod_is_given_a_token_for_the_endpoint_alone(render_job: Callable[..., Manifests]) -> None:
    """The token is the pod's own, for our audience; the authority may come later, and the rest is as without it."""
    pod = _pod(render_job(settings=Settings(progress_url=URL)))
    (container,) = pod["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "progress")
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "progress")

    assert environment["GRPO_PROGRESS_URL"] == URL
    assert environment["GRPO_PROGRESS_FOLDER"] == mount["mountPath"]
    assert mount["readOnly"] is True
    token, authority = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}
    assert authority["configMap"]["name"] == "grpo-operator-ca"
    assert authority["configMap"]["optional"] is True
    assert pod["automountServiceAccountToken"] is False


def test_only_pod_and_environment_differ_with_an_endpoint(render_job: Callable[..., Manifests]) -> None:
    """Without the three parts that name it, and the ConfigMap's hash, the JobSet is what it is without an endpoint."""
    without = render_job()
    manifests = render_job(settings=Settings(progress_url=URL))
    pod = _pod(manifests)
    (container,) = pod["containers"]
    container["env"] = [one for one in container["env"] if not one["name"].startswith("GRPO_PROGRESS")]
    container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] != "progress"]
    pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "progress"]

    frozen, plain = (one.config_map["metadata"]["name"] for one in (manifests, without))
    assert frozen != plain
    assert str(manifests.job_set).replace(frozen, plain) == str(without.job_set)
