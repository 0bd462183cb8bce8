//! The messages of a trial: postings to accounts, each with an id of its own and a version that counts within its account.
//! And the orders in which a producer may leave them in the log. Not here: who sends them.

use crate::consumers::ConsumerError;

/// A posting to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its own, from 0 without gaps.
    pub id: u64,
    /// The account.
    pub key: u32,
    /// The account's version that this posting makes, from 1 without gaps.
    pub version: u64,
    /// What is added to the balance.
    pub amount: i64,
}

impl Message {
    /// The record's value.
    pub fn encode(&self) -> String {
        format!("{} {} {} {}", self.id, self.key, self.version, self.amount)
    }

    /// Reads a record's value.
    pub fn parse(bytes: &[u8]) -> Result<Message, ConsumerError> {
        let text = String::from_utf8_lossy(bytes);
        let read = || {
            let mut words = text.split(' ');
            let message = Message {
                id: words.next()?.parse().ok()?,
                key: words.next()?.parse().ok()?,
                version: words.next()?.parse().ok()?,
                amount: words.next()?.parse().ok()?,
            };
            words.next().is_none().then_some(message)
        };
        read().ok_or_else(|| ConsumerError::Foreign { text: text.clone().into_owned() })
    }
}

/// In which order and how often a producer leaves its messages in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// Each once, in order.
    Once,
    /// Every seventh a second time, some way behind: what a producer without idempotence does when an answer was lost.
    Repeated,
    /// Now and then a message behind its account's next: what a producer does that sends a failed one again.
    Overtaken,
}

/// The accounts of a trial.
pub const KEYS: u32 = 12;
/// How far behind the first the second copy stands.
pub const REPEAT_DISTANCE: usize = 60;
const REPEATED_EVERY: usize = 7;
const OVERTAKEN_EVERY: u64 = 5;

/// Postings to `KEYS` accounts in turn.
pub fn postings(count: u64) -> Vec<Message> {
    let posting = |id: u64| Message {
        id,
        key: (id % u64::from(KEYS)) as u32,
        version: id / u64::from(KEYS) + 1,
        amount: 1 + (id % 97) as i64,
    };
    (0..count).map(posting).collect()
}

/// The messages as they come to stand in the log.
pub fn as_sent(messages: &[Message], sent: Sent) -> Vec<Message> {
    match sent {
        Sent::Once => messages.to_vec(),
        Sent::Repeated => {
            let mut log = Vec::new();
            for (index, message) in messages.iter().enumerate() {
                log.push(*message);
                if let Some(first) = index.checked_sub(REPEAT_DISTANCE).filter(|first| first % REPEATED_EVERY == 0) {
                    log.push(messages[first]);
                }
            }
            log
        }
        Sent::Overtaken => {
            let mut log = messages.to_vec();
            let next = KEYS as usize;
            let followed = messages.len().saturating_sub(next);
            for (index, message) in messages.iter().enumerate().take(followed) {
                if message.version % OVERTAKEN_EVERY == 2 {
                    log.swap(index, index + next);
                }
            }
            log
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_nothing_else_is_one() {
        let message = Message { id: 7, key: 3, version: 2, amount: -5 };
        assert_eq!(Message::parse(message.encode().as_bytes()).unwrap(), message);
        for text in ["", "1 2 3", "1 2 3 4 5", "a 2 3 4"] {
            assert!(Message::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn versions_count_within_an_account_and_each_order_holds_every_message() {
        let messages = postings(200);
        for key in 0..KEYS {
            let versions: Vec<u64> = messages.iter().filter(|one| one.key == key).map(|one| one.version).collect();
            assert!(versions.iter().copied().eq(1..=versions.len() as u64));
        }
        for sent in [Sent::Once, Sent::Repeated, Sent::Overtaken] {
            let mut log = as_sent(&messages, sent);
            assert_eq!(log.len() > messages.len(), sent == Sent::Repeated);
            assert_eq!(log == messages, sent == Sent::Once);
            log.sort_by_key(|message| message.id);
            log.dedup();
            assert_eq!(log, messages, "{sent:?}");
        }
    }

    #[test]
    fn an_overtaken_message_stands_behind_its_accounts_next() {
        let log = as_sent(&postings(200), Sent::Overtaken);
        let of_one: Vec<u64> = log.iter().filter(|one| one.key == 0).map(|one| one.version).collect();
        assert_eq!(&of_one[..8], [1, 3, 2, 4, 5, 6, 8, 7]);
    }
}
