//! The table and its file.

use super::contender::Contender;
use crate::bins::target_dir;
use serde_json::{Value, json};
use std::fs;

/// One line: ours against one peer.
pub struct Case {
    name: String,
    percale: f64,
    peer_name: String,
    peer: f64,
    goal: Option<f64>,
    unit: &'static str,
    /// The peer did not come to an end: its value is what it had reached when it was stopped.
    unfinished: bool,
}

impl Case {
    /// Medians of both; `goal` is the least ratio of the peer's to ours.
    pub fn new(name: &str, ours: &[f64], peer_name: &str, peer: &[f64], goal: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            percale: median(ours),
            peer_name: peer_name.to_owned(),
            peer: median(peer),
            goal,
            unit: "ms",
            unfinished: false,
        }
    }

    pub fn unfinished(self, unfinished: bool) -> Self {
        Self { unfinished, ..self }
    }

    pub fn in_mib(self) -> Self {
        self.in_unit("MiB")
    }

    /// A figure against its goal, the most that it may be.
    pub fn goal(name: &str, ours: &[f64], most: f64) -> Self {
        Self::new(name, ours, "the goal, at most", &[most], Some(1.0))
    }

    /// A figure by itself.
    pub fn alone(name: &str, ours: &[f64]) -> Self {
        Self::new(name, ours, "", &[], None)
    }

    /// A figure of another unit than milliseconds.
    pub fn in_unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    fn ratio(&self) -> f64 {
        self.peer / self.percale
    }

    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.ratio() >= goal)
    }

    fn json(&self) -> Value {
        json!({
            "case": self.name, "percale_ms": round(self.percale), "peer": self.peer_name,
            "peer_ms": round(self.peer), "ratio": round(self.ratio()), "unit": self.unit,
            "goal": self.goal, "met": self.met(), "unfinished": self.unfinished,
        })
    }

    fn print(&self) {
        if self.peer_name.is_empty() {
            return println!("{:<42} {:>9.2} {}", self.name, self.percale, self.unit);
        }
        let goal = match (self.goal, self.met()) {
            (Some(goal), Some(true)) => format!(">= {goal}"),
            (Some(goal), _) => format!(">= {goal} MISSED"),
            _ => String::new(),
        };
        let end = if self.unfinished { "  the peer was not finished by then" } else { "" };
        println!(
            "{:<42} {:>9.2} {:<32} {:>9.2} {:>3} {:>7.2}  {goal}{end}",
            self.name,
            self.percale,
            self.peer_name,
            self.peer,
            self.unit,
            self.ratio()
        );
    }
}

/// All lines of a run; each is printed as it is known.
pub struct Report {
    name: String,
    cases: Vec<Case>,
}

impl Report {
    pub fn new(name: &str) -> Self {
        println!(
            "{:<42} {:>9} {:<32} {:>9} {:>3} {:>7}  goal",
            "case", "percale", "peer", "peer", "", "ratio"
        );
        Self { name: name.to_owned(), cases: Vec::new() }
    }

    pub fn push(&mut self, case: Case) {
        case.print();
        self.cases.push(case);
    }

    /// The first contender against each of the others; the goal counts for the first of these.
    pub fn against(&mut self, name: &str, goal: Option<f64>, all: &[Contender], times: &[Vec<f64>]) {
        for (i, (peer, time)) in all.iter().zip(times).enumerate().skip(1) {
            self.push(Case::new(name, &times[0], &peer.name, time, goal.filter(|_| i == 1)));
        }
    }

    pub fn finish(&self) {
        let dir = target_dir().join("bench");
        fs::create_dir_all(&dir).expect("the target directory is writable");
        let cases: Vec<Value> = self.cases.iter().map(Case::json).collect();
        let text = serde_json::to_string_pretty(&cases).expect("a JSON value can be written");
        fs::write(dir.join(format!("{}.json", self.name)), text + "\n")
            .expect("the target directory is writable");
    }
}

/// The middle value; not a number of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of the others lies below; not a number of nothing.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_how_many_times_faster_ours_is() {
        let case = Case::new("ADD", &[2.0, 3.0, 2.5], "ptp", &[10.0, 9.0, 11.0], Some(3.5));
        assert_eq!((case.percale, case.peer, case.met()), (2.5, 10.0, Some(true)));
        assert_eq!(Case::new("ADD", &[1.0], "ptp", &[3.0], Some(3.5)).met(), Some(false));
    }
}
