//! The plan, printed.

use crate::options::Output;
use crate::plan::{From, Plan, Step};
use serde_json::{Value, json};

/// What `--dry-run` prints.
pub fn render(plan: &Plan, warnings: &[String], output: Output) -> String {
    match output {
        Output::Json => {
            let steps: Vec<Value> = plan.steps.iter().map(json_of).collect();
            let all = json!({"changes": plan.changes(), "steps": steps, "warnings": warnings});
            serde_json::to_string_pretty(&all).expect("a JSON value can be written") + "\n"
        }
        Output::Table => table(plan, warnings),
    }
}

fn table(plan: &Plan, warnings: &[String]) -> String {
    let rows: Vec<(&str, String, String)> = plan.steps.iter().map(row).collect();
    let width = rows.iter().map(|(_, path, _)| path.len()).max().unwrap_or_default().max(4);
    let mut text = format!("{:<8} {:<width$} WHAT\n", "STEP", "PATH");
    for (step, path, what) in rows {
        text += format!("{step:<8} {path:<width$} {what}").trim_end();
        text.push('\n');
    }
    warnings.iter().for_each(|warning| text += &format!("warning: {warning}\n"));
    text
}

fn row(step: &Step) -> (&'static str, String, String) {
    let path = path_of(step).display().to_string();
    let what = match step {
        Step::MakeDir { mode, .. } => format!("directory, {mode:04o}"),
        Step::Sweep { .. } => "left by a run that was killed".to_owned(),
        Step::Save { sha256, .. } => format!("kept for the way back, {}", sha256.short()),
        Step::Place { kind, content, verify, .. } => {
            let verified = if *verify { ", executed once before" } else { "" };
            format!("{}, {:04o}, {}{verified}", kind.as_str(), content.mode, content.sha256.short())
        }
        Step::SetMode { mode, .. } => format!("mode {mode:04o}"),
        Step::Keep { why, .. } => (*why).to_owned(),
        Step::Remove { kind, .. } => kind.as_str().to_owned(),
    };
    (name(step), path, what)
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::MakeDir { .. } => "make",
        Step::Sweep { .. } => "sweep",
        Step::Save { .. } => "save",
        Step::Place { .. } => "place",
        Step::SetMode { .. } => "mode",
        Step::Keep { .. } => "keep",
        Step::Remove { .. } => "remove",
    }
}

fn path_of(step: &Step) -> &std::path::Path {
    match step {
        Step::MakeDir { path, .. }
        | Step::Sweep { path }
        | Step::Save { path, .. }
        | Step::Place { path, .. }
        | Step::SetMode { path, .. }
        | Step::Keep { path, .. }
        | Step::Remove { path, .. } => path,
    }
}

fn json_of(step: &Step) -> Value {
    let mut value = json!({"step": name(step), "path": path_of(step)});
    match step {
        Step::MakeDir { mode, .. } | Step::SetMode { mode, .. } => {
            value["mode"] = json!(format!("{mode:04o}"))
        }
        Step::Save { sha256, .. } => value["sha256"] = json!(sha256),
        Step::Keep { kind, why, .. } => {
            value["kind"] = json!(kind);
            value["why"] = json!(why);
        }
        Step::Remove { kind, .. } => value["kind"] = json!(kind),
        Step::Place { kind, content, from, verify, .. } => {
            value["kind"] = json!(kind);
            value["mode"] = json!(format!("{:04o}", content.mode));
            value["sha256"] = json!(content.sha256);
            value["from"] = match from {
                From::File(path) => json!(path),
                From::Bytes(_) => json!("made"),
                From::Saved => json!("kept"),
            };
            value["executed_first"] = json!(verify);
        }
        Step::Sweep { .. } => {}
    }
    value
}
