//! The payloads of binary blocks: fields one after another, integers as LEB128 (signed ones zigzag), texts and lists with
//! their count before them. A count is checked against the bytes left before anything is set aside for it.

use super::{
    Call, ClientId, CorruptRecord, GroupStep, Header, Mark, OffsetQuery, Operation, Outcome, Position, Queue, Run,
    SeekTarget, Value,
};

/// Items for which memory is set aside before they are read.
const LIST_PREPARED_MAXIMUM: usize = 1 << 12;

/// What is wrong with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldError(pub(super) String);

/// Reads fields from a payload.
pub(super) struct Fields<'a> {
    left: &'a [u8],
}

type Read<T> = Result<T, FieldError>;

impl<'a> Fields<'a> {
    /// From the first byte on.
    pub(super) fn of(payload: &'a [u8]) -> Fields<'a> {
        Fields { left: payload }
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    /// A header.
    pub(super) fn header(&mut self) -> Read<Header> {
        let schema = self.u32()?;
        let title = self.text()?;
        let topics = self.list(1, Fields::text)?;
        Ok(Header { schema, topics, title })
    }

    /// An operation.
    pub(super) fn operation(&mut self) -> Read<Operation> {
        let client = ClientId(self.u32()?);
        let invoked_us = self.u64()?;
        let completed_us = invoked_us.wrapping_add(self.u64()?);
        let outcome = match self.byte()? {
            0 => Outcome::Done,
            1 => Outcome::Refused(self.text()?),
            2 => Outcome::Unknown(self.text()?),
            other => return wrong("outcome", other),
        };
        let call = self.call()?;
        Ok(Operation { client, invoked_us, completed_us, outcome, call })
    }

    /// A mark.
    pub(super) fn mark(&mut self) -> Read<Mark> {
        let kind = self.byte()?;
        let at_us = self.u64()?;
        Ok(match kind {
            // Schema 1, which knew no nodes.
            0 => Mark::Fault { at_us, class: self.text()?, fault: self.u32()?, nodes: Vec::new() },
            4 => Mark::Fault { at_us, class: self.text()?, fault: self.u32()?, nodes: self.list(1, Fields::u32)? },
            1 => Mark::NodeExit { at_us, node: self.u32()?, reason: self.text()?, declared: self.flag()? },
            2 => Mark::LivenessBegan { at_us },
            3 => Mark::LivenessEnded { at_us, reached: self.flag()?, missing: self.list(1, Fields::text)? },
            other => return wrong("mark", other),
        })
    }

    fn call(&mut self) -> Read<Call> {
        Ok(match self.byte()? {
            0 => self.produce()?,
            1 => {
                let is_final = self.flag()?;
                let runs = self.list(6, Fields::run)?;
                let positions = self.list(3, Fields::position)?;
                let corrupt = self.list(4, |fields| {
                    Ok(CorruptRecord { queue: fields.queue()?, offset: fields.i64()?, what: fields.text()? })
                })?;
                Call::Poll { runs, corrupt, positions, is_final }
            }
            2 => {
                let queue = self.queue()?;
                let to = match self.byte()? {
                    0 => SeekTarget::Beginning,
                    1 => SeekTarget::End,
                    2 => SeekTarget::Offset(self.i64()?),
                    3 => SeekTarget::Timestamp(self.i64()?),
                    other => return wrong("seek target", other),
                };
                Call::Seek { queue, to, offset: self.option()? }
            }
            3 => {
                let queue = self.queue()?;
                let query = match self.byte()? {
                    0 => OffsetQuery::Earliest,
                    1 => OffsetQuery::Latest,
                    2 => OffsetQuery::Timestamp(self.i64()?),
                    other => return wrong("offset query", other),
                };
                Call::ListOffset { queue, query, offset: self.option()?, timestamp_ms: self.option()? }
            }
            4 => Call::DeleteRecords { queue: self.queue()?, before: self.i64()?, low_watermark: self.option()? },
            5 => Call::CreateTopic { topic: self.u32()? },
            6 => self.group()?,
            other => return wrong("call", other),
        })
    }

    fn group(&mut self) -> Read<Call> {
        let group = self.u32()?;
        let member = self.text()?;
        let generation = i32::try_from(self.i64()?).map_err(|_| FieldError("generation is out of range".to_owned()))?;
        let step = match self.byte()? {
            0 => GroupStep::Own { queues: self.list(2, Fields::queue)? },
            1 => GroupStep::Release { queues: self.list(2, Fields::queue)? },
            2 => GroupStep::Commit { offsets: self.list(3, Fields::position)? },
            3 => GroupStep::FetchOffsets { offsets: self.list(3, Fields::position)? },
            other => return wrong("group step", other),
        };
        Ok(Call::Group { group, member, generation, step })
    }

    fn position(&mut self) -> Read<Position> {
        Ok(Position { queue: self.queue()?, offset: self.i64()? })
    }

    fn produce(&mut self) -> Read<Call> {
        let queue = self.queue()?;
        let first_value = Value(self.u64()?);
        let mut previous = 0i64;
        let timestamps_ms = self.list(1, |fields| {
            previous = previous.wrapping_add(fields.i64()?);
            Ok(previous)
        })?;
        let count = self.u32()?;
        let first_offset = self.option()?;
        let attempts = self.u32()?;
        let acks = i8::try_from(self.i64()?).map_err(|_| FieldError("acks is out of range".to_owned()))?;
        let idempotent = self.flag()?;
        Ok(Call::Produce { queue, first_value, count, timestamps_ms, first_offset, attempts, acks, idempotent })
    }

    fn run(&mut self) -> Read<Run> {
        Ok(Run {
            queue: self.queue()?,
            first_value: Value(self.u64()?),
            count: self.u32()?,
            first_offset: self.i64()?,
            first_timestamp_ms: self.i64()?,
        })
    }

    fn queue(&mut self) -> Read<Queue> {
        Ok(Queue { topic: self.u32()?, partition: self.u32()? })
    }

    fn list<T>(&mut self, bytes_minimum: usize, mut read: impl FnMut(&mut Fields<'a>) -> Read<T>) -> Read<Vec<T>> {
        let count = self.u64()?;
        if count > (self.left.len() / bytes_minimum) as u64 {
            return Err(FieldError(format!("a list of {count} items in {} bytes", self.left.len())));
        }
        // Exactly as many as are there: most lists are of one item, for which growth would set aside several times as much.
        let mut items = Vec::with_capacity((count as usize).min(LIST_PREPARED_MAXIMUM));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn text(&mut self) -> Read<String> {
        let length = self.u64()?;
        if length > self.left.len() as u64 {
            return Err(FieldError(format!("a text of {length} bytes in {}", self.left.len())));
        }
        let (text, left) = self.left.split_at(length as usize);
        self.left = left;
        String::from_utf8(text.to_vec()).map_err(|_| FieldError("a text is not UTF-8".to_owned()))
    }

    fn option(&mut self) -> Read<Option<i64>> {
        match self.flag()? {
            true => self.i64().map(Some),
            false => Ok(None),
        }
    }

    fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => wrong("flag", other),
        }
    }

    fn byte(&mut self) -> Read<u8> {
        let (first, left) = self.left.split_first().ok_or_else(|| FieldError("the payload ends early".to_owned()))?;
        self.left = left;
        Ok(*first)
    }

    fn u64(&mut self) -> Read<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(FieldError("an integer exceeds 64 bits".to_owned()))
    }

    fn u32(&mut self) -> Read<u32> {
        u32::try_from(self.u64()?).map_err(|_| FieldError("an integer exceeds 32 bits".to_owned()))
    }

    fn i64(&mut self) -> Read<i64> {
        let zigzag = self.u64()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }
}

/// Appends a header.
pub(super) fn put_header(output: &mut Vec<u8>, header: &Header) {
    put_u64(output, u64::from(header.schema));
    put_text(output, &header.title);
    put_u64(output, header.topics.len() as u64);
    header.topics.iter().for_each(|topic| put_text(output, topic));
}

/// Appends an operation.
pub(super) fn put_operation(output: &mut Vec<u8>, operation: &Operation) {
    put_u64(output, u64::from(operation.client.0));
    put_u64(output, operation.invoked_us);
    put_u64(output, operation.completed_us.wrapping_sub(operation.invoked_us));
    match &operation.outcome {
        Outcome::Done => output.push(0),
        Outcome::Refused(why) => {
            output.push(1);
            put_text(output, why);
        }
        Outcome::Unknown(why) => {
            output.push(2);
            put_text(output, why);
        }
    }
    put_call(output, &operation.call);
}

/// Appends a mark.
pub(super) fn put_mark(output: &mut Vec<u8>, mark: &Mark) {
    match mark {
        Mark::Fault { at_us, class, fault, nodes } => {
            output.push(4);
            put_u64(output, *at_us);
            put_text(output, class);
            put_u64(output, u64::from(*fault));
            put_u64(output, nodes.len() as u64);
            nodes.iter().for_each(|node| put_u64(output, u64::from(*node)));
        }
        Mark::NodeExit { at_us, node, reason, declared } => {
            output.push(1);
            put_u64(output, *at_us);
            put_u64(output, u64::from(*node));
            put_text(output, reason);
            output.push(u8::from(*declared));
        }
        Mark::LivenessBegan { at_us } => {
            output.push(2);
            put_u64(output, *at_us);
        }
        Mark::LivenessEnded { at_us, reached, missing } => {
            output.push(3);
            put_u64(output, *at_us);
            output.push(u8::from(*reached));
            put_u64(output, missing.len() as u64);
            missing.iter().for_each(|what| put_text(output, what));
        }
    }
}

fn put_call(output: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Produce { .. } => {
            output.push(0);
            put_produce(output, call);
        }
        Call::Poll { runs, corrupt, positions, is_final } => {
            output.extend([1, u8::from(*is_final)]);
            put_u64(output, runs.len() as u64);
            runs.iter().for_each(|run| put_run(output, run));
            put_positions(output, positions);
            put_u64(output, corrupt.len() as u64);
            for record in corrupt {
                put_queue(output, record.queue);
                put_i64(output, record.offset);
                put_text(output, &record.what);
            }
        }
        Call::Seek { queue, to, offset } => {
            output.push(2);
            put_queue(output, *queue);
            match to {
                SeekTarget::Beginning => output.push(0),
                SeekTarget::End => output.push(1),
                SeekTarget::Offset(target) => put_tagged(output, 2, *target),
                SeekTarget::Timestamp(target) => put_tagged(output, 3, *target),
            }
            put_option(output, *offset);
        }
        Call::ListOffset { queue, query, offset, timestamp_ms } => {
            output.push(3);
            put_queue(output, *queue);
            match query {
                OffsetQuery::Earliest => output.push(0),
                OffsetQuery::Latest => output.push(1),
                OffsetQuery::Timestamp(sought) => put_tagged(output, 2, *sought),
            }
            put_option(output, *offset);
            put_option(output, *timestamp_ms);
        }
        Call::DeleteRecords { queue, before, low_watermark } => {
            output.push(4);
            put_queue(output, *queue);
            put_i64(output, *before);
            put_option(output, *low_watermark);
        }
        Call::CreateTopic { topic } => {
            output.push(5);
            put_u64(output, u64::from(*topic));
        }
        Call::Group { group, member, generation, step } => {
            output.push(6);
            put_u64(output, u64::from(*group));
            put_text(output, member);
            put_i64(output, i64::from(*generation));
            put_step(output, step);
        }
    }
}

