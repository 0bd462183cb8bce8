//! What a coordinator answers, and how each answer says that it failed.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse,
    OffsetDeleteResponse, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::wire::response::Response;

/// An answer of a coordinator to one request.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::core) enum GroupAnswer {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    Commit(OffsetCommitResponse),
    DeleteOffsets(OffsetDeleteResponse),
    Beat(ConsumerGroupHeartbeatResponse),
}

impl GroupAnswer {
    /// The answer to JoinGroup that nothing came of it.
    pub(super) fn join_refused(member: &str, error: ResponseError) -> GroupAnswer {
        GroupAnswer::Join(
            JoinGroupResponse::default()
                .with_error_code(error.code())
                .with_generation_id(-1)
                .with_protocol_name(Some(StrBytes::default()))
                .with_member_id(text(member)),
        )
    }

    pub(super) fn sync_refused(error: ResponseError) -> GroupAnswer {
        GroupAnswer::Sync(SyncGroupResponse::default().with_error_code(error.code()))
    }

    pub(super) fn heartbeat(result: Result<(), ResponseError>) -> GroupAnswer {
        GroupAnswer::Heartbeat(HeartbeatResponse::default().with_error_code(result.err().map_or(0, |e| e.code())))
    }

    pub(in crate::core) fn beat_refused(error: ResponseError, message: &str) -> GroupAnswer {
        let answer = ConsumerGroupHeartbeatResponse::default().with_error_code(error.code());
        GroupAnswer::Beat(answer.with_error_message(Some(text(message))))
    }

    /// The same answer, but that what was asked did not happen.
    pub(super) fn refused(self, error: ResponseError) -> GroupAnswer {
        match self {
            GroupAnswer::Join(answer) => GroupAnswer::join_refused(&answer.member_id, error),
            GroupAnswer::Sync(_) => GroupAnswer::sync_refused(error),
            GroupAnswer::Heartbeat(_) => GroupAnswer::heartbeat(Err(error)),
            GroupAnswer::Leave(_) => GroupAnswer::Leave(LeaveGroupResponse::default().with_error_code(error.code())),
            GroupAnswer::Commit(mut answer) => {
                let partitions = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.filter(|p| p.error_code == 0).for_each(|p| p.error_code = error.code());
                GroupAnswer::Commit(answer)
            }
            GroupAnswer::Beat(_) => GroupAnswer::beat_refused(error, "the coordinator is no more; find it again"),
            GroupAnswer::DeleteOffsets(mut answer) => {
                let partitions = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.filter(|p| p.error_code == 0).for_each(|p| p.error_code = error.code());
                GroupAnswer::DeleteOffsets(answer)
            }
        }
    }

    pub(in crate::core) fn into_response(self) -> Response {
        match self {
            GroupAnswer::Join(answer) => Response::JoinGroup(answer),
            GroupAnswer::Sync(answer) => Response::SyncGroup(answer),
            GroupAnswer::Heartbeat(answer) => Response::Heartbeat(answer),
            GroupAnswer::Leave(answer) => Response::LeaveGroup(answer),
            GroupAnswer::Commit(answer) => Response::OffsetCommit(answer),
            GroupAnswer::DeleteOffsets(answer) => Response::OffsetDelete(answer),
            GroupAnswer::Beat(answer) => Response::ConsumerGroupHeartbeat(answer),
        }
    }
}

/// A string as messages have them.
pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
