//! AlterConfigs (0 to 2) and IncrementalAlterConfigs (0 to 1), answered per resource.
//! Departures from Kafka: only topics' settings can be altered; in the shared layout those by which topics share a log
//! (and in both the layout itself) are fixed at creation.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::incremental_alter_configs_response;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::admin::{AdminAnswer, AdminCall, AdminSlot};
use super::machine::{Core, Effects, RequestId};
use super::metadata::{MetadataRecord, Topic};
use super::settings::{Layout, SettingError, TopicSetting};
use super::topics::ONE_REPLICA;
use super::types::Now;
use crate::wire::request::RequestHeader;
use crate::wire::response::Response;

/// New values of settings by name; none goes back to the default.
type Changes = BTreeMap<String, Option<String>>;

/// Why settings stay as they are.
type Refused = (ResponseError, String);

impl Core {
    pub(super) fn alter_configs(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: AlterConfigsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut response = AlterConfigsResponse::default();
        let mut outstanding = 0;
        for (outer, resource) in request.resources.iter().enumerate() {
            let name = resource.resource_name.to_string();
            let changes = self.altered_topic(resource.resource_type, &name).map(|topic| {
                // What the call does not name goes back to its default.
                let mut changes: Changes = topic.overrides.keys().map(|key| (key.clone(), None)).collect();
                changes.extend(
                    resource.configs.iter().map(|c| (c.name.to_string(), c.value.as_ref().map(|v| v.to_string()))),
                );
                changes
            });
            let slot = AdminSlot { id, outer, inner: 0 };
            let altered = changes.and_then(|c| self.alter_topic(&name, c, request.validate_only, slot, now, effects));
            outstanding += usize::from(altered == Ok(true));
            let (error_code, error_message) = described(altered);
            response.responses.push(
                AlterConfigsResourceResponse::default()
                    .with_error_code(error_code)
                    .with_error_message(error_message)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone()),
            );
        }
        let answer = AdminAnswer::Response(Response::AlterConfigs(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    pub(super) fn incremental_alter_configs(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: IncrementalAlterConfigsRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut response = IncrementalAlterConfigsResponse::default();
        let mut outstanding = 0;
        for (outer, resource) in request.resources.iter().enumerate() {
            let name = resource.resource_name.to_string();
            let changes = self
                .altered_topic(resource.resource_type, &name)
                .and_then(|topic| resource.configs.iter().map(|config| change(topic, config)).collect());
            let slot = AdminSlot { id, outer, inner: 0 };
            let altered = changes.and_then(|c| self.alter_topic(&name, c, request.validate_only, slot, now, effects));
            outstanding += usize::from(altered == Ok(true));
            let (error_code, error_message) = described(altered);
            response.responses.push(
                incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                    .with_error_code(error_code)
                    .with_error_message(error_message)
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name.clone()),
            );
        }
        let answer = AdminAnswer::Response(Response::IncrementalAlterConfigs(response));
        self.keep_or_answer_admin(id, AdminCall { header, answer, outstanding }, effects);
    }

    fn altered_topic(&self, resource_type: i8, name: &str) -> Result<&Topic, Refused> {
        if resource_type != RESOURCE_TOPIC {
            let message = "only topics' settings (2) can be altered; a broker's are given at its start";
            return Err((ResponseError::InvalidRequest, message.to_owned()));
        }
        let unknown = || (ResponseError::UnknownTopicOrPartition, "there is no such topic".to_owned());
        self.metadata.topic(name).ok_or_else(unknown)
    }

    /// Whether a record was submitted.
    fn alter_topic(
        &mut self,
        name: &str,
        changes: Changes,
        validate_only: bool,
        slot: AdminSlot,
        now: Now,
        effects: &mut Effects,
    ) -> Result<bool, Refused> {
        let invalid = |message: String| (ResponseError::InvalidConfig, message);
        let topic = self.altered_topic(RESOURCE_TOPIC, name)?;
        let mut values = BTreeMap::new();
        for (key, value) in &changes {
            let setting =
                TopicSetting::from_name(key).ok_or_else(|| invalid(format!("unknown topic config `{key}`")))?;
            values.insert(key.clone(), value.clone().unwrap_or_else(|| self.config.topic.value(setting)));
        }
        let settings = topic.settings.with_overrides(&values).map_err(|error| invalid(error.to_string()))?;
        if settings.class.cleanup.compact && topic.settings.layout == Layout::Shared {
            return Err(invalid(SettingError::SharedCompaction.to_string()));
        }
        if settings.class.cleanup.compact && !self.metadata.has_one_replica_each(topic) {
            return Err(invalid(ONE_REPLICA.to_owned()));
        }
        if topic.settings.class.cleanup.compact && !settings.class.cleanup.compact {
            return Err(invalid("a topic that was compacted stays so; `compact,delete` also deletes".to_owned()));
        }
        if settings.layout != topic.settings.layout {
            return Err(invalid("mqassay.layout is fixed at the topic's creation".to_owned()));
        }
        if settings.layout == Layout::Shared && settings.class != topic.settings.class {
            let message = "the topic shares its log with others by this setting; it is fixed at the topic's creation";
            return Err(invalid(message.to_owned()));
        }
        if validate_only {
            return Ok(false);
        }
        let defaults = self.config.topic.clone();
        let record = MetadataRecord::ConfigChanged { name: name.to_owned(), defaults, changes };
        let submitted = self.submit(record, Some(slot), now, effects);
        submitted.map(|()| true).map_err(|error| (error, "the change could not be recorded".to_owned()))
    }
}

/// What an operation on a setting makes of it: 0 sets, 1 deletes, 2 appends to a list, 3 takes from one.
fn change(topic: &Topic, config: &AlterableConfig) -> Result<(String, Option<String>), Refused> {
    let name = config.name.to_string();
    let invalid = |message: String| (ResponseError::InvalidConfig, message);
    let value = || {
        let value = config.value.as_ref().map(|value| value.to_string());
        value.ok_or_else(|| invalid(format!("{name}: a value is needed")))
    };
    let new = match config.config_operation {
        0 => Some(value()?),
        1 => None,
        operation @ (2 | 3) => {
            let setting = TopicSetting::from_name(&name).filter(|setting| setting.type_number() == TYPE_LIST);
            let setting = setting.ok_or_else(|| invalid(format!("{name} is not a list")))?;
            let current = topic.settings.value(setting);
            let mut items: Vec<&str> = current.split(',').filter(|item| !item.is_empty()).collect();
            let given = value()?;
            for item in given.split(',') {
                items.retain(|known| *known != item);
                if operation == 2 {
                    items.push(item);
                }
            }
            Some(items.join(","))
        }
        operation => return Err((ResponseError::InvalidRequest, format!("there is no operation {operation}"))),
    };
    Ok((name, new))
}

fn described(altered: Result<bool, Refused>) -> (i16, Option<StrBytes>) {
    match altered {
        Ok(_) => (0, None),
        Err((error, message)) => (error.code(), Some(StrBytes::from_string(message))),
    }
}

const RESOURCE_TOPIC: i8 = 2;
const TYPE_LIST: i8 = 7;
