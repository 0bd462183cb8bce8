//! JoinGroup and ConsumerGroupHeartbeat as they come, checked as far as it can be without its group.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, JoinGroupRequest};

use super::answer::GroupAnswer;
use super::classic_join::Join;
use super::consumer_heartbeat::Beat;
use super::coordinator::Call;
use super::settings::GroupSettings;

/// The call that a JoinGroup is, or its refusal.
pub(in crate::core) fn join_call(
    version: i16,
    client_id: &str,
    request: JoinGroupRequest,
    settings: &GroupSettings,
) -> Result<Call, Box<GroupAnswer>> {
    let member = request.member_id.to_string();
    let milliseconds = |ms: i32| u64::try_from(ms).ok().map(Duration::from_millis);
    let refused = |error| Box::new(GroupAnswer::join_refused(&member, error));
    let session_timeout = milliseconds(request.session_timeout_ms)
        .filter(|timeout| (settings.session_timeout_min..=settings.session_timeout_max).contains(timeout))
        .ok_or_else(|| refused(ResponseError::InvalidSessionTimeout))?;
    if request.group_id.is_empty() {
        return Err(refused(ResponseError::InvalidGroupId));
    }
    let rebalance_timeout = if version == 0 { None } else { milliseconds(request.rebalance_timeout_ms) };
    let protocols = request.protocols.into_iter().map(|protocol| (protocol.name.to_string(), protocol.metadata));
    let join = Join {
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        client_id: client_id.to_owned(),
        session_timeout,
        rebalance_timeout: rebalance_timeout.unwrap_or(session_timeout),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        needs_id: version >= 4,
        can_skip_assignment: version >= 9,
        member,
    };
    Ok(Call::Join { group: request.group_id.to_string(), join: Box::new(join) })
}

/// The call that a ConsumerGroupHeartbeat is, or its refusal.
pub(in crate::core) fn beat_call(
    version: i16,
    client_id: &str,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<Call, Box<GroupAnswer>> {
    let group = request.group_id.to_string();
    match Beat::new(version, client_id, request) {
        Ok(beat) => Ok(Call::Beat { group, beat: Box::new(beat) }),
        Err((error, message)) => Err(Box::new(GroupAnswer::beat_refused(error, message))),
    }
}
