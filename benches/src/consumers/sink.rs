//! Sinks on SQLite: how a consumer can take a message's effect exactly once although the message comes more than once, and
//! the same ideas with the one mistake each that breaks them. An effect is a row of `effect`, to which a trigger adds the
//! amount to the account, so that the effect itself is atomic in every sink. Not here: counting (`effects`).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use crate::consumers::ConsumerError;
use crate::consumers::message::Message;

/// How a sink tells a message that it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SinkKind {
    /// A row with the message's id under a unique index, in one transaction with the effect.
    UniqueIndex,
    /// The account's version must be the one before the message's; a message that comes too early is held back.
    VersionCheck,
    /// The last ids, more than can ever come again, in one transaction with the effect.
    IdCache,
    /// The next offset of each queue, in one transaction with the effect; reading begins where the database says.
    OffsetsInTransaction,
    /// Every delivery takes effect.
    Naive,
    /// The last ids, fewer than can come again.
    ForgetfulCache,
    /// All ids, in the consumer's memory.
    CacheInMemory,
    /// The account's version must be lower than the message's, by however much.
    NewestVersionWins,
    /// The unique index first, the effect after it, in two transactions.
    MarkThenApply,
    /// The effect first, the unique index after it, in two transactions.
    ApplyThenMark,
}

/// A place in a consumer's work on a message at which it may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The message is in hand, and nothing is done.
    Polled,
    /// That the message was seen is written; not yet committed where the sink has a transaction.
    Marked,
    /// The effect is written; not yet committed where the sink has a transaction.
    Applied,
    /// All of it is committed in the database.
    Stored,
    /// The broker has the offset.
    Committed,
}

impl Step {
    /// In the order in which an idempotent consumer passes them.
    pub const ALL: [Step; 5] = [Step::Polled, Step::Marked, Step::Applied, Step::Stored, Step::Committed];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Step::Polled => "polled",
            Step::Marked => "marked",
            Step::Applied => "applied",
            Step::Stored => "stored",
            Step::Committed => "committed",
        }
    }

    /// The step of this name.
    pub fn named(name: &str) -> Result<Step, ConsumerError> {
        find("step", name, &Step::ALL, Step::name)
    }
}

impl SinkKind {
    /// All, the idempotent ones first.
    pub const ALL: [SinkKind; 10] = [
        SinkKind::UniqueIndex,
        SinkKind::VersionCheck,
        SinkKind::IdCache,
        SinkKind::OffsetsInTransaction,
        SinkKind::Naive,
        SinkKind::ForgetfulCache,
        SinkKind::CacheInMemory,
        SinkKind::NewestVersionWins,
        SinkKind::MarkThenApply,
        SinkKind::ApplyThenMark,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            SinkKind::UniqueIndex => "unique-index",
            SinkKind::VersionCheck => "version-check",
            SinkKind::IdCache => "id-cache",
            SinkKind::OffsetsInTransaction => "offsets-in-transaction",
            SinkKind::Naive => "naive",
            SinkKind::ForgetfulCache => "forgetful-cache",
            SinkKind::CacheInMemory => "cache-in-memory",
            SinkKind::NewestVersionWins => "newest-version-wins",
            SinkKind::MarkThenApply => "mark-then-apply",
            SinkKind::ApplyThenMark => "apply-then-mark",
        }
    }

    /// The sink of this name.
    pub fn named(name: &str) -> Result<SinkKind, ConsumerError> {
        find("sink", name, &SinkKind::ALL, SinkKind::name)
    }

    /// Whether it is meant to be idempotent, rather than to show a mistake.
    pub fn is_idempotent(self) -> bool {
        match self {
            SinkKind::UniqueIndex | SinkKind::VersionCheck | SinkKind::IdCache | SinkKind::OffsetsInTransaction => true,
            SinkKind::Naive
            | SinkKind::ForgetfulCache
            | SinkKind::CacheInMemory
            | SinkKind::NewestVersionWins
            | SinkKind::MarkThenApply
            | SinkKind::ApplyThenMark => false,
        }
    }

    /// Whether a consumer with this sink passes the step on each new message.
    pub fn passes(self, step: Step) -> bool {
        match step {
            Step::Polled | Step::Applied | Step::Stored | Step::Committed => true,
            Step::Marked => self != SinkKind::Naive,
        }
    }

    /// How many of the last ids are kept, where the sink keeps some of them.
    fn capacity(self) -> Option<i64> {
        match self {
            SinkKind::IdCache => Some(100_000),
            SinkKind::ForgetfulCache => Some(16),
            _ => None,
        }
    }
}

