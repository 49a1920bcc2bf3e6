//! What a comparison found: for each workload and metric the values of all rounds, their medians and the ratio B/A.
//!
//! The ratio is the median of the rounds' own ratios, and its spread their least and greatest: two runs right after each other
//! meet the same weather, runs of different rounds may not.

use std::fmt::Write as _;

use serde::Serialize;

use crate::outcome::{Better, Outcome};
use crate::table::{Table, number};

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Markdown,
    Json,
}

/// With fewer rounds, one side is better in all of them too often by chance.
const ROUNDS_TO_WIN: usize = 3;

#[derive(Serialize)]
pub(crate) struct Comparison {
    names: Vec<String>,
    commands: Vec<String>,
    rows: Vec<Row>,
}

/// One metric of one workload with one number of clients.
#[derive(Serialize)]
struct Row {
    workload: String,
    clients: usize,
    metric: &'static str,
    unit: &'static str,
    #[serde(skip)]
    better: Better,
    /// Values of A and B, round by round.
    a: Vec<f64>,
    b: Vec<f64>,
}

impl Comparison {
    /// Of one or two sides; two of the same name are told apart by their letters.
    pub(crate) fn new(names: Vec<String>, commands: Vec<String>) -> Self {
        let names = match &names[..] {
            [a, b] if a == b => vec![format!("{a}-A"), format!("{b}-B")],
            _ => names,
        };
        Self { names, commands, rows: Vec::new() }
    }

    pub(crate) fn name(&self, side: usize) -> String {
        self.names[side].clone()
    }

    /// Adds one round's outcomes of the same workload with the same number of clients, one for each side.
    pub(crate) fn add(&mut self, clients: usize, outcomes: &[Outcome]) {
        let Some((a, others)) = outcomes.split_first() else { return };
        let theirs = others.first().map(Outcome::metrics);
        for mine in a.metrics() {
            let other = theirs.as_ref().map(|theirs| theirs.iter().find(|other| other.name == mine.name));
            // What only one of two sides has cannot be compared.
            let Some(other) = other.map_or(Some(None), |other| other.map(Some)) else { continue };
            let same =
                |row: &Row| row.workload == a.workload && row.clients == clients && row.metric == mine.name;
            let at = self.rows.iter().position(same).unwrap_or_else(|| {
                self.rows.push(Row {
                    workload: a.workload.clone(),
                    clients,
                    metric: mine.name,
                    unit: mine.unit,
                    better: mine.better,
                    a: Vec::new(),
                    b: Vec::new(),
                });
                self.rows.len() - 1
            });
            self.rows[at].a.push(mine.value);
            self.rows[at].b.extend(other.map(|other| other.value));
        }
    }

    pub(crate) fn show(&self, format: Format) -> String {
        match format {
            Format::Text => format!("{}\n{}", self.heading("", "\n"), self.table().text()),
            Format::Markdown => format!("{}\n{}", self.heading("- ", "\n"), self.table().markdown()),
            Format::Json => self.json(),
        }
    }

    fn heading(&self, bullet: &str, end: &str) -> String {
        let mut text = String::new();
        for (letter, (name, command)) in ["A", "B"].iter().zip(self.names.iter().zip(&self.commands)) {
            let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
            write!(text, "{bullet}{letter} = {name}: `{command}`{end}")
                .expect("writing to a string succeeds");
        }
        text
    }

    fn table(&self) -> Table {
        let [a, b] = &self.names[..] else { return self.table_of_one() };
        let headers = ["workload", "clients", "metric", a, b, "B/A", "spread", "better", "rounds"];
        let mut table = Table::new(3, &headers);
        for row in self.rows.iter().filter(|row| row.tells_something()) {
            let ratios = row.ratios();
            let spread = match (ratios.first(), ratios.last()) {
                (Some(least), Some(most)) => format!("{least:.2}-{most:.2}"),
                _ => String::new(),
            };
            table.row(vec![
                row.workload.clone(),
                row.clients.to_string(),
                format!("{} {}", row.metric, row.unit).trim_end().to_owned(),
                median(&row.a).map(number).unwrap_or_default(),
                median(&row.b).map(number).unwrap_or_default(),
                median(&ratios).map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                spread,
                row.winner(&ratios).map_or("", |side| &self.names[side]).to_owned(),
                row.a.len().to_string(),
            ]);
        }
        table
    }

    fn table_of_one(&self) -> Table {
        let name = self.names.first().map(String::as_str).unwrap_or_default();
        let mut table = Table::new(3, &["workload", "clients", "metric", name, "spread", "rounds"]);
        for row in &self.rows {
            let (least, most) =
                (row.a.iter().copied().reduce(f64::min), row.a.iter().copied().reduce(f64::max));
            table.row(vec![
                row.workload.clone(),
                row.clients.to_string(),
                format!("{} {}", row.metric, row.unit).trim_end().to_owned(),
                median(&row.a).map(number).unwrap_or_default(),
                format!("{}-{}", number(least.unwrap_or_default()), number(most.unwrap_or_default())),
                row.a.len().to_string(),
            ]);
        }
        table
    }

