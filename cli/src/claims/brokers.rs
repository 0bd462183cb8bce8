//! Experiments of the ledger on whole brokers through their own client libraries: competing consumers, where messages lie on
//! the disk, and features beside plain queues. Not here: the experiments themselves (`benches::practice::compete`,
//! `benches::placement`, `benches::features`).

use mqassay_benches::features::{self, Feature};
use mqassay_benches::plan::LoadPlan;
use mqassay_benches::practice::compete;
use mqassay_benches::prepare::{self, Prepared};
use mqassay_benches::{SystemTarget, placement};

use super::experiments::Gathered;
use crate::exit::{Exit, Failure};

/// The system as `systems up` left it, or a reference broker that ends with the value; its version is noted.
fn prepared(name: &str, gathered: &mut Gathered) -> Result<(Prepared, SystemTarget), Failure> {
    let executable = std::env::current_exe().map_err(Failure::undone)?;
    let plan = LoadPlan::named("claim-one-consumer").map_err(Failure::usage)?;
    let systems = [name.to_owned()];
    let prepared = prepare::prepare(&plan, &systems, &executable, &std::env::temp_dir()).map_err(Failure::undone)?;
    let Some(target) = prepared.targets.first().cloned() else {
        let reason = prepared.missing.first().map_or("it is not there", |(_, reason)| reason.as_str());
        return Err(Failure::Undone(anyhow::anyhow!("{reason}")));
    };
    gathered.manifest.insert(format!("{name} version"), target.version.clone());
    Ok((prepared, target))
}

pub(super) fn compete_on(name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    let (_running, target) = prepared(name, gathered)?;
    let found = compete::run(&target, CONSUMERS).map_err(Failure::undone)?;
    gathered.count("compete", name, "messages_lost", found.lost as f64);
    gathered.count("compete", name, "messages_repeated", found.repeated as f64);
    gathered.count("compete", name, "consumers_busy", f64::from(found.busy));
    let is_exact = found.lost == 0 && found.repeated == 0;
    gathered.verdict("compete", name, if is_exact { Exit::Valid } else { Exit::Violation }, found.sent);
    Ok(())
}

pub(super) fn placement_on(name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    for queues in PLACED_QUEUES {
        eprintln!("{name} with {queues} queues");
        let (_running, target) = prepared(name, gathered)?;
        let found = placement::run(&target, queues).map_err(Failure::undone)?;
        let plan = format!("placement/{queues}-queues");
        let (messages, queues) = (found.messages as f64, f64::from(queues));
        let figures = [
            ("log_bytes_per_message", found.log_bytes_per_message.unwrap_or(f64::NAN)),
            ("index_bytes_per_message", found.index_bytes as f64 / messages),
            ("copies_per_message", found.found as f64 / messages),
            ("files_with_messages", found.files as f64),
            ("writes_elsewhere_share", found.elsewhere as f64 / (messages - 1.0)),
            ("broker_disk_bytes_per_queue", found.topic_disk_bytes as f64 / queues),
            ("broker_resident_bytes_per_queue", found.topic_resident_bytes as f64 / queues),
            ("broker_resident_bytes_per_message", found.resident_bytes as f64 / messages),
        ];
        for (metric, value) in figures.into_iter().filter(|(_, value)| value.is_finite()) {
            gathered.count(&plan, name, metric, value);
        }
        // What is found twice or not at all is a figure of the claim; every message was acknowledged.
        gathered.verdict(&plan, name, Exit::Valid, found.messages);
    }
    Ok(())
}

pub(super) fn features_on(name: &str, gathered: &mut Gathered) -> Result<(), Failure> {
    let (_running, target) = prepared(name, gathered)?;
    for feature in Feature::ALL {
        let plan = format!("features/{}", feature.name());
        let found = match features::run(&target, feature) {
            Ok(found) => found,
            // The other features can be tried all the same.
            Err(error) => {
                gathered.result(&plan).remarks.push(format!("{name}: {error}"));
                continue;
            }
        };
        eprintln!("{name} {}: {}, {}", feature.name(), if found.works { "works" } else { "does not" }, found.told);
        gathered.count(&plan, name, "feature_works", f64::from(u8::from(found.works)));
        gathered.verdict(&plan, name, Exit::Valid, 0);
        gathered.result(&plan).remarks.push(format!("{name}: {}", found.told));
    }
    Ok(())
}

const CONSUMERS: u32 = 4;
/// Few queues, whose indexes fill whole pages, and many.
const PLACED_QUEUES: [u32; 2] = [2, 1_024];