fn find<T: Copy>(what: &'static str, name: &str, all: &[T], named: fn(T) -> &'static str) -> Result<T, ConsumerError> {
    let known = || all.iter().map(|one| named(*one)).collect::<Vec<_>>().join(", ");
    let found = all.iter().copied().find(|one| named(*one) == name);
    found.ok_or_else(|| ConsumerError::Unknown { what, name: name.to_owned(), known: known() })
}

/// A sink with its database, which several consumers may have open.
#[derive(Debug)]
pub struct Sink {
    kind: SinkKind,
    database: Connection,
    seen: BTreeSet<u64>,
}

impl Sink {
    /// Opens the database, making what is missing.
    pub fn open(kind: SinkKind, path: &Path) -> Result<Sink, ConsumerError> {
        let database = Connection::open(path)?;
        database.busy_timeout(BUSY_PATIENCE)?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        // A killed process keeps its page cache; what a machine's power loss does to SQLite is not the question here.
        database.pragma_update(None, "synchronous", "NORMAL")?;
        database.execute_batch(SCHEMA)?;
        Ok(Sink { kind, database, seen: BTreeSet::new() })
    }

    /// Notes that a message was delivered, whatever becomes of it.
    pub fn note_delivery(&self) -> Result<(), ConsumerError> {
        self.database.execute("UPDATE tally SET deliveries = deliveries + 1", [])?;
        Ok(())
    }

    /// Where a queue is to be read from, for a sink that keeps that itself.
    pub fn position(&self, queue: i32) -> Result<Option<i64>, ConsumerError> {
        if self.kind != SinkKind::OffsetsInTransaction {
            return Ok(None);
        }
        let next = self.database.query_row("SELECT next FROM position WHERE queue = ?1", [queue], |row| row.get(0));
        Ok(next.optional()?)
    }

    /// Takes the message's effect, unless the sink knows the message. `pass` is told each step between `Polled` and
    /// `Committed` as it is reached.
    pub fn take(
        &mut self,
        message: &Message,
        (queue, offset): (i32, i64),
        pass: &mut dyn FnMut(Step) -> Result<(), ConsumerError>,
    ) -> Result<(), ConsumerError> {
        match self.kind {
            SinkKind::Naive => {
                apply(&self.database, message)?;
                pass(Step::Applied)?;
            }
            SinkKind::CacheInMemory => {
                if self.seen.insert(message.id) {
                    pass(Step::Marked)?;
                    apply(&self.database, message)?;
                    pass(Step::Applied)?;
                }
            }
            SinkKind::MarkThenApply => {
                if mark(&self.database, message)? {
                    pass(Step::Marked)?;
                    apply(&self.database, message)?;
                    pass(Step::Applied)?;
                }
            }
            SinkKind::ApplyThenMark => {
                if !is_marked(&self.database, message)? {
                    apply(&self.database, message)?;
                    pass(Step::Applied)?;
                    mark(&self.database, message)?;
                    pass(Step::Marked)?;
                }
            }
            kind @ (SinkKind::UniqueIndex
            | SinkKind::VersionCheck
            | SinkKind::NewestVersionWins
            | SinkKind::IdCache
            | SinkKind::ForgetfulCache
            | SinkKind::OffsetsInTransaction) => {
                // The lock is taken at once: two consumers that both read first could not both go on to write.
                let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
                take_in(&transaction, kind, message, (queue, offset), pass)?;
                transaction.commit()?;
            }
        }
        pass(Step::Stored)
    }
}

