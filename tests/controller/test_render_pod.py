"""Binding facts of the pod, one each: environment, chips, files, rights, and what a user may add."""

from collections.abc import Callable
from typing import Any

import pytest

from controller.render import Manifests
from controller.settings import TRAINER_IMAGE, Settings

Render = Callable[..., Manifests]
V6E = {"accelerator": "tpu-v6e-slice", "topology": "4x4"}
CPU = {"cpu": {"hosts": 2, "devicesPerHost": 4}}


def _template(manifests: Manifests) -> Any:
    return manifests.job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]


def _pod(manifests: Manifests) -> Any:
    return _template(manifests)["spec"]


def _container(manifests: Manifests) -> Any:
    (container,) = _pod(manifests)["containers"]
    return container


def _env(manifests: Manifests) -> dict[str, Any]:
    variables = _container(manifests)["env"]
    assert len({variable["name"] for variable in variables}) == len(variables)
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in variables}


def _field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"fieldPath": path}}


def test_the_container_is_the_trainer(render_job: Render) -> None:
    """One container named trainer runs the trainer's entry on the mounted RunConfig, in its own working folder."""
    container = _container(render_job())
    assert container["name"] == "trainer"
    assert (container["command"], container["args"]) == (
        ["python", "-m", "trainer"],
        ["--run-config", "/etc/grpo/run.json"],
    )
    assert container["workingDir"] == "/workspace"


def test_the_image_is_the_jobs_else_the_installations(render_job: Render) -> None:
    """`spec.image` wins over the chart's or the command line's image, and that over the constant of this version."""
    assert _container(render_job())["image"] == TRAINER_IMAGE
    assert _container(render_job(settings=Settings(image="mirror/trainer:1")))["image"] == "mirror/trainer:1"
    own = render_job(
        {"image": "me/trainer:2", "imagePullPolicy": "Always"}, settings=Settings(image="mirror/trainer:1")
    )
    assert (_container(own)["image"], _container(own)["imagePullPolicy"]) == ("me/trainer:2", "Always")
    assert "imagePullPolicy" not in _container(render_job())


def test_a_process_knows_its_place_by_downward_api(render_job: Render) -> None:
    """Slice, host and attempt come from what JobSet and Job write on the pod."""
    env = _env(render_job())
    assert env["GRPO_SLICE_INDEX"] == _field("metadata.labels['jobset.sigs.k8s.io/job-index']")
    assert env["GRPO_HOST_INDEX"] == _field("metadata.annotations['batch.kubernetes.io/job-completion-index']")
    assert env["GRPO_ATTEMPT"] == _field("metadata.annotations['jobset.sigs.k8s.io/restart-attempt']")


def test_the_coordinator_is_reached_by_dns(render_job: Render) -> None:
    """Every process is told pod 0 of slice 0 with JAX's port."""
    manifests = render_job(name="demo")
    subdomain = manifests.job_set["spec"]["network"]["subdomain"]
    assert _env(manifests)["GRPO_COORDINATOR_ADDRESS"] == f"demo-slice-0-0.{subdomain}:8482"


def test_files_of_the_process_are_named(render_job: Render) -> None:
    """Where the RunConfig is read and where the cause of an end is written."""
    env = _env(render_job())
    assert env["GRPO_RUN_CONFIG"] == "/etc/grpo/run.json"
    assert env["GRPO_TERMINATION_LOG"] == _container(render_job())["terminationMessagePath"] == "/dev/termination-log"


def test_several_slices_are_joined_by_our_own_values(render_job: Render) -> None:
    """MEGASCALE_* come from the job, never from GKE, whose values can be stale after a preemption."""
    manifests = render_job({"tpu": V6E | {"slices": 2}}, name="demo")
    env, subdomain = _env(manifests), manifests.job_set["spec"]["network"]["subdomain"]
    assert env["MEGASCALE_NUM_SLICES"] == "2"
    assert env["MEGASCALE_SLICE_ID"] == _field("metadata.labels['jobset.sigs.k8s.io/job-index']")
    assert env["MEGASCALE_COORDINATOR_ADDRESS"] == f"demo-slice-0-0.{subdomain}"


@pytest.mark.parametrize("spec", [{"tpu": V6E}, CPU])
def test_one_slice_says_so_by_empty_values(spec: dict[str, Any], render_job: Render) -> None:
    """Set but empty: where one is absent, JAX asks a metadata server and GKE may inject a stale one."""
    env = _env(render_job(spec))
    names = ("MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID", "MEGASCALE_COORDINATOR_ADDRESS")
    assert [env[name] for name in names] == ["", "", ""]


