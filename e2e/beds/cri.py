"""A CRI client that is driven by lines of JSON.

Usage: cri.py SOCKET. One request a line on stdin, one answer a line on stdout:
    {"op": "run", "pods": [{"name": "a", "ports": [[80, 8080]], "seconds": 2}]} -> {"items": [{"ok": "ID"}, ...]}
    {"op": "stop" | "remove" | "status", "ids": ["ID"]}            -> {"items": [{"ok": ...}, ...]}
    {"op": "list"}                                                 -> {"items": [{"ok": [{"id", "name", "ready"}]}]}
    {"op": "ready"}                                                -> {"items": [{"ok": true | false}]}
The items of a request run side by side. An item that fails is {"error": TEXT}.
"""
import concurrent.futures
import json
import sys
import uuid

import cri_pb2 as pb
import cri_pb2_grpc as rpc
import grpc

SECONDS = 180


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


OPS = {"run": run, "stop": stop, "remove": remove, "status": status, "list": listing, "ready": ready}


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
