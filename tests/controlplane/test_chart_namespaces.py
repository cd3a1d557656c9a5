"""One release that looks after one namespace, what may and what may not be installed beside it, and what `helm test`
tells of it.
"""

import json
from collections.abc import Iterator

import pytest

from tests.controlplane.admission import install_crd, job_of
from tests.controlplane.looking import until
from tests.controlplane.operating import Operating
from tests.controlplane.releases import Release, forget_definition
from tests.controlplane.world import World

TEAM, OTHER = "team", "other"
BATCH = "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8"


@pytest.fixture(scope="module")
def release(world: World) -> Iterator[Release]:
    """Installed for the namespace `team`, with one replica."""
    forget_definition(world)
    for name in (TEAM, OTHER):
        world.kubectl("create", "namespace", name)
    release = Release(world, "grpo", "team-system")
    done = release.install(watchNamespaces=[TEAM], replicas=1)
    assert done.returncode == 0, done.stderr
    yield release
    release.uninstall()
    forget_definition(world)
    world.kubectl("delete", "namespace", TEAM, OTHER, release.namespace, "--wait=false")


@pytest.fixture(scope="module")
def jobs(world: World, release: Release) -> Iterator[dict[str, Operating]]:
    """In the release's namespace, and in another."""
    found = {name: Operating(world, name, define=False) for name in (TEAM, OTHER)}
    yield found
    for one in found.values():
        one.close()


def refusal(world: World, name: str, **values: object) -> str:
    """What helm says to an install that it only tries; nothing where it would do it."""
    done = Release(world, name, f"{name}-system").install("--dry-run=server", **values)
    return done.stderr if done.returncode else ""


def test_another_release_must_look_after_other_namespaces(world: World, release: Release) -> None:
    """Neither the whole cluster nor the same namespace; each refusal says who is there and what to change."""
    whole = refusal(world, "second", crds__install=False)
    assert 'release "grpo" in namespace "team-system" looks after the jobs of team, and this one would after' in whole
    assert "give both watchNamespaces that do not overlap" in whole
    same = refusal(world, "second", crds__install=False, watchNamespaces=[OTHER, TEAM])
    assert 'release "grpo" in namespace "team-system" looks after the jobs of namespace "team" already' in same
    assert not refusal(world, "second", crds__install=False, watchNamespaces=[OTHER])


def test_a_definition_has_one_owner(world: World, release: Release) -> None:
    """A second release is told whose it is, how to leave it, and how to take it over."""
    told = refusal(world, "second", watchNamespaces=[OTHER])
    assert 'grpojobs.grpo.dev is there and belongs to release "grpo" in namespace "team-system"' in told
    assert "--set crds.install=false" in told
    assert "meta.helm.sh/release-name=second" in told


def test_a_namespace_that_is_not_there_is_told(world: World, release: Release) -> None:
    """Its Role would have no place."""
    told = refusal(world, "second", crds__install=False, watchNamespaces=["nowhere"])
    assert 'there is no namespace "nowhere"' in told
    assert "kubectl create namespace nowhere" in told


def test_cert_manager_must_be_there_to_be_used(world: World, release: Release) -> None:
    """It is asked for by name, or not at all."""
    values = {"crds__install": False, "watchNamespaces": [OTHER], "webhook__certificates__source": "CertManager"}
    assert "the cluster has no cert-manager; install it first" in refusal(world, "second", **values)


def test_jobs_of_its_namespace_run_and_others_are_left(world: World, jobs: dict[str, Operating]) -> None:
    """By Roles there; what lies in no namespace is three rules of a ClusterRole."""
    for one in jobs.values():
        one.apply("job", [["0"]])
    jobs[TEAM].wait_phase("job", "Succeeded")
    assert "phase" not in jobs[OTHER].status("job")
    found = json.loads(world.kubectl("get", "clusterrole", "grpo-operator.team-system", "-o", "json").stdout)
    assert [rule["resources"] for rule in found["rules"]] == [
        ["tokenreviews"],
        ["customresourcedefinitions"],
        ["validatingwebhookconfigurations"],
    ]


