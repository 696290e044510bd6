//! What people ask of a node on the node itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use gatehouse_lcfg::Profile;
use gatehouse_model::{Doing as _, Fault};
use serde::Serialize;

use super::daemon::{Settings, tell_sign};
use super::{Node, contexts, credentials, plan, status};
use crate::node::apt::{self, plan::Item};
use crate::node::component::{self, nfs};
use crate::node::evaluate::{self, EvaluateOptions};
use crate::node::target::Target;

/// Commands about the profile that a node has.
#[derive(Clone, Debug, Subcommand)]
pub enum KeepCommand {
    /// Keep this node true to its profile, until it is shut down (started by systemd)
    Client,
    /// Which profile this node has, what of it was applied and when, and what failed
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch the profile now and apply what differs
    Run(RunOptions),
    /// The value of a resource in the profile that this node has
    Query {
        /// Which, such as network.gateway
        #[arg(value_name = "COMPONENT.RESOURCE")]
        resource: String,
        /// Also the files and lines that set it
        #[arg(long)]
        why: bool,
    },
    /// Measure how long the commands of this node's profile take (evaluate.tests)
    Evaluate(EvaluateOptions),
    /// Set a context and apply what it changes; with nothing behind the equals sign, take it out
    Context {
        /// The context, such as net=home
        #[arg(value_name = "NAME=VALUE")]
        context: String,
    },
    /// Mount anew what an NFS server that was installed anew does not know any more; the client does so by itself, and
    /// this is for what cannot wait for its next look
    Remount,
    /// Have a key certified by the site's Grid authority, and print the certificate (PEM)
    Certificate {
        /// Whose: host for this node, or a user of the Grid that this node certifies
        name: String,
        /// The request, PEM; only its key counts
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
    },
    /// Print the certificate of the site's Grid authority (PEM)
    Authority,
    /// Write a secret that nodes share to stdout, as it is
    Secret {
        /// Which, such as munge
        name: String,
    },
}

