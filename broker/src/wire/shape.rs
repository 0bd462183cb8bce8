//! The shapes of the requests that the broker decodes, and the walk that checks every count and length against the
//! bytes left. The codec reserves memory by counts on the wire, so a frame of 61 bytes could ask for gigabytes;
//! nothing reaches it that has not been walked here. The tables follow Kafka's message definitions.

use bytes::Bytes;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, perhaps null.
    Text,
    /// Bytes, perhaps null.
    Blob,
    /// An array, perhaps null, of elements of so many bytes.
    FixedArray(usize),
    /// An array of strings, perhaps null.
    TextArray,
    /// An array of structs, perhaps null.
    Array(&'static StructShape),
    /// One struct.
    Struct(&'static StructShape),
}

/// A field, and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

/// A tagged field that the codec decodes by its type, and the version that brought it.
#[derive(Debug, Clone, Copy)]
pub struct Tagged {
    tag: u32,
    kind: Kind,
    from: i16,
}

/// The fields of a struct in order.
#[derive(Debug)]
pub struct StructShape {
    fields: &'static [Field],
    tagged: &'static [Tagged],
}

/// A request's body.
#[derive(Debug, Clone, Copy)]
pub struct MessageShape {
    pub(super) body: &'static StructShape,
    /// The first version with compact lengths and tagged fields.
    pub(super) flexible_from: i16,
}

/// Why bytes do not have the shape of their request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A length or count asks for more bytes than the frame has left.
    #[error("byte {at}: {wanted} bytes are wanted, {left} are left")]
    Short {
        /// Offset in the frame, in bytes.
        at: usize,
        /// Bytes wanted at least.
        wanted: usize,
        /// Bytes left.
        left: usize,
    },
    /// A length is negative and not the mark of null, or a variable-length number does not end.
    #[error("byte {at}: not a length")]
    BadLength {
        /// Offset in the frame, in bytes.
        at: usize,
    },
    /// A tagged field's size is not that of its content, or its tag comes twice or before its version.
    #[error("byte {at}: tagged field {tag} is malformed")]
    BadTag {
        /// Offset in the frame, in bytes.
        at: usize,
        /// The tag.
        tag: u32,
    },
    /// More array elements and tagged fields than one request may have.
    #[error("more than {ELEMENTS_MAX} elements in one request; split it")]
    TooManyElements,
}

/// Most array elements and tagged fields in one request. Each costs the codec up to some 200 bytes, so this bounds
/// what a frame can make the broker reserve, whatever its size.
pub const ELEMENTS_MAX: usize = 200_000;

/// Walks a request's body that starts at `at`.
pub fn check_body(frame: &Bytes, at: usize, shape: MessageShape, version: i16) -> Result<(), ShapeError> {
    let mut walker = Walker { bytes: frame, at, version, flexible: version >= shape.flexible_from, elements: 0 };
    walker.structure(shape.body)
}

