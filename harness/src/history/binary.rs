//! The history as framed binary blocks: compact, written and read as a stream, each block under its own checksum, the end
//! marked so that a file cut off is told from a whole one. The bytes are described in `docs/history.md`; `fields` encodes
//! the payloads.

use std::io::{self, Read, Write};

use crc_fast::{CrcAlgorithm, checksum};
use thiserror::Error;

use super::fields::{FieldError, Fields, put_header, put_mark, put_operation};
use super::{Header, History, Item, Mark, Operation, SCHEMA_VERSION};

/// First bytes of every file.
pub const MAGIC: [u8; 8] = *b"mqassayH";

/// Longest payload of a block, in bytes.
pub const BLOCK_BYTES_MAXIMUM: usize = 16 << 20;

/// A block is written once its payload has so many bytes.
const BLOCK_BYTES_TARGET: usize = 64 << 10;

const KIND_HEADER: u8 = 1;
const KIND_OPERATIONS: u8 = 2;
const KIND_MARKS: u8 = 3;
const KIND_END: u8 = 4;

/// Why bytes are no history, or cannot become one.
#[derive(Debug, Error)]
pub enum BinaryError {
    /// The file could not be read or written.
    #[error("the history could not be read or written, check the file: {0}")]
    Io(#[from] io::Error),
    /// Not such a file at all.
    #[error("this is no binary history: it does not begin with the bytes \"mqassayH\"")]
    Foreign,
    /// Written by a newer version.
    #[error("the history has schema {found}, this program reads up to {SCHEMA_VERSION}: use a newer one")]
    Newer {
        /// The schema found.
        found: u32,
    },
    /// The file ends before its end block.
    #[error("the history is cut off after block {block}: its writer did not finish")]
    CutOff {
        /// Whole blocks read.
        block: u64,
    },
    /// A block whose bytes are not what was written.
    #[error("block {block} of the history is damaged: {what}")]
    Damaged {
        /// The block, from 0.
        block: u64,
        /// What is wrong.
        what: String,
    },
    /// One operation or mark that no block can hold.
    #[error("an item of {bytes} bytes exceeds the bound of {BLOCK_BYTES_MAXIMUM}: record smaller batches")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Writes a history block by block.
#[derive(Debug)]
pub struct BinaryWriter<W: Write> {
    output: W,
    operations: Vec<u8>,
    marks: Vec<u8>,
    operation_count: u64,
    mark_count: u64,
    scratch: Vec<u8>,
}

impl<W: Write> BinaryWriter<W> {
    /// Writes the beginning and the header.
    pub fn start(mut output: W, header: &Header) -> Result<BinaryWriter<W>, BinaryError> {
        output.write_all(&MAGIC)?;
        output.write_all(&SCHEMA_VERSION.to_le_bytes())?;
        let mut payload = Vec::new();
        put_header(&mut payload, header);
        write_block(&mut output, KIND_HEADER, &payload)?;
        Ok(BinaryWriter {
            output,
            operations: Vec::with_capacity(BLOCK_BYTES_TARGET * 2),
            marks: Vec::new(),
            operation_count: 0,
            mark_count: 0,
            scratch: Vec::new(),
        })
    }

    /// Adds an operation.
    pub fn operation(&mut self, operation: &Operation) -> Result<(), BinaryError> {
        self.scratch.clear();
        put_operation(&mut self.scratch, operation);
        add(&mut self.output, KIND_OPERATIONS, &mut self.operations, &self.scratch)?;
        self.operation_count += 1;
        Ok(())
    }

    /// Adds a mark.
    pub fn mark(&mut self, mark: &Mark) -> Result<(), BinaryError> {
        self.scratch.clear();
        put_mark(&mut self.scratch, mark);
        add(&mut self.output, KIND_MARKS, &mut self.marks, &self.scratch)?;
        self.mark_count += 1;
        Ok(())
    }

    /// Writes what is left and the end, flushes, and gives the output back. Without it a reader says `CutOff`.
    pub fn finish(mut self) -> Result<W, BinaryError> {
        for (kind, payload) in [(KIND_OPERATIONS, &self.operations), (KIND_MARKS, &self.marks)] {
            if !payload.is_empty() {
                write_block(&mut self.output, kind, payload)?;
            }
        }
        let mut counts = self.operation_count.to_le_bytes().to_vec();
        counts.extend_from_slice(&self.mark_count.to_le_bytes());
        write_block(&mut self.output, KIND_END, &counts)?;
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Reads a history block by block.
#[derive(Debug)]
pub struct BinaryReader<R: Read> {
    input: R,
    header: Header,
    block: u64,
    kind: u8,
    payload: Vec<u8>,
    at: usize,
    operation_count: u64,
    mark_count: u64,
}

impl<R: Read> BinaryReader<R> {
    /// Reads the beginning and the header.
    pub fn start(mut input: R) -> Result<BinaryReader<R>, BinaryError> {
        let mut beginning = [0; 12];
        input.read_exact(&mut beginning).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BinaryError::Foreign,
            _ => BinaryError::Io(error),
        })?;
        let [magic @ .., v0, v1, v2, v3] = beginning;
        if magic != MAGIC {
            return Err(BinaryError::Foreign);
        }
        match u32::from_le_bytes([v0, v1, v2, v3]) {
            found if found > SCHEMA_VERSION => return Err(BinaryError::Newer { found }),
            _ => {}
        }
        let header = Header { schema: 0, topics: Vec::new(), title: String::new() };
        let (payload, at) = (Vec::new(), 0);
        let mut reader =
            BinaryReader { input, header, block: 0, kind: 0, payload, at, operation_count: 0, mark_count: 0 };
        reader.next_block()?;
        if reader.kind != KIND_HEADER {
            return Err(reader.damaged("the first block is no header".to_owned()));
        }
        reader.header = reader.field(|fields| fields.header())?;
        Ok(reader)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next operation or mark, or nothing after the end block.
    pub fn next_item(&mut self) -> Result<Option<Item>, BinaryError> {
        loop {
            if self.at < self.payload.len() {
                match self.kind {
                    KIND_OPERATIONS => {
                        self.operation_count += 1;
                        return self
                            .field(|fields| fields.operation())
                            .map(|operation| Some(Item::Operation(operation)));
                    }
                    KIND_MARKS => {
                        self.mark_count += 1;
                        return self.field(|fields| fields.mark()).map(|mark| Some(Item::Mark(mark)));
                    }
                    KIND_END => return self.check_end(),
                    other => return Err(self.damaged(format!("bytes are left in a block of kind {other}"))),
                }
            }
            self.next_block()?;
        }
    }

    /// The counts of the end block must be what was read.
    fn check_end(&self) -> Result<Option<Item>, BinaryError> {
        let mut counted = self.operation_count.to_le_bytes().to_vec();
        counted.extend_from_slice(&self.mark_count.to_le_bytes());
        if self.payload != counted {
            return Err(self.damaged("it counts other items than the blocks before it hold".to_owned()));
        }
        Ok(None)
    }

    fn next_block(&mut self) -> Result<(), BinaryError> {
        let mut head = [0; 9];
        self.read_whole(&mut head)?;
        let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > BLOCK_BYTES_MAXIMUM || !(KIND_HEADER..=KIND_END).contains(&kind) {
            return Err(self.damaged(format!("kind {kind}, length {length}")));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        payload.resize(length, 0);
        self.read_whole(&mut payload)?;
        if block_checksum(kind, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(self.damaged("its checksum differs".to_owned()));
        }
        (self.kind, self.payload, self.at) = (kind, payload, 0);
        self.block += 1;
        Ok(())
    }

    fn read_whole(&mut self, buffer: &mut [u8]) -> Result<(), BinaryError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BinaryError::CutOff { block: self.block },
            _ => BinaryError::Io(error),
        })
    }

    fn field<T>(&mut self, read: impl FnOnce(&mut Fields<'_>) -> Result<T, FieldError>) -> Result<T, BinaryError> {
        let mut fields = Fields::of(&self.payload[self.at..]);
        match read(&mut fields) {
            Ok(value) => {
                self.at = self.payload.len() - fields.left();
                Ok(value)
            }
            Err(FieldError(what)) => Err(self.damaged(what)),
        }
    }

    fn damaged(&self, what: String) -> BinaryError {
        BinaryError::Damaged { block: self.block, what }
    }
}

/// Writes a whole history.
pub fn write(history: &History, output: impl Write) -> Result<(), BinaryError> {
    let mut writer = BinaryWriter::start(output, &history.header)?;
    for operation in &history.operations {
        writer.operation(operation)?;
    }
    for mark in &history.marks {
        writer.mark(mark)?;
    }
    writer.finish().map(|_| ())
}

/// Reads a whole history.
pub fn read(input: impl Read) -> Result<History, BinaryError> {
    let mut reader = BinaryReader::start(input)?;
    let mut history = History { header: reader.header().clone(), operations: Vec::new(), marks: Vec::new() };
    while let Some(item) = reader.next_item()? {
        history.push(item);
    }
    Ok(history)
}

/// Adds an item to the block being filled, and writes the block once it is large enough.
fn add(output: &mut impl Write, kind: u8, block: &mut Vec<u8>, item: &[u8]) -> Result<(), BinaryError> {
    if item.len() > BLOCK_BYTES_MAXIMUM {
        return Err(BinaryError::TooLarge { bytes: item.len() });
    }
    if !block.is_empty() && block.len() + item.len() > BLOCK_BYTES_TARGET {
        write_block(output, kind, block)?;
        block.clear();
    }
    block.extend_from_slice(item);
    Ok(())
}

fn write_block(output: &mut impl Write, kind: u8, payload: &[u8]) -> Result<(), BinaryError> {
    if payload.len() > BLOCK_BYTES_MAXIMUM {
        return Err(BinaryError::TooLarge { bytes: payload.len() });
    }
    output.write_all(&[kind])?;
    output.write_all(&(payload.len() as u32).to_le_bytes())?;
    output.write_all(&block_checksum(kind, payload).to_le_bytes())?;
    Ok(output.write_all(payload)?)
}

/// CRC-32C of the payload, with the kind mixed in so that a block is not taken for one of another kind.
fn block_checksum(kind: u8, payload: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, payload) as u32 ^ (u32::from(kind) << 24)
}
