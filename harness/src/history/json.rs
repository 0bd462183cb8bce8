//! The history as JSON lines: the header first, then operations (lines with `call`) and marks (lines with `mark`), each
//! kind in its own order. Fields are listed in `docs/history.md`. For people and small histories; `binary` is compact.

use std::io::{self, BufRead, Write};

use serde::Deserialize;
use serde_json::Value as Json;
use thiserror::Error;

use super::{Header, History, Item, Mark, Operation, SCHEMA_VERSION};

/// Longest line that a reader takes, in bytes.
pub const LINE_BYTES_MAXIMUM: u64 = 64 << 20;

/// Why JSON lines are no history.
#[derive(Debug, Error)]
pub enum JsonError {
    /// The file could not be read or written.
    #[error("the history could not be read or written, check the file: {0}")]
    Io(#[from] io::Error),
    /// No line at all.
    #[error("the history is empty: its first line must be the header")]
    Empty,
    /// Written by a newer version.
    #[error("the history has schema {found}, this program reads up to {SCHEMA_VERSION}: use a newer one")]
    Newer {
        /// The schema found.
        found: u32,
    },
    /// A line that is no header, operation or mark.
    #[error("line {line} of the history is malformed, it may be cut off: {source}")]
    Malformed {
        /// The line, from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A line that is too long.
    #[error("line {line} of the history is longer than {LINE_BYTES_MAXIMUM} bytes: it is no history")]
    TooLong {
        /// The line, from 1.
        line: u64,
    },
}

/// Writes a history line by line.
#[derive(Debug)]
pub struct JsonWriter<W: Write> {
    output: W,
}

impl<W: Write> JsonWriter<W> {
    /// Writes the header.
    pub fn start(output: W, header: &Header) -> Result<JsonWriter<W>, JsonError> {
        let mut writer = JsonWriter { output };
        writer.line(header)?;
        Ok(writer)
    }

    /// Writes an operation.
    pub fn operation(&mut self, operation: &Operation) -> Result<(), JsonError> {
        self.line(operation)
    }

    /// Writes a mark.
    pub fn mark(&mut self, mark: &Mark) -> Result<(), JsonError> {
        self.line(mark)
    }

    /// Flushes and gives the output back.
    pub fn finish(mut self) -> Result<W, JsonError> {
        self.output.flush()?;
        Ok(self.output)
    }

    fn line(&mut self, value: &impl serde::Serialize) -> Result<(), JsonError> {
        serde_json::to_writer(&mut self.output, value).map_err(io::Error::from)?;
        Ok(self.output.write_all(b"\n")?)
    }
}

/// Reads a history line by line.
#[derive(Debug)]
pub struct JsonReader<R: BufRead> {
    input: R,
    header: Header,
    line: u64,
    text: Vec<u8>,
}

impl<R: BufRead> JsonReader<R> {
    /// Reads the header.
    pub fn start(input: R) -> Result<JsonReader<R>, JsonError> {
        let header = Header { schema: 0, topics: Vec::new(), title: String::new() };
        let mut reader = JsonReader { input, header, line: 0, text: Vec::new() };
        if !reader.next_line()? {
            return Err(JsonError::Empty);
        }
        reader.header = parse(&reader.text, 1)?;
        match reader.header.schema {
            found if found > SCHEMA_VERSION => Err(JsonError::Newer { found }),
            _ => Ok(reader),
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next operation or mark, or nothing at the end.
    pub fn next_item(&mut self) -> Result<Option<Item>, JsonError> {
        while self.next_line()? {
            if self.text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let json: Json = parse(&self.text, self.line)?;
            let malformed = |source| JsonError::Malformed { line: self.line, source };
            let item = match json.get("mark") {
                Some(_) => Item::Mark(Mark::deserialize(json).map_err(malformed)?),
                None => Item::Operation(Operation::deserialize(json).map_err(malformed)?),
            };
            return Ok(Some(item));
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<bool, JsonError> {
        use std::io::Read;
        self.text.clear();
        self.line += 1;
        let count = self.input.by_ref().take(LINE_BYTES_MAXIMUM).read_until(b'\n', &mut self.text)?;
        if count as u64 == LINE_BYTES_MAXIMUM && self.text.last() != Some(&b'\n') {
            return Err(JsonError::TooLong { line: self.line });
        }
        Ok(count > 0)
    }
}

/// Writes a whole history: the header, its operations, its marks.
pub fn write(history: &History, output: impl Write) -> Result<(), JsonError> {
    let mut writer = JsonWriter::start(output, &history.header)?;
    for operation in &history.operations {
        writer.operation(operation)?;
    }
    for mark in &history.marks {
        writer.mark(mark)?;
    }
    writer.finish().map(|_| ())
}

/// Reads a whole history.
pub fn read(input: impl BufRead) -> Result<History, JsonError> {
    let mut reader = JsonReader::start(input)?;
    let mut history = History { header: reader.header().clone(), operations: Vec::new(), marks: Vec::new() };
    while let Some(item) = reader.next_item()? {
        history.push(item);
    }
    Ok(history)
}

fn parse<T: for<'a> Deserialize<'a>>(text: &[u8], line: u64) -> Result<T, JsonError> {
    serde_json::from_slice(text).map_err(|source| JsonError::Malformed { line, source })
}
