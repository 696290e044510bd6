//! An evaluation as lines of text.

use std::fmt::Write as _;

use super::{Evaluation, Figures, paper};

const HEADS: [&str; 9] =
    ["COMMAND", "RUNS", "FAILED", "MEAN", "MEDIAN", "MIN", "MAX", "P95", "UML/XEN IN 2005"];
/// One more column where there is an evaluation under the other vmm.
const OURS: &str = "UML/XEN HERE";

/// The table of `gatectl evaluate`; `other` is an evaluation under the other vmm, for our own ratios.
pub fn table(found: &Evaluation, other: Option<&Evaluation>) -> String {
    let ours: Vec<_> = found.tests.iter().map(|figures| found.ratio(other, &figures.label)).collect();
    let mut out = format!("{}; seconds\n", found.conditions());
    out.push_str(&rows(&found.tests, other.is_some().then_some(&ours)));
    if !found.installs.is_empty() {
        let mut rows = vec![vec!["NODE".to_owned(), "INSTALLED IN".to_owned()]];
        rows.extend(
            found.installs.iter().map(|it| vec![it.node.to_string(), format!("{:.1} s", it.seconds)]),
        );
        out.push('\n');
        columns(&mut out, &rows);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "({})", paper::INSTALL);
    }
    out
}

/// The commands alone, with what was wrong with those that failed.
pub fn commands(tests: &[Figures]) -> String {
    rows(tests, None)
}

/// `ours` has a ratio for each of the tests.
fn rows(tests: &[Figures], ours: Option<&Vec<Option<f64>>>) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    rows.extend(tests.iter().map(|figures| row(figures).to_vec()));
    if let Some(ours) = ours {
        rows[0].push(OURS.to_owned());
        for (row, ratio) in rows[1..].iter_mut().zip(ours) {
            row.push(ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")));
        }
    }
    let mut out = String::new();
    columns(&mut out, &rows);
    for figures in tests.iter().filter(|figures| figures.failed > 0) {
        let first = figures.failure.trim_end().replace('\n', "\n  ");
        let Figures { label, failed, runs, .. } = figures;
        let _ = writeln!(out, "{label}: {failed} of {runs} failed; the first: {first}");
    }
    out
}

fn row(figures: &Figures) -> [String; 9] {
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let paper = paper::ratio(&figures.label).map_or_else(|| "-".to_owned(), |ratio| ratio.to_string());
    [
        figures.label.clone(),
        figures.runs.to_string(),
        figures.failed.to_string(),
        seconds(figures.mean),
        seconds(figures.median),
        seconds(figures.min),
        seconds(figures.max),
        seconds(figures.p95),
        paper,
    ]
}

/// The first column to the left, all others to the right.
fn columns(out: &mut String, rows: &[Vec<String>]) {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 { write!(out, "{cell:<width$}") } else { write!(out, "  {cell:>width$}") };
        }
        out.push('\n');
    }
}
