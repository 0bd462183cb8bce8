//! The guarantee matrix: which anomalies a setting allows under which faults, as data (`matrix.toml`) with a reason and a
//! source for each row. Whatever no row allows is a violation. Not here: how anomalies are found (`check`).
//! Start at `Matrix::allowance`; `Facts` says what a row can ask about.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const STANDARD: &str = include_str!("matrix.toml");

/// The matrix: rows, each allowing some anomalies under some conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The rows; the first that matches gives the reason.
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// A row of the matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name: lower-case words joined by hyphens.
    pub name: String,
    /// What it allows.
    pub allows: Vec<Anomaly>,
    /// Why, in one sentence for people.
    pub reason: String,
    /// Where the fact is documented.
    pub source: String,
    /// Conditions, all of which must hold.
    pub when: Conditions,
}

/// Conditions of a row. An empty list or an absent field asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// The topic's flush is one of these.
    pub flush: Vec<Flush>,
    /// The send's `acks` is one of these.
    pub acks: Vec<i8>,
    /// Whether the producer is idempotent.
    pub idempotent: Option<bool>,
    /// The producer has more requests in flight than this.
    pub in_flight_above: Option<u32>,
    /// Whether a batch concerned was sent more than once.
    pub retried: Option<bool>,
    /// At least one fault of these classes struck.
    pub faults: Vec<String>,
    /// Copies of each record are at most this.
    pub replication_at_most: Option<u32>,
    /// Copies of each record are more than this.
    pub replication_above: Option<u32>,
    /// In-sync copies that acks=all needs are at most this.
    pub min_insync_at_most: Option<u32>,
    /// Whether a replica that is not in sync may be elected.
    pub unclean_election: Option<bool>,
    /// Whether a dead leader is replaced.
    pub failover: Option<bool>,
    /// Whether the group's members commit before they process.
    pub commits_before: Option<bool>,
    /// Whether power losses may have hit every copy that had to be in sync.
    pub copies_lost: Option<bool>,
    /// Whether the records were the newest: no append acknowledged after them, before the fault, proves that they were synced.
    pub newest: Option<bool>,
    /// Whether at most one of the copies is still in the log at the end.
    pub superseded: Option<bool>,
    /// Whether a loss in the same queue was permitted, of which this is a consequence.
    pub after_permitted_loss: Option<bool>,
    /// Whether the node named the exit as its answer to a disk that fails.
    pub declared: Option<bool>,
}

/// What is known about one finding. `None` where a fact does not apply: a condition on it then fails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The topic's flush.
    pub flush: Option<Flush>,
    /// The send's `acks`.
    pub acks: Option<i8>,
    /// Whether the producer is idempotent.
    pub idempotent: Option<bool>,
    /// The producer's requests in flight at most.
    pub in_flight: Option<u32>,
    /// Whether a batch concerned was sent more than once.
    pub retried: Option<bool>,
    /// Classes of the faults that struck when they could matter.
    pub faults: Vec<&'a str>,
    /// Copies of each record.
    pub replication: u32,
    /// In-sync copies that acks=all needs.
    pub min_insync_replicas: Option<u32>,
    /// See `Conditions::unclean_election`.
    pub unclean_election: Option<bool>,
    /// See `Conditions::failover`.
    pub failover: Option<bool>,
    /// See `Conditions::commits_before`.
    pub commits_before: Option<bool>,
    /// See `Conditions::copies_lost`.
    pub copies_lost: Option<bool>,
    /// See `Conditions::newest`.
    pub newest: Option<bool>,
    /// See `Conditions::superseded`.
    pub superseded: Option<bool>,
    /// See `Conditions::after_permitted_loss`.
    pub after_permitted_loss: Option<bool>,
    /// See `Conditions::declared`.
    pub declared: Option<bool>,
}

/// Why a finding is no violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Name of the matrix row.
    pub row: String,
    /// Why, in one sentence for people.
    pub reason: String,
    /// Where the fact is documented.
    pub source: String,
}

/// Settings for which the matrix is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The topic's flush.
    pub flush: Flush,
    /// The producer's `acks`.
    pub acks: i8,
    /// Whether the producer is idempotent.
    pub idempotent: bool,
    /// Requests in flight at most.
    pub in_flight: u32,
    /// Sends of one batch at most.
    pub attempts: u32,
    /// Copies of each record.
    pub replication: u32,
    /// In-sync copies that acks=all needs.
    pub min_insync_replicas: u32,
    /// Whether a replica that is not in sync may be elected.
    pub unclean_election: bool,
    /// Whether a dead leader is replaced.
    pub failover: bool,
}

