//! The command line: structures only, and the one match from command to function.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use gatehouse_model::Fault;
use gatehouse_model::site::VmmKind;

use crate::delivery::{customize, inspect, verify, write};
use crate::image::Format;
use crate::interrupt::{self, Next};
use crate::term::{self, Progress};
use crate::{commands, plan, root, serve, trial};

/// Makes one bootable image from one site directory; the machine that boots it installs a whole site.
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Directory for fetched packages and built parts [default: below `$XDG_CACHE_HOME`]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// The agent binary that goes into images [default: gatehouse-agent beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_enum, default_value_t)]
    pub progress: Progress,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new site directory from a template
    New(New),
    /// Check all that can be known of a site before building; lists every problem
    Check(SiteArg),
    /// Print a node's profile as XML
    Profile(Profile),
    /// Choose the exact packages of every root and write site.lock
    Lock(SiteArg),
    /// Build the image of a site
    Build(Build),
    /// Show the image's layout and what first boot would do with a machine
    Plan(Plan),
    /// Show what is in an image
    Inspect(Inspect),
    /// Check every digest of a built image; status 5 if one does not match
    Verify(Verify),
    /// Put other sites into a built image and its pxe/, in place: only the site partition is written
    Customize(Customize),
    /// Write an image to a USB stick: only what counts, read back
    Write(Write),
    /// Serve a built image to the machines of a LAN that start from the network
    ///
    /// By PXE of BIOS and UEFI, UEFI HTTP boot, and iPXE that chains `http://ADDRESS:PORT/boot.ipxe`; Secure Boot must
    /// be off. Beside another DHCP server, in which nothing is set, it only says what to start. Firmware that takes HTTP
    /// boot from the server of its address only (EDK II takes it from both) needs --range.
    Serve(Serve),
    /// Build if needed, boot it with fresh disks, show progress until every node is up
    Try(Try),
    /// Print the JSON Schema of site.toml
    Schema {
        /// Print the reference of the components that LCFG sources can configure instead, as Markdown
        #[arg(long)]
        lcfg: bool,
    },
    /// Print a completion script for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    #[command(hide = true, subcommand)]
    Internal(Internal),
}

/// Parts of a build that run in processes of their own.
#[derive(Debug, Subcommand)]
enum Internal {
    /// Make a root inside namespaces
    Root { spec: PathBuf },
}

/// A site directory.
#[derive(Clone, Debug, Args)]
pub struct SiteArg {
    /// The site directory
    pub site: PathBuf,
}

/// `gatehouse new`.
#[derive(Clone, Debug, Args)]
pub struct New {
    /// The directory to make
    pub dir: PathBuf,
    /// Which template to start from
    #[arg(long, default_value = "minimal")]
    pub template: String,
}

