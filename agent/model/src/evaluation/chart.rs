//! An evaluation as one picture: a bar for each command, or one for each of two nodes, and beside it how much longer it
//! takes under User Mode Linux than under Xen. SVG of plain shapes and text, for browsers and for print without colours.

use std::fmt::Write as _;

use super::axis::Axis;
use super::{Beside, Evaluation, Figures, paper};

/// Where the bars begin and end; their names are before them, their values behind them.
const LEFT: f64 = 200.0;
const RIGHT: f64 = 510.0;
/// Where ratios of 1 and of [`MOST_RATIO`] are.
const RATIO_LEFT: f64 = 600.0;
const RATIO_RIGHT: f64 = 790.0;
const MOST_RATIO: f64 = 5.0;
const WIDTH: f64 = 860.0;
/// Where the paper's ratios are written: ours may lie anywhere on theirs.
const PAPERS: f64 = 806.0;
/// So many nodes' installs fit into a line.
const INSTALLS: usize = 6;
/// The first row's upper edge, and the height of each.
const TOP: f64 = 106.0;
const ROW: f64 = 34.0;
const BAR: f64 = 20.0;
/// The height of each of a row's two bars, and how far the second one's edge is below the first one's.
const HALF: f64 = 12.0;
const SECOND: f64 = 14.0;

const STYLE: &str = "text{font-family:sans-serif;font-size:13px;fill:#000;stroke:#fff;stroke-width:3px;paint-order:stroke}.title{font-size:18px;font-weight:bold}\
    .head{font-weight:bold}.small{font-size:11px}.grid{stroke:#ccc;stroke-width:1}.line{stroke:#000;stroke-width:1.5}\
    .bar{fill:#555;stroke:#000}.slow{fill:url(#hatch);stroke:#000}.second{fill:#ddd;stroke:#000}.ours{fill:#000}";

/// The picture.
pub fn chart(found: &Evaluation, beside: Beside<'_>) -> String {
    let rows = (0..found.tests.len()).fold(0.0, |sum, _| sum + ROW);
    let bottom = TOP + rows;
    let notes = notes(found, beside);
    let height = (0..notes.len()).fold(bottom + 66.0, |sum, _| sum + 16.0);
    let mut out = String::new();
    head(&mut out, found, height);
    let second = beside.node.map_or(&[][..], |other| &other.tests);
    let axis = Axis::of(found.tests.iter().chain(second).filter_map(|figures| figures.mean));
    grid(&mut out, &axis, bottom);
    ratio_grid(&mut out, bottom);
    let mut top = TOP;
    for figures in &found.tests {
        bars(&mut out, &axis, top, figures, beside.node);
        ratios(&mut out, top, figures, found.ratio(beside.vmm, &figures.label));
        top += ROW;
    }
    let mut at = bottom + 62.0;
    for note in &notes {
        text(&mut out, (16.0, at), "small", "start", note);
        at += 16.0;
    }
    out.push_str("</svg>\n");
    out
}

// Writing to a string cannot fail: here and in all that follows.

fn head(out: &mut String, found: &Evaluation, height: f64) {
    let spoken: Vec<String> = found.tests.iter().map(spoken).collect();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"title desc\">\n\
         <title id=\"title\">How long commands take: {}</title>\n<desc id=\"desc\">{}.</desc>\n\
         <defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#fff\"/>\
         <rect width=\"2\" height=\"6\" fill=\"#000\"/></pattern></defs>\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n",
        escaped(&found.conditions()),
        escaped(&spoken.join("; ")),
    );
    text(out, (16.0, 30.0), "title", "start", "How long commands take");
    text(out, (16.0, 52.0), "", "start", &found.conditions());
    text(out, (LEFT, 90.0), "head", "start", "Mean duration");
    text(out, (RATIO_LEFT, 90.0), "head", "start", "UML / Xen");
    text(out, (PAPERS, 90.0), "small", "start", "2005");
}

/// A row for those who do not see the picture.
fn spoken(figures: &Figures) -> String {
    let mean =
        figures.mean.map_or_else(|| "no run succeeded".to_owned(), |mean| format!("{} s", digits(mean)));
    format!("{}: {mean}, {} of {} runs failed", figures.label, figures.failed, figures.runs)
}

fn grid(out: &mut String, axis: &Axis, bottom: f64) {
    for (place, word) in axis.marks() {
        let x = LEFT + place * (RIGHT - LEFT);
        line(out, "grid", (x, TOP), (x, bottom));
        text(out, (x, bottom + 16.0), "small", "middle", &word);
    }
    line(out, "line", (LEFT, TOP), (LEFT, bottom));
    text(out, (f64::midpoint(LEFT, RIGHT), bottom + 34.0), "small", "middle", axis.name());
}

fn ratio_grid(out: &mut String, bottom: f64) {
    for mark in 1..=5 {
        let x = of_ratio(f64::from(mark));
        line(out, "grid", (x, TOP), (x, bottom));
        text(out, (x, bottom + 16.0), "small", "middle", &mark.to_string());
    }
    line(out, "line", (RATIO_LEFT, TOP), (RATIO_LEFT, bottom));
    text(out, (f64::midpoint(RATIO_LEFT, RATIO_RIGHT), bottom + 34.0), "small", "middle", "times as long");
}

