//! Holds the host's end of a node's NIC to a rate, both ways, with `tc`.
//!
//! What the host sends to the node waits in a token bucket on that interface. What comes from the node would have to be
//! thrown away there, so it is led through a second interface (`ifb`), on which it waits as well.

use gatehouse_model::BitRate;

use crate::tool;

/// The smallest bucket, in bytes: a packet that a node hands over in one piece is up to 64 KiB long.
const SMALLEST_BUCKET: u64 = 128 << 10;

/// One command: a program and its arguments.
type Command = (&'static str, Vec<String>);

/// Holds an interface to a rate, or to none any more; answers why that cannot be, in a sentence: `ip` or `tc` is
/// missing, or the kernel lacks `sch_tbf`, `sch_ingress`, `cls_u32`, `act_mirred` or `ifb`. `number` is the node's own on
/// this machine.
pub fn hold(interface: &str, number: u32, rate: Option<BitRate>) -> Option<String> {
    let helper = helper(number);
    // It is made first and goes last: without it nothing was ever held.
    let held = tool::run("ip", &["link", "show", "dev", &helper]).is_ok();
    let commands = match rate {
        Some(rate) => holding(interface, &helper, rate, held),
        None if held => releasing(interface, &helper),
        None => return None,
    };
    let sentence = |fault| match rate {
        Some(rate) => format!("network-rate {rate} not held: {fault}"),
        None => format!("an earlier network-rate is held on: {fault}"),
    };
    let run = |(program, args): &Command| tool::run(program, args).err();
    // What an interface that is new does not have cannot be taken off it.
    let must = |(_, args): &&Command| rate.is_some() || args.contains(&helper);
    let (must, may): (Vec<_>, Vec<_>) = commands.iter().partition(must);
    for command in may {
        drop(run(command));
    }
    must.into_iter().find_map(run).map(sentence)
}

fn helper(number: u32) -> String {
    format!("ghifb{number}")
}

fn command(program: &'static str, line: &str) -> Command {
    (program, line.split(' ').map(str::to_owned).collect())
}

/// Each of them may be run again.
fn holding(interface: &str, helper: &str, rate: BitRate, held: bool) -> Vec<Command> {
    let bits = rate.as_bits();
    let bucket = (bits / 8 / 50).max(SMALLEST_BUCKET);
    let shape = |device: &str| {
        format!("qdisc replace dev {device} root tbf rate {bits}bit burst {bucket} latency 50ms")
    };
    let mut all = Vec::new();
    if !held {
        all.push(command("ip", &format!("link add {helper} type ifb")));
    }
    all.extend([
        command("ip", &format!("link set {helper} up")),
        command("tc", &shape(helper)),
        command("tc", &shape(interface)),
        command("tc", &format!("qdisc replace dev {interface} ingress")),
        // A handle of its own: else each time one more filter is added.
        command(
            "tc",
            &format!(
                "filter replace dev {interface} parent ffff: protocol all prio 1 handle 800::800 u32 match u32 0 0 \
                 action mirred egress redirect dev {helper}"
            ),
        ),
    ]);
    all
}

fn releasing(interface: &str, helper: &str) -> Vec<Command> {
    vec![
        command("tc", &format!("qdisc delete dev {interface} ingress")),
        command("tc", &format!("qdisc delete dev {interface} root")),
        command("ip", &format!("link delete {helper}")),
    ]
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn lines(commands: &[Command]) -> Vec<String> {
        commands.iter().map(|(program, args)| format!("{program} {}", args.join(" "))).collect()
    }

    #[test]
    fn both_ways_wait_in_a_bucket() {
        let rate = "100Mbit/s".parse().expect("a rate");
        assert_eq!(
            lines(&holding("ghtap3", "ghifb3", rate, false)),
            [
                "ip link add ghifb3 type ifb",
                "ip link set ghifb3 up",
                "tc qdisc replace dev ghifb3 root tbf rate 100000000bit burst 250000 latency 50ms",
                "tc qdisc replace dev ghtap3 root tbf rate 100000000bit burst 250000 latency 50ms",
                "tc qdisc replace dev ghtap3 ingress",
                "tc filter replace dev ghtap3 parent ffff: protocol all prio 1 handle 800::800 u32 match u32 0 0 \
                 action mirred egress redirect dev ghifb3",
            ]
        );
        assert_eq!(lines(&holding("ghtap3", "ghifb3", rate, true))[0], "ip link set ghifb3 up");
        assert_eq!(lines(&releasing("ghtap3", "ghifb3"))[2], "ip link delete ghifb3");
    }

    fn ip(line: &str) {
        tool::run("ip", &line.split(' ').collect::<Vec<_>>()).expect("ip does it");
    }

    /// The way from the host to a node and the way back: the two ends of each. A socket stays in the network that it
    /// was made in, whichever thread uses it.
    fn ways() -> [(TcpStream, TcpStream); 2] {
        let (place, told) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        let node = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
            place.send(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).expect("heard");
            gone.recv().expect("told");
            ip("address add 10.99.0.2/24 dev ghb");
            ip("link set ghb up");
            let listener = TcpListener::bind("10.99.0.2:0").expect("bound");
            place.send(listener.local_addr().expect("bound").to_string()).expect("heard");
            let to_node = listener.accept().expect("asked").0;
            (to_node, TcpStream::connect("10.99.0.1:5000").expect("answered"))
        });
        let path = told.recv().expect("told").replace("self", &std::process::id().to_string());
        ip("link add gha type veth peer name ghb");
        ip(&format!("link set ghb netns {path}"));
        ip("address add 10.99.0.1/24 dev gha");
        ip("link set gha up");
        let listener = TcpListener::bind("10.99.0.1:5000").expect("bound");
        go.send(()).expect("heard");
        let from_host = TcpStream::connect(told.recv().expect("told")).expect("answered");
        let to_host = listener.accept().expect("asked").0;
        let (to_node, from_node) = node.join().expect("it ended");
        [(from_host, to_node), (from_node, to_host)]
    }

    /// How many Mbit/s come through for a while.
    fn rate(way: &mut (TcpStream, TcpStream)) -> f64 {
        let (mut begun, mut count, mut buffer) = (Instant::now(), 0_u32, vec![0; 65536]);
        let (from, to) = (&mut way.0, &mut way.1);
        for stream in [&*from, &*to] {
            stream.set_nonblocking(true).expect("set");
        }
        let (warm, measured) = (Duration::from_millis(500), Duration::from_secs(1));
        let mut counts = false;
        while !counts || begun.elapsed() < measured {
            // What waits in the sockets has come through before.
            if !counts && begun.elapsed() > warm {
                (begun, count, counts) = (Instant::now(), 0, true);
            }
            // Either may have nothing to do.
            let _ = from.write(&buffer);
            count += to.read(&mut buffer).ok().and_then(|length| u32::try_from(length).ok()).unwrap_or(0);
        }
        f64::from(count) * 8.0 / 1e6 / begun.elapsed().as_secs_f64()
    }

    /// For real, in networks of this test's own.
    #[test]
    fn a_rate_holds_both_ways_and_goes_again() {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            assert!(std::env::var_os("CI").is_none(), "there are no network namespaces: {error}");
            println!("skipped, because there are no network namespaces: {error}");
            return;
        }
        let mut ways = ways();
        let ten = "10Mbit/s".parse().ok();
        for step in 0..3 {
            assert_eq!(hold("gha", 0, if step == 2 { None } else { ten }), None);
            for way in &mut ways {
                let came = rate(way);
                println!("{came:.1} Mbit/s");
                // What the bucket holds comes on top; what a busy machine does not get done is missing.
                assert_eq!(came < 14.0, step < 2, "{came} Mbit/s");
                assert!(came > 4.0, "{came} Mbit/s");
            }
        }
    }
}
