"""Judges the deployment examples: each Kubernetes object against the types of its API (no unknown field, none of another
type, none missing), names that must agree, and flags and variables against those of the server."""

import re
import subprocess
import sys

import kubernetes.client
import yaml

KINDS = {
    ("v1", "Service"): "V1Service",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
}
faults = []


def check_object(item, kind):
    """Types, what must be there, and that nothing else is."""
    try:
        getattr(kubernetes.client, kind).model_validate(item, strict=True)
    except ValueError as error:
        faults.append(f"{item['kind']}: {error}")


def check_agreement(objects):
    """What no type says: selectors, ports, names and probes that must agree with each other."""
    sets = [item for item in objects if item["kind"] == "StatefulSet"]
    services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Service"}
    for stateful in sets:
        spec, template = stateful["spec"], stateful["spec"]["template"]
        labels = template["metadata"]["labels"]
        container = template["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        governing = services.get(spec.get("serviceName"))
        if governing is None or governing["spec"].get("clusterIP") != "None":
            faults.append(f"serviceName {spec.get('serviceName')} is no headless service")
        elif not governing["spec"].get("publishNotReadyAddresses"):
            faults.append("members cannot find each other before they are ready")
        for name, service in services.items():
            if not service["spec"]["selector"].items() <= labels.items():
                faults.append(f"the service {name} selects other pods")
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in ports:
                    faults.append(f"the service {name} leads to the port {port['targetPort']}, which there is not")
        for other in objects:
            selector = other["spec"]["selector"].get("matchLabels", labels)
            if not selector.items() <= labels.items():
                faults.append(f"{other['kind']} selects other pods")
        claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
        if not {mount["name"] for mount in container["volumeMounts"]} <= claims:
            faults.append("a volume that is mounted is not claimed")
        for probe in ("readinessProbe", "livenessProbe"):
            how = container[probe]
            port = how["grpc"]["port"] if "grpc" in how else how["tcpSocket"]["port"]
            if port not in ports and port not in ports.values():
                faults.append(f"{probe} asks at the port {port}, which there is not")
        cluster = next(flag for flag in container["args"] if flag.startswith("--initial-cluster="))
        for number in range(spec["replicas"]):
            member = f"{stateful['metadata']['name']}-{number}"
            if f"{member}=http://{member}.{spec.get('serviceName')}." not in cluster:
                faults.append(f"--initial-cluster lacks {member}")


def check_flags(server, objects, unit):
    text = subprocess.run([server, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^ +--([a-z-]+)", text, re.MULTILINE))
    if len(known) < 20:
        faults.append(f"{server} --help names only {len(known)} flags")
    used = {re.match("--([a-z-]+)=", flag)[1] for item in objects if item["kind"] == "StatefulSet"
            for flag in item["spec"]["template"]["spec"]["containers"][0]["args"]}
    used |= {name.lower().replace("_", "-") for name in re.findall(r"\bTENURE_([A-Z_]+)=", unit)}
    faults.extend(f"--{flag} is no flag of the server" for flag in sorted(used - known))


def main(server, manifests, unit):
    with open(manifests, encoding="utf-8") as file:
        objects = list(yaml.safe_load_all(file))
    for number, item in enumerate(objects):
        kind = KINDS.get((item.get("apiVersion"), item.get("kind")))
        if kind is None:
            faults.append(f"object {number} is a {item.get('apiVersion')} {item.get('kind')}, which this check does not know")
        else:
            check_object(item, kind)
    if not faults:
        check_agreement(objects)
    with open(unit, encoding="utf-8") as file:
        check_flags(server, objects, file.read())
    for fault in faults:
        print(f"{manifests}: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"{len(objects)} objects of Kubernetes are well-formed and agree with each other and with {server}")


main(*sys.argv[1:])
