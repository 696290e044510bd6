//! What the paper of 2005 found, on two 2.4 GHz Xeons: the ratios that a table and a chart show beside ours.

/// How much longer a command took under User Mode Linux than under Xen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub low: f64,
    pub high: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if (self.high - self.low).abs() < 0.05 {
            write!(f, "{:.1}", self.low)
        } else {
            write!(f, "{:.1}-{:.1}", self.low, self.high)
        }
    }
}

/// The paper gives these as a range, as 60 % and as 30 %.
const RATIOS: [(&str, Ratio); 5] = [
    ("globusrun", Ratio { low: 2.8, high: 4.0 }),
    ("globus-job-run", Ratio { low: 1.6, high: 1.6 }),
    ("globus-job-run-pbs", Ratio { low: 1.3, high: 1.3 }),
    ("replica", Ratio { low: 2.8, high: 4.0 }),
    ("gridftp-ls", Ratio { low: 2.8, high: 4.0 }),
];

/// The install of a node in the paper, in words.
pub(super) const INSTALL: &str = "2005, a node of 700 packages: Xen 428 s, UML 4450 s, a real machine 828 s";

/// What the paper says of a command, if it is one of its five.
pub(super) fn ratio(label: &str) -> Option<Ratio> {
    RATIOS.iter().find(|(known, _)| *known == label).map(|(_, ratio)| *ratio)
}