/// Walks the tagged fields of a request header that start at `at`; returns where they end.
pub fn check_header_tags(frame: &Bytes, at: usize) -> Result<usize, ShapeError> {
    let mut walker = Walker { bytes: frame, at, version: 0, flexible: true, elements: 0 };
    walker.tags(&[])?;
    Ok(walker.at)
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walker<'_> {
    fn structure(&mut self, shape: &'static StructShape) -> Result<(), ShapeError> {
        for field in shape.fields {
            if (field.from..=field.to).contains(&self.version) {
                self.value(field.kind)?;
            }
        }
        if self.flexible { self.tags(shape.tagged) } else { Ok(()) }
    }

    fn value(&mut self, kind: Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(length) => self.skip(length),
            Kind::Text => {
                let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
                self.skip(length.unwrap_or(0))
            }
            Kind::Blob => {
                let length = self.long_length()?;
                self.skip(length.unwrap_or(0))
            }
            Kind::FixedArray(length) => {
                let count = self.count(length)?;
                self.skip(count * length)
            }
            Kind::TextArray => {
                for _ in 0..self.count(1)? {
                    self.value(Kind::Text)?;
                }
                Ok(())
            }
            Kind::Array(shape) => {
                for _ in 0..self.count(1)? {
                    self.structure(shape)?;
                }
                Ok(())
            }
            Kind::Struct(shape) => self.structure(shape),
        }
    }

    /// An array's count, checked against the bytes left at `element_bytes_minimum` each.
    fn count(&mut self, element_bytes_minimum: usize) -> Result<usize, ShapeError> {
        let count = self.long_length()?.unwrap_or(0);
        let wanted = count.saturating_mul(element_bytes_minimum);
        let left = self.bytes.len() - self.at;
        if wanted > left {
            return Err(ShapeError::Short { at: self.at, wanted, left });
        }
        self.add_elements(count)?;
        Ok(count)
    }

    fn add_elements(&mut self, count: usize) -> Result<(), ShapeError> {
        self.elements += count;
        if self.elements > ELEMENTS_MAX { Err(ShapeError::TooManyElements) } else { Ok(()) }
    }

    fn tags(&mut self, known: &'static [Tagged]) -> Result<(), ShapeError> {
        let count = self.varint()?;
        let mut previous = None;
        for _ in 0..count {
            self.add_elements(1)?;
            let at = self.at;
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            // Tags ascend: the protocol says so, and a known tag that came twice would be decoded twice.
            let ascends = previous.is_none_or(|previous| tag > previous);
            previous = Some(tag);
            let end = self.at.saturating_add(size);
            if !ascends || end > self.bytes.len() {
                return Err(ShapeError::BadTag { at, tag });
            }
            if let Some(field) = known.iter().find(|field| field.tag == tag) {
                if self.version < field.from {
                    return Err(ShapeError::BadTag { at, tag });
                }
                self.value(field.kind)?;
                if self.at != end {
                    return Err(ShapeError::BadTag { at, tag });
                }
            }
            self.at = end;
        }
        Ok(())
    }

    fn skip(&mut self, length: usize) -> Result<(), ShapeError> {
        let left = self.bytes.len() - self.at;
        if length > left {
            return Err(ShapeError::Short { at: self.at, wanted: length, left });
        }
        self.at += length;
        Ok(())
    }

    fn short_length(&mut self) -> Result<Option<usize>, ShapeError> {
        let at = self.at;
        self.skip(2)?;
        signed_length(i32::from(i16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])), at)
    }

    fn long_length(&mut self) -> Result<Option<usize>, ShapeError> {
        if self.flexible {
            return self.compact_length();
        }
        let at = self.at;
        self.skip(4)?;
        let [a, b, c, d] = [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
        signed_length(i32::from_be_bytes([a, b, c, d]), at)
    }

    /// A length plus one; zero marks null.
    fn compact_length(&mut self) -> Result<Option<usize>, ShapeError> {
        Ok(self.varint()?.checked_sub(1).map(|length| length as usize))
    }

    fn varint(&mut self) -> Result<u32, ShapeError> {
        let start = self.at;
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let at = self.at;
            self.skip(1)?;
            value |= u64::from(self.bytes[at] & 0x7f) << shift;
            if self.bytes[at] < 0x80 {
                return u32::try_from(value).map_err(|_| ShapeError::BadLength { at: start });
            }
        }
        Err(ShapeError::BadLength { at: start })
    }
}

fn signed_length(length: i32, at: usize) -> Result<Option<usize>, ShapeError> {
    if length == -1 {
        return Ok(None);
    }
    usize::try_from(length).map(Some).map_err(|_| ShapeError::BadLength { at })
}

pub(super) const fn always(kind: Kind) -> Field {
    Field { kind, from: 0, to: i16::MAX }
}

pub(super) const fn since(from: i16, kind: Kind) -> Field {
    Field { kind, from, to: i16::MAX }
}

pub(super) const fn until(to: i16, kind: Kind) -> Field {
    Field { kind, from: 0, to }
}

pub(super) const fn plain(fields: &'static [Field]) -> StructShape {
    StructShape { fields, tagged: &[] }
}