def test_the_platform_is_said(render_job: Render) -> None:
    """A TPU job fails where no TPU is found, a cpu job never looks for one."""
    assert _env(render_job())["JAX_PLATFORMS"] == "tpu,cpu"
    assert _env(render_job(CPU))["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize(
    ("tpu", "chips"),
    [
        ({"accelerator": "tpu-v6e-slice", "topology": "2x4", "machineType": "ct6e-standard-8t"}, "8"),
        ({"accelerator": "tpu-v6e-slice", "topology": "2x4", "machineType": "ct6e-standard-4t"}, "4"),
        ({"accelerator": "tpu7x", "topology": "2x2x1"}, "4"),
    ],
)
def test_a_pod_takes_all_chips_of_its_host(tpu: dict[str, Any], chips: str, render_job: Render) -> None:
    """Request and limit of google.com/tpu are equal and are the machine's whole count, not its JAX devices."""
    resources = _container(render_job({"tpu": tpu}))["resources"]
    assert resources["requests"]["google.com/tpu"] == resources["limits"]["google.com/tpu"] == chips


def test_cpu_and_memory_are_requested_by_machine_type(render_job: Render) -> None:
    """A host's worth of CPU and memory is reserved and not limited."""
    resources = _container(render_job())["resources"]
    assert (resources["requests"]["cpu"], resources["requests"]["memory"]) == ("144", "576Gi")
    assert resources["limits"] == {"google.com/tpu": "4"}


