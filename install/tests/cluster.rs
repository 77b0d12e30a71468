//! Against a real API server (`scripts/testbed`): manifests, chart, rights, tokens.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::Bed;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, discovery};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `scripts/testbed`, up until it is dropped.
struct Server {
    dir: tempfile::TempDir,
}

impl Server {
    fn up() -> Self {
        let server = Self { dir: tempfile::Builder::new().prefix("percale-installbed-").tempdir().unwrap() };
        let out = server.testbed("up");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        server
    }

    fn testbed(&self, verb: &str) -> Output {
        Command::new(top().join("scripts/testbed")).arg(verb).arg(self.path()).output().unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("bed")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.path().join("admin.kubeconfig")
    }

    fn port(&self) -> String {
        let text = fs::read_to_string(self.kubeconfig()).unwrap();
        let rest = text.split_once("https://127.0.0.1:").unwrap().1;
        rest.chars().take_while(char::is_ascii_digit).collect()
    }

    fn helm(&self, args: &[&str]) -> Output {
        let mut helm = helm();
        helm.env("KUBECONFIG", self.kubeconfig()).args(args);
        helm.output().unwrap()
    }

    fn helm_ok(&self, args: &[&str]) -> String {
        told(&self.helm(args), args)
    }

    /// Does something as a client of a kubeconfig.
    fn with<T>(&self, kubeconfig: &Path, work: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
            work(Client::try_from(config).unwrap()).await
        })
    }

    fn ask(&self, kubeconfig: &Path, method: &str, path: &str, body: &Value) -> Result<Value, u16> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(body).unwrap();
        self.with(kubeconfig, async |client| match client.request::<Value>(request).await {
            Ok(answer) => Ok(answer),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(e) => panic!("{path}: {e}"),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.testbed("down");
    }
}

/// Helm 3, as `scripts/deps` builds it.
fn helm() -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"));
    let program = cache.join("percale/bin/helm");
    assert!(program.exists(), "{} is missing: scripts/deps builds it", program.display());
    Command::new(program)
}

