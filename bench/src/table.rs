//! Tables of text: aligned for a terminal, or as Markdown. Numbers are written to three or four digits, enough to compare.

/// The first `left` columns hold words and are aligned left, the others hold numbers and are aligned right.
pub(crate) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(left: usize, headers: &[&str]) -> Self {
        Self { left, rows: vec![headers.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Columns two blanks apart.
    pub(crate) fn text(&self) -> String {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells =
                row.iter().zip(&widths).enumerate().map(|(n, (cell, width))| self.pad(n, cell, *width));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let widths = self.widths();
        let mut lines = Vec::new();
        for row in &self.rows {
            let cells =
                row.iter().zip(&widths).enumerate().map(|(n, (cell, width))| self.pad(n, cell, *width));
            lines.push(format!("| {} |\n", cells.collect::<Vec<_>>().join(" | ")));
        }
        let rule = widths.iter().enumerate().map(|(n, width)| {
            let dashes = "-".repeat(width.saturating_sub(1).max(2));
            if n < self.left { format!(":{dashes}") } else { format!("{dashes}:") }
        });
        lines.insert(1, format!("| {} |\n", rule.collect::<Vec<_>>().join(" | ")));
        lines.concat()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |n: usize| self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
        (0..columns).map(|n| width(n).unwrap_or(0)).collect()
    }

    fn pad(&self, column: usize, cell: &str, width: usize) -> String {
        if column < self.left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    }
}

/// A number for people: thousands separated, decimals only where they matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => grouped(value.round() as i64),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(1, &["name", "µs"]);
        table.row(vec!["put".into(), "1,234".into()]);
        table.row(vec!["serializable".into(), "7".into()]);
        table
    }

    #[test]
    fn words_go_left_and_numbers_right() {
        assert_eq!(sample().text(), "name             µs\nput           1,234\nserializable      7\n");
    }

    #[test]
    fn markdown_has_a_rule_under_the_headers() {
        let markdown = sample().markdown();
        let lines: Vec<_> = markdown.lines().collect();
        assert_eq!(lines[1], "| :----------- | ----: |");
        assert_eq!(lines[3], "| serializable |     7 |");
    }

    #[test]
    fn numbers_keep_what_matters() {
        let cases =
            [(0.0, "0"), (64.0, "64"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123")];
        for (value, text) in
            cases.into_iter().chain([(1_234_567.0, "1,234,567"), (-4321.0, "-4,321"), (999.9, "1,000")])
        {
            assert_eq!(number(value), text);
        }
    }
}