def test_cpu_jobs_request_cpu_and_memory_only(render_job: Render) -> None:
    """No chip is asked for without a TPU."""
    resources = _container(render_job(CPU))["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "limits" not in resources


def test_users_resources_win_and_a_lone_limit_is_the_request(render_job: Render) -> None:
    """Where only a limit is given Kubernetes requests as much: our own request could exceed it and be refused."""
    resources = {"requests": {"memory": "10Gi"}, "limits": {"cpu": "2"}}
    assert _container(render_job(CPU | {"resources": resources}))["resources"] == resources


def test_ports_are_those_of_tpus_and_jax(render_job: Render) -> None:
    """8471 TPU runtime, 8080 multislice, 8431 runtime metrics, 8482 JAX; a cpu job has JAX's only."""
    ports = {port["containerPort"] for port in _container(render_job())["ports"]}
    assert ports == {8471, 8080, 8431, 8482}
    assert [port["containerPort"] for port in _container(render_job(CPU))["ports"]] == [8482]
    assert all(len(port["name"]) <= 15 for port in _container(render_job())["ports"])


def test_what_a_process_writes_has_a_volume(render_job: Render) -> None:
    """/tmp, the model cache, shared memory and the working folder are emptyDirs: the root file system is read-only."""
    manifests = render_job()
    mounts = {mount["mountPath"]: mount for mount in _container(manifests)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in _pod(manifests)["volumes"]}
    for path in ("/tmp", "/cache/huggingface", "/workspace"):
        assert volumes[mounts[path]["name"]] == {"name": mounts[path]["name"], "emptyDir": {}}
        assert not mounts[path].get("readOnly")
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"] == {"medium": "Memory"}
    env = _env(manifests)
    assert (env["HF_HOME"], env["HOME"], env["TMPDIR"]) == ("/cache/huggingface", "/tmp", "/tmp")
    assert _container(manifests)["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_run_config_is_the_only_key_mounted(render_job: Render) -> None:
    """run.json is read-only in the pod; the frozen JobSet beside it is not the trainer's business."""
    manifests = render_job()
    (volume,) = [
        v for v in _pod(manifests)["volumes"] if v.get("configMap", {}).get("name", "").startswith("demo-run-")
    ]
    (mount,) = [m for m in _container(manifests)["volumeMounts"] if m["name"] == volume["name"]]
    assert volume["configMap"]["name"] == manifests.config_map["metadata"]["name"]
    assert volume["configMap"]["items"] == [{"key": "run.json", "path": "run.json"}]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/grpo", True)


def test_users_code_is_mounted_and_importable(render_job: Render) -> None:
    """The ConfigMap of spec.code is read-only beside the RunConfig's folder, and on PYTHONPATH."""
    manifests = render_job({"code": {"configMap": "my-rewards"}})
    (volume,) = [v for v in _pod(manifests)["volumes"] if v.get("configMap", {}).get("name") == "my-rewards"]
    (mount,) = [m for m in _container(manifests)["volumeMounts"] if m["name"] == volume["name"]]
    assert mount["readOnly"] is True
    assert _env(manifests)["PYTHONPATH"] == mount["mountPath"] == "/etc/grpo-code"
    assert "PYTHONPATH" not in _env(render_job())


def test_the_default_profile_is_restricted(render_job: Render) -> None:
    """Pod Security Standard `restricted`: non-root, no privilege, no capability, the runtime's seccomp profile."""
    manifests = render_job()
    pod, container = _pod(manifests)["securityContext"], _container(manifests)["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert (pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]) == (65532, 65532, 65532)
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (container["privileged"], container["allowPrivilegeEscalation"]) == (False, False)
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_the_fallback_profile_is_root_but_unprivileged(render_job: Render) -> None:
    """Profile Root runs as user 0 and is still not privileged and cannot escalate."""
    manifests = render_job({"securityContext": {"profile": "Root"}})
    pod, container = _pod(manifests)["securityContext"], _container(manifests)["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["runAsGroup"]) == (False, 0, 0)
    assert (container["privileged"], container["allowPrivilegeEscalation"]) == (False, False)


def test_a_group_for_volumes_is_possible_as_root(render_job: Render) -> None:
    """A claim's files belong to fsGroup under either profile."""
    pod = _pod(render_job({"securityContext": {"profile": "Root", "fsGroup": 2000}}))["securityContext"]
    assert pod["fsGroup"] == 2000
    assert "fsGroup" not in _pod(render_job({"securityContext": {"profile": "Root"}}))["securityContext"]


def test_output_is_not_held_back(render_job: Render) -> None:
    """What a process printed before it was killed is in the log."""
    assert _env(render_job())["PYTHONUNBUFFERED"] == "1"


def test_users_ids_replace_the_defaults(render_job: Render) -> None:
    """A group follows the user where it is not given."""
    pod = _pod(render_job({"securityContext": {"runAsUser": 1000}}))["securityContext"]
    assert (pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]) == (1000, 1000, 1000)


def test_the_pod_has_no_token_and_no_service_variables(render_job: Render) -> None:
    """A trainer talks to no API server, and a Service named jax must not become JAX_* variables."""
    pod = _pod(render_job())
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def test_the_network_of_the_host_is_used_only_when_asked(render_job: Render) -> None:
    """The setting hostNetwork comes with the DNS policy that keeps cluster names; by default neither is there."""
    assert not {"hostNetwork", "dnsPolicy"} & _pod(render_job()).keys()
    pod = _pod(render_job({"tpu": V6E | {"hostNetwork": True}}))
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")


def test_the_last_words_are_kept(render_job: Render) -> None:
    """Without a cause written down, the log's end is the termination message."""
    assert _container(render_job())["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_grace_period_is_the_jobs(render_job: Render) -> None:
    """Time for a checkpoint after SIGTERM: two minutes unless the job says otherwise."""
    assert _pod(render_job())["terminationGracePeriodSeconds"] == 120
    manifests = render_job({"lifecycle": {"terminationGracePeriodSeconds": 600}})
    assert _pod(manifests)["terminationGracePeriodSeconds"] == 600


def test_no_sidecar_is_injected(render_job: Render) -> None:
    """A service mesh's sidecar would outlive the trainer and stand between the workers."""
    metadata = _template(render_job())["metadata"]
    assert metadata["annotations"]["sidecar.istio.io/inject"] == "false"
    assert metadata["labels"]["sidecar.istio.io/inject"] == "false"


def test_users_pod_settings_arrive(render_job: Render) -> None:
    """Labels, annotations, selectors, tolerations, identity, priority and pull secrets of the job are the pod's."""
    toleration = {"key": "dedicated", "operator": "Equal", "value": "research", "effect": "NoSchedule"}
    manifests = render_job(
        {
            "podLabels": {"team": "research"},
            "podAnnotations": {"example.com/cost-centre": "42"},
            "nodeSelector": {"team": "research"},
            "tolerations": [toleration],
            "serviceAccountName": "trainer",
            "priorityClassName": "research",
            "imagePullSecrets": [{"name": "registry"}],
        }
    )
    metadata, pod = _template(manifests)["metadata"], _pod(manifests)
    assert metadata["labels"]["team"] == "research"
    assert metadata["annotations"]["example.com/cost-centre"] == "42"
    assert pod["nodeSelector"]["team"] == "research"
    assert pod["tolerations"] == [toleration, {"key": "google.com/tpu", "operator": "Exists"}]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("trainer", "research")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_nothing_stands_where_nothing_was_asked(render_job: Render) -> None:
    """No empty account, class or list is rendered: an empty name is a name to the API server."""
    absent = {"serviceAccountName", "priorityClassName", "imagePullSecrets", "hostNetwork", "dnsPolicy"}
    assert not absent & _pod(render_job()).keys()
    assert not {"envFrom", "imagePullPolicy"} & _container(render_job()).keys()


def test_users_variables_come_last_and_may_move_the_cache(render_job: Render) -> None:
    """A user's value may refer to ours by $(NAME), and HF_HOME, HOME and TMPDIR may be set otherwise, once each."""
    reference = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    spec = {
        "env": [{"name": "HF_HOME", "value": "/models"}, {"name": "RUN", "value": "$(GRPO_RUN_ID)"}, reference],
        "envFrom": [{"secretRef": {"name": "wandb"}}],
    }
    container = _container(render_job(spec))
    assert container["env"][-3:] == spec["env"]
    assert [variable["name"] for variable in container["env"]].count("HF_HOME") == 1
    assert container["envFrom"] == spec["envFrom"]


def test_users_volumes_are_mounted(render_job: Render) -> None:
    """A claim of the user's is a volume of the pod, in Kubernetes' own spelling."""
    volume = {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}
    mount = {"name": "runs", "mountPath": "/runs", "subPath": "grpo"}
    manifests = render_job({"volumes": [volume], "volumeMounts": [mount]})
    assert volume in _pod(manifests)["volumes"]
    assert mount in _container(manifests)["volumeMounts"]
