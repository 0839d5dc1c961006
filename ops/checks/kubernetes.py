"""Checks rendered Kubernetes manifests: the schema of each kind, what only KEDA's and Prometheus' own models know, and
what a pod of Postrider has to say about itself.

    kubernetes.py NAME=FILE …      FILE holds what `kubectl kustomize` printed
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from pydantic import BaseModel, ValidationError

# The oldest and the newest Kubernetes that the manifests are for.
VERSIONS = ["1.29", "1.37"]
# Kinds of others, checked with models of their own.
MODELS = {
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): keda.TriggerAuthentication,
    ("monitoring.coreos.com/v1", "PodMonitor"): prometheus.PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus.PrometheusRule,
}
# Newer than the models: KEDA 2.17 and up.
NEWER = {"spec.fallback.behavior"}
ROLES = {"scheduler", "worker", "api", "migrate", "init"}

problems = []


def wrong(where, text):
    problems.append(f"{where}: {text}")


def schemas(files):
    """Each kind that Kubernetes itself has, strictly. A kind without a schema is only a warning there."""
    for version in VERSIONS:
        run = subprocess.run(
            [Path(sys.executable).parent / "kubernetes-validate", "--strict", "--quiet", "-k", version, *files.values()],
            capture_output=True, text=True)
        lines = (run.stdout + run.stderr).splitlines()
        other = [line for line in lines if not any(f"kind {kind} with" in line for _, kind in MODELS)]
        for line in other:
            for name, file in files.items():
                line = line.replace(file, name)
            wrong(f"Kubernetes {version}", line.strip())
        if run.returncode != 0 and not other:
            wrong(f"Kubernetes {version}", f"kubernetes-validate ended with {run.returncode}")


def fields(model):
    """Names of a model's fields as they are written, with the models behind them."""
    result = {}
    for name, field in model.model_fields.items():
        inner = [field.annotation]
        models = []
        while inner:
            one = inner.pop()
            if isinstance(one, type) and issubclass(one, BaseModel):
                models.append(one)
            inner += list(getattr(one, "__args__", []))
        result[field.alias or name] = models[0] if models else None
    return result


def unknown(value, model, path, where):
    """The models accept keys that they do not know: a misspelled one would silently do nothing."""
    if isinstance(value, list):
        for item in value:
            unknown(item, model, path, where)
    elif isinstance(value, dict) and model.model_fields:
        known = fields(model)
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            if key not in known:
                if here not in NEWER:
                    wrong(where, f"there is no key {here}")
            elif known[key] is not None and here != "metadata":
                unknown(inner, known[key], here, where)


def custom(where, document, model):
    try:
        model.model_validate(document)
    except ValidationError as error:
        for one in error.errors():
            wrong(where, f"{'.'.join(map(str, one['loc']))}: {one['msg']}")
    unknown(document, model, "", where)


