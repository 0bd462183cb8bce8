//! Opens a history file in either encoding, told apart by its first bytes, not by its name.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::History;
use super::binary::{self, BinaryError};
use super::json::{self, JsonError};

/// Bytes read from the file at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a file gives no history.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("cannot read the history {path}: {source}; check the path")]
    Io {
        /// The file's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Binary, and not whole.
    #[error("{path}: {source}")]
    Binary {
        /// The file's path.
        path: PathBuf,
        /// What is wrong.
        source: BinaryError,
    },
    /// Taken for JSON lines, and none.
    #[error("{path}: {source}")]
    Json {
        /// The file's path.
        path: PathBuf,
        /// What is wrong.
        source: JsonError,
    },
}

/// Reads the whole history of a file.
pub fn read_file(path: &Path) -> Result<History, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut beginning = Vec::with_capacity(binary::MAGIC.len());
    file.by_ref().take(binary::MAGIC.len() as u64).read_to_end(&mut beginning).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let input = BufReader::with_capacity(BUFFER_BYTES, file);
    match beginning == binary::MAGIC {
        true => binary::read(input).map_err(|source| OpenError::Binary { path: path.to_owned(), source }),
        false => json::read(input).map_err(|source| OpenError::Json { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::sample::sample;

    #[test]
    fn both_encodings_are_told_apart_by_content() {
        let history = sample(2_000, 7);
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("history.txt"), folder.path().join("history"));
        json::write(&history, File::create(&one).unwrap()).unwrap();
        binary::write(&history, File::create(&other).unwrap()).unwrap();
        assert_eq!(read_file(&one).unwrap(), history);
        assert_eq!(read_file(&other).unwrap(), history);
    }

    #[test]
    fn a_file_that_is_no_history_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letter.txt");
        std::fs::write(&path, "Dear judge,\n").unwrap();
        let refused = read_file(&path).unwrap_err();
        assert!(matches!(refused, OpenError::Json { .. }) && refused.to_string().contains("letter.txt"), "{refused}");
        std::fs::write(&path, binary::MAGIC).unwrap();
        assert!(matches!(read_file(&path), Err(OpenError::Binary { .. })));
        assert!(matches!(read_file(&folder.path().join("none")), Err(OpenError::Io { .. })));
    }
}
