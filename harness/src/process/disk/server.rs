//! The process that a forgetting disk lives in: mounts it, does what each line of its input says, and unmounts when the
//! input ends, on SIGTERM and on Ctrl-C. So it never outlives who started it. Start at `serve`.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use fuser::{BackgroundSession, INodeNo};
use rustix::mount::{UnmountFlags, unmount};
use thiserror::Error;

use super::mount::source_name;
use super::session::{self, Owner};
use super::{Answer, Command};
use crate::process::signals::on_first_signal;
use crate::sim::disk::Metadata;

/// Why a disk could not be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// It could not be mounted.
    #[error("no file system can be mounted on {folder}: {source}; it needs /dev/fuse and root")]
    NotMounted {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be unmounted.
    #[error("{folder} cannot be unmounted: {source}; try: umount --lazy {folder}")]
    NotUnmounted {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Signals could not be listened to, or nobody reads the answers.
    #[error("the disk's control channel failed: {0}")]
    Control(#[from] io::Error),
}

/// Serves an empty disk of so many bytes on a folder, until the input ends or a signal comes.
pub fn serve(
    folder: &Path,
    capacity_bytes: u64,
    metadata: Metadata,
    input: impl BufRead + Send + 'static,
    output: impl Write,
) -> Result<(), ServeError> {
    let owner = Owner::start(capacity_bytes, metadata);
    let mut server = Server { owner, folder: folder.to_owned(), source: source_name(), session: None, output };
    let (events, to_do) = mpsc::channel();
    let asked = events.clone();
    // The server may have ended by itself; then nobody hears.
    on_first_signal(move |_| drop(asked.send(Event::End)))?;
    server.mount()?;
    read_lines(input, events);
    let served = server.answer(&Answer::Mounted).map_err(ServeError::from).and_then(|()| {
        while let Ok(Event::Line(line)) = to_do.recv() {
            let answer = match serde_json::from_str(&line) {
                Ok(command) => server.perform(command)?,
                Err(error) => Answer::Refused(format!("{error}; a command is one line of JSON")),
            };
            server.answer(&answer)?;
        }
        Ok(())
    });
    server.unmount().and(served)
}

enum Event {
    Line(String),
    End,
}

struct Server<W> {
    owner: Owner,
    folder: PathBuf,
    source: String,
    session: Option<BackgroundSession>,
    output: W,
}

impl<W: Write> Server<W> {
    fn mount(&mut self) -> Result<(), ServeError> {
        let mounted = session::mount(&self.owner, &self.folder, &self.source);
        let folder = self.folder.clone();
        self.session = Some(mounted.map_err(|source| ServeError::NotMounted { folder, source })?);
        Ok(())
    }

    /// Takes the mount away at once, also from under processes that still use it: these get errors.
    fn unmount(&mut self) -> Result<(), ServeError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let unmounted = unmount(&self.folder, UnmountFlags::DETACH);
        // The session's threads end when the last open file is closed; nothing waits for that.
        drop(session);
        let folder = self.folder.clone();
        unmounted.map_err(|error| ServeError::NotUnmounted { folder, source: error.into() })
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let line = serde_json::to_string(answer).map_err(io::Error::other)?;
        writeln!(self.output, "{line}")?;
        self.output.flush()
    }

    fn perform(&mut self, command: Command) -> Result<Answer, ServeError> {
        let is_read_from_disk = matches!(command, Command::FlipBit { .. } | Command::Fail { .. });
        let is_power_loss = matches!(command, Command::PowerLoss { .. });
        let Some(answer) = self.owner.ask(move |volume| match command {
            Command::Settle => {
                volume.settle();
                Answer::Done
            }
            Command::PowerLoss { salt } => {
                let (summary, files) = volume.power_loss(salt);
                Answer::Lost { summary, files }
            }
            Command::Fail { on, operations, salt } => {
                volume.faults().fail_operations(on, operations, salt);
                Answer::Done
            }
            Command::Full { fault, is_active } => {
                volume.faults().set_full(fault, is_active);
                Answer::Done
            }
            Command::Slow { fault, delay_ms } => {
                let delay = (delay_ms > 0).then(|| Duration::from_millis(delay_ms));
                volume.faults().set_slow(fault, delay);
                Answer::Done
            }
            Command::FlipBit { salt, within } => Answer::Flipped(volume.flip_bit(salt, &within)),
            Command::Repair => {
                volume.repair();
                Answer::Done
            }
        }) else {
            return Err(io::Error::other("the thread of the volume has ended; this is a bug of mqassay").into());
        };
        if is_power_loss {
            // A new mount, so that nothing of the kernel's cache outlives the power.
            self.unmount()?;
            self.mount()?;
        }
        if is_read_from_disk {
            self.drop_caches();
        }
        Ok(answer)
    }

    /// What is read next comes from the disk, not from the kernel's cache.
    fn drop_caches(&self) {
        let Some(session) = &self.session else { return };
        let notifier = session.notifier();
        for file in self.owner.ask(|volume| volume.file_numbers()).unwrap_or_default() {
            // The kernel does not know files that nobody has looked at, and says so.
            let _ = notifier.inval_inode(INodeNo(file), 0, 0);
        }
    }
}

fn read_lines(input: impl BufRead + Send + 'static, events: Sender<Event>) {
    std::thread::spawn(move || {
        // The server may have ended by a signal; then nobody hears.
        for line in input.lines().map_while(Result::ok) {
            let _ = events.send(Event::Line(line));
        }
        let _ = events.send(Event::End);
    });
}
