"""Shows that a running test bed works: python3 testdata/apiserver/check.py DIR

Every object of objects/ is made and read back with no key lost and no value changed; a pod's status is patched by the
plugin's account; what that account may not do is refused. Everything that was made is removed again.
"""

import http.client
import json
import pathlib
import re
import ssl
import sys
import urllib.parse

CRDS = "/apis/crd.projectcalico.org/v1"
PLURALS = {
    "IPAMBlock": "ipamblocks",
    "BlockAffinity": "blockaffinities",
    "IPAMHandle": "ipamhandles",
    "IPAMConfig": "ipamconfigs",
    "IPPool": "ippools",
    "IPReservation": "ipreservations",
    "ClusterInformation": "clusterinformations",
}
PODS = "/api/v1/namespaces/default/pods"
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "percale-check"}}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "percale-check"},
    "spec": {"nodeName": "percale-check", "containers": [{"name": "c", "image": "none"}]},
}


class Client:
    """One user of a TLS server; `call` answers (status, decoded body)."""

    def __init__(self, url, pki, certificate=None, token=None):
        context = ssl.create_default_context(cafile=pki / "ca.crt")
        if certificate:
            context.load_cert_chain(pki / f"{certificate}.crt", pki / f"{certificate}.key")
        self.server = urllib.parse.urlsplit(url).netloc
        self.context = context
        self.token = token

    def call(self, method, path, body=None, content="application/json"):
        connection = http.client.HTTPSConnection(self.server, timeout=30, context=self.context)
        headers = {"Content-Type": content, "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or "null")
        finally:
            connection.close()

    def must(self, method, path, body=None, content="application/json"):
        status, answer = self.call(method, path, body, content)
        assert status in (200, 201), f"{method} {path}: {status} {answer.get('message')}"
        return answer


class Bed:
    def __init__(self, folder):
        pki = folder / "pki"
        environment = dict(re.findall(r"^export (\w+)=(.*)$", (folder / "env").read_text(), re.M))
        server = re.search(r'server: "(.*?)"', (folder / "admin.kubeconfig").read_text())[1]
        self.admin = Client(server, pki, "admin")
        self.plugin = Client(server, pki, token=(folder / "percale-cni.token").read_text().strip())
        self.nobody = Client(server, pki)
        self.forger = Client(server, pki, token="eyJhbGciOiJub25lIn0.e30.")
        self.etcd = Client(environment["PERCALE_TESTBED_ETCD"], pki, "etcd-client")
        self.etcd_nobody = Client(environment["PERCALE_TESTBED_ETCD"], pki)


def lost(wanted, found, where=""):
    """The paths of what is in `wanted` and is not, or is otherwise, in `found`."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [p for k in wanted for p in (lost(wanted[k], found[k], f"{where}.{k}") if k in found else [f"{where}.{k}"])]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [p for i, (w, f) in enumerate(zip(wanted, found)) for p in lost(w, f, f"{where}[{i}]")]
    return [] if type(wanted) is type(found) and wanted == found else [where]


def added(wanted, found):
    """What the server put into the spec of its own accord."""
    return set(found["spec"]) - set(wanted["spec"])


def keeps_object(bed, wanted):
    collection = f"{CRDS}/{PLURALS[wanted['kind']]}"
    path = f"{collection}/{wanted['metadata']['name']}"
    made = bed.admin.must("POST", collection, wanted)
    try:
        if "status" in wanted:
            bed.admin.must("PUT", f"{path}/status", {**made, "status": wanted["status"]})
        read = bed.admin.must("GET", path)
        assert not lost(wanted, read), f"lost or changed: {lost(wanted, read)}"
        assert added(wanted, read) <= {"sequenceNumber"}, f"added: {added(wanted, read)}"
        again = bed.admin.must("PUT", path, read)
        assert not lost(wanted, again), f"lost or changed when written again: {lost(wanted, again)}"
    finally:
        bed.admin.must("DELETE", path)


def manifests_are_ascii(_bed):
    for path in (pathlib.Path(__file__).parents[2] / "install/manifests/crds").glob("*.yaml"):
        assert path.read_bytes().isascii(), path.name


def guards_writes(bed):
    """As the plugin's account. The text of a refused precondition differs between releases; its code does not."""
    collection = f"{CRDS}/ipamhandles"
    path = f"{collection}/percale-check"
    handle = {"kind": "IPAMHandle", "apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": "percale-check"}}
    handle["spec"] = {"handleID": "percale-check", "block": {}, "deleted": False}
    first = bed.plugin.must("POST", collection, handle)
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": first["metadata"]["uid"]}}
    try:
        assert bed.plugin.call("POST", collection, handle)[0] == 409, "made twice"
        marked = {**first, "spec": {**first["spec"], "deleted": True}}
        assert bed.plugin.must("PUT", path, marked)["spec"]["deleted"] is True
        assert bed.plugin.call("PUT", path, first)[0] == 409, "a write at an old revision"
        other = {**options, "preconditions": {"uid": "other"}}
        assert bed.plugin.call("DELETE", path, other)[0] == 409, "the UID of another object"
    finally:
        bed.plugin.must("DELETE", path, options)
    assert bed.plugin.call("GET", path)[0] == 404


