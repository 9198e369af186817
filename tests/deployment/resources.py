"""The custom resources that cluster/ uses, as strict models: what an operator would silently drop is refused.

KubeRay's are after its API types (ray-project/kuberay, ray-operator/apis/ray/v1, release 1.7, Apache-2.0), the
Prometheus operator's after its API reference (monitoring.coreos.com/v1): the fields that these manifests may use and
no others. What Kubernetes itself defines (pod templates, services) is checked by its own schemas.
"""

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


def _is_pod_template(value: dict[str, Any]) -> dict[str, Any]:
    from .kubernetes import check

    metadata = {"name": "template", **value.get("metadata", {})}
    check({"apiVersion": "v1", "kind": "Pod", **value, "metadata": metadata})
    return value


def _is_service(value: dict[str, Any]) -> dict[str, Any]:
    from .kubernetes import check

    check({"apiVersion": "v1", "kind": "Service", **value})
    return value


PodTemplate = Annotated[dict[str, Any], AfterValidator(_is_pod_template)]
Service = Annotated[dict[str, Any], AfterValidator(_is_service)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$")
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]
    secret_name: str | None = None


class SecretKeyRef(Strict):
    name: str
    key: str


class ValueFrom(Strict):
    secret_key_ref: SecretKeyRef


class RedisCredential(Strict):
    # Its `value` would be a password in a file.
    value_from: ValueFrom


class GcsFaultToleranceOptions(Strict):
    redis_address: str = Field(pattern=r"^[a-z0-9.-]+:\d+$")
    redis_password: RedisCredential
    external_storage_namespace: str | None = None


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    idle_timeout_seconds: int = Field(ge=0)
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] | None = None
    resources: dict[str, dict[str, str]]


class HeadGroup(Strict):
    ray_start_params: dict[str, str]
    template: PodTemplate


class WorkerGroup(Strict):
    group_name: str
    replicas: int = Field(ge=0)
    min_replicas: int = Field(ge=0)
    max_replicas: int = Field(ge=1)
    ray_start_params: dict[str, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _in_order(self) -> "WorkerGroup":
        assert self.min_replicas <= self.replicas <= self.max_replicas
        return self


class ClusterSpec(Strict):
    ray_version: str
    auth_options: AuthOptions
    gcs_fault_tolerance_options: GcsFaultToleranceOptions | None = None
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: AutoscalerOptions | None = None
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup] = Field(min_length=1)


class RayCluster(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class UpgradeStrategy(Strict):
    type: Literal["NewCluster", "None"]


class RayServiceSpec(Strict):
    ray_cluster_deletion_delay_seconds: int = Field(ge=0)
    exclude_head_pod_from_serve_svc: bool
    upgrade_strategy: UpgradeStrategy
    serve_service: Service
    serve_config_v2: str = Field(alias="serveConfigV2")
    ray_cluster_config: ClusterSpec


class RayService(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec


class SubmitterConfig(Strict):
    backoff_limit: int = Field(ge=0)


class RayJobSpec(Strict):
    entrypoint: str
    entrypoint_num_cpus: float = Field(ge=0, strict=False)
    runtime_env_yaml: str = Field("", alias="runtimeEnvYAML")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode"]
    submitter_config: SubmitterConfig
    backoff_limit: int = Field(ge=0)
    pre_running_deadline_seconds: int = Field(ge=1)
    active_deadline_seconds: int = Field(ge=1)
    shutdown_after_job_finishes: Literal[True]
    ttl_seconds_after_finished: int = Field(ge=0)
    ray_cluster_spec: ClusterSpec

    @model_validator(mode="after")
    def _runtime_env_is_yaml(self) -> "RayJobSpec":
        assert isinstance(yaml.safe_load(self.runtime_env_yaml or "{}"), dict)
        return self


class RayJob(Strict):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class Expression(Strict):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class Selector(Strict):
    match_labels: dict[str, str] = {}
    match_expressions: list[Expression] = []


class Relabeling(Strict):
    source_labels: list[str] = []
    target_label: str | None = None
    regex: str | None = None
    action: Literal["replace", "keep", "drop", "labeldrop", "labelkeep", "labelmap"] = "replace"


class Endpoint(Strict):
    port: str
    path: str = "/metrics"
    interval: str = Field(pattern=r"^\d+s$")
    relabelings: list[Relabeling] = []
    metric_relabelings: list[Relabeling] = []


class Namespaces(Strict):
    match_names: list[str]


class PodMonitorSpec(Strict):
    namespace_selector: Namespaces
    selector: Selector
    pod_metrics_endpoints: list[Endpoint] = Field(min_length=1)


class PodMonitor(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec


class Rule(Strict):
    record: str | None = None
    alert: str | None = None
    expr: str
    for_: str | None = Field(None, alias="for")
    labels: dict[str, str] = {}
    annotations: dict[Literal["summary", "description"], str] = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> "Rule":
        assert (self.record is None) != (self.alert is None)
        assert self.record or (self.labels["severity"] in ("warning", "critical") and len(self.annotations) == 2)
        return self


class RuleGroup(Strict):
    name: str
    interval: str | None = None
    rules: list[Rule]


class PrometheusRuleSpec(Strict):
    groups: list[RuleGroup]


class PrometheusRule(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: Metadata
    spec: PrometheusRuleSpec


class MapOptions(Strict):
    labels: dict[str, str] = {}


class ConfigMapFiles(Strict):
    name: str
    files: list[str]
    options: MapOptions = MapOptions()


class Kustomization(Strict):
    api_version: Literal["kustomize.config.k8s.io/v1beta1"]
    kind: Literal["Kustomization"]
    namespace: str | None = None
    resources: list[str]
    config_map_generator: list[ConfigMapFiles] = []


CUSTOM: dict[str, type[Strict]] = {
    "RayCluster": RayCluster,
    "RayService": RayService,
    "RayJob": RayJob,
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
    "Kustomization": Kustomization,
}