/// One line of the printed matrix: what the settings allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// The anomaly.
    pub anomaly: Anomaly,
    /// What has to happen: faults, a retry, and so on, in words.
    pub under: String,
    /// Why, in one sentence for people.
    pub reason: String,
    /// Where the fact is documented.
    pub source: String,
}

/// What the settings allow once one thing happens: a line of the printed matrix by fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRow {
    /// The class of fault; none where it takes no fault.
    pub fault: Option<String>,
    /// What else has to hold, in words; empty where nothing has to.
    pub under: String,
    /// The anomalies allowed.
    pub anomalies: Vec<Anomaly>,
    /// Name of the matrix row.
    pub row: String,
    /// Why, in one sentence for people.
    pub reason: String,
    /// Where the fact is documented.
    pub source: String,
}

/// The matrix text is unusable.
#[derive(Debug, Error)]
pub enum MatrixError {
    /// Not TOML, or not of this schema.
    #[error("the guarantee matrix is malformed, correct the text: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A row that allows nothing, or gives no reason or source.
    #[error("row {row} of the guarantee matrix lacks its {lacks}: add it")]
    Incomplete {
        /// The row's name.
        row: String,
        /// What is missing.
        lacks: &'static str,
    },
}

/// When a topic's appends are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flush {
    /// Before the acknowledgement.
    Ack,
    /// At intervals.
    Interval,
    /// Whenever the operating system writes back.
    Os,
}

/// What the checkers tell apart; names as in the published taxonomy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// A read passed the place of a value whose send took effect, and nobody ever read it.
    LostWrite,
    /// An acknowledged value that no final read finds.
    Unseen,
    /// A value without acknowledgement was consumed and later is nowhere.
    Ghost,
    /// One value at two offsets or more.
    Duplicate,
    /// One offset of a queue with two values.
    InconsistentOffsets,
    /// Two sends of one producer to a queue lie in reverse order.
    NonmonotonicSend,
    /// A consumer's polls of one queue go back.
    NonmonotonicPoll,
    /// A consumer's polls jump over a value known to exist.
    PollSkip,
    /// Key, value, headers or timestamp differ from what was sent.
    CorruptPayload,
    /// A value was read though every attempt to send it was refused, or nobody sent it.
    PhantomWrite,
    /// A lookup by timestamp is not the earliest record at or past it.
    WrongOffsetLookup,
    /// The log's end or start, as the broker told it, goes back.
    Regression,
    /// A deleted value was read again.
    Resurrected,
    /// A value below the log start that no setting justifies.
    PrematureDeletion,
    /// A lost value that was older, at the loss, than the setting that permits losses lets anything stay unsynced.
    PermittedLossExceeded,
    /// Two members of a group own one queue at once.
    DualOwnership,
    /// A committed offset goes back.
    CommitRegression,
    /// A committed offset is gone.
    CommitLost,
    /// A committed offset lies beyond what the group was given.
    CommitAhead,
    /// A member of an older generation commits.
    ZombieCommit,
    /// A group finds no generation that lasts.
    RebalanceLivelock,
    /// A node ended by itself.
    SelfCrash,
    /// Something did not end within the liveness bound.
    NoProgress,
}

