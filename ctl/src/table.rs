//! Tables for people: columns padded to their widest cell, two spaces between.

/// A table that is filled row by row.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<H: Into<String>>(headings: impl IntoIterator<Item = H>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|c| printable(&c.into())).collect());
    }

    /// The text, one line a row, each ended by a newline.
    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        (0..columns).map(|column| width(column).unwrap_or(0)).collect()
    }
}

/// Stored text may hold anything; a terminal must not obey it, and an empty cell must be seen.
pub fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(["NAME", "CIDR"]);
        table.row(["a-long-name", "10.0.0.0/8"]);
        table.row(["b", ""]);
        assert_eq!(table.render(), "NAME         CIDR\na-long-name  10.0.0.0/8\nb            -\n");
    }

    #[test]
    fn stored_control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(["HANDLE"]);
        table.row(["id\r\neth0\u{1b}[2J"]);
        assert_eq!(table.render(), "HANDLE\nid\u{fffd}\u{fffd}eth0\u{fffd}[2J\n");
    }
}