fn put_step(output: &mut Vec<u8>, step: &GroupStep) {
    let (kind, queues, offsets): (u8, &[Queue], &[Position]) = match step {
        GroupStep::Own { queues } => (0, queues, &[]),
        GroupStep::Release { queues } => (1, queues, &[]),
        GroupStep::Commit { offsets } => (2, &[], offsets),
        GroupStep::FetchOffsets { offsets } => (3, &[], offsets),
    };
    output.push(kind);
    match kind {
        0 | 1 => {
            put_u64(output, queues.len() as u64);
            queues.iter().for_each(|queue| put_queue(output, *queue));
        }
        _ => put_positions(output, offsets),
    }
}

fn put_positions(output: &mut Vec<u8>, positions: &[Position]) {
    put_u64(output, positions.len() as u64);
    for position in positions {
        put_queue(output, position.queue);
        put_i64(output, position.offset);
    }
}

fn put_produce(output: &mut Vec<u8>, call: &Call) {
    let Call::Produce { queue, first_value, count, timestamps_ms, first_offset, attempts, acks, idempotent } = call
    else {
        unreachable!("the caller passes produce calls alone")
    };
    put_queue(output, *queue);
    put_u64(output, first_value.0);
    put_u64(output, timestamps_ms.len() as u64);
    let mut previous = 0i64;
    for timestamp in timestamps_ms {
        put_i64(output, timestamp.wrapping_sub(previous));
        previous = *timestamp;
    }
    put_u64(output, u64::from(*count));
    put_option(output, *first_offset);
    put_u64(output, u64::from(*attempts));
    put_i64(output, i64::from(*acks));
    output.push(u8::from(*idempotent));
}

