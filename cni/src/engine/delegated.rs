//! Another plugin as our IPAM: executed, as the specification has it ("Plugin Delegation").

use super::add::Leased;
use super::call::Call;
use super::undo::Undo;
use crate::delegate::{self, Invocation};

use cni_protocol::{CniError, CniResult, Code, NetConf, Verb};
use serde_json::Value;

/// Whether addresses come from another plugin than ours.
pub(crate) fn is_delegated(conf: &NetConf) -> bool {
    !conf.ipam.plugin.is_empty() && !conf.ipam.is_own()
}

/// Asks for addresses; they are given back if a later step fails.
pub(crate) fn add<'a>(call: &'a Call, undo: &mut Undo<'a>) -> Result<Leased, CniError> {
    // Pushed first: a plugin that fails half way may have allocated.
    undo.push("release addresses", move || run(call, Verb::Del).map(|_| ()).map_err(|e| e.to_string()));
    let answer = run(call, Verb::Add)?.ok_or_else(|| no_result(call))?;
    let result = CniResult::from_json(&answer)?;
    if result.ips.is_empty() {
        return Err(no_result(call));
    }
    Ok(Leased {
        ips: result.ips.iter().map(|ip| ip.address).collect(),
        networks: result.ips.iter().map(|ip| ip.address.trunc()).collect(),
        dns: result.dns,
        repeated: false,
    })
}

fn no_result(call: &Call) -> CniError {
    CniError::new(
        Code::Delegate,
        format!("IPAM plugin {} answered without an address", call.conf.ipam.plugin),
    )
}

/// Runs one verb of the plugin with this call's configuration.
pub(crate) fn run(call: &Call, verb: Verb) -> Result<Option<Value>, CniError> {
    let stdin = serde_json::to_vec(&call.req.raw).map_err(|e| CniError::internal(e.to_string()))?;
    let paths =
        std::env::join_paths(&call.req.path).map_err(|e| CniError::environment(format!("CNI_PATH: {e}")))?;
    let args = call.req.args.for_delegate();
    let invocation = Invocation {
        verb: verb.as_str(),
        plugin: &call.conf.ipam.plugin,
        paths: &paths.to_string_lossy(),
        env: &[("CNI_ARGS", &args)],
        stdin: &stdin,
        deadline: call.deadline,
    };
    delegate::run(&invocation, call.log).map_err(CniError::from)
}
