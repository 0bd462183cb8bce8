//! Effects counted from a sink's database at the end: which are missing, which are there more than once, and whether the
//! accounts' balances agree. Nothing that a consumer says counts here.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use crate::consumers::ConsumerError;
use crate::consumers::message::Message;

/// What a database holds of the messages that were acknowledged to their producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// Messages without an effect.
    pub lost: u64,
    /// Effects beyond the first of their message.
    pub doubled: u64,
    /// Accounts whose balance is not the sum of their messages' amounts.
    pub accounts_wrong: u64,
    /// Messages delivered to consumers, each as often as it was.
    pub deliveries: u64,
}

impl Effects {
    /// Counts, for the messages that are to have an effect.
    pub fn count(path: &Path, messages: &[Message]) -> Result<Effects, ConsumerError> {
        let database = open(path)?;
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        let mut query = database.prepare("SELECT id, COUNT(*) FROM effect GROUP BY id")?;
        for row in query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (id, count) = row?;
            counts.insert(id, count);
        }
        let mut balances: BTreeMap<u32, i64> = BTreeMap::new();
        for message in messages {
            *balances.entry(message.key).or_default() += message.amount;
        }
        let mut query = database.prepare("SELECT key, balance FROM account")?;
        for row in query.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?)))? {
            let (key, balance) = row?;
            *balances.entry(key).or_default() -= balance;
        }
        Ok(Effects {
            lost: messages.iter().filter(|message| !counts.contains_key(&message.id)).count() as u64,
            doubled: counts.values().map(|count| count - 1).sum(),
            accounts_wrong: balances.values().filter(|rest| **rest != 0).count() as u64,
            deliveries: deliveries_of(&database)?,
        })
    }

    /// Whether each message has one effect, and the accounts say so too.
    pub fn is_exactly_once(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.accounts_wrong == 0
    }
}

/// How many messages have been delivered so far; 0 where no consumer has opened the database yet.
pub fn deliveries(path: &Path) -> Result<u64, ConsumerError> {
    if !path.exists() {
        return Ok(0);
    }
    let database = open(path)?;
    let made = "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'tally'";
    match database.query_row(made, [], |row| row.get::<_, u64>(0))? {
        0 => Ok(0),
        _ => deliveries_of(&database),
    }
}

fn deliveries_of(database: &Connection) -> Result<u64, ConsumerError> {
    Ok(database.query_row("SELECT coalesce(sum(deliveries), 0) FROM tally", [], |row| row.get(0))?)
}

fn open(path: &Path) -> Result<Connection, ConsumerError> {
    // Not read-only: a reader of a database whose writer was killed has to recover its log first.
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.busy_timeout(std::time::Duration::from_secs(20))?;
    Ok(database)
}