impl Anomaly {
    /// Every anomaly.
    pub const ALL: [Anomaly; 23] = [
        Anomaly::LostWrite,
        Anomaly::Unseen,
        Anomaly::Ghost,
        Anomaly::Duplicate,
        Anomaly::InconsistentOffsets,
        Anomaly::NonmonotonicSend,
        Anomaly::NonmonotonicPoll,
        Anomaly::PollSkip,
        Anomaly::CorruptPayload,
        Anomaly::PhantomWrite,
        Anomaly::WrongOffsetLookup,
        Anomaly::Regression,
        Anomaly::Resurrected,
        Anomaly::PrematureDeletion,
        Anomaly::PermittedLossExceeded,
        Anomaly::DualOwnership,
        Anomaly::CommitRegression,
        Anomaly::CommitLost,
        Anomaly::CommitAhead,
        Anomaly::ZombieCommit,
        Anomaly::RebalanceLivelock,
        Anomaly::SelfCrash,
        Anomaly::NoProgress,
    ];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Anomaly::LostWrite => "lost-write",
            Anomaly::Unseen => "unseen",
            Anomaly::Ghost => "ghost",
            Anomaly::Duplicate => "duplicate",
            Anomaly::InconsistentOffsets => "inconsistent-offsets",
            Anomaly::NonmonotonicSend => "nonmonotonic-send",
            Anomaly::NonmonotonicPoll => "nonmonotonic-poll",
            Anomaly::PollSkip => "poll-skip",
            Anomaly::CorruptPayload => "corrupt-payload",
            Anomaly::PhantomWrite => "phantom-write",
            Anomaly::WrongOffsetLookup => "wrong-offset-lookup",
            Anomaly::Regression => "regression",
            Anomaly::Resurrected => "resurrected",
            Anomaly::PrematureDeletion => "premature-deletion",
            Anomaly::PermittedLossExceeded => "permitted-loss-exceeded",
            Anomaly::DualOwnership => "dual-ownership",
            Anomaly::CommitRegression => "commit-regression",
            Anomaly::CommitLost => "commit-lost",
            Anomaly::CommitAhead => "commit-ahead",
            Anomaly::ZombieCommit => "zombie-commit",
            Anomaly::RebalanceLivelock => "rebalance-livelock",
            Anomaly::SelfCrash => "self-crash",
            Anomaly::NoProgress => "no-progress",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Matrix {
    /// The matrix that ships with the judge.
    pub fn standard() -> &'static Matrix {
        static MATRIX: OnceLock<Matrix> = OnceLock::new();
        MATRIX.get_or_init(|| Matrix::parse(STANDARD).expect("a unit test parses the text that is compiled in"))
    }

    /// Parses and checks a matrix.
    pub fn parse(text: &str) -> Result<Matrix, MatrixError> {
        let matrix: Matrix = toml::from_str(text)?;
        for row in &matrix.rows {
            let lacks = match (row.allows.is_empty(), row.reason.trim().is_empty(), row.source.trim().is_empty()) {
                (true, _, _) => "allowed anomalies",
                (_, true, _) => "reason",
                (_, _, true) => "source",
                (false, false, false) => continue,
            };
            return Err(MatrixError::Incomplete { row: row.name.clone(), lacks });
        }
        Ok(matrix)
    }

    /// Why the anomaly is allowed under the facts, or nothing where it is a violation.
    pub fn allowance(&self, anomaly: Anomaly, facts: &Facts<'_>) -> Option<Allowance> {
        let row = self.rows.iter().find(|row| row.allows.contains(&anomaly) && row.when.hold(facts))?;
        Some(Allowance { row: row.name.clone(), reason: row.reason.clone(), source: row.source.clone() })
    }

    /// What the settings allow, one line per anomaly and row, in the taxonomy's order.
    pub fn table(&self, settings: &Settings) -> Vec<TableRow> {
        let mut table: Vec<TableRow> = self
            .rows
            .iter()
            .filter(|row| row.when.possible(settings))
            .flat_map(|row| {
                row.allows.iter().map(|anomaly| TableRow {
                    anomaly: *anomaly,
                    under: row.when.events(),
                    reason: row.reason.clone(),
                    source: row.source.clone(),
                })
            })
            .collect();
        table.sort_by_key(|row| row.anomaly);
        table
    }

    /// What the settings allow, one line per class of fault and row, by fault.
    pub fn fault_table(&self, settings: &Settings) -> Vec<FaultRow> {
        let mut table = Vec::new();
        for row in self.rows.iter().filter(|row| row.when.possible(settings)) {
            let faults: Vec<Option<String>> = match row.when.faults.is_empty() {
                true => vec![None],
                false => row.when.faults.iter().cloned().map(Some).collect(),
            };
            table.extend(faults.into_iter().map(|fault| FaultRow {
                fault,
                under: row.when.circumstances().join(", "),
                anomalies: row.allows.clone(),
                row: row.name.clone(),
                reason: row.reason.clone(),
                source: row.source.clone(),
            }));
        }
        table.sort_by(|one, other| one.fault.cmp(&other.fault));
        table
    }
}