fn of_ratio(ratio: f64) -> f64 {
    RATIO_LEFT + (ratio.clamp(0.8, MOST_RATIO + 0.1) - 1.0) / (MOST_RATIO - 1.0) * (RATIO_RIGHT - RATIO_LEFT)
}

/// A row's bar; or both, where there is another node.
fn bars(out: &mut String, axis: &Axis, top: f64, figures: &Figures, other: Option<&Evaluation>) {
    text(out, (LEFT - 8.0, top + ROW / 2.0 + 4.5), "", "end", &figures.label);
    let class = if figures.slow { "slow" } else { "bar" };
    let Some(other) = other else {
        return bar(out, axis, (top + (ROW - BAR) / 2.0, BAR), (class, ""), figures);
    };
    let upper = top + (ROW - HALF - SECOND) / 2.0;
    bar(out, axis, (upper, HALF), (class, "small"), figures);
    if let Some(second) = other.of(&figures.label) {
        bar(out, axis, (upper + SECOND, HALF), ("second", "small"), second);
    }
}

/// One bar with its value behind it; the classes are those of the bar and of the value.
fn bar(
    out: &mut String,
    axis: &Axis,
    (y, height): (f64, f64),
    (class, words): (&str, &str),
    figures: &Figures,
) {
    let baseline = y + height / 2.0 + if words.is_empty() { 4.5 } else { 4.0 };
    let Some(mean) = figures.mean else {
        text(out, (LEFT + 6.0, baseline), words, "start", "every run failed");
        return;
    };
    let width = axis.place(mean) * (RIGHT - LEFT);
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\"/>"
    );
    let failed = if figures.failed > 0 { format!(", {} failed", figures.failed) } else { String::new() };
    text(out, (LEFT + width + 6.0, baseline), words, "start", &format!("{} s{failed}", digits(mean)));
}

/// The paper's range as a bar with ends, or as a ring where it is one number; ours as a diamond.
fn ratios(out: &mut String, top: f64, figures: &Figures, ours: Option<f64>) {
    let y = top + ROW / 2.0;
    if let Some(paper) = paper::ratio(&figures.label) {
        let (low, high) = (of_ratio(paper.low), of_ratio(paper.high));
        if high - low < 1.0 {
            ring(out, low, y);
        } else {
            range(out, (low, high), y);
        }
        text(out, (PAPERS, y + 4.0), "small", "start", &paper.to_string());
    }
    if let Some(ours) = ours {
        diamond(out, of_ratio(ours), y);
        text(out, (of_ratio(ours), y - 8.0), "small", "middle", &format!("{ours:.1}"));
    }
}

fn ring(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(out, "<circle class=\"line\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"#fff\"/>");
}

fn range(out: &mut String, (low, high): (f64, f64), y: f64) {
    line(out, "line", (low, y), (high, y));
    line(out, "line", (low, y - 5.0), (low, y + 5.0));
    line(out, "line", (high, y - 5.0), (high, y + 5.0));
}

fn diamond(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(
        out,
        "<path class=\"ours\" d=\"M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z\"/>",
        x - 6.0,
        y - 6.0,
        x + 6.0,
        y + 6.0
    );
}

/// What is said below the picture.
fn notes(found: &Evaluation, beside: Beside<'_>) -> Vec<String> {
    let counts: Vec<u32> =
        found.tests.iter().filter(|figures| !figures.slow).map(|figures| figures.runs).collect();
    let slow = found.tests.iter().find(|figures| figures.slow);
    let runs = counts.first().map(|runs| format!("{runs} runs each")).unwrap_or_default();
    let slow = slow.map(|figures| format!("hatched: {} runs", figures.runs)).unwrap_or_default();
    let first: Vec<String> = [runs, slow].into_iter().filter(|part| !part.is_empty()).collect();
    let mut all = vec![format!(
        "Bars: {}; one run before them warms up; runs that failed do not count.",
        first.join(", ")
    )];
    if let Some(other) = beside.node {
        all.push(format!("Dark: commands run on {}; light, below: on {}.", found.node, other.node));
    }
    let ours = match beside.vmm {
        Some(other) => format!("Diamonds: ours, against {}.", other.conditions()),
        None => "Ours needs an evaluation under the other one too.".to_owned(),
    };
    all.push("Ratios: lines and rings are those of 2005, on two 2.4 GHz Xeons.".to_owned());
    all.push(ours);
    if !found.installs.is_empty() {
        let shown = found.installs.iter().take(INSTALLS);
        let shown: Vec<String> = shown.map(|it| format!("{} {:.0} s", it.node, it.seconds)).collect();
        let more = found.installs.len().saturating_sub(INSTALLS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        all.push(format!("Installs: {}{more} ({}).", shown.join(", "), paper::INSTALL));
    }
    all
}

/// Three digits that count, and never more than thousandths.
fn digits(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => format!("{seconds:.3}"),
        seconds if seconds < 10.0 => format!("{seconds:.2}"),
        seconds => format!("{seconds:.1}"),
    }
}

fn text(out: &mut String, (x, y): (f64, f64), class: &str, anchor: &str, words: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let words = escaped(words);
    let _ = writeln!(out, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
