//! Frames that nobody well-behaved sends.

use std::io;

use super::wire::Wire;
use super::{BugError, Shown, Stand};

/// A Metadata request that claims to name as many topics as a count can, and names none.
pub(super) fn unread_count(stand: &mut Stand) -> Result<Shown, BugError> {
    let mut wire = Wire::open(stand.address())?;
    let (metadata, version, correlation, no_client_id) = (3_i16, 1_i16, 1_i32, -1_i16);
    let body = [
        &metadata.to_be_bytes()[..],
        &version.to_be_bytes(),
        &correlation.to_be_bytes(),
        &no_client_id.to_be_bytes(),
        &i32::MAX.to_be_bytes(),
    ]
    .concat();
    let frame = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    let answer = match wire.exchange(&frame) {
        Ok(answer) => format!("an answer of {} bytes", answer.len()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the connection is closed".to_owned(),
        Err(error) => error.to_string(),
    };
    let log = stand.log()?;
    let exhausted = log.lines().filter(|line| line.contains("OutOfMemoryError")).count();
    let refused = log.lines().filter(|line| line.contains("Tried to allocate a collection of size")).count();
    let steps = vec![
        format!("a Metadata request of {} bytes that claims {} topics: {answer}", frame.len(), i32::MAX),
        format!("lines of the broker's log with OutOfMemoryError: {exhausted}; that refuse the count: {refused}"),
    ];
    Ok(Shown { is_there: exhausted > 0, steps })
}