fn put_run(output: &mut Vec<u8>, run: &Run) {
    put_queue(output, run.queue);
    put_u64(output, run.first_value.0);
    put_u64(output, u64::from(run.count));
    put_i64(output, run.first_offset);
    put_i64(output, run.first_timestamp_ms);
}

fn put_queue(output: &mut Vec<u8>, queue: Queue) {
    put_u64(output, u64::from(queue.topic));
    put_u64(output, u64::from(queue.partition));
}

fn put_option(output: &mut Vec<u8>, number: Option<i64>) {
    match number {
        Some(number) => put_tagged(output, 1, number),
        None => output.push(0),
    }
}

fn put_tagged(output: &mut Vec<u8>, tag: u8, number: i64) {
    output.push(tag);
    put_i64(output, number);
}

fn put_text(output: &mut Vec<u8>, text: &str) {
    put_u64(output, text.len() as u64);
    output.extend_from_slice(text.as_bytes());
}

fn put_u64(output: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        output.push(number as u8 | 0x80);
        number >>= 7;
    }
    output.push(number as u8);
}

fn put_i64(output: &mut Vec<u8>, number: i64) {
    put_u64(output, ((number << 1) ^ (number >> 63)) as u64);
}

fn wrong<T>(what: &str, found: u8) -> Read<T> {
    Err(FieldError(format!("{found} is no {what}")))
}