impl Conditions {
    fn hold(&self, facts: &Facts<'_>) -> bool {
        let asked = |condition: Option<bool>, fact: Option<bool>| condition.is_none() || condition == fact;
        (self.flush.is_empty() || facts.flush.is_some_and(|flush| self.flush.contains(&flush)))
            && (self.acks.is_empty() || facts.acks.is_some_and(|acks| self.acks.contains(&acks)))
            && self.in_flight_above.is_none_or(|bound| facts.in_flight.is_some_and(|count| count > bound))
            && self.replication_at_most.is_none_or(|bound| facts.replication <= bound)
            && self.replication_above.is_none_or(|bound| facts.replication > bound)
            && self.min_insync_at_most.is_none_or(|bound| facts.min_insync_replicas.is_some_and(|min| min <= bound))
            && asked(self.unclean_election, facts.unclean_election)
            && asked(self.failover, facts.failover)
            && asked(self.copies_lost, facts.copies_lost)
            && asked(self.commits_before, facts.commits_before)
            && (self.faults.is_empty() || self.faults.iter().any(|class| facts.faults.contains(&class.as_str())))
            && asked(self.idempotent, facts.idempotent)
            && asked(self.retried, facts.retried)
            && asked(self.newest, facts.newest)
            && asked(self.superseded, facts.superseded)
            && asked(self.after_permitted_loss, facts.after_permitted_loss)
            && asked(self.declared, facts.declared)
    }

    /// Whether the row can ever match under the settings.
    fn possible(&self, settings: &Settings) -> bool {
        (self.flush.is_empty() || self.flush.contains(&settings.flush))
            && (self.acks.is_empty() || self.acks.contains(&settings.acks))
            && self.idempotent.is_none_or(|idempotent| idempotent == settings.idempotent)
            && self.in_flight_above.is_none_or(|bound| settings.in_flight > bound)
            && self.replication_at_most.is_none_or(|bound| settings.replication <= bound)
            && self.replication_above.is_none_or(|bound| settings.replication > bound)
            && self.min_insync_at_most.is_none_or(|bound| settings.min_insync_replicas <= bound)
            && self.unclean_election.is_none_or(|unclean| unclean == settings.unclean_election)
            && self.failover.is_none_or(|failover| failover == settings.failover)
            && (self.retried != Some(true) || settings.attempts > 1)
    }

    /// What has to happen for the row to match, in words.
    fn events(&self) -> String {
        let mut events = Vec::new();
        if !self.faults.is_empty() {
            events.push(self.faults.join(" or "));
        }
        events.extend(self.circumstances().into_iter().map(str::to_owned));
        if events.is_empty() { "always".to_owned() } else { events.join(", ") }
    }

    /// What has to hold beside a fault, in words.
    fn circumstances(&self) -> Vec<&'static str> {
        let words = [
            (self.retried, "a retry"),
            (self.commits_before, "where members commit before they process"),
            (self.copies_lost, "of every copy that had to be in sync"),
            (self.newest, "on the newest records only"),
            (self.superseded, "where one copy alone remains"),
            (self.after_permitted_loss, "after a permitted loss in the queue"),
            (self.declared, "declared by the node"),
        ];
        words.into_iter().filter(|(asked, _)| *asked == Some(true)).map(|(_, word)| word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLE: Settings = Settings {
        flush: Flush::Ack,
        acks: -1,
        idempotent: true,
        in_flight: 1,
        attempts: 1,
        replication: 1,
        min_insync_replicas: 1,
        unclean_election: false,
        failover: true,
    };

    fn facts() -> Facts<'static> {
        Facts { replication: 1, flush: Some(Flush::Ack), acks: Some(-1), ..Facts::default() }
    }

    #[test]
    fn the_standard_matrix_is_well_formed_and_never_allows_what_nothing_excuses() {
        let matrix = Matrix::parse(STANDARD).unwrap();
        let never = [
            Anomaly::CorruptPayload,
            Anomaly::PhantomWrite,
            Anomaly::PrematureDeletion,
            Anomaly::Resurrected,
            Anomaly::PermittedLossExceeded,
        ];
        for row in &matrix.rows {
            assert!(never.iter().all(|anomaly| !row.allows.contains(anomaly)), "{}", row.name);
        }
        assert!(Anomaly::ALL.iter().all(|anomaly| matrix.allowance(*anomaly, &facts()).is_none()));
    }