pub(super) const BOOLEAN: Kind = Kind::Fixed(1);
pub(super) const INT8: Kind = Kind::Fixed(1);
pub(super) const INT16: Kind = Kind::Fixed(2);
pub(super) const INT32: Kind = Kind::Fixed(4);
pub(super) const INT64: Kind = Kind::Fixed(8);
pub(super) const UUID: Kind = Kind::Fixed(16);
pub(super) const INT32_ARRAY: Kind = Kind::FixedArray(4);

static PRODUCE_PARTITION: StructShape = plain(&[always(INT32), always(Kind::Blob)]);
static PRODUCE_TOPIC: StructShape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&PRODUCE_PARTITION))]);
static PRODUCE_BODY: StructShape =
    plain(&[always(Kind::Text), always(INT16), always(INT32), always(Kind::Array(&PRODUCE_TOPIC))]);
/// Produce's body.
pub const PRODUCE: MessageShape = MessageShape { body: &PRODUCE_BODY, flexible_from: 9 };

static FETCH_PARTITION: StructShape = StructShape {
    fields: &[always(INT32), since(9, INT32), always(INT64), since(12, INT32), since(5, INT64), always(INT32)],
    tagged: &[Tagged { tag: 0, kind: UUID, from: 17 }, Tagged { tag: 1, kind: INT64, from: 18 }],
};
static FETCH_TOPIC: StructShape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Array(&FETCH_PARTITION))]);
static FETCH_FORGOTTEN: StructShape = plain(&[until(12, Kind::Text), since(13, UUID), always(INT32_ARRAY)]);
static FETCH_REPLICA_STATE: StructShape = plain(&[always(INT32), always(INT64)]);
static FETCH_BODY: StructShape = StructShape {
    fields: &[
        until(14, INT32),
        always(INT32),
        always(INT32),
        always(INT32),
        always(INT8),
        since(7, INT32),
        since(7, INT32),
        always(Kind::Array(&FETCH_TOPIC)),
        since(7, Kind::Array(&FETCH_FORGOTTEN)),
        since(11, Kind::Text),
    ],
    tagged: &[
        Tagged { tag: 0, kind: Kind::Text, from: 12 },
        Tagged { tag: 1, kind: Kind::Struct(&FETCH_REPLICA_STATE), from: 15 },
    ],
};
/// Fetch's body.
pub const FETCH: MessageShape = MessageShape { body: &FETCH_BODY, flexible_from: 12 };

static LIST_OFFSETS_PARTITION: StructShape = plain(&[always(INT32), since(4, INT32), always(INT64)]);
static LIST_OFFSETS_TOPIC: StructShape = plain(&[always(Kind::Text), always(Kind::Array(&LIST_OFFSETS_PARTITION))]);
static LIST_OFFSETS_BODY: StructShape =
    plain(&[always(INT32), since(2, INT8), always(Kind::Array(&LIST_OFFSETS_TOPIC)), since(10, INT32)]);
/// ListOffsets' body.
pub const LIST_OFFSETS: MessageShape = MessageShape { body: &LIST_OFFSETS_BODY, flexible_from: 6 };

static METADATA_TOPIC: StructShape = plain(&[since(10, UUID), always(Kind::Text)]);
static METADATA_BODY: StructShape = plain(&[
    always(Kind::Array(&METADATA_TOPIC)),
    since(4, BOOLEAN),
    Field { kind: BOOLEAN, from: 8, to: 10 },
    since(8, BOOLEAN),
]);
/// Metadata's body.
pub const METADATA: MessageShape = MessageShape { body: &METADATA_BODY, flexible_from: 9 };

static FIND_COORDINATOR_BODY: StructShape = plain(&[until(3, Kind::Text), since(1, INT8), since(4, Kind::TextArray)]);
/// FindCoordinator's body.
pub const FIND_COORDINATOR: MessageShape = MessageShape { body: &FIND_COORDINATOR_BODY, flexible_from: 3 };

