//! The record of one CNI call: what was asked, for whom, how it ended and where the time went.

use super::Level;
use std::borrow::Cow;
use std::time::Duration;

/// Gathered while a call runs and written once with [`super::Log::call`]. Empty members are
/// left out of the line. There is no member for a configuration, an environment or a credential.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `ADD`, `DEL`, ...
    pub verb: String,
    pub network: String,
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// `namespace/name`, where the runtime names a pod.
    pub pod: String,
    /// Addresses given or freed, in their usual text form.
    pub addresses: Vec<String>,
    /// Named parts of the call and their duration, in the order they ended.
    pub phases: Vec<(Cow<'static, str>, Duration)>,
    /// Duration of the whole call.
    pub total: Option<Duration>,
    /// How a successful call ended where that is not simply "ok": "journalled", "already there".
    pub note: String,
    pub failure: Option<Failure>,
}

/// The error that the runtime is told.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// The CNI error code.
    pub code: u32,
    /// The step that failed: "ipam", "netlink", ...
    pub step: &'static str,
    pub msg: String,
    /// The chain of causes.
    pub details: String,
}

impl Call {
    pub fn phase(&mut self, name: &'static str, took: Duration) {
        self.phases.push((name.into(), took));
    }

    pub(super) fn level(&self) -> Level {
        if self.failure.is_some() { Level::Error } else { Level::Info }
    }

    /// Identity first, free text last: a cut takes the end of the text.
    pub(super) fn fields(&self) -> Vec<(Cow<'static, str>, String)> {
        let mut fields = Vec::with_capacity(16);
        let result = if self.failure.is_some() { "error" } else { "ok" };
        text(&mut fields, "verb", &self.verb);
        text(&mut fields, "result", result);
        if let Some(failure) = &self.failure {
            text(&mut fields, "code", &failure.code.to_string());
            text(&mut fields, "step", failure.step);
        }
        self.identity(&mut fields);
        self.times(&mut fields);
        text(&mut fields, "note", &self.note);
        if let Some(failure) = &self.failure {
            text(&mut fields, "error", &failure.msg);
            text(&mut fields, "details", &failure.details);
        }
        fields
    }

    fn identity(&self, fields: &mut Vec<(Cow<'static, str>, String)>) {
        text(fields, "network", &self.network);
        text(fields, "container", &self.container);
        text(fields, "ifname", &self.ifname);
        text(fields, "pod", &self.pod);
        text(fields, "addresses", &self.addresses.join(","));
    }

    fn times(&self, fields: &mut Vec<(Cow<'static, str>, String)>) {
        if let Some(total) = self.total {
            fields.push(("total_ms".into(), ms(total)));
        }
        for (name, took) in &self.phases {
            fields.push((format!("{name}_ms").into(), ms(*took)));
        }
    }
}

fn text(fields: &mut Vec<(Cow<'static, str>, String)>, key: &'static str, value: &str) {
    if !value.is_empty() {
        fields.push((key.into(), value.to_owned()));
    }
}

fn ms(took: Duration) -> String {
    format!("{:.2}", took.as_secs_f64() * 1000.0)
}
