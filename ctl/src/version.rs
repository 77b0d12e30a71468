//! `version`.

use crate::cli::Output;
use crate::kinds::API_VERSION;
use crate::outcome::{Outcome, say, say_json};
use serde_json::json;

/// Prints what this binary is and what it can talk to.
pub fn version(output: Output) -> anyhow::Result<Outcome> {
    let version = env!("CARGO_PKG_VERSION");
    match output {
        Output::Json => {
            say_json(
                &json!({"version": version, "api_version": API_VERSION, "datastores": ["embedded", "etcdv3", "kubernetes"]}),
            )?;
        }
        Output::Table => say(&format!(
            "percalectl {version}\nresources  {API_VERSION}\nstores     embedded, etcdv3, kubernetes"
        ))?,
    }
    Ok(Outcome::Done)
}