fn told(out: &Output, args: &[&str]) -> String {
    assert!(out.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn chart() -> String {
    top().join("install/charts/percale").display().to_string()
}

fn objects(yaml: &str) -> Vec<DynamicObject> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    all.into_iter().filter(|doc| !doc.is_null()).map(|doc| serde_json::from_value(doc).unwrap()).collect()
}

fn manifests() -> Vec<DynamicObject> {
    let dir = top().join("install/manifests");
    let crds = fs::read_dir(dir.join("crds")).unwrap().map(|e| e.unwrap().path());
    let files = crds.chain([dir.join("percale.yaml")]);
    files.flat_map(|file| objects(&fs::read_to_string(file).unwrap())).collect()
}

/// As `kubectl apply --server-side` does.
async fn apply(client: &Client, object: &DynamicObject, dry: bool) -> DynamicObject {
    let types = object.types.clone().unwrap();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let kind = GroupVersionKind::gvk(group, version, &types.kind);
    let (resource, _) = discovery::pinned_kind(client, &kind).await.unwrap();
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.metadata.name.clone().unwrap();
    let mut params = PatchParams::apply("kubectl").force();
    params.dry_run = dry;
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    let patched = api.patch(&name, &params, &Patch::Apply(object)).await;
    patched.unwrap_or_else(|e| panic!("{} {name}: {e}", types.kind))
}

fn rendered(args: &[&str]) -> Result<Vec<DynamicObject>, String> {
    let out = helm()
        .args(["template", "percale", &chart(), "-n", "percale-system", "--kube-version", "1.36.0"])
        .args(args)
        .output()
        .unwrap();
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    Ok(objects(&String::from_utf8_lossy(&out.stdout)))
}

fn daemon_set(objects: &[DynamicObject]) -> Value {
    let set = objects.iter().find(|o| o.types.as_ref().is_some_and(|t| t.kind == "DaemonSet"));
    set.unwrap().data["spec"]["template"]["spec"].clone()
}

/// Container and image.
fn images(pod: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lists = ["initContainers", "containers"].into_iter().flat_map(|key| pod[key].as_array().unwrap());
    lists.map(|c| (text(&c["name"]), text(&c["image"]))).collect()
}

// REQ: I-06
#[test]
fn the_plain_manifests_are_what_the_chart_renders() {
    let out = Command::new(top().join("install/manifests/render")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let kept = fs::read_to_string(top().join("install/manifests/percale.yaml")).unwrap();
    assert!(
        String::from_utf8_lossy(&out.stdout) == kept,
        "run install/manifests/render > install/manifests/percale.yaml"
    );
}

// REQ: I-05
#[test]
fn digests_are_pinned_per_component() {
    let (daemon, install) =
        (format!("imageSet.daemon={DIGEST}"), format!("imageSet.install={}", DIGEST.replace('0', "f")));
    let pod = daemon_set(&rendered(&["--set", &daemon, "--set", &install]).unwrap());
    let of = |name: &str| images(&pod).into_iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(of("daemon"), format!("ghcr.io/percale/percale@{DIGEST}"));
    assert_eq!(of("install"), format!("ghcr.io/percale/percale@{}", DIGEST.replace('0', "f")));
    assert_eq!(of("watch"), of("install"));
    assert_eq!(
        images(&daemon_set(&rendered(&["--set", &daemon]).unwrap()))[0].1,
        "ghcr.io/percale/percale:0.1.0"
    );
    assert!(rendered(&["--set", "imageSet.daemon=sha256:short"]).unwrap_err().contains("imageSet"));
    assert!(rendered(&["--set", &format!("imageSet.typo={DIGEST}")]).unwrap_err().contains("typo"));
}

#[test]
fn values_reach_the_containers() {
    let pod = daemon_set(
        &rendered(&[
            "--set",
            "cni.takeOver=true,cni.mtu=1400,pools.ipv4=10.244.0.0/16,env.FELIX_LOGSEVERITYSCREEN=debug",
            "--set",
            "datastoreType=etcdv3,etcd.endpoints=https://e:2379,etcd.secret=certs",
        ])
        .unwrap(),
    );
    let env = |at: &Value| {
        let list = at["env"].as_array().unwrap().iter();
        list.map(|e| (e["name"].as_str().unwrap().to_owned(), e["value"].clone()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let install = env(&pod["initContainers"][0]);
    assert_eq!((&install["CNI_MTU"], &install["ETCD_ENDPOINTS"]), (&json!("1400"), &json!("https://e:2379")));
    assert_eq!(pod["initContainers"][0]["command"][1], "--take-over");
    let whole = rendered(&["--set", "cni.takeOver=all"]).unwrap();
    assert_eq!(daemon_set(&whole)["initContainers"][0]["command"][1], "--take-over=all");
    assert!(whole.iter().any(|object| object.metadata.name.as_deref() == Some("percale-take-over")));
    assert!(rendered(&["--set", "cni.takeOver=some"]).is_err());
    for (stage, mode) in [("false", "--uninstall"), ("plugin", "--give-back"), ("all", "--give-back")] {
        let back = rendered(&["--set", &format!("cni.leave=true,cni.takeOver={stage}")]).unwrap();
        let pod = daemon_set(&back);
        assert_eq!(pod["initContainers"][0]["command"][1], mode);
        assert!(!images(&pod).iter().any(|(name, _)| name == "watch"), "nothing may repair what was removed");
    }
    let daemon = env(&pod["containers"][0]);
    assert_eq!(
        (&daemon["CALICO_IPV4POOL_CIDR"], &daemon["FELIX_LOGSEVERITYSCREEN"]),
        (&json!("10.244.0.0/16"), &json!("debug"))
    );
    assert!(rendered(&["--set", "datastoreType=etcdv3"]).unwrap_err().contains("etcd.endpoints"));
    assert!(rendered(&["--set", "cni.binDir=relative"]).is_err());
}

// REQ: I-06
#[test]
fn a_real_api_server_takes_manifests_and_chart() {
    let server = Server::up();
    let all = manifests();
    server.with(&server.kubeconfig(), async |client| {
        // What is in the namespace can only be tried once that exists.
        let (first, rest): (Vec<_>, Vec<_>) =
            all.iter().partition(|o| o.types.as_ref().unwrap().kind == "Namespace");
        apply(&client, first[0], true).await;
        apply(&client, first[0], false).await;
        for dry in [true, false, false] {
            for object in &rest {
                apply(&client, object, dry).await;
            }
        }
    });
    let path = "/apis/apps/v1/namespaces/percale-system/daemonsets/percale-node";
    let set = server.ask(&server.kubeconfig(), "GET", path, &Value::Null).unwrap();
    assert_eq!(images(&set["spec"]["template"]["spec"]).len(), 3);
    tokens_and_rights(&server);
    stage_two(&server);
    helms_way(&server);
}

/// The node's side of a whole take-over, in the API server: refused while it could not be kept, a label that keeps
/// calico-node off, and the way back.
// REQ: I-07
fn stage_two(server: &Server) {
    let admin = |method: &str, path: &str, body: &Value| server.ask(&server.kubeconfig(), method, path, body);
    let ok = |method: &str, path: &str, body: &Value| {
        admin(method, path, body).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "labels": {"kubernetes.io/os": "linux"}}});
    ok("POST", "/api/v1/nodes", &node);
    let bed = Bed::new().env("KUBECONFIG", &server.kubeconfig().display().to_string());
    let mut bed = bed.env("KUBERNETES_NODE_NAME", "node1");
    bed.unset("CALICO_IPV4POOL_CIDR");
    for name in ["calico", "calico-ipam"] {
        bed.put(&format!("bin/{name}"), &bed::plugin("Calico's"), 0o755);
    }
    bed.put("net.d/10-calico.conflist", r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico","datastore_type":"kubernetes"}]}"#, 0o644);
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    ok("POST", policies, &policy);
    let whole: &[&str] = &["--take-over=all"];
    assert!(bed.fails(whole).contains("cannot enforce (networkpolicies/default/deny)"));
    ok("DELETE", &format!("{policies}/deny"), &Value::Null);

    let pod = json!({"nodeSelector": {"kubernetes.io/os": "linux"}, "containers": [{"name": "calico-node", "image": "calico/node:v3.18.0"}]});
    let labels = json!({"k8s-app": "calico-node"});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "calico-node", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    let sets = "/apis/apps/v1/namespaces/kube-system/daemonsets";
    ok("POST", sets, &set);
    let told = bed.fails(whole);
    assert!(told.contains("kubectl -n kube-system patch daemonset calico-node"), "{told}");
    assert!(!bed.exists("bin/percale") && !bed.exists("state/take-over"), "nothing was changed");
    let patch = fs::read_to_string(top().join("install/manifests/calico-node-avoids.yaml")).unwrap();
    let patch: Value = serde_saphyr::from_str(&patch).unwrap();
    let mut set = ok("GET", &format!("{sets}/calico-node"), &Value::Null);
    set["spec"]["template"]["spec"]["affinity"] = patch["spec"]["template"]["spec"]["affinity"].clone();
    ok("PUT", &format!("{sets}/calico-node"), &set);

    // No controller runs here: the test is the one that takes calico-node's pod away.
    let mut running = pod.clone();
    running["nodeName"] = json!("node1");
    let running = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "calico-node-x", "labels": labels}, "spec": running});
    let pods = "/api/v1/namespaces/kube-system/pods";
    ok("POST", pods, &running);
    let mut child = bed::Running(bed.command(whole).spawn().unwrap());
    let label = || {
        ok("GET", "/api/v1/nodes/node1", &Value::Null)["metadata"]["labels"]["percale.io/taken-over"].clone()
    };
    bed::wait_for("the label", || label() == "all");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(
        child.0.try_wait().unwrap().is_none() && !bed.exists("state/take-over"),
        "it waits for the pod to go"
    );
    ok("DELETE", &format!("{pods}/calico-node-x?gracePeriodSeconds=0"), &Value::Null);
    assert!(child.0.wait().unwrap().success());
    assert_eq!(
        (bed.text("state/take-over").trim(), bed.text("bin/calico")),
        ("all", bed.text("src/percale"))
    );

    // A restart of the init container, whatever it is asked for, goes on; also where a policy came since.
    ok("POST", policies, &policy);
    bed.ok(whole);
    bed.ok(&[]);
    assert_eq!(bed.text("state/take-over").trim(), "all");
    assert!(bed.fails(&["--rollback"]).contains("--give-back"));
    bed.ok(&["--give-back"]);
    assert_eq!((label(), bed.text("state/take-over").trim()), (Value::Null, "given-back"));
    assert_eq!(bed.text("bin/calico"), bed::plugin("Calico's"));
    ok("DELETE", &format!("{policies}/deny"), &Value::Null);

    // Cut off between its last file and the label, a give-back is finished by the next run, whatever that is asked for.
    let good = server.kubeconfig().display().to_string();
    let nobody = fs::read_to_string(&good).unwrap().replace("https://127.0.0.1:", "https://127.255.255.1:");
    let nobody = bed.put("nobody.conf", &nobody, 0o600).display().to_string();
    let next_runs: [(&[&str], _); 4] = [
        (&["--give-back"], Some("given-back")),
        (&["--take-over"], Some("plugin")),
        (&["--uninstall"], None),
        (&[], None),
    ];
    for (next, stage) in next_runs {
        bed.ok(whole);
        bed.set("KUBECONFIG", &nobody);
        let told = bed.fails(&["--give-back"]);
        assert!(told.contains("still keeps calico-node off node node1; run again"), "{told}");
        assert_eq!((label(), bed.text("state/take-over").trim()), (json!("all"), "given-back"));
        bed.set("KUBECONFIG", &good);
        if next.is_empty() {
            bed.set("CALICO_IPV4POOL_CIDR", "10.91.0.0/16");
        }
        bed.ok(&[next, &["--dry-run"]].concat());
        bed.ok(next);
        let now = bed.exists("state/take-over").then(|| bed.text("state/take-over"));
        assert_eq!((label(), now.as_deref().map(str::trim)), (Value::Null, stage), "{next:?}");
    }
    ok("DELETE", &format!("{sets}/calico-node"), &Value::Null);
    ok("DELETE", "/api/v1/nodes/node1", &Value::Null);
}

/// The chart as a release artifact, installed, upgraded and removed beside the manifests.
fn helms_way(server: &Server) {
    let out = server.dir.path().join("artifact");
    server.helm_ok(&["package", &chart(), "--destination", &out.display().to_string()]);
    let package = out.join("percale-0.1.0.tgz").display().to_string();
    server.helm_ok(&["lint", &chart(), "--strict"]);
    // The manifests have the cluster-wide names already: a chart beside them must be refused.
    let taken = server.helm(&["install", "percale", &package, "-n", "percale-helm", "--create-namespace"]);
    assert!(String::from_utf8_lossy(&taken.stderr).contains("ownership"), "{taken:?}");
    for kind in ["clusterroles", "clusterrolebindings"] {
        for name in ["percale-cni", "percale-node", "percale-node-cni"] {
            let path = format!("/apis/rbac.authorization.k8s.io/v1/{kind}/{name}");
            let _ = server.ask(&server.kubeconfig(), "DELETE", &path, &Value::Null);
        }
    }
    let install = ["install", "percale", &package, "-n", "percale-helm", "--create-namespace"];
    server.helm_ok(&[&install[..], &["--dry-run=server"]].concat());
    server.helm_ok(&install);
    let pinned = format!("imageSet.daemon={DIGEST}");
    server.helm_ok(&["upgrade", "percale", &package, "-n", "percale-helm", "--set", &pinned]);
    let path = "/apis/apps/v1/namespaces/percale-helm/daemonsets/percale-node";
    let set = server.ask(&server.kubeconfig(), "GET", path, &Value::Null).unwrap();
    let images = images(&set["spec"]["template"]["spec"]);
    assert!(
        images.contains(&("daemon".to_owned(), format!("ghcr.io/percale/percale@{DIGEST}"))),
        "{images:?}"
    );
    server.helm_ok(&["uninstall", "percale", "-n", "percale-helm"]);
    assert_eq!(server.ask(&server.kubeconfig(), "GET", path, &Value::Null).unwrap_err(), 404);
}

/// With the rights of the manifests and nothing more, the installer gets the plugin's token, and that
/// may do the plugin's work and nothing else.
// REQ: I-04
fn tokens_and_rights(server: &Server) {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let path = "/api/v1/namespaces/percale-system/serviceaccounts/percale-node/token";
    let answer = server.ask(&server.kubeconfig(), "POST", path, &request).unwrap();
    let bed = Bed::new().account(answer["status"]["token"].as_str().unwrap());
    fs::copy(server.path().join("pki/ca.crt"), bed.path("account/ca.crt")).unwrap();
    let bed = bed.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", &server.port());
    let bed = bed.env("PERCALE_CNI_SERVICE_ACCOUNT", "percale-system/percale-cni");
    bed.ok(&[]);
    let kubeconfig = bed.path("net.d/percale-kubeconfig");
    let may = |path: &str| server.ask(&kubeconfig, "GET", path, &Value::Null).map(drop);
    assert_eq!(may("/apis/crd.projectcalico.org/v1/ippools"), Ok(()));
    assert_eq!(may("/apis/crd.projectcalico.org/v1/ipamblocks"), Ok(()));
    assert_eq!(may("/api/v1/namespaces/percale-system/secrets"), Err(403));
    assert_eq!(may("/api/v1/pods"), Err(403), "it reads the one pod that it is asked about");
    let bed = bed.env("PERCALE_CNI_SERVICE_ACCOUNT", "kube-system/admin");
    let refused = bed.fails(&[]);
    assert!(refused.contains("a token for kube-system/admin") && refused.contains("forbidden"), "{refused}");
}
