//! Laws of one log.
