//! A node in a temporary directory and the real server, over loopback.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use gatehouse_model::{Digest, Exit, NodeName};
use tempfile::TempDir;

use super::apply::Done;
use super::daemon::{Ears, tell_sign};
use super::*;
use crate::control::keeping::{ProfileStatus, Standing};
use crate::server::{Place, Running};

const HEAD: &str = "#include <gatehouse/site.h>\nprofile.domain SITE_DOMAIN\nprofile.packages @site.pkgs\n\
    client.url SITE_SERVER_URL\nprofile.components profile client hosts file motd\n";
const DEFAULTS: [(&str, &str); 1] = [("motd", "@text %string\ntext\n")];

/// A server with node1's source, and node1.
struct World {
    place: Place,
    server: Running,
    dir: TempDir,
    node: Node,
}

impl World {
    fn new(place: Place, source: &str) -> Self {
        let lcfg = place.paths().site().join("lcfg");
        fs::create_dir_all(lcfg.join("defaults")).expect("made");
        for (component, text) in DEFAULTS {
            fs::write(lcfg.join(format!("defaults/{component}.def")), text).expect("written");
        }
        fs::write(place.source("node1"), format!("{HEAD}{source}")).expect("written");
        let server = place.start();
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("etc")).expect("made");
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        fs::write(dir.path().join("etc/passwd"), format!("root:x:{uid}:{gid}:::\n")).expect("written");
        fs::write(dir.path().join("etc/group"), format!("root:x:{gid}:\n")).expect("written");
        let home = Home {
            server: Ipv4Addr::LOCALHOST,
            authority: server.authority_pem(),
            node: "node1".parse::<NodeName>().expect("a name"),
            domain: "example.org".into(),
            mac: "02:00:00:00:00:01".parse().expect("an address"),
            address: Ipv4Addr::new(127, 0, 0, 21),
            prefix: 24,
            machine: false,
        };
        let stranger = Client::new(&home, None).expect("a client").at(server.http(), server.tls());
        let key = rcgen::KeyPair::generate().expect("a key");
        let known = stranger.enrol(&key, Some(&place.token("node1"))).expect("enrolled").expect("known");
        let client = known.client;
        let node = Node { home, client, target: Target::new(dir.path()) };
        Self { place, server, dir, node }
    }

    /// Other sources; they are published when this returns.
    fn change(&self, source: &str) {
        fs::write(self.place.source("node1"), format!("{HEAD}{source}")).expect("written");
        self.server.refresh_now();
    }

    /// One round of the node, as the daemon makes it.
    fn round(&self) -> (News, Done) {
        let mut keeper = self.node.keeper().expect("nobody else");
        let news = keeper.fetch().expect("the server answers");
        let profile = self.node.profile().expect("there is one");
        let done = keeper.apply(&profile, &mut |_| {}).expect("it is written down");
        self.node.client.acknowledge(&keeper.ack(&done)).expect("the server hears it");
        (news, done)
    }

    fn on_board(&self) -> ProfileStatus {
        self.place.board.status().nodes.swap_remove(0).profile
    }

    fn read(&self, path: &str) -> String {
        self.node.target.read(path)
    }
}

#[test]
fn a_changed_resource_runs_its_component_alone() {
    let world = World::new(Place::new(), "file.files a\nfile.file_a /etc/motd\nfile.tmpl_a one\n");
    let (news, done) = world.round();
    assert_eq!(
        (news, done.changed.as_slice()),
        (News::Profile, ["hosts".to_owned(), "file".to_owned()].as_slice())
    );
    assert_eq!(world.read("/etc/motd"), "one\n");
    let kept = world.dir.path().join("var/lib/gatehouse/client/profile.xml");
    assert_eq!(fs::metadata(kept).expect("kept").permissions().mode() & 0o777, 0o600);
    assert_eq!(world.on_board().standing(), Standing::Current);

    assert_eq!(world.round(), (News::None, Done::default()), "nothing has changed");
    world.change("file.files a\nfile.file_a /etc/motd\nfile.tmpl_a two\n");
    assert_eq!(world.on_board().standing(), Standing::Stale);
    let (news, done) = world.round();
    assert_eq!((news, done.changed.as_slice()), (News::Profile, ["file".to_owned()].as_slice()));
    assert_eq!(world.read("/etc/motd"), "two\n");
    let told = world.on_board();
    assert_eq!((told.standing(), told.changed), (Standing::Current, vec!["file".to_owned()]));
    world.change("");
    world.round();
    assert!(!world.node.target.has("/etc/motd"), "what left the list is gone");
}

