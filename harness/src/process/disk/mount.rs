//! What a test holds of a forgetting disk: the process that serves it, told by lines and answered by lines. However the
//! holder ends, the mount goes: the server unmounts when its input ends, and is killed where it does not answer.
//! Not here: what the commands do (`server`).

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use thiserror::Error;

use super::{Answer, Command};
use crate::sim::disk::Metadata;
use crate::systems::started_ticks;

/// A mounted disk. Dropping it unmounts.
#[derive(Debug)]
pub struct ForgettingDisk {
    folder: PathBuf,
    server: Child,
    control: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// Why a disk is not there or did not do what it was told.
#[derive(Debug, Error)]
pub enum DiskError {
    /// This machine cannot mount it.
    #[error("a disk that forgets cannot be mounted here: {0}")]
    Missing(&'static str),
    /// The folder or the process failed.
    #[error("the disk on {folder} cannot be {what}: {source}")]
    Io {
        /// Where it is mounted.
        folder: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It said nothing in time, or ended.
    #[error("the disk on {folder} (process {pid}) does not answer; it was told {command}")]
    Silent {
        /// Where it is mounted.
        folder: PathBuf,
        /// The process that serves it.
        pid: u32,
        /// The last command.
        command: String,
    },
    /// It answered something else than was to be expected.
    #[error("the disk on {folder} answered {answer} when told {command}")]
    Unexpected {
        /// Where it is mounted.
        folder: PathBuf,
        /// The last command.
        command: String,
        /// What it said.
        answer: String,
    },
}

/// What this machine lacks for such a disk, if anything.
pub fn missing() -> Option<&'static str> {
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse; load the kernel's module fuse, or give the container the device");
    }
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root");
    }
    None
}

impl ForgettingDisk {
    /// Mounts an empty disk of so many bytes on the folder, made where it is missing; `program` is the `mqassay` that
    /// serves it, as `mqassay disk mount`.
    pub fn mount(
        program: &Path,
        folder: &Path,
        capacity_bytes: u64,
        metadata: Metadata,
    ) -> Result<ForgettingDisk, DiskError> {
        if let Some(what) = missing() {
            return Err(DiskError::Missing(what));
        }
        let failed = |what| {
            let folder = folder.to_owned();
            move |source| DiskError::Io { folder, what, source }
        };
        std::fs::create_dir_all(folder).map_err(failed("made a folder for"))?;
        let mut command = Program::new(program);
        let metadata = match metadata {
            Metadata::Posix => "posix",
            Metadata::Journal => "journal",
        };
        let capacity = capacity_bytes.to_string();
        command.args(["disk", "mount", "--capacity-bytes", &capacity, "--metadata", metadata]).arg(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // A group of its own: a Ctrl-C is for the holder, whose end the server hears of by its input.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        crate::process::leftovers::mark(&mut command);
        let mut server = command.spawn().map_err(failed("served"))?;
        let control = server.stdin.take();
        let (say, answers) = mpsc::channel();
        if let Some(output) = server.stdout.take() {
            std::thread::spawn(move || {
                // Once the holder is gone nobody hears, which is all right.
                BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(say.send(line)));
            });
        }
        let disk = ForgettingDisk { folder: folder.to_owned(), server, control, answers };
        match disk.heard("nothing yet")? {
            Answer::Mounted => Ok(disk),
            other => Err(disk.unexpected("nothing yet".to_owned(), &other)),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has a command done, and gives the answer.
    pub fn tell(&mut self, command: &Command) -> Result<Answer, DiskError> {
        let line = serde_json::to_string(command).expect("names and numbers serialise");
        let folder = self.folder.clone();
        let control = self.control.as_mut().expect("it is taken away only when the disk is dropped");
        writeln!(control, "{line}").map_err(|source| DiskError::Io { folder, what: "told anything", source })?;
        match self.heard(&line)? {
            refused @ Answer::Refused(_) => Err(self.unexpected(line, &refused)),
            answer => Ok(answer),
        }
    }

    fn heard(&self, command: &str) -> Result<Answer, DiskError> {
        let (folder, pid) = (self.folder.clone(), self.server.id());
        let line = self.answers.recv_timeout(PATIENCE);
        let line = line.map_err(|_| DiskError::Silent { folder, pid, command: command.to_owned() })?;
        serde_json::from_str(&line).map_err(|_| DiskError::Unexpected {
            folder: self.folder.clone(),
            command: command.to_owned(),
            answer: line,
        })
    }

    fn unexpected(&self, command: String, answer: &Answer) -> DiskError {
        DiskError::Unexpected { folder: self.folder.clone(), command, answer: format!("{answer:?}") }
    }
}

impl Drop for ForgettingDisk {
    fn drop(&mut self) {
        drop(self.control.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.server.try_wait(), Ok(None)) {
            std::thread::sleep(WAIT_STEP);
        }
        // One that has ended by now cannot be killed, which is what we want.
        let _ = self.server.kill();
        let _ = self.server.wait();
        if mounts().iter().any(|mount| mount.folder == self.folder)
            && let Err(error) = unmount(&self.folder, UnmountFlags::DETACH)
        {
            eprintln!("mqassay: {} is still mounted: {error}", self.folder.display());
        }
    }
}

/// The folders of forgetting disks of this machine whose server has ended.
pub fn stale_mounts() -> Vec<PathBuf> {
    let is_stale = |mount: &Mount| {
        let (pid, ticks) = mount.server;
        started_ticks(pid) != Some(ticks)
    };
    mounts().into_iter().filter(is_stale).map(|mount| mount.folder).collect()
}

/// Unmounts every forgetting disk of this machine whose server has ended, and gives their folders.
pub fn unmount_stale() -> Vec<PathBuf> {
    // Another who looks at the same time may have been faster.
    stale_mounts().into_iter().filter(|folder| unmount(folder, UnmountFlags::DETACH).is_ok()).collect()
}

/// The name of this process' disk among the mounts of the machine: the process and when it started.
pub(super) fn source_name() -> String {
    let pid = std::process::id();
    format!("{SOURCE}:{pid}:{}", started_ticks(pid).unwrap_or_default())
}

struct Mount {
    folder: PathBuf,
    server: (u32, u64),
}

/// The forgetting disks among the machine's mounts.
fn mounts() -> Vec<Mount> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    text.lines().filter_map(mount_of).collect()
}

/// A line of proc(5) `mounts`: source, folder, type. Blanks in a folder's name stand as `\040`.
fn mount_of(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let (source, folder) = (fields.next()?, fields.next()?);
    let mut numbers = source.strip_prefix(SOURCE)?.strip_prefix(':')?.split(':');
    let server = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    let folder = PathBuf::from(folder.replace("\\040", " "));
    Some(Mount { folder, server })
}

const SOURCE: &str = "mqassay-disk";
/// How long a disk may take to answer and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const WAIT_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_known_among_mounts_by_its_server() {
        let line = format!("{SOURCE}:17:4711 /tmp/a\\040b fuse rw,nosuid,nodev 0 0");
        let mount = mount_of(&line).unwrap();
        assert_eq!((mount.folder, mount.server), (PathBuf::from("/tmp/a b"), (17, 4711)));
        assert!(mount_of("tmpfs /tmp tmpfs rw 0 0").is_none());
        assert!(mount_of("mqassay-disk:x:1 /tmp fuse rw 0 0").is_none());
    }
}