def refuses_bad_block(bed):
    wanted = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPAMBlock",
        "metadata": {"name": "percale-check"},
        "spec": {"cidr": "10.0.0.0/30", "allocations": ["a"], "attributes": [], "unallocated": []},
    }
    status, answer = bed.admin.call("POST", f"{CRDS}/ipamblocks", wanted)
    assert status == 422, f"{status} {answer}"
    for field in ("spec.strictAffinity", "spec.allocations[0]"):
        assert field in answer["message"], answer["message"]


def takes_pod_status(bed):
    pod = bed.admin.must("POST", PODS, POD)
    path = f"{PODS}/percale-check"
    annotations = {"cni.projectcalico.org/podIP": "10.0.0.1/32", "cni.projectcalico.org/podIPs": "10.0.0.1/32,fd00::1/128"}
    patch = {"metadata": {"uid": pod["metadata"]["uid"], "annotations": annotations}}
    merge = "application/strategic-merge-patch+json"
    try:
        bed.plugin.must("PATCH", f"{path}/status", patch, merge)
        assert bed.plugin.must("GET", path)["metadata"]["annotations"] == annotations
        patch["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
        status, answer = bed.plugin.call("PATCH", f"{path}/status", patch, merge)
        fields = {cause["field"] for cause in answer["details"]["causes"]}
        assert (status, fields) == (422, {"metadata.uid"}), f"another pod's UID: {status} {answer}"
        status, _ = bed.plugin.call("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, merge)
        assert status == 403, f"a patch beside the status: {status}"
        assert bed.plugin.call("DELETE", path)[0] == 403, "the plugin deleted a pod"
    finally:
        bed.admin.must("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})


def serves_plugin(bed):
    for resource in ("ipamblocks", "ippools", "ipreservations", "ipamconfigs", "clusterinformations"):
        bed.plugin.must("GET", f"{CRDS}/{resource}")
    bed.plugin.must("GET", "/api/v1/namespaces/default")
    bed.plugin.must("GET", "/api/v1/nodes/percale-check")


def refuses_others(bed):
    for path in ("/api/v1/secrets", "/api/v1/pods", "/apis/apps/v1/deployments"):
        assert bed.plugin.call("GET", path)[0] == 403, path
    pool = {"kind": "IPPool", "apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/8"}}
    assert bed.plugin.call("POST", f"{CRDS}/ippools", pool)[0] == 403, "the plugin made a pool"
    assert bed.nobody.call("GET", f"{CRDS}/ippools")[0] == 403, "no credentials"
    assert bed.forger.call("GET", f"{CRDS}/ippools")[0] == 401, "a forged token"


def etcd_works(bed):
    """Through the JSON gateway, which wants keys and values in base64: this is /percale-check."""
    key = {"key": "L3BlcmNhbGUtY2hlY2s="}
    bed.etcd.must("POST", "/v3/kv/put", {**key, "value": "MQ=="})
    assert bed.etcd.must("POST", "/v3/kv/range", key)["kvs"][0]["value"] == "MQ=="
    assert bed.etcd.must("POST", "/v3/kv/deleterange", key)["deleted"] == "1"
    try:
        bed.etcd_nobody.call("GET", "/health")
    except (ssl.SSLError, ConnectionError):
        return
    raise AssertionError("etcd answers without a client certificate")


def checks():
    yield "etcd: a key written, read, deleted; no client certificate, no answer", etcd_works
    for path in sorted((pathlib.Path(__file__).parent / "objects").glob("*.json")):
        wanted = json.loads(path.read_text())["object"]
        yield f"kept: {path.stem}", lambda bed, wanted=wanted: keeps_object(bed, wanted)
    yield "the manifests are plain ASCII", manifests_are_ascii
    yield "refused: a block with a member missing and one of a wrong type", refuses_bad_block
    yield "writes and deletes by revision and UID, as the plugin's account", guards_writes
    yield "the plugin's account: reads what it needs", serves_plugin
    yield "the plugin's account: a pod's status, guarded by the UID, and nothing else of the pod", takes_pod_status
    yield "refused: what the account may not do, no credentials, a forged token", refuses_others


def main(folder):
    bed = Bed(folder)
    failed = passed = 0
    bed.admin.must("POST", "/api/v1/nodes", NODE)
    try:
        for name, check in checks():
            try:
                check(bed)
                passed += 1
                print(f"ok      {name}")
            except AssertionError as error:
                failed += 1
                print(f"FAILED  {name}: {error}")
    finally:
        bed.admin.must("DELETE", "/api/v1/nodes/percale-check")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