static API_VERSIONS_BODY: StructShape = plain(&[since(3, Kind::Text), since(3, Kind::Text)]);
/// ApiVersions' body.
pub const API_VERSIONS: MessageShape = MessageShape { body: &API_VERSIONS_BODY, flexible_from: 3 };

static CREATE_TOPICS_ASSIGNMENT: StructShape = plain(&[always(INT32), always(INT32_ARRAY)]);
static CREATE_TOPICS_CONFIG: StructShape = plain(&[always(Kind::Text), always(Kind::Text)]);
static CREATE_TOPICS_TOPIC: StructShape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(INT16),
    always(Kind::Array(&CREATE_TOPICS_ASSIGNMENT)),
    always(Kind::Array(&CREATE_TOPICS_CONFIG)),
]);
static CREATE_TOPICS_BODY: StructShape =
    plain(&[always(Kind::Array(&CREATE_TOPICS_TOPIC)), always(INT32), always(BOOLEAN)]);
/// CreateTopics' body.
pub const CREATE_TOPICS: MessageShape = MessageShape { body: &CREATE_TOPICS_BODY, flexible_from: 5 };

static DELETE_TOPICS_STATE: StructShape = plain(&[always(Kind::Text), always(UUID)]);
static DELETE_TOPICS_BODY: StructShape =
    plain(&[since(6, Kind::Array(&DELETE_TOPICS_STATE)), until(5, Kind::TextArray), always(INT32)]);
/// DeleteTopics' body.
pub const DELETE_TOPICS: MessageShape = MessageShape { body: &DELETE_TOPICS_BODY, flexible_from: 4 };

static DELETE_RECORDS_PARTITION: StructShape = plain(&[always(INT32), always(INT64)]);
static DELETE_RECORDS_TOPIC: StructShape = plain(&[always(Kind::Text), always(Kind::Array(&DELETE_RECORDS_PARTITION))]);
static DELETE_RECORDS_BODY: StructShape = plain(&[always(Kind::Array(&DELETE_RECORDS_TOPIC)), always(INT32)]);
/// DeleteRecords' body.
pub const DELETE_RECORDS: MessageShape = MessageShape { body: &DELETE_RECORDS_BODY, flexible_from: 2 };

static INIT_PRODUCER_ID_BODY: StructShape =
    plain(&[always(Kind::Text), always(INT32), since(3, INT64), since(3, INT16)]);
/// InitProducerId's body.
pub const INIT_PRODUCER_ID: MessageShape = MessageShape { body: &INIT_PRODUCER_ID_BODY, flexible_from: 2 };

static LEADER_EPOCH_PARTITION: StructShape = plain(&[always(INT32), always(INT32), always(INT32)]);
static LEADER_EPOCH_TOPIC: StructShape = plain(&[always(Kind::Text), always(Kind::Array(&LEADER_EPOCH_PARTITION))]);
static LEADER_EPOCH_BODY: StructShape = plain(&[since(3, INT32), always(Kind::Array(&LEADER_EPOCH_TOPIC))]);
/// OffsetForLeaderEpoch's body.
pub const OFFSET_FOR_LEADER_EPOCH: MessageShape = MessageShape { body: &LEADER_EPOCH_BODY, flexible_from: 4 };

static DESCRIBE_CONFIGS_RESOURCE: StructShape = plain(&[always(INT8), always(Kind::Text), always(Kind::TextArray)]);
static DESCRIBE_CONFIGS_BODY: StructShape =
    plain(&[always(Kind::Array(&DESCRIBE_CONFIGS_RESOURCE)), always(BOOLEAN), since(3, BOOLEAN)]);
/// DescribeConfigs' body.
pub const DESCRIBE_CONFIGS: MessageShape = MessageShape { body: &DESCRIBE_CONFIGS_BODY, flexible_from: 4 };

static CREATE_PARTITIONS_ASSIGNMENT: StructShape = plain(&[always(INT32_ARRAY)]);
static CREATE_PARTITIONS_TOPIC: StructShape =
    plain(&[always(Kind::Text), always(INT32), always(Kind::Array(&CREATE_PARTITIONS_ASSIGNMENT))]);
