//! Serves the plugin's requests.

use crate::context::Context;
use anyhow::Result;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    while !context.shutdown.wait(Duration::from_secs(60)) {}
    Ok(())
}
