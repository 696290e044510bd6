//! The status page in a real browser, on a phone and on a desk. The pictures stay in the build directory, to be
//! looked at.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gatehouse_model::{Event, NodeName, Site, State};

use super::fixture::Place;
use super::view::ViewKey;
use crate::control::board::{Board, NodeState, now_millis};
use crate::control::keeping::Seen;
use crate::wire::{Failure, PhaseTime};

const BROWSER: &str = "chromium";

/// A site in the middle of its install, with one node of every kind.
fn busy_board() -> Board {
    let site = Site::parse(include_str!("../../../site-templates/grid-gateway/site.toml")).expect("right");
    let board = Board::new(&site);
    let name = |text: &str| text.parse::<NodeName>().expect("a name");
    let part = |phase: &str, seconds| PhaseTime { phase: phase.into(), seconds };
    board.update(&name("ce"), |node| {
        node.state = NodeState::Running;
        node.install_seconds = Some(96.4);
        node.phases = vec![part("boot", 18.2), part("disks", 5.1), part("packages", 61.7)];
    });
    board.update(&name("se"), |node| node.state = NodeState::Installing);
    board.tell(Event {
        ts: now_millis(),
        host: "se".into(),
        phase: "node/se".into(),
        action: "unpacking layer".into(),
        state: State::Progress,
        percent: Some(43),
        message: "11.2 MiB/s".into(),
    });
    board.update(&name("ui"), |node| node.state = NodeState::Starting);
    board.say("node/ui", "starting", State::Started, "");
    board.update(&name("wn"), |node| {
        node.state = NodeState::Failed;
        node.message = "installing node wn: the installer ended early; its last words:\n\
            [    4.941571] RIP: e030:unwind_next_frame+0x3e/0x750\n\
            [    4.941571] Code: 83 ec 08 44 8b 27 45 85 e4 0f 84 87 01 00 00 4c 8b 6f 58 4c 8b 77 48 48 89 fb 65 ff\n\
            [    4.941571] Kernel panic - not syncing: Attempted to kill the idle task!"
            .into();
    });
    board.say("node/wn", "installing", State::Failed, "the installer ended early");
    profiles(&board);
    board
}

/// How nodes stand to their profiles: one as it should be, one behind, one that fails and does not compile.
fn profiles(board: &Board) {
    let seen = |etag: &str, before: u64| Some(Seen { etag: etag.into(), at: now_millis() - before * 1000 });
    let name = |text: &str| text.parse::<NodeName>().expect("a name");
    board.of_profile(&name("ce"), |profile| {
        (profile.published, profile.fetched) = (seen("b", 310), seen("b", 42));
        profile.acknowledged = seen("b", 300);
        profile.changed = vec!["ntp".into(), "cron".into()];
    });
    board.of_profile(&name("ui"), |profile| {
        (profile.published, profile.fetched, profile.acknowledged) =
            (seen("b", 5), seen("a", 400), seen("a", 8000));
    });
    board.of_profile(&name("se"), |profile| {
        (profile.published, profile.fetched, profile.acknowledged) =
            (seen("b", 60), seen("b", 55), seen("b", 50));
        profile.failed = vec![Failure {
            component: "nfs".into(),
            method: "configure".into(),
            output: "nfs.exports is set, and this node has no NFS server".into(),
        }];
        profile.problems = vec!["lcfg/source/se:7: exampel.org is not a word".into()];
    });
}

/// What the browser has made of an address, after the page's own program has run; with a picture, the picture.
fn browse(address: &str, profile: &Path, picture: Option<(&Path, &str)>) -> String {
    let mut command = Command::new(BROWSER);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"]);
    command.args(["--hide-scrollbars", "--virtual-time-budget=3000", "--no-first-run"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    match picture {
        Some((file, size)) => command
            .arg(format!("--window-size={size}"))
            .arg(format!("--screenshot={}", file.display()))
            .arg(address),
        None => command.arg("--dump-dom").arg(address),
    };
    let output = command.output().expect("the browser starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_page_is_readable_in_a_browser() {
    if Command::new(BROWSER).arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "{BROWSER} is missing; run ci/setup --tests");
        println!("skipped, because {BROWSER} is missing");
        return;
    }
    let mut place = Place::new();
    place.board = Arc::new(busy_board());
    let server = place.start();
    let key = ViewKey::read(&place.paths()).expect("readable").expect("there is a key");
    let plain = format!("https://127.0.0.1:{}/status", server.tls().port());
    let profile = tempfile::tempdir().expect("a directory");

    let seen = browse(&format!("{plain}?key={key}"), profile.path(), None);
    let parts = ["1 of 4 nodes running", "10.0.2.22", "unpacking layer, 11.2 MiB/s", "Kernel panic"];
    let kept = [
        "profile applied: published",
        "profile not applied yet",
        "nfs configure failed",
        "no NFS server",
        "exampel",
    ];
    for part in parts.into_iter().chain(kept) {
        assert!(seen.contains(part), "{part} is not on the page: {seen}");
    }
    let seen = browse(&plain, profile.path(), None);
    assert!(seen.contains("1 of 4 nodes running") && seen.contains("failed"), "{seen}");
    for secret in ["10.0.2.22", "Kernel panic", "no NFS server", "exampel"] {
        assert!(!seen.contains(secret), "strangers see too much: {seen}");
    }
    assert!(seen.contains("nfs configure failed"), "{seen}");

    let pictures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/pictures");
    std::fs::create_dir_all(&pictures).expect("made");
    for (name, size) in [("phone", "390,1400"), ("desktop", "1280,900")] {
        let file = pictures.join(format!("status-{name}.png"));
        browse(&format!("{plain}?key={key}"), profile.path(), Some((&file, size)));
        let bytes = std::fs::metadata(&file).expect("there is a picture").len();
        println!("looked at {plain}: {}", file.display());
        assert!(bytes > 10_000, "the picture has {bytes} bytes");
    }
}