def test_users_with_the_usual_roles_may_use_jobs(world: World, release: Release) -> None:
    """Bound to `edit`, one may make a job; bound to `view`, see it; none of them writes a status."""
    for role in ("edit", "view"):
        world.kubectl("-n", TEAM, "create", "rolebinding", role, f"--clusterrole={role}", f"--user=the-{role}")

    def may(user: str, verb: str, subresource: str = "") -> bool:
        asked = ("auth", "can-i", verb, "grpojobs.grpo.dev", f"--subresource={subresource}", f"--as={user}")
        return world.kubectl("-n", TEAM, *asked).stdout.strip() == "yes"

    until(lambda: may("the-edit", "create"), "the right of an editor")
    until(lambda: may("the-view", "get"), "the right of a viewer")
    assert not may("the-view", "create")
    assert not may("the-edit", "update", "status")


def test_helm_test_tells_that_all_is_well_and_what_is_not(
    world: World, release: Release, jobs: dict[str, Operating]
) -> None:
    """Every part has its line. A webhook that nobody reaches is found, and told with what to look at; the broken job
    is then stored, and refused by the controller in the same words.
    """
    well = release.run("test", "--logs")
    assert well.returncode == 0, well.stdout + well.stderr
    assert "ok      a broken job: refused by the webhook" in well.stdout

    release.kubectl("patch", "service", "grpo-operator", "--patch", '{"spec": {"selector": {"cut": "off"}}}')
    # The API server keeps the connection that it has.
    release.kubectl("rollout", "restart", "deployment/grpo-operator")
    assert release.kubectl("rollout", "status", "deployment/grpo-operator", "--timeout=60s").returncode == 0
    broken = job_of("unjudged", rollout={"batchSize": 100})
    until(lambda: apply(world, broken) == "", "a job that the webhook did not judge")
    ill = release.run("test", "--logs")
    assert ill.returncode != 0
    assert "BROKEN  a broken job: it was accepted, so the webhook did not judge; nobody answers at" in ill.stdout
    assert "does a NetworkPolicy" in ill.stdout
    jobs[TEAM].wait_phase("unjudged", "Failed")
    assert BATCH in jobs[TEAM].message("unjudged", "Validated")


def apply(world: World, job: dict[str, object]) -> str:
    return world.kubectl("-n", TEAM, "apply", "-f", "-", stdin=json.dumps(job)).stderr


def test_a_definition_of_nobody_is_not_taken(world: World, namespace: str) -> None:
    """Applied by hand, it may be left as it is; the jobs in it are nobody's to risk."""
    install_crd(world)
    world.kubectl(
        "annotate", "crd", "grpojobs.grpo.dev", "meta.helm.sh/release-name-", "meta.helm.sh/release-namespace-"
    )
    assert "belongs to no release" in refusal(world, "third", watchNamespaces=[namespace])


def test_an_image_that_cannot_be_pulled_is_told(world: World, namespace: str) -> None:
    """The install does not come about in its time, and the pod names the image."""
    release = Release(world, "lost", f"{namespace}-system")
    values = {"watchNamespaces": [namespace], "crds__install": False, "image__repository": "missing.test/operator"}
    done = release.install("--wait", "--timeout=5s", **values)
    assert done.returncode != 0
    assert "Deployment" in done.stderr
    pods = release.kubectl("get", "pods", "-o", "json").stdout
    (waiting, *_) = json.loads(pods)["items"]
    (container,) = waiting["status"]["containerStatuses"]
    assert container["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert "missing.test/operator" in container["state"]["waiting"]["message"]
    release.uninstall()
    world.kubectl("delete", "namespace", release.namespace, "--wait=false")


def test_the_notes_tell_of_a_missing_job_set(world: World) -> None:
    """With the command that installs it; where it is there, nothing is said."""
    release = Release(world, "fourth", "fourth-system")
    told = release.install("--dry-run=client").stdout
    assert "JobSet is missing in this cluster" in told
    assert "kubectl apply --server-side -f https://github.com/kubernetes-sigs/jobset/releases" in told
    assert "kubectl apply --server-side -k examples/demo" in told