/// How `run` goes about it.
#[derive(Args, Clone, Copy, Debug)]
pub struct RunOptions {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Does what the command says.
///
/// # Errors
/// This is no installed node, the server cannot be reached, or something could not be applied.
pub fn run(command: &KeepCommand) -> Result<(), Fault> {
    if matches!(command, KeepCommand::Client) {
        return super::run();
    }
    let node = Node::open(Target::running())?;
    match command {
        KeepCommand::Client => Ok(()),
        KeepCommand::Status { json: true } => print_json(&status::report(&node)),
        KeepCommand::Status { json: false } => {
            print!("{}", status::text(&node));
            Ok(())
        }
        KeepCommand::Run(RunOptions { dry_run: true, json }) => {
            let wanted = would(&node)?;
            if *json {
                return print_json(&wanted);
            }
            wanted.print();
            Ok(())
        }
        KeepCommand::Run(RunOptions { dry_run: false, json }) => now(&node, true, *json),
        KeepCommand::Query { resource, why } => query(&node.profile()?, resource, *why),
        KeepCommand::Evaluate(options) => evaluate::by_hand(&node.profile()?, *options),
        KeepCommand::Context { context } => {
            contexts::set(&node.target, context)?;
            now(&node, false, false)
        }
        KeepCommand::Remount => {
            nfs::renew(&node.profile()?)?.iter().for_each(|point| println!("{point} was mounted anew"));
            Ok(())
        }
        KeepCommand::Certificate { name, csr } => credentials::certificate(&node, name, csr),
        KeepCommand::Authority => credentials::authority(&node),
        KeepCommand::Secret { name } => credentials::secret(&node, name),
    }
}

/// What would be done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Would {
    profile: String,
    components: Vec<WouldRun>,
    packages: Vec<Item>,
    packages_at_boot: Vec<Item>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct WouldRun {
    name: String,
    /// What differs from the profile that the node has; empty where the component was not applied before.
    resources: Vec<String>,
}

fn would(node: &Node) -> Result<Would, Fault> {
    let keeper = node.keeper()?;
    let fetched = node.client.profile()?;
    let profile = node.read_profile(&fetched.xml).doing(|| "reading the new profile")?;
    let old = node.profile().unwrap_or_default();
    let state = keeper.journal.state();
    let run = |name: String| WouldRun { resources: plan::diff(&old, &profile, &name), name };
    let acts = |name: &String| component::doer(&profile, name).is_some();
    let names = plan::plan(&profile, &state.components).into_iter().filter(acts);
    let packages = apt::look(&node.target, &profile, state.packages.boot != apt::boot_id()?)?;
    let components = names.map(run).collect();
    Ok(Would { profile: fetched.etag, components, packages: packages.now, packages_at_boot: packages.later })
}

impl Would {
    fn print(&self) {
        if self.components.is_empty() && self.packages.is_empty() && self.packages_at_boot.is_empty() {
            println!("nothing differs from the profile");
        }
        for item in &self.packages {
            println!("would {item}");
        }
        for item in &self.packages_at_boot {
            println!("would {item} at the next boot");
        }
        for WouldRun { name, resources } in &self.components {
            let what = if resources.is_empty() { "not applied yet".to_owned() } else { resources.join(", ") };
            println!("would configure {name} ({what})");
        }
    }
}

/// Applies the profile now, after fetching it if told to.
fn now(node: &Node, fetch: bool, json: bool) -> Result<(), Fault> {
    let mut keeper = node.keeper()?;
    if fetch {
        keeper.fetch()?;
    }
    let profile = node.profile()?;
    let mut say = |text: &str| {
        if !json {
            println!("{text}");
        }
    };
    let done = keeper.apply(&profile, &mut say)?;
    let ack = keeper.ack(&done);
    let settings = Settings::of(Some(&profile));
    if settings.ack {
        // What was done stays done; the daemon tells the server of the profile in any case.
        match node.client.acknowledge(&ack) {
            Ok(()) => tell_sign(node.home.server, settings.ack_port, &keeper.sign(&profile)),
            Err(fault) => eprint!("{}", fault.render()),
        }
    }
    if json {
        print_json(&ack)?;
    } else if done.is_nothing() {
        println!("nothing differs from the profile");
    }
    if done.is_good() && keeper.journal.state().refused.is_none() {
        return Ok(());
    }
    let failed: Vec<String> =
        keeper.journal.state().failures().into_iter().map(|failure| failure.component).collect();
    Err(Fault::new(format!("not applied: {}", failed.join(", ")))
        .help("see `gatehouse-agent node status`; the client tries again by itself"))
}

fn query(profile: &Profile, resource: &str, why: bool) -> Result<(), Fault> {
    let (component, name) = resource.split_once('.').ok_or_else(|| {
        Fault::new(format!("{resource:?} is no resource"))
            .help("write COMPONENT.RESOURCE, such as network.gateway")
    })?;
    let value = profile.get(component, name).ok_or_else(|| {
        Fault::new(format!("the profile has no {resource}")).help(known(profile, component))
    })?;
    println!("{value}");
    if !why {
        return Ok(());
    }
    let found = profile.components.iter().find(|(known, _)| known == component);
    let derivation = found.and_then(|(_, found)| found.resources.get(name)).map(|found| &found.derivation);
    for (file, lines) in derivation.into_iter().flatten() {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let colon = if lines.is_empty() { "" } else { ":" };
        println!("  {file}{colon}{}", lines.join(","));
    }
    Ok(())
}

fn known(profile: &Profile, component: &str) -> String {
    let names: Vec<&str> = plan::resources(profile, component).into_keys().collect();
    if names.is_empty() {
        return format!("name one of the components {}", plan::order(profile).join(", "));
    }
    format!("{component} has {}", names.join(", "))
}

fn print_json(value: &impl Serialize) -> Result<(), Fault> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}