/// `gatehouse profile`.
#[derive(Clone, Debug, Args)]
pub struct Profile {
    /// The site directory
    pub site: PathBuf,
    /// The node's name
    pub node: String,
    /// Say which lines gave this resource its value, in order
    #[arg(long, value_name = "COMPONENT.RESOURCE", conflicts_with = "diff")]
    pub why: Option<String>,
    /// Show what differs from an older profile of the node
    #[arg(long, value_name = "FILE")]
    pub diff: Option<PathBuf>,
    /// Print the answer to --why or --diff as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gatehouse build`.
#[derive(Clone, Debug, Args)]
pub struct Build {
    /// The site directory
    pub site: PathBuf,
    /// Directory for the image and what belongs to it
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// What to make beside gatehouse.img, separated by commas; what does not belong to it is removed
    #[arg(long, value_enum, value_delimiter = ',', default_value = "img")]
    pub format: Vec<Format>,
    /// Print the manifest as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gatehouse plan`.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// The site directory
    pub site: PathBuf,
    /// A recorded machine (`gatehouse-agent survey --json`) [default: one that is large enough]
    #[arg(long, value_name = "FILE")]
    pub facts: Option<PathBuf>,
    /// Print layout and plan as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `gatehouse inspect`.
#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// The directory of a build, or an image file
    pub out: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gatehouse verify`.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// The directory of a build, or an image file beside its manifest
    pub out: PathBuf,
}

/// `gatehouse customize`.
#[derive(Clone, Debug, Args)]
pub struct Customize {
    /// The directory of a build, or an image file
    pub out: PathBuf,
    /// The site directory; several make a medium for many machines, each taking the site whose `[match]` names it
    #[arg(required = true)]
    pub sites: Vec<PathBuf>,
}

/// `gatehouse write`.
#[derive(Clone, Debug, Args)]
pub struct Write {
    /// The directory of a build, or an image file
    pub out: PathBuf,
    /// The stick, such as /dev/sdX; everything on it is lost. A file is taken as well
    pub device: PathBuf,
    /// Write to a disk that says it is not removable, too
    #[arg(long)]
    pub fixed: bool,
}

/// `gatehouse serve`.
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// The directory of a build with `--format pxe`
    pub out: PathBuf,
    /// The network interface that is served [default: the only one that is up and has an address]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The port of the HTTP server
    #[arg(long, default_value_t = 8000, value_name = "PORT")]
    pub http_port: u16,
    /// Give addresses of its network too, from the first to the last; else another DHCP server of the LAN does that
    #[arg(long, num_args = 2, value_names = ["FIRST", "LAST"])]
    pub range: Option<Vec<Ipv4Addr>>,
}

/// Under which virtual machine monitor to try a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TryVmm {
    /// The real image in QEMU; its nodes under Xen inside
    Xen,
    /// No image and no emulator: User Mode Linux in a network namespace of this machine
    Uml,
    /// No image: QEMU in a network namespace of this machine, for every node one
    Kvm,
}

/// `gatehouse try`.
#[derive(Clone, Debug, Args)]
pub struct Try {
    /// A site directory, or the directory of a built image
    pub site: PathBuf,
    /// The virtual machine monitor under the nodes [default: the site's]
    #[arg(long)]
    pub vmm: Option<TryVmm>,
    /// What starts the emulated machine
    #[arg(long, value_enum, default_value_t)]
    pub firmware: Firmware,
    /// What the emulated machine is started from
    #[arg(long, value_enum, default_value_t)]
    pub medium: Medium,
    /// What the emulated processor can do
    #[arg(long, value_enum, default_value_t)]
    pub processor: Processor,
    /// One more disk of the emulated machine, a raw file; it comes before the others
    #[arg(long, value_name = "FILE", hide = true)]
    pub decoy: Vec<PathBuf>,
    /// The emulated machine's first or second empty disk is not there
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub pull: Option<u32>,
    /// What the emulated machine's clock says at power on, as 2001-01-01T00:00:00 [default: the time]
    #[arg(long, value_name = "TIME")]
    pub clock: Option<String>,
    /// Stop once every node is up; status 0 only if all is well
    #[arg(long)]
    pub exit: bool,
    /// End with one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Once every node is up, measure how long the site's commands take, each so often [default: 50]
    #[arg(
        long,
        value_name = "RUNS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "50",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub evaluate: Option<u32>,
    /// An evaluation.json of a trial under the other hypervisor, for ratios beside the paper's
    #[arg(long, value_name = "FILE", requires = "evaluate")]
    pub against: Option<PathBuf>,
    /// Directory of the trial: disks, logs, keys [default: below /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Go on with the disks of the last trial instead of fresh ones
    #[arg(long)]
    pub resume: bool,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    pub timeout: u64,
}

/// The emulated machine's firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// SeaBIOS, QEMU's own
    #[default]
    Bios,
    /// OVMF (Debian's package ovmf)
    Uefi,
}

/// What an emulated processor can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Processor {
    /// What every processor can: nodes run under Xen's PV
    #[default]
    Plain,
    /// Nested paging too: nodes run under Xen's PVH
    NestedPaging,
}

/// What an emulated machine is started from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Medium {
    /// A disk with the image on it, which the site then lives on
    #[default]
    Disk,
    /// A USB stick with the image on it, which installs to an empty disk
    Stick,
}

impl From<TryVmm> for VmmKind {
    fn from(vmm: TryVmm) -> Self {
        match vmm {
            TryVmm::Xen => Self::Xen,
            TryVmm::Uml => Self::Uml,
            TryVmm::Kvm => Self::Kvm,
        }
    }
}

/// Parses the command line and does what it says.
///
/// # Errors
/// Whatever the command ends with; `main` turns it into the exit status.
pub fn main() -> Result<(), Fault> {
    let cli = Cli::parse();
    if let Command::Internal(Internal::Root { spec }) = &cli.command {
        return root::inside::make(spec);
    }
    let (phase, next) = match cli.command {
        Command::Try(_) => ("try", Next::Tries),
        Command::Write(_) => ("build", Next::Writes),
        _ => ("build", Next::GoesOn),
    };
    term::begin(cli.global.progress, phase);
    interrupt::begin(next)?;
    match &cli.command {
        Command::New(args) => commands::new(&cli.global, args),
        Command::Check(args) => commands::check(args),
        Command::Profile(args) => commands::profile(&cli.global, args),
        Command::Lock(args) => commands::lock(&cli.global, args),
        Command::Build(args) => commands::build(&cli.global, args),
        Command::Plan(args) => plan::run(&cli.global, args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Customize(args) => customize::run(args),
        Command::Write(args) => write::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Try(args) => trial::run(&cli.global, args),
        Command::Schema { lcfg: true } => {
            print!("{}", gatehouse_lcfg::reference());
            Ok(())
        }
        Command::Schema { lcfg: false } => {
            println!("{}", gatehouse_model::site::json_schema());
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "gatehouse", &mut std::io::stdout());
            Ok(())
        }
        Command::Man => Ok(clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?),
        Command::Internal(Internal::Root { spec }) => root::inside::make(spec),
    }
}
