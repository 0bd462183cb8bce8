//! The checkpoint of leader epochs, on a disk that loses its power.

use std::time::Duration;

use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use super::wire::{Produced, Wire, done, name};
use super::{BugError, Shown, Stand};
use crate::process::disk::Command;
use crate::systems::SystemError;

/// The queue gets several epochs by restarts, DeleteRecords drops the first of them and so replaces the checkpoint, and the
/// power goes. What survives is drawn, so several power losses are tried.
pub(super) fn unsynced_epochs(stand: &mut Stand) -> Result<Shown, BugError> {
    let topic = "unsynced-epochs";
    let mut wire = Wire::open(stand.address())?;
    wire.create_topic(topic)?;
    let mut steps = Vec::new();
    for salt in 0..ATTEMPTS {
        let plain = Produced { topic, value: "a record", transactional_id: None, sequence: None };
        wire.append(&plain, PRODUCE)?;
        stand.kill()?;
        stand.restart()?;
        wire = Wire::open(stand.address())?;
        wire.append(&plain, PRODUCE)?;
        tell(stand, &Command::Settle)?;
        let (end, _) = wire.ends(topic)?;
        let all_but_one = DeleteRecordsPartition::default().with_partition_index(0).with_offset(end - 1);
        let of_topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![all_but_one]);
        let request = DeleteRecordsRequest::default().with_topics(vec![of_topic]).with_timeout_ms(10_000);
        let answer = wire.call(&request, 2)?;
        let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
        done("DeleteRecords", partition.map_or(0, |partition| partition.error_code))?;
        // By now any sync that is made in the background is over, and names are committed.
        std::thread::sleep(SYNCED_BY);
        stand.kill()?;
        tell(stand, &Command::PowerLoss { salt })?;
        let again = stand.restart();
        let log = stand.log()?;
        let malformed = log.lines().filter(|line| line.contains("leader-epoch-checkpoint")).find(|line| {
            line.contains("Malformed") || line.contains("error") || line.contains("ERROR") || line.contains("Exception")
        });
        let came_back = match &again {
            Ok(()) => "the broker serves again".to_owned(),
            Err(SystemError::Ended { .. }) => "the broker ends by itself".to_owned(),
            Err(error) => error.to_string(),
        };
        steps.push(format!("power loss {salt} after DeleteRecords up to {}: {came_back}", end - 1));
        if let Some(line) = malformed {
            steps.push(format!("its log: {}", line.trim()));
            return Ok(Shown { is_there: true, steps });
        }
        again?;
        wire = Wire::open(stand.address())?;
    }
    Ok(Shown { is_there: false, steps })
}

fn tell(stand: &mut Stand, command: &Command) -> Result<(), BugError> {
    if let Some(disk) = &mut stand.disk {
        disk.tell(command)?;
    }
    Ok(())
}

const PRODUCE: i16 = 9;
const ATTEMPTS: u64 = 6;
const SYNCED_BY: Duration = Duration::from_secs(6);
