//! `mqassay disk`: a disk that forgets unsynced writes when it is told that the power is lost, for real processes.
//! Not here: the disk itself (the harness), and the runs that use it (`process_world`).

use std::io::{BufReader, stdin, stdout};
use std::path::PathBuf;

use clap::Subcommand;
use mqassay_harness::process::disk::{self, Metadata};

use crate::exit::{Exit, Failure};
use crate::progress::tell;

/// Arguments of `mqassay disk`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Mount an empty disk on a folder until standard input ends, SIGTERM or Ctrl-C
    ///
    /// Each line of standard input is a command, each line of standard output its answer. What is not synced is kept
    /// apart: a power loss keeps or drops it, sector by sector and name by name. What the disk holds is in the memory
    /// of this process and ends with it.
    #[command(after_long_help = COMMANDS)]
    Mount(Mount),
    /// Unmount disks whose process has ended
    Clean,
}

#[derive(Debug, clap::Args)]
struct Mount {
    /// The folder; what is in it is hidden while the disk is mounted
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Size of the disk
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    capacity_bytes: u64,
    /// When names of files become durable
    #[arg(long, value_enum, default_value_t = MetadataName::Posix)]
    metadata: MetadataName,
}

/// When changes of names become durable on a disk that forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MetadataName {
    /// When their directory is synced, each by itself: all that POSIX promises
    Posix,
    /// In order, with the sync of any file and every five seconds, as journals of ext4 and XFS commit them
    Journal,
}

impl From<MetadataName> for Metadata {
    fn from(name: MetadataName) -> Metadata {
        match name {
            MetadataName::Posix => Metadata::Posix,
            MetadataName::Journal => Metadata::Journal,
        }
    }
}

/// Performs the action.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.action {
        Action::Mount(mount) => {
            if let Some(what) = disk::missing() {
                return Err(Failure::Undone(anyhow::anyhow!("a disk that forgets cannot be mounted here: {what}")));
            }
            let folder = std::path::absolute(&mount.folder).map_err(Failure::undone)?;
            let (capacity_bytes, metadata) = (mount.capacity_bytes, mount.metadata.into());
            disk::serve(&folder, capacity_bytes, metadata, BufReader::new(stdin()), stdout())
                .map_err(Failure::undone)?;
        }
        Action::Clean => {
            for folder in disk::unmount_stale() {
                tell(&format!("unmounted {}", folder.display()));
            }
        }
    }
    Ok(Exit::Valid)
}

const COMMANDS: &str = r#"Commands:
  {"power-loss":{"salt":7}}                                what is unsynced survives or not, by the salt
  {"fail":{"on":"sync","operations":1,"salt":7}}           the next reads, writes or syncs fail
  {"full":{"fault":1,"is_active":true}}                    no room, until told otherwise
  {"slow":{"fault":1,"delay_ms":100}}                      syncs take longer; 0 ends it
  {"flip-bit":{"salt":7}}                                  one bit of one file flips
  "repair"                                                 ends every fault
  "settle"                                                 everything becomes durable"#;