#[test]
fn a_profile_that_cannot_be_read_leaves_the_last_good_one() {
    let world = World::new(Place::new(), "");
    world.round();
    let good = world.node.profile().expect("kept");
    // The same node under another name takes what it gets for another's.
    let home = Home { node: "node2".parse().expect("a name"), ..world.node.home.clone() };
    let other = Node { home, client: world.node.client.clone(), target: world.node.target.clone() };
    world.change("file.files a\nfile.file_a /etc/motd\n");
    let mut keeper = other.keeper().expect("nobody else");
    assert_eq!(keeper.fetch().expect("the server answers"), News::Refused);
    assert_eq!(keeper.fetch().expect("the server answers"), News::None, "it is not fetched again and again");
    let ack = keeper.ack(&Done::default());
    assert_eq!(ack.failed[0].component, "profile");
    assert!(ack.failed[0].output.contains("this is the profile of \"node1\""), "{}", ack.failed[0].output);
    drop(keeper);
    assert_eq!(world.node.profile().expect("kept"), good);

    let (_, done) = world.round();
    assert_eq!(done, Done::default(), "the same version is not looked at again");
    world.change("file.files a\nfile.file_a /etc/motd2\n");
    let (news, done) = world.round();
    assert_eq!((news, done.changed.len()), (News::Profile, 1));
    assert!(world.on_board().failed.is_empty());
}

#[test]
fn what_failed_is_done_again_though_the_profile_is_the_old_one_again() {
    let good = "file.files a\nfile.file_a /etc/motd\nfile.tmpl_a one\n";
    let world = World::new(Place::new(), good);
    world.round();
    world.change(&format!("{good}file.mode_a rw\n"));
    assert_eq!(world.round().1.failed, ["file"]);
    assert_eq!(world.on_board().standing(), Standing::Failing);
    world.change(good);
    assert_eq!(world.round().1.changed, ["file"]);
    assert_eq!(world.on_board().standing(), Standing::Current);
    world.change(&format!("{good}file.mode_a rw\n"));
    world.round();
    world.change("!profile.components mSET(profile client hosts)\n");
    world.round();
    assert_eq!(world.on_board().standing(), Standing::Current, "what the profile has no more cannot fail");
    assert!(world.node.target.has("/etc/motd"), "and what it made stays");
}

#[test]
fn a_program_is_fetched_by_digest_run_and_its_words_are_told() {
    let place = Place::new();
    let components = place.paths().site().join("components");
    fs::create_dir_all(&components).expect("made");
    let with = |program: &str, text: &str| {
        fs::write(components.join("motd"), program).expect("written");
        format!("motd.text {text}\n")
    };
    if nix::unistd::geteuid().as_raw() != 0 {
        println!("skipped, because entering a root needs root");
        return;
    }
    // A root of which the shell's program is all: the node's own directory is its root.
    let broken = "#!/bin/nothing\n";
    let world = World::new(place, &with(broken, "x"));
    let (_, done) = world.round();
    assert_eq!(done.failed, ["motd"]);
    let told = world.on_board();
    assert_eq!((told.standing(), told.failed[0].component.as_str()), (Standing::Failing, "motd"));
    assert!(told.failed[0].output.contains("starting the program of motd"), "{}", told.failed[0].output);
    let kept = format!("/var/lib/gatehouse/components/{}", Digest::of(broken.as_bytes()));
    assert_eq!(world.read(&kept), broken);
    assert_eq!(world.round().1.failed, ["motd"], "it is tried again");

    world.change(&with("#!/bin/other\n", "y"));
    world.round();
    assert!(!world.node.target.has(&kept), "what no profile names is removed");
    fs::remove_file(components.join("motd")).expect("removed");
    world.change("motd.text y\n");
    world.round();
    assert_eq!(
        world.on_board().standing(),
        Standing::Current,
        "a component without a program only carries values"
    );
}

