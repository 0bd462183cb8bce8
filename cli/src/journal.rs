//! The journal of a campaign, `campaign.jsonl` in the folder of results: its first line says what the campaign is, each
//! further line is a finished run, written as soon as it is over. An interrupted campaign goes on from it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mqassay_harness::artifact::RunRecord;
use mqassay_harness::plan::scenario::Scenario;
use mqassay_scenarios::campaign::Options;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::results::{cannot, json_line};

const FILE: &str = "campaign.jsonl";

/// What decides the runs of a campaign; the first line of its journal.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    mqassay: String,
    scenarios: Vec<Scenario>,
    seeds: [u64; 2],
    each: bool,
    mutant: Option<String>,
    without: Vec<String>,
    shard: [u64; 2],
    guided: bool,
}

impl Identity {
    fn of(options: &Options) -> Identity {
        Identity {
            mqassay: env!("CARGO_PKG_VERSION").to_owned(),
            scenarios: options.scenarios.clone(),
            seeds: [*options.seeds.start(), *options.seeds.end()],
            each: options.each,
            mutant: options.mutant.map(|mutant| mutant.name().to_owned()),
            without: options.without.clone(),
            shard: [options.course.shard.number, options.course.shard.of],
            guided: options.course.guided,
        }
    }
}

/// Runs that were done before, by scenario and seed.
pub(crate) type Done = BTreeMap<(String, u64), RunRecord>;

/// A campaign's journal, open for more.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// A new journal; one that is there is begun anew.
    pub(crate) fn create(folder: &Path, options: &Options) -> Result<Journal, Failure> {
        let path = folder.join(FILE);
        let file = File::create(&path).map_err(|error| cannot("write", &path, error))?;
        let mut journal = Journal { path, file };
        journal.write(&json_line(&Identity::of(options))?)?;
        Ok(journal)
    }

    /// The journal that is there, with the runs in it; a new one where there is none. A last line that was cut off while it
    /// was being written is dropped, and its run is run again.
    pub(crate) fn resume(folder: &Path, options: &Options) -> Result<(Journal, Done), Failure> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Journal::create(folder, options)?, Done::new()));
            }
            Err(error) => return Err(cannot("read", &path, error)),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines().enumerate();
        let Some((_, first)) = lines.next() else { return Ok((Journal::create(folder, options)?, Done::new())) };
        let wrong = |number: usize, error: &dyn std::fmt::Display| {
            Failure::Usage(format!("{}, line {number}: not what mqassay writes there: {error}", path.display()))
        };
        let found: Identity = serde_json::from_str(first).map_err(|error| wrong(1, &error))?;
        if found != Identity::of(options) {
            return Err(Failure::Usage(format!(
                "{} is the journal of another campaign; give the arguments of that one, another --runs-dir, or leave out \
                 --resume to begin anew",
                path.display()
            )));
        }
        let mut done = Done::new();
        for (index, line) in lines {
            let record: RunRecord = serde_json::from_str(line).map_err(|error| wrong(index + 1, &error))?;
            done.insert((record.line.scenario.clone(), record.line.seed), record);
        }
        let open = || {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|error| cannot("write", &path, error))?;
        Ok((Journal { path, file }, done))
    }

    /// Adds a finished run.
    pub(crate) fn add(&mut self, record: &RunRecord) -> Result<(), Failure> {
        self.write(&json_line(record)?)
    }

    fn write(&mut self, line: &str) -> Result<(), Failure> {
        self.file.write_all(line.as_bytes()).map_err(|error| cannot("write", &self.path, error))
    }
}
