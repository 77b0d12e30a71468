//! One line of logfmt: `TIME LEVEL key=value key="quoted value"`, bounded and of one line only.

use std::fmt::{Display, Write as _};

/// Longest line in bytes, with its newline.
pub const MAX_LINE: usize = 4096;
/// Longest value in bytes, as written: one huge value leaves room for the others.
const MAX_VALUE: usize = 1536;
/// Ends a line from which something was cut.
const CUT: &str = " cut=true";

/// Renders a line with its newline. Empty values are written as `""`; what does not fit is cut,
/// and the line then ends in `cut=true`.
pub fn line(time: &str, level: &str, fields: &[(&str, &dyn Display)]) -> String {
    let mut out = format!("{time} {level}");
    let mut cut = false;
    for (key, value) in fields {
        // Room for the mark and the newline is kept.
        let room = (MAX_LINE - CUT.len() - 1).saturating_sub(out.len());
        cut |= !field(&mut out, key, value, room);
    }
    if cut {
        out.push_str(CUT);
    }
    out.push('\n');
    out
}

/// Appends ` key=value` in at most `room` bytes; whether it is whole. A field of which not even
/// a piece fits is left out.
fn field(out: &mut String, key: &str, value: &dyn Display, room: usize) -> bool {
    let head = key.len() + 2;
    let mut escaped =
        Escaped { text: String::new(), quoted: false, most: MAX_VALUE.min(room.saturating_sub(head + 2)) };
    // The only error is the one that Escaped returns when it is full.
    let whole = write!(escaped, "{value}").is_ok();
    if escaped.text.is_empty() && !whole {
        return false;
    }
    let quote = if escaped.quoted || escaped.text.is_empty() { "\"" } else { "" };
    if head + escaped.text.len() + 2 * quote.len() > room {
        return false;
    }
    let _ = write!(out, " {key}={quote}{}{quote}", escaped.text);
    whole
}

/// Collects escaped text up to `most` bytes, and whether it needs quotes.
struct Escaped {
    text: String,
    quoted: bool,
    most: usize,
}

impl std::fmt::Write for Escaped {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> std::fmt::Result {
        let before = self.text.len();
        self.quoted |= needs_quotes(c);
        push_escaped(&mut self.text, c);
        if self.text.len() <= self.most {
            return Ok(());
        }
        self.text.truncate(before);
        Err(std::fmt::Error)
    }
}

fn needs_quotes(c: char) -> bool {
    c == ' ' || c == '"' || c == '\\' || c == '=' || hidden(c)
}

/// Characters that would break the line or change how a terminal shows the rest of it: controls,
/// Unicode's line breaks, and its direction and joining marks.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if hidden(c) => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> String {
        line("T", "info", &[("k", &value)])
    }

    #[test]
    fn values_are_quoted_only_where_needed() {
        for (value, expected) in [
            ("10.0.0.1/32", "T info k=10.0.0.1/32\n"),
            ("fd00::1,10.0.0.1", "T info k=fd00::1,10.0.0.1\n"),
            ("", "T info k=\"\"\n"),
            ("two words", "T info k=\"two words\"\n"),
            ("a=b", "T info k=\"a=b\"\n"),
            ("say \"hi\"", "T info k=\"say \\\"hi\\\"\"\n"),
            ("C:\\x", "T info k=\"C:\\\\x\"\n"),
            ("Zürich", "T info k=Zürich\n"),
        ] {
            assert_eq!(one(value), expected);
        }
    }

    #[test]
    fn nothing_can_forge_a_second_line_or_drive_a_terminal() {
        assert_eq!(one("a\nb\r\t\0"), "T info k=\"a\\nb\\r\\t\\u0000\"\n");
        assert_eq!(one("\x1b[31m"), "T info k=\"\\u001b[31m\"\n");
        assert_eq!(one("\u{202e}\u{85}\u{2028}"), "T info k=\"\\u202e\\u0085\\u2028\"\n");
    }

    #[test]
    fn a_long_value_leaves_room_for_the_rest() {
        let long = "x".repeat(1 << 20);
        let text = line("T", "error", &[("long", &long), ("container", &"c1")]);
        assert!(text.len() <= MAX_LINE);
        assert!(text.ends_with("xx container=c1 cut=true\n"), "{}", &text[text.len() - 40..]);
    }

    #[test]
    fn lines_are_bounded_whatever_comes() {
        let value = "ä\n\"é ".repeat(500);
        for n in 0..200 {
            let fields: Vec<(&str, &dyn Display)> = vec![("key", &value); n];
            let text = line("T", "info", &fields);
            assert!(text.len() <= MAX_LINE && text.ends_with('\n') && text.lines().count() == 1);
            assert_eq!(
                text.matches('"').count() - text.matches("\\\"").count(),
                2 * text.matches(" key=").count()
            );
        }
    }

    #[test]
    fn cutting_never_splits_an_escape_or_a_character() {
        for n in 1400..1600 {
            let text = one(&format!("{}\u{1}é\u{1}", "x".repeat(n)));
            assert!(text.ends_with("\"\n") || text.ends_with("cut=true\n"), "{text}");
            assert!(!text.contains("\\u\"") && !text.contains("\\\" cut"));
        }
    }
}