    fn json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("plain numbers and strings are JSON");
        for (row, object) in self.rows.iter().zip(value["rows"].as_array_mut().into_iter().flatten()) {
            let ratios = row.ratios();
            object["median_a"] = median(&row.a).into();
            object["median_b"] = median(&row.b).into();
            object["ratio"] = median(&ratios).into();
            object["ratio_least"] = ratios.first().copied().into();
            object["ratio_most"] = ratios.last().copied().into();
        }
        format!("{value}\n")
    }
}

impl Row {
    /// B/A of each round where A is not zero, in rising order.
    fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<_> =
            self.a.iter().zip(&self.b).filter(|(a, _)| **a != 0.0).map(|(a, b)| b / a).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// Settings that are the same on both sides are only in the JSON.
    fn tells_something(&self) -> bool {
        self.better != Better::Neither || self.a != self.b
    }

    /// The side that was better in every one of enough rounds.
    fn winner(&self, ratios: &[f64]) -> Option<usize> {
        if ratios.len() < ROUNDS_TO_WIN {
            return None;
        }
        let b_is_higher = ratios.first().is_some_and(|least| *least > 1.0);
        let a_is_higher = ratios.last().is_some_and(|most| *most < 1.0);
        match (self.better, a_is_higher, b_is_higher) {
            (Better::Higher, true, _) | (Better::Lower, _, true) => Some(0),
            (Better::Higher, _, true) | (Better::Lower, true, _) => Some(1),
            (Better::Neither, ..) | (_, false, false) => None,
        }
    }
}

/// The middle value, or the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outcome::tests::outcome;

    fn compared(rounds: &[(u64, u64)]) -> Comparison {
        let mut comparison = Comparison::new(
            vec!["etcd".into(), "tenured".into()],
            vec!["etcd  {dir}".into(), "tenured {dir}".into()],
        );
        rounds.iter().for_each(|(a, b)| comparison.add(64, &[outcome(*a), outcome(*b)]));
        comparison
    }

    fn row<'a>(comparison: &'a Comparison, metric: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.metric == metric).unwrap()
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let comparison = compared(&[(100, 200), (1000, 1500), (10, 40)]);
        let throughput = row(&comparison, "throughput");
        assert_eq!(throughput.ratios(), [1.5, 2.0, 4.0]);
        assert_eq!(median(&throughput.ratios()), Some(2.0));
        assert_eq!(median(&throughput.a), Some(50.0));
    }

    #[test]
    fn the_winner_won_every_round_and_lower_is_better_where_it_is() {
        let better = compared(&[(100, 200), (100, 150), (100, 110)]);
        let throughput = row(&better, "throughput");
        assert_eq!(throughput.winner(&throughput.ratios()), Some(1));
        // The outcome's p50 grows with its number of operations.
        let p50 = row(&better, "p50");
        assert_eq!(p50.winner(&p50.ratios()), Some(0));

        for undecided in [vec![(100, 200), (100, 50), (100, 200)], vec![(100, 100); 3], vec![(100, 200); 2]] {
            let comparison = compared(&undecided);
            let throughput = row(&comparison, "throughput");
            assert_eq!(throughput.winner(&throughput.ratios()), None, "{undecided:?}");
        }
    }

    #[test]
    fn sides_of_the_same_name_are_told_apart() {
        let same = Comparison::new(vec!["etcd".into(), "etcd".into()], vec![String::new(); 2]);
        assert_eq!(same.names, ["etcd-A", "etcd-B"]);
    }

    #[test]
    fn one_side_alone_is_shown_without_ratios() {
        let mut alone = Comparison::new(vec!["etcd".into()], vec!["etcd {dir}".into()]);
        alone.add(64, &[outcome(100)]);
        alone.add(64, &[outcome(300)]);
        let text = alone.show(Format::Text);
        let line = text.lines().find(|line| line.contains("throughput")).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(cells, ["put", "64", "throughput", "/s", "100", "50-150", "2"]);
    }

    #[test]
    fn every_format_has_the_numbers() {
        let comparison = compared(&[(100, 200)]);
        let text = comparison.show(Format::Text);
        assert!(text.starts_with("A = etcd: `etcd {dir}`\nB = tenured: `tenured {dir}`\n"), "{text}");
        let line = text.lines().find(|line| line.contains("throughput")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["put", "64", "throughput", "/s", "50", "100", "2.00", "2.00-2.00", "1"]
        );
        assert!(comparison.show(Format::Markdown).contains("| put      | 64      | throughput /s"));
        let json: serde_json::Value = serde_json::from_str(&comparison.show(Format::Json)).unwrap();
        assert_eq!(json["rows"][0]["ratio"], 2.0);
        assert_eq!(json["rows"][0]["a"], serde_json::json!([50.0]));
    }
}
