//! Length-prefixed frames: four bytes of big-endian length, then the message.
//! A frame's claimed length reserves nothing; memory grows only with bytes that have come.

use bytes::{Buf, Bytes, BytesMut};

/// A frame that cannot be taken; its connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("frame length {0} is negative; the peer does not speak Kafka's protocol")]
    Negative(i32),
    /// The length is above the bound.
    #[error("frame of {length} bytes is above the bound of {maximum}; raise frame-bytes-max if it is meant")]
    TooLarge {
        /// The length claimed, in bytes.
        length: usize,
        /// The bound, in bytes.
        maximum: usize,
    },
}

/// Takes the next whole frame (without its length) off the buffer, or `None` where more bytes are needed.
pub fn take_frame(buffer: &mut BytesMut, bytes_maximum: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let claimed = i32::from_be_bytes(*prefix);
    let length = usize::try_from(claimed).map_err(|_| FrameError::Negative(claimed))?;
    if length > bytes_maximum {
        return Err(FrameError::TooLarge { length, maximum: bytes_maximum });
    }
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Bytes of a frame's length prefix.
pub const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_off_whole_and_in_order() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 3, 1][..]);
        assert_eq!(take_frame(&mut buffer, 10), Ok(Some(Bytes::from_static(&[7, 8]))));
        assert_eq!(take_frame(&mut buffer, 10), Ok(Some(Bytes::new())));
        assert_eq!(take_frame(&mut buffer, 10), Ok(None));
        buffer.extend_from_slice(&[2, 3]);
        assert_eq!(take_frame(&mut buffer, 10), Ok(Some(Bytes::from_static(&[1, 2, 3]))));
        assert_eq!(take_frame(&mut buffer, 10), Ok(None));
    }

    #[test]
    fn hostile_lengths_are_refused_before_their_bytes_come() {
        let mut negative = BytesMut::from(&(-5i32).to_be_bytes()[..]);
        assert_eq!(take_frame(&mut negative, 10), Err(FrameError::Negative(-5)));
        let mut large = BytesMut::from(&11i32.to_be_bytes()[..]);
        assert_eq!(take_frame(&mut large, 10), Err(FrameError::TooLarge { length: 11, maximum: 10 }));
        assert!(large.capacity() < 64);
    }
}
