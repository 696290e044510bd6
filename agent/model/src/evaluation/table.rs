//! An evaluation as lines of text.

use std::fmt::Write as _;

use super::{Beside, Evaluation, Figures, paper};

const HEADS: [&str; 9] =
    ["COMMAND", "RUNS", "FAILED", "MEAN", "MEDIAN", "MIN", "MAX", "P95", "UML/XEN IN 2005"];
/// One more column where there is an evaluation under the other vmm.
const OURS: &str = "UML/XEN HERE";

/// The table of `gatectl evaluate`.
pub fn table(found: &Evaluation, beside: Beside<'_>) -> String {
    let mut more = Vec::new();
    if let Some(other) = beside.node {
        let mean = |figures: &Figures| other.of(&figures.label).and_then(|figures| figures.mean);
        let head = format!("MEAN ON {}", other.node.to_string().to_uppercase());
        more.push(column(head, found, |figures| mean(figures).map(|mean| format!("{mean:.3}"))));
    }
    if beside.vmm.is_some() {
        let ratio = |figures: &Figures| found.ratio(beside.vmm, &figures.label);
        more.push(column(OURS.to_owned(), found, |figures| {
            ratio(figures).map(|ratio| format!("{ratio:.1}"))
        }));
    }
    let mut out = format!("{}; seconds\n", found.conditions());
    out.push_str(&rows(&found.tests, &more));
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
    rows(tests, &[])
}

/// A column of its own: its head and a cell for each command.
fn column(head: String, found: &Evaluation, cell: impl Fn(&Figures) -> Option<String>) -> Vec<String> {
    let cells = found.tests.iter().map(|figures| cell(figures).unwrap_or_else(|| "-".to_owned()));
    std::iter::once(head).chain(cells).collect()
}

/// `more` has further columns, of as many cells as there are rows.
fn rows(tests: &[Figures], more: &[Vec<String>]) -> String {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    rows.extend(tests.iter().map(|figures| row(figures).to_vec()));
    for (at, row) in rows.iter_mut().enumerate() {
        row.extend(more.iter().filter_map(|column| column.get(at).cloned()));
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
