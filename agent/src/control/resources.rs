//! `gatectl node set` and `gatectl node resize`: what a node may take of the host, changed in site.toml.

use clap::Args;
use gatehouse_model::site::{Setting, Settings};
use gatehouse_model::{Exit, Fault, NodeName, Size};
use serde_json::json;

use super::ctl::{other_answer, print};
use super::request::{Answer, Request};
use super::site::who;
use super::socket::Asker;
use crate::paths::Paths;

/// `gatectl node set`.
#[derive(Args, Clone, Debug)]
pub struct SetControl {
    /// The node's name
    node: NodeName,
    /// Its share of the processors where the nodes want more than there is: 1 to 10000, 256 if nothing is said
    #[arg(long, value_name = "WEIGHT", value_parser = number)]
    weight: Option<Setting>,
    /// The most processor time, in percent of one processor, or none
    #[arg(long, value_name = "PERCENT", value_parser = number)]
    cap: Option<Setting>,
    /// Its memory, such as 512MiB
    #[arg(long, value_name = "SIZE", value_parser = text)]
    memory: Option<Setting>,
    /// How many processors it has
    #[arg(long, value_name = "COUNT", value_parser = number)]
    vcpus: Option<Setting>,
    /// The most it reads from its disks, and as much again that it writes, such as 50MiB/s, or none
    #[arg(long, value_name = "RATE", value_parser = text)]
    disk_rate: Option<Setting>,
    /// The most operations a second on its disks, of reading and as many again of writing, or none
    #[arg(long, value_name = "COUNT", value_parser = number)]
    disk_iops: Option<Setting>,
    /// The most it sends, and as much again that it receives, such as 100Mbit/s, or none
    #[arg(long, value_name = "RATE", value_parser = text)]
    network_rate: Option<Setting>,
    /// Start the node again at once if something needs that; else it holds from its next start on
    #[arg(long)]
    restart: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// `gatectl node resize`.
#[derive(Args, Clone, Debug)]
pub struct ResizeControl {
    /// The node's name
    node: NodeName,
    /// The size that its disk gets, such as 30GiB; never less than it has
    #[arg(long, value_name = "SIZE")]
    disk: Size,
    /// Leave it running: it has the room from its next start on
    #[arg(long)]
    later: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn text(word: &str) -> Result<Setting, String> {
    match word {
        "" => Err("write a value, or none".to_owned()),
        "none" => Ok(Setting::Unset),
        word => Ok(Setting::Text(word.to_owned())),
    }
}

fn number(word: &str) -> Result<Setting, String> {
    if word == "none" {
        return Ok(Setting::Unset);
    }
    word.parse().map(Setting::Number).map_err(|_| "write a whole number, or none".to_owned())
}

pub(super) fn set(paths: &Paths, options: SetControl) -> Result<(), Fault> {
    let SetControl { weight, cap, memory, vcpus, disk_rate, disk_iops, network_rate, .. } = options;
    let all = [
        ("weight", weight),
        ("cap", cap),
        ("memory", memory),
        ("vcpus", vcpus),
        ("disk-rate", disk_rate),
        ("disk-iops", disk_iops),
        ("network-rate", network_rate),
    ];
    let settings: Settings =
        all.into_iter().filter_map(|(key, setting)| Some((key.to_owned(), setting?))).collect();
    if settings.is_empty() {
        let help = "write what is to be set, such as --weight 64; --help lists all";
        return Err(Fault::new("nothing is to be set").help(help).exit(Exit::Problem));
    }
    ask(paths, options.node, settings, options.restart, options.json)
}

pub(super) fn resize(paths: &Paths, options: ResizeControl) -> Result<(), Fault> {
    let settings = Settings::from([("disk".to_owned(), Setting::Text(options.disk.to_string()))]);
    ask(paths, options.node, settings, !options.later, options.json)
}

fn ask(paths: &Paths, node: NodeName, settings: Settings, restart: bool, json: bool) -> Result<(), Fault> {
    let request = Request::Set { node, settings, by: who(), restart };
    match Asker::connect(paths)?.ask(&request)? {
        Answer::Change(change) if json => print(&(json!(change).to_string() + "\n")),
        Answer::Change(change) => print(&change.to_string()),
        _ => Err(other_answer()),
    }
}
