"""A CRI client that is driven by lines of JSON.

Usage: cri.py SOCKET. One request a line on stdin, one answer a line on stdout:
    {"op": "run", "pods": [{"name": "a", "ports": [[80, 8080]], "seconds": 2}]} -> {"items": [{"ok": "ID"}, ...]}
    {"op": "stop" | "remove" | "status", "ids": ["ID"]}            -> {"items": [{"ok": ...}, ...]}
    {"op": "list"}                                                 -> {"items": [{"ok": [{"id", "name", "ready"}]}]}
    {"op": "container", "pods": [{"name": "init", "image": "REF", "command": ["/x"], "env": {"A": "b"},
      "mounts": [["/on/host", "/in/it"]], "logs": "/dir"}]}  on the host's network, to its end
                                                                   -> {"items": [{"ok": {"exit": 0, "log": TEXT}}]}
    {"op": "ready"}                                                -> {"items": [{"ok": true | false}]}
The items of a request run side by side. An item that fails is {"error": TEXT}.
"""
import concurrent.futures
import json
import sys
import time
import uuid

import cri_pb2 as pb
import cri_pb2_grpc as rpc
import grpc

SECONDS = 180
HOST_NETWORK = 2
EXITED = 2


def pod_config(pod):
    config = pb.PodSandboxConfig(hostname=pod["name"])
    config.metadata.name = pod["name"]
    config.metadata.uid = str(uuid.uuid4())
    config.metadata.namespace = pod.get("namespace", "default")
    config.linux.security_context.namespace_options.network = 0
    for container_port, host_port in pod.get("ports", []):
        config.port_mappings.add(container_port=container_port, host_port=host_port)
    return config


def run(stub, pod):
    request = pb.RunPodSandboxRequest(config=pod_config(pod))
    return stub.RunPodSandbox(request, timeout=pod.get("seconds", SECONDS)).pod_sandbox_id


def container(stub, spec):
    sandbox = pb.PodSandboxConfig(log_directory=spec["logs"])
    sandbox.metadata.name = spec["name"]
    sandbox.metadata.uid = str(uuid.uuid4())
    sandbox.metadata.namespace = "default"
    sandbox.linux.security_context.namespace_options.network = HOST_NETWORK
    pod_id = stub.RunPodSandbox(pb.RunPodSandboxRequest(config=sandbox), timeout=SECONDS).pod_sandbox_id
    try:
        return run_to_end(stub, pod_id, sandbox, spec)
    finally:
        stop(stub, pod_id)
        remove(stub, pod_id)


def run_to_end(stub, pod_id, sandbox, spec):
    config = pb.ContainerConfig(command=spec["command"], log_path=spec["name"] + ".log")
    config.metadata.name = spec["name"]
    config.image.image = spec["image"]
    for key, value in spec.get("env", {}).items():
        config.envs.add(key=key, value=value)
    for host, inside in spec.get("mounts", []):
        config.mounts.add(host_path=host, container_path=inside)
    request = pb.CreateContainerRequest(pod_sandbox_id=pod_id, config=config, sandbox_config=sandbox)
    container_id = stub.CreateContainer(request, timeout=SECONDS).container_id
    stub.StartContainer(pb.ContainerIdMessage(container_id=container_id), timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        question = pb.ContainerStatusRequest(container_id=container_id)
        answer = stub.ContainerStatus(question, timeout=SECONDS).status
        if answer.state == EXITED:
            log = open(spec["logs"] + "/" + config.log_path, encoding="utf-8").read()
            return {"exit": answer.exit_code, "log": log}
        time.sleep(0.01)
    raise TimeoutError(spec["name"])


def stop(stub, pod_id):
    stub.StopPodSandbox(pb.PodSandboxIdRequest(pod_sandbox_id=pod_id), timeout=SECONDS)


def remove(stub, pod_id):
    stub.RemovePodSandbox(pb.PodSandboxIdRequest(pod_sandbox_id=pod_id), timeout=SECONDS)


def status(stub, pod_id):
    request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=True)
    answer = stub.PodSandboxStatus(request, timeout=SECONDS)
    network = answer.status.network
    info = json.loads(answer.info["info"])
    return {
        "ready": answer.status.state == 0,
        "ips": [network.ip] + [more.ip for more in network.additional_ips],
        "pid": info.get("pid", 0),
        "netns": next(
            (ns["path"] for ns in info["runtimeSpec"]["linux"]["namespaces"] if ns["type"] == "network"), ""
        ),
    }


def listing(stub, _):
    items = stub.ListPodSandbox(pb.Empty(), timeout=SECONDS).items
    return [{"id": i.id, "name": i.metadata.name, "ready": i.state == 0} for i in items]


def ready(stub, _):
    conditions = stub.Status(pb.StatusRequest(), timeout=5).status.conditions
    return all(condition.status for condition in conditions)


OPS = {"run": run, "container": container, "stop": stop, "remove": remove, "status": status, "list": listing, "ready": ready}


def attempt(op, stub, subject):
    try:
        return {"ok": OPS[op](stub, subject)}
    except grpc.RpcError as error:
        return {"error": error.details()}


def main():
    stub = rpc.RuntimeServiceStub(grpc.insecure_channel("unix://" + sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        subjects = request.get("pods") or request.get("ids") or [None]
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(subjects)) as pool:
            items = list(pool.map(lambda s, op=request["op"]: attempt(op, stub, s), subjects))
        print(json.dumps({"items": items}), flush=True)


main()