static CREATE_PARTITIONS_BODY: StructShape =
    plain(&[always(Kind::Array(&CREATE_PARTITIONS_TOPIC)), always(INT32), always(BOOLEAN)]);
/// CreatePartitions' body.
pub const CREATE_PARTITIONS: MessageShape = MessageShape { body: &CREATE_PARTITIONS_BODY, flexible_from: 2 };

static ALTER_CONFIGS_CONFIG: StructShape = plain(&[always(Kind::Text), always(Kind::Text)]);
static ALTER_CONFIGS_RESOURCE: StructShape =
    plain(&[always(INT8), always(Kind::Text), always(Kind::Array(&ALTER_CONFIGS_CONFIG))]);
static ALTER_CONFIGS_BODY: StructShape = plain(&[always(Kind::Array(&ALTER_CONFIGS_RESOURCE)), always(BOOLEAN)]);
/// AlterConfigs' body.
pub const ALTER_CONFIGS: MessageShape = MessageShape { body: &ALTER_CONFIGS_BODY, flexible_from: 2 };

static INCREMENTAL_CONFIG: StructShape = plain(&[always(Kind::Text), always(INT8), always(Kind::Text)]);
static INCREMENTAL_RESOURCE: StructShape =
    plain(&[always(INT8), always(Kind::Text), always(Kind::Array(&INCREMENTAL_CONFIG))]);
static INCREMENTAL_BODY: StructShape = plain(&[always(Kind::Array(&INCREMENTAL_RESOURCE)), always(BOOLEAN)]);
/// IncrementalAlterConfigs' body.
pub const INCREMENTAL_ALTER_CONFIGS: MessageShape = MessageShape { body: &INCREMENTAL_BODY, flexible_from: 1 };

static REASSIGN_PARTITION: StructShape = plain(&[always(INT32), always(INT32_ARRAY)]);
static REASSIGN_TOPIC: StructShape = plain(&[always(Kind::Text), always(Kind::Array(&REASSIGN_PARTITION))]);
static REASSIGN_BODY: StructShape = plain(&[always(INT32), since(1, BOOLEAN), always(Kind::Array(&REASSIGN_TOPIC))]);
/// AlterPartitionReassignments' body.
pub const ALTER_PARTITION_REASSIGNMENTS: MessageShape = MessageShape { body: &REASSIGN_BODY, flexible_from: 0 };

static LIST_REASSIGNMENTS_TOPIC: StructShape = plain(&[always(Kind::Text), always(INT32_ARRAY)]);
static LIST_REASSIGNMENTS_BODY: StructShape = plain(&[always(INT32), always(Kind::Array(&LIST_REASSIGNMENTS_TOPIC))]);
/// ListPartitionReassignments' body.
pub const LIST_PARTITION_REASSIGNMENTS: MessageShape =
    MessageShape { body: &LIST_REASSIGNMENTS_BODY, flexible_from: 0 };

static ELECT_LEADERS_TOPIC: StructShape = plain(&[always(Kind::Text), always(INT32_ARRAY)]);
static ELECT_LEADERS_BODY: StructShape =
    plain(&[since(1, INT8), always(Kind::Array(&ELECT_LEADERS_TOPIC)), always(INT32)]);
/// ElectLeaders' body.
pub const ELECT_LEADERS: MessageShape = MessageShape { body: &ELECT_LEADERS_BODY, flexible_from: 2 };

static UNREGISTER_BROKER_BODY: StructShape = plain(&[always(INT32)]);
/// UnregisterBroker's body.
pub const UNREGISTER_BROKER: MessageShape = MessageShape { body: &UNREGISTER_BROKER_BODY, flexible_from: 0 };

static DESCRIBE_CLUSTER_BODY: StructShape = plain(&[always(BOOLEAN), since(1, INT8), since(2, BOOLEAN)]);
/// DescribeCluster's body.
pub const DESCRIBE_CLUSTER: MessageShape = MessageShape { body: &DESCRIBE_CLUSTER_BODY, flexible_from: 0 };