#[test]
fn a_node_is_told_at_once_and_its_sign_is_heard() {
    let mut place = Place::new();
    let own = Ipv4Addr::new(127, 0, 0, 21);
    place.notify_port =
        UdpSocket::bind((own, 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
    let port = place.notify_port;
    let world = World::new(place, "");
    world.round();
    let hears = std::thread::spawn(move || {
        let begun = Instant::now();
        let told = Ears::default().wait(port, Ipv4Addr::LOCALHOST, Duration::from_secs(20));
        (told, begun.elapsed())
    });
    std::thread::sleep(Duration::from_millis(200));
    fs::write(world.place.source("node1"), format!("{HEAD}profile.comment changed\n")).expect("written");
    let (told, after) = hears.join().expect("it ends");
    assert!(told, "not told within {after:?}");
    assert_eq!(world.round().0, News::Profile);

    let sign = world.node.keeper().expect("nobody else").sign(&world.node.profile().expect("kept"));
    // From an address that is not the node's, nothing is believed.
    tell_sign(Ipv4Addr::LOCALHOST, world.server.ack().port(), &sign);
    let from_node = UdpSocket::bind((own, 0)).expect("a socket");
    assert_eq!(world.on_board().heard, None);
    for _ in 0..100 {
        from_node.send_to(sign.to_string().as_bytes(), world.server.ack()).expect("sent");
        if world.on_board().heard.is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the sign was not heard");
}

#[test]
fn a_server_that_is_away_leaves_what_is_there_and_what_was_cut_off_goes_on() {
    let World { place, server, dir, node } =
        World::new(Place::new(), "file.files a\nfile.file_a /etc/motd\n");
    let mut keeper = node.keeper().expect("nobody else");
    assert_eq!(keeper.fetch().expect("the server answers"), News::Profile);
    drop(keeper);
    server.stop();
    // As after a power cut: the profile was kept, and nothing of it applied.
    let mut keeper = node.keeper().expect("nobody else");
    assert!(keeper.fetch().is_err());
    let profile = node.profile().expect("kept");
    let done = keeper.apply(&profile, &mut |_| {}).expect("it is written down");
    assert_eq!(done.changed, ["hosts", "file"]);
    assert!(dir.path().join("etc/motd").exists());
    drop(place);
}

#[test]
fn credentials_are_fetched_while_the_client_works_and_refusals_are_none_of_the_network() {
    let mut place = Place::new();
    place.more = "[grid]\n".to_owned();
    let source =
        "!profile.components mADD(credentials)\ncredentials.certificates host\ncredentials.secrets munge\n";
    let world = World::new(place, source);
    let client = &world.node.client;
    let _applying = world.node.keeper().expect("nobody else");
    assert_eq!(client.secret("munge").expect("given").len(), 128);
    assert!(client.grid_authority().expect("given").starts_with(b"-----BEGIN CERTIFICATE-----"));
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    let csr = request.pem().expect("text");
    assert!(client.certificate("host", &csr).expect("given").starts_with("-----BEGIN CERTIFICATE-----"));

    let refused = client.certificate("alice", &csr).expect_err("not in its profile");
    assert_eq!(refused.exit_status(), Exit::Refusal);
    assert!(refused.render().contains("credentials.certificates of its profile does not have \"alice\""));
    assert_eq!(client.secret("other").expect_err("not in its profile").exit_status(), Exit::Refusal);
    assert_eq!(client.certificate("host", "none").expect_err("no request").exit_status(), Exit::Problem);
    let World { server, node, .. } = world;
    server.stop();
    assert_eq!(node.client.secret("munge").expect_err("no server").exit_status(), Exit::Fault);
}
