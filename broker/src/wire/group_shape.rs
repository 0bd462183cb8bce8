//! The shapes of the calls about consumer groups; see `shape` for what a shape is for.

use super::shape::{
    BOOLEAN, INT32, INT32_ARRAY, INT64, Kind, MessageShape, StructShape, UUID, always, plain, since, until,
};

static JOIN_PROTOCOL: StructShape = plain(&[always(Kind::Text), always(Kind::Blob)]);
static JOIN_BODY: StructShape = plain(&[
    always(Kind::Text),
    always(INT32),
    since(1, INT32),
    always(Kind::Text),
    since(5, Kind::Text),
    always(Kind::Text),
    always(Kind::Array(&JOIN_PROTOCOL)),
    since(8, Kind::Text),
]);
/// JoinGroup's body.
pub(super) const JOIN_GROUP: MessageShape = MessageShape { body: &JOIN_BODY, flexible_from: 6 };

static SYNC_ASSIGNMENT: StructShape = plain(&[always(Kind::Text), always(Kind::Blob)]);
static SYNC_BODY: StructShape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(Kind::Text),
    since(3, Kind::Text),
    since(5, Kind::Text),
    since(5, Kind::Text),
    always(Kind::Array(&SYNC_ASSIGNMENT)),
]);
/// SyncGroup's body.
pub(super) const SYNC_GROUP: MessageShape = MessageShape { body: &SYNC_BODY, flexible_from: 4 };

static HEARTBEAT_BODY: StructShape =
    plain(&[always(Kind::Text), always(INT32), always(Kind::Text), since(3, Kind::Text)]);
/// Heartbeat's body.
pub(super) const HEARTBEAT: MessageShape = MessageShape { body: &HEARTBEAT_BODY, flexible_from: 4 };

static LEAVE_MEMBER: StructShape = plain(&[always(Kind::Text), always(Kind::Text), since(5, Kind::Text)]);
static LEAVE_BODY: StructShape =
    plain(&[always(Kind::Text), until(2, Kind::Text), since(3, Kind::Array(&LEAVE_MEMBER))]);
/// LeaveGroup's body.
pub(super) const LEAVE_GROUP: MessageShape = MessageShape { body: &LEAVE_BODY, flexible_from: 4 };

static COMMIT_PARTITION: StructShape = plain(&[always(INT32), always(INT64), since(6, INT32), always(Kind::Text)]);
static COMMIT_TOPIC: StructShape = plain(&[always(Kind::Text), always(Kind::Array(&COMMIT_PARTITION))]);
static COMMIT_BODY: StructShape = plain(&[
    always(Kind::Text),
    always(INT32),
    always(Kind::Text),
    since(7, Kind::Text),
    until(4, INT64),
    always(Kind::Array(&COMMIT_TOPIC)),
]);
/// OffsetCommit's body.
pub(super) const OFFSET_COMMIT: MessageShape = MessageShape { body: &COMMIT_BODY, flexible_from: 8 };

static FETCH_TOPIC: StructShape = plain(&[always(Kind::Text), always(INT32_ARRAY)]);
static FETCH_GROUP: StructShape =
    plain(&[always(Kind::Text), since(9, Kind::Text), since(9, INT32), always(Kind::Array(&FETCH_TOPIC))]);
static FETCH_BODY: StructShape = plain(&[
    until(7, Kind::Text),
    until(7, Kind::Array(&FETCH_TOPIC)),
    since(8, Kind::Array(&FETCH_GROUP)),
    since(7, BOOLEAN),
]);
/// OffsetFetch's body.
pub(super) const OFFSET_FETCH: MessageShape = MessageShape { body: &FETCH_BODY, flexible_from: 6 };

static DELETE_OFFSETS_TOPIC: StructShape = plain(&[always(Kind::Text), always(INT32_ARRAY)]);
static DELETE_OFFSETS_BODY: StructShape = plain(&[always(Kind::Text), always(Kind::Array(&DELETE_OFFSETS_TOPIC))]);
/// OffsetDelete's body.
pub(super) const OFFSET_DELETE: MessageShape = MessageShape { body: &DELETE_OFFSETS_BODY, flexible_from: i16::MAX };

static LIST_BODY: StructShape = plain(&[since(4, Kind::TextArray), since(5, Kind::TextArray)]);
/// ListGroups' body.
pub(super) const LIST_GROUPS: MessageShape = MessageShape { body: &LIST_BODY, flexible_from: 3 };

static DESCRIBE_BODY: StructShape = plain(&[always(Kind::TextArray), since(3, BOOLEAN)]);
/// DescribeGroups' body.
pub(super) const DESCRIBE_GROUPS: MessageShape = MessageShape { body: &DESCRIBE_BODY, flexible_from: 5 };

static DELETE_BODY: StructShape = plain(&[always(Kind::TextArray)]);
/// DeleteGroups' body.
pub(super) const DELETE_GROUPS: MessageShape = MessageShape { body: &DELETE_BODY, flexible_from: 2 };

static BEAT_TOPIC: StructShape = plain(&[always(UUID), always(INT32_ARRAY)]);
static BEAT_BODY: StructShape = plain(&[
    always(Kind::Text),
    always(Kind::Text),
    always(INT32),
    always(Kind::Text),
    always(Kind::Text),
    always(INT32),
    always(Kind::TextArray),
    since(1, Kind::Text),
    always(Kind::Text),
    always(Kind::Array(&BEAT_TOPIC)),
]);
/// ConsumerGroupHeartbeat's body.
pub(super) const CONSUMER_GROUP_HEARTBEAT: MessageShape = MessageShape { body: &BEAT_BODY, flexible_from: 0 };

static DESCRIBE_CONSUMER_BODY: StructShape = plain(&[always(Kind::TextArray), always(BOOLEAN)]);
/// ConsumerGroupDescribe's body.
pub(super) const CONSUMER_GROUP_DESCRIBE: MessageShape =
    MessageShape { body: &DESCRIBE_CONSUMER_BODY, flexible_from: 0 };
