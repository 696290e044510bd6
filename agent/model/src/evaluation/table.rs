//! An evaluation as lines of text.

use std::fmt::Write as _;

use super::{Evaluation, Figures, paper};

const HEADS: [&str; 9] =
    ["COMMAND", "RUNS", "FAILED", "MEAN", "MEDIAN", "MIN", "MAX", "P95", "UML/XEN IN 2005"];
/// One more column where there is an evaluation under the other vmm.
const OURS: &str = "UML/XEN HERE";

/// The table of `gatectl evaluate`; `other` is an evaluation under the other vmm, for our own ratios.
pub fn table(found: &Evaluation, other: Option<&Evaluation>) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    rows.extend(found.tests.iter().map(|figures| row(figures).to_vec()));
    if other.is_some() {
        rows[0].push(OURS.to_owned());
        for (row, figures) in rows[1..].iter_mut().zip(&found.tests) {
            let ratio = found.ratio(other, &figures.label);
            row.push(ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")));
        }
    }
    let mut out = format!("{}; seconds\n", found.conditions());
    columns(&mut out, &rows);
    for figures in found.tests.iter().filter(|figures| figures.failed > 0) {
        let first = figures.failure.trim_end().replace('\n', "\n  ");
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{}: {} of {} failed; the first: {first}",
            figures.label, figures.failed, figures.runs
        );
    }
    if !found.installs.is_empty() {
        let mut rows = vec![vec!["NODE".to_owned(), "INSTALLED IN".to_owned()]];
        rows.extend(
            found.installs.iter().map(|it| vec![it.node.to_string(), format!("{:.1} s", it.seconds)]),
        );
        out.push('\n');
        columns(&mut out, &rows);
        let _ = writeln!(out, "({})", paper::INSTALL);
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