/// The part of a sink that has one transaction.
fn take_in(
    database: &Transaction<'_>,
    kind: SinkKind,
    message: &Message,
    (queue, offset): (i32, i64),
    pass: &mut dyn FnMut(Step) -> Result<(), ConsumerError>,
) -> Result<(), ConsumerError> {
    let is_new = match kind {
        SinkKind::VersionCheck => return take_version(database, message, pass),
        SinkKind::NewestVersionWins => {
            let newer = version_of(database, message.key)? < message.version;
            if newer {
                set_version(database, message.key, message.version)?;
            }
            newer
        }
        SinkKind::IdCache | SinkKind::ForgetfulCache => remember(database, message, kind.capacity().unwrap_or(0))?,
        SinkKind::OffsetsInTransaction => {
            let sql = "INSERT INTO position(queue, next) VALUES (?1, ?2)
                       ON CONFLICT(queue) DO UPDATE SET next = excluded.next WHERE next < excluded.next";
            database.execute(sql, params![queue, offset + 1])? == 1
        }
        _ => mark(database, message)?,
    };
    if is_new {
        pass(Step::Marked)?;
        apply(database, message)?;
        pass(Step::Applied)?;
    }
    Ok(())
}

/// Takes the version that is next, and those held back that are next after it; holds back one that is too early.
fn take_version(
    database: &Transaction<'_>,
    message: &Message,
    pass: &mut dyn FnMut(Step) -> Result<(), ConsumerError>,
) -> Result<(), ConsumerError> {
    let known = version_of(database, message.key)?;
    if message.version <= known {
        return Ok(());
    }
    if message.version > known + 1 {
        let sql = "INSERT OR IGNORE INTO held(key, version, id, amount) VALUES (?1, ?2, ?3, ?4)";
        database.execute(sql, params![message.key, message.version, message.id, message.amount])?;
        return Ok(());
    }
    let mut next = Some(*message);
    while let Some(message) = next {
        set_version(database, message.key, message.version)?;
        pass(Step::Marked)?;
        apply(database, &message)?;
        pass(Step::Applied)?;
        let sql = "DELETE FROM held WHERE key = ?1 AND version = ?2 RETURNING id, amount";
        let (key, version) = (message.key, message.version + 1);
        let held = database.query_row(sql, params![key, version], |row| {
            Ok(Message { id: row.get(0)?, key, version, amount: row.get(1)? })
        });
        next = held.optional()?;
    }
    Ok(())
}

fn apply(database: &Connection, message: &Message) -> Result<(), ConsumerError> {
    let sql = "INSERT INTO effect(id, key, amount) VALUES (?1, ?2, ?3)";
    database.execute(sql, params![message.id, message.key, message.amount])?;
    Ok(())
}

/// Whether the message was not marked before.
fn mark(database: &Connection, message: &Message) -> Result<bool, ConsumerError> {
    Ok(database.execute("INSERT OR IGNORE INTO processed(id) VALUES (?1)", [message.id])? == 1)
}

fn is_marked(database: &Connection, message: &Message) -> Result<bool, ConsumerError> {
    let found = database.query_row("SELECT 1 FROM processed WHERE id = ?1", [message.id], |_| Ok(()));
    Ok(found.optional()?.is_some())
}

/// Whether the id was not among those kept; the oldest ones go.
fn remember(database: &Connection, message: &Message, capacity: i64) -> Result<bool, ConsumerError> {
    let is_new = database.execute("INSERT OR IGNORE INTO cache(id) VALUES (?1)", [message.id])? == 1;
    if is_new {
        database.execute("DELETE FROM cache WHERE place <= ?1", [database.last_insert_rowid() - capacity])?;
    }
    Ok(is_new)
}

fn version_of(database: &Connection, key: u32) -> Result<u64, ConsumerError> {
    let version = database.query_row("SELECT version FROM account WHERE key = ?1", [key], |row| row.get(0));
    Ok(version.optional()?.unwrap_or(0))
}

fn set_version(database: &Connection, key: u32, version: u64) -> Result<(), ConsumerError> {
    let sql = "INSERT INTO account(key, balance, version) VALUES (?1, 0, ?2)
               ON CONFLICT(key) DO UPDATE SET version = excluded.version";
    database.execute(sql, params![key, version])?;
    Ok(())
}