def pod(where, kind, document):
    """The rules of the pod security standard `restricted`, and ours."""
    spec = document["spec"]["template"]["spec"]
    component = document["metadata"].get("labels", {}).get("app.kubernetes.io/component")

    def need(condition, text):
        if not condition:
            wrong(where, text)

    need(spec.get("automountServiceAccountToken") is False, "automountServiceAccountToken must be false")
    need(spec.get("enableServiceLinks") is False, "enableServiceLinks must be false: its variables are unknown keys")
    context = spec.get("securityContext", {})
    need(context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0, "must run as a numbered user, not root")
    need(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "needs the seccomp profile RuntimeDefault")
    for key in ["hostNetwork", "hostPID", "hostIPC"]:
        need(not spec.get(key), f"{key} is not allowed")
    for volume in spec.get("volumes", []):
        need(set(volume) & {"secret", "emptyDir", "configMap", "projected"}, f"volume {volume['name']} is of a wrong kind")
    mounted = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"] + spec.get("initContainers", []):
        inner = container.get("securityContext", {})
        need(inner.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation must be false")
        need(inner.get("readOnlyRootFilesystem") is True, "the root file system must be read-only")
        need(inner.get("capabilities", {}).get("drop") == ["ALL"], "all capabilities must be dropped")
        resources = container.get("resources", {})
        need({"cpu", "memory"} <= set(resources.get("requests", {})), "needs requests of cpu and memory")
        need("memory" in resources.get("limits", {}), "needs a memory limit")
        need("cpu" not in resources.get("limits", {}) or component != "worker", "workers have no CPU limit")
        for mount in container.get("volumeMounts", []):
            need(mount["name"] in mounted, f"volume {mount['name']} is mounted but not there")
        if kind == "Deployment" and component in ROLES:
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
                need(probe in container, f"needs a {probe}")
            # A liveness probe that asks for services restarts the fleet when one of them is away.
            path = container.get("livenessProbe", {}).get("httpGet", {}).get("path")
            need(path == "/healthz", "the liveness probe must ask /healthz")
    if kind == "Deployment" and component in ROLES:
        need(spec.get("terminationGracePeriodSeconds"), "needs terminationGracePeriodSeconds")
        need(spec.get("topologySpreadConstraints"), "needs topologySpreadConstraints")


def whole(name, documents):
    """What only makes sense together."""
    by_kind = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    names = {(d["kind"], d["metadata"]["name"]) for d in documents}
    if "Deployment" not in by_kind:
        return
    scaled = [d["spec"]["scaleTargetRef"]["name"] for k in ["ScaledObject", "HorizontalPodAutoscaler"]
              for d in by_kind.get(k, [])]
    if len(scaled) != len(set(scaled)):
        wrong(name, "two autoscalers of one Deployment")
    for deployment in by_kind["Deployment"]:
        target = deployment["metadata"]["name"]
        if (target in scaled) == ("replicas" in deployment["spec"]):
            wrong(name, f"{target}: either an autoscaler or `replicas`, not both and not none")
    for target in scaled:
        if ("Deployment", target) not in names:
            wrong(name, f"an autoscaler's target {target} does not exist")
    selectors = [p["spec"]["selector"]["matchLabels"] for p in by_kind.get("PodDisruptionBudget", [])]
    selectors += [p["spec"]["podSelector"].get("matchLabels", {}) for p in by_kind.get("NetworkPolicy", [])]
    selectors += [s["spec"]["selector"] for s in by_kind.get("Service", [])]
    labels = [d["spec"]["template"]["metadata"]["labels"] for k in ["Deployment", "Job"] for d in by_kind.get(k, [])]
    for selector in selectors:
        if not any(selector.items() <= own.items() for own in labels):
            wrong(name, f"a selector matches no pod: {selector}")
    ports = {p["name"] for d in by_kind["Deployment"] for c in d["spec"]["template"]["spec"]["containers"]
             for p in c.get("ports", []) if "name" in p}
    for monitor in by_kind.get("PodMonitor", []):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["port"] not in ports:
                wrong(name, f"no pod has a port named {endpoint['port']}")
    for scaler in by_kind.get("ScaledObject", []):
        # KEDA asks from its own namespace: the URL has to name ours, and a Service of it.
        for trigger in scaler["spec"]["triggers"]:
            found = re.match(r"http://([^.]+)\.([^.]+)\.svc\.cluster\.local:(\d+)/api/v1/scale$",
                             trigger["metadata"].get("url", ""))
            if not found:
                wrong(name, f"the trigger's URL does not lead to the scale endpoint: {trigger['metadata'].get('url')}")
            else:
                service, namespace, port = found.groups()
                match = [s for s in by_kind["Service"] if s["metadata"]["name"] == service
                         and s["metadata"].get("namespace", namespace) == namespace
                         and any(p["port"] == int(port) for p in s["spec"]["ports"])]
                if not match:
                    wrong(name, f"there is no Service for {trigger['metadata']['url']}")


def main():
    files = dict(argument.split("=", 1) for argument in sys.argv[1:])
    schemas(files)
    for name, file in files.items():
        documents = [d for d in yaml.safe_load_all(Path(file).read_text()) if d]
        if not documents:
            wrong(name, "is empty")
        for document in documents:
            kind = document["kind"]
            where = f"{name}: {kind} {document['metadata']['name']}"
            model = MODELS.get((document["apiVersion"], kind))
            if model:
                custom(where, document, model)
            if kind in {"Deployment", "Job", "StatefulSet", "DaemonSet"}:
                pod(where, kind, document)
        whole(name, documents)
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


main()
