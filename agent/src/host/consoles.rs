//! The table of the nodes on every console of the machine, above the prompt: agetty shows what stands in
//! `/run/issue.d` (agetty(8), issue(5)) and shows it anew when it is told to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_model::{Doing as _, Fault, State};

use super::files::write_whole;
use crate::control::board::{Board, NodeState, Status};
use crate::control::render::render_nodes;
use crate::tool;

/// How often the board is looked at. Each change costs an emulated machine the start of a program.
const LOOK: Duration = Duration::from_secs(2);

/// Keeps the consoles' text as the board is, in a thread of its own.
pub fn follow(board: Arc<Board>, issue: PathBuf) {
    std::thread::spawn(move || {
        let mut shown = String::new();
        loop {
            let text = render(&board.status());
            if text != shown {
                if let Err(fault) = show(&issue, &text) {
                    board.say("consoles", "showing the nodes", State::Failed, fault.to_string());
                }
                shown = text;
            }
            std::thread::sleep(LOOK);
        }
    });
}

fn show(issue: &std::path::Path, text: &str) -> Result<(), Fault> {
    if let Some(dir) = issue.parent() {
        std::fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    write_whole(issue, text.as_bytes(), 0o644)?;
    tool::run("agetty", &["--reload"]).map(drop)
}

/// The text, with what agetty would take for an escape made plain.
fn render(status: &Status) -> String {
    let up = status.nodes.iter().filter(|node| node.state == NodeState::Running).count();
    let summary = match (up, status.nodes.len()) {
        (up, all) if up == all => "all nodes are running".to_owned(),
        (up, all) => format!("{up} of {all} nodes are running"),
    };
    let table = render_nodes(&status.nodes);
    format!("\n{}: {summary}\n\n{table}\n", status.site).replace('\\', "\\\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::sample_site;

    #[test]
    fn the_table_is_shown_without_escapes() {
        let board = Board::new(&sample_site());
        let first = board.status().nodes[0].name.clone();
        board.update(&first, |node| {
            node.state = NodeState::Failed;
            node.message = r"no \n".to_owned();
        });
        let text = render(&board.status());
        assert!(text.contains("0 of "), "{text}");
        assert!(text.contains(r"no \\n"), "{text}");
        board.update(&first, |node| {
            node.state = NodeState::Running;
            node.message.clear();
        });
        let rest: Vec<_> = board.status().nodes.into_iter().skip(1).map(|node| node.name).collect();
        for name in rest {
            board.update(&name, |node| node.state = NodeState::Running);
        }
        assert!(render(&board.status()).contains("all nodes are running"));
    }
}