    #[test]
    fn unsynced_records_may_be_lost_by_power_loss_and_by_nothing_else() {
        let matrix = Matrix::standard();
        let os = Facts { flush: Some(Flush::Os), ..facts() };
        let struck = |faults, facts: &Facts<'static>| Facts { faults, ..facts.clone() };
        assert!(matrix.allowance(Anomaly::LostWrite, &struck(vec!["power-loss"], &os)).is_some());
        assert!(matrix.allowance(Anomaly::LostWrite, &struck(vec!["kill", "link-cut"], &os)).is_none());
        assert!(matrix.allowance(Anomaly::LostWrite, &struck(vec!["power-loss"], &facts())).is_none());
    }

    #[test]
    fn duplicates_need_a_retry_and_no_idempotence() {
        let matrix = Matrix::standard();
        let case = |idempotent, retried| Facts { idempotent: Some(idempotent), retried: Some(retried), ..facts() };
        assert!(matrix.allowance(Anomaly::Duplicate, &case(false, true)).is_some());
        assert!(matrix.allowance(Anomaly::Duplicate, &case(false, false)).is_none());
        assert!(matrix.allowance(Anomaly::Duplicate, &case(true, true)).is_none());
    }

    #[test]
    fn the_table_by_fault_follows_the_settings() {
        let settings = Settings { flush: Flush::Os, acks: -1, idempotent: true, in_flight: 5, attempts: 4, ..SINGLE };
        let may = |settings: &Settings, fault: &str, anomaly| {
            let table = Matrix::standard().fault_table(settings);
            table.iter().any(|row| row.fault.as_deref() == Some(fault) && row.anomalies.contains(&anomaly))
        };
        assert!(may(&settings, "power-loss", Anomaly::LostWrite) && !may(&settings, "kill", Anomaly::LostWrite));
        assert!(!may(&Settings { flush: Flush::Ack, ..settings }, "power-loss", Anomaly::LostWrite));
        assert!(may(&Settings { acks: 0, ..settings }, "kill", Anomaly::LostWrite));
        let copies = Settings { replication: 3, min_insync_replicas: 2, ..settings };
        assert!(may(&copies, "power-loss", Anomaly::LostWrite), "of every copy");
        assert!(!may(&Settings { flush: Flush::Ack, ..copies }, "power-loss", Anomaly::LostWrite));
        assert!(may(&Settings { acks: 1, ..copies }, "isolate", Anomaly::LostWrite));
        assert!(!may(&copies, "isolate", Anomaly::LostWrite));
    }

    #[test]
    fn rows_without_reason_or_unknown_conditions_are_refused() {
        let row = |reason: &str, when: &str| {
            format!("[[row]]\nname=\"r\"\nallows=[\"ghost\"]\nreason=\"{reason}\"\nsource=\"s\"\n[row.when]\n{when}")
        };
        assert!(Matrix::parse(&row("because", "")).is_ok());
        assert!(matches!(Matrix::parse(&row("", "")), Err(MatrixError::Incomplete { lacks: "reason", .. })));
        assert!(matches!(Matrix::parse(&row("because", "moon = 1")), Err(MatrixError::Malformed(_))));
    }

    #[test]
    fn the_table_shows_what_settings_allow() {
        let strict = Settings { flush: Flush::Ack, acks: -1, idempotent: true, in_flight: 5, attempts: 10, ..SINGLE };
        let has = |settings: &Settings, anomaly, under: &str| {
            Matrix::standard().table(settings).iter().any(|row| row.anomaly == anomaly && row.under == under)
        };
        assert!(!has(&strict, Anomaly::LostWrite, "power-loss"));
        assert!(has(&Settings { flush: Flush::Os, ..strict }, Anomaly::LostWrite, "power-loss"));
        assert!(has(&Settings { idempotent: false, ..strict }, Anomaly::Duplicate, "a retry"));
        assert!(!has(&Settings { idempotent: false, attempts: 1, ..strict }, Anomaly::Duplicate, "a retry"));
    }

    #[test]
    fn names_are_the_serialised_ones() {
        for anomaly in Anomaly::ALL {
            assert_eq!(serde_json::to_string(&anomaly).unwrap(), format!("\"{anomaly}\""));
        }
    }
}