const BUSY_PATIENCE: Duration = Duration::from_secs(20);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account(key INTEGER PRIMARY KEY, balance INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS effect(id INTEGER NOT NULL, key INTEGER NOT NULL, amount INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS post AFTER INSERT ON effect BEGIN
  INSERT INTO account(key, balance, version) VALUES (NEW.key, NEW.amount, 0)
  ON CONFLICT(key) DO UPDATE SET balance = balance + NEW.amount;
END;
CREATE TABLE IF NOT EXISTS processed(id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS cache(place INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS held(key INTEGER, version INTEGER, id INTEGER NOT NULL, amount INTEGER NOT NULL,
  PRIMARY KEY(key, version));
CREATE TABLE IF NOT EXISTS position(queue INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tally(only INTEGER PRIMARY KEY CHECK (only = 0), deliveries INTEGER NOT NULL);
INSERT OR IGNORE INTO tally(only, deliveries) VALUES (0, 0);
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::effects::Effects;
    use crate::consumers::message::{Sent, as_sent, postings};

    /// Delivers a log, `again` times from its first record, and dies once at `death`: (step, its pass).
    fn effects(kind: SinkKind, sent: Sent, again: usize, death: Option<(Step, usize)>) -> Effects {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sink.sqlite");
        let messages = postings(200);
        let log = as_sent(&messages, sent);
        let (mut passes, mut death) = (0, death);
        let mut from = 0;
        for _ in 0..=again {
            'dead: loop {
                let mut sink = Sink::open(kind, &path).unwrap();
                for (offset, message) in log.iter().enumerate().skip(from) {
                    let mut pass = |step: Step| {
                        let strikes = death.is_some_and(|(at, _)| at == step);
                        passes += usize::from(strikes);
                        match death.filter(|(_, pass)| strikes && passes == *pass) {
                            // A process that dies says nothing more; the transaction under way is rolled back.
                            Some(_) => Err(ConsumerError::Panicked { what: "consumer" }),
                            None => Ok(()),
                        }
                    };
                    let taken = pass(Step::Polled).and_then(|()| sink.take(message, (0, offset as i64), &mut pass));
                    if taken.is_err() {
                        death = None;
                        // Nothing was committed to the broker in the last while.
                        from = offset.saturating_sub(20);
                        continue 'dead;
                    }
                }
                break;
            }
            from = 0;
        }
        Effects::count(&path, &messages).unwrap()
    }

    #[test]
    fn idempotent_sinks_take_every_effect_once_wherever_the_consumer_dies() {
        for kind in SinkKind::ALL.into_iter().filter(|kind| kind.is_idempotent()) {
            for step in [Step::Polled, Step::Marked, Step::Applied, Step::Stored] {
                let found = effects(kind, Sent::Once, 1, Some((step, 90)));
                assert!(found.is_exactly_once(), "{kind:?} {step:?}: {found:?}");
            }
        }
        for kind in [SinkKind::UniqueIndex, SinkKind::VersionCheck, SinkKind::IdCache] {
            for sent in [Sent::Repeated, Sent::Overtaken] {
                let found = effects(kind, sent, 1, Some((Step::Applied, 90)));
                assert!(found.is_exactly_once(), "{kind:?} {sent:?}: {found:?}");
            }
        }
    }

    #[test]
    fn each_mistake_shows_where_it_must() {
        let lost = |kind, sent, death| effects(kind, sent, 0, death).lost;
        let doubled = |kind, sent, again, death| effects(kind, sent, again, death).doubled;
        assert_eq!(doubled(SinkKind::Naive, Sent::Once, 1, None), 200);
        assert_eq!(doubled(SinkKind::ForgetfulCache, Sent::Once, 1, None), 200);
        assert!(doubled(SinkKind::CacheInMemory, Sent::Once, 0, Some((Step::Stored, 90))) > 0);
        assert!(lost(SinkKind::NewestVersionWins, Sent::Overtaken, None) > 10);
        assert_eq!(lost(SinkKind::NewestVersionWins, Sent::Once, None), 0);
        assert_eq!(lost(SinkKind::MarkThenApply, Sent::Once, Some((Step::Marked, 90))), 1);
        assert_eq!(doubled(SinkKind::ApplyThenMark, Sent::Once, 0, Some((Step::Applied, 90))), 1);
        // Offsets tell deliveries apart, not messages: a second copy is another message to them.
        assert!(doubled(SinkKind::OffsetsInTransaction, Sent::Repeated, 0, None) > 10);
    }

    #[test]
    fn names_lead_back_to_their_sinks_and_steps() {
        assert!(SinkKind::ALL.into_iter().all(|kind| SinkKind::named(kind.name()).unwrap() == kind));
        assert!(Step::ALL.into_iter().all(|step| Step::named(step.name()).unwrap() == step));
        assert!(SinkKind::named("best").unwrap_err().to_string().contains("unique-index"));
    }
}
