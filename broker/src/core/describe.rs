//! What the broker says about itself: ApiVersions (0 to 4), Metadata (0 to 13), DescribeConfigs (1 to 4) and
//! DescribeCluster (0 to 2).
//! Departures from Kafka: a topic that Metadata creates is answered once it exists, not with an error first.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::{AdminAnswer, AdminCall, AdminSlot};
use super::authorized;
use super::config::{KEYS, NodeConfig};
use super::machine::{Core, Effects, RequestId};
use super::metadata::Topic;
use super::settings::TopicSetting;
use super::types::{NodeId, Now};
use crate::wire::api::Api;
use crate::wire::request::RequestHeader;

impl Core {
    pub(super) fn api_versions(&self, is_known_version: bool) -> ApiVersionsResponse {
        let keys = Api::ALL.map(|api| {
            ApiVersion::default()
                .with_api_key(api.key())
                .with_min_version(api.version_minimum_listed())
                .with_max_version(api.version_maximum())
        });
        let error = if is_known_version { 0 } else { ResponseError::UnsupportedVersion.code() };
        ApiVersionsResponse::default().with_error_code(error).with_api_keys(keys.into())
    }

    pub(super) fn describe_topics(
        &mut self,
        id: RequestId,
        header: RequestHeader,
        request: MetadataRequest,
        now: Now,
        effects: &mut Effects,
    ) {
        let mut outstanding = 0;
        if self.config.auto_create_topics && request.allow_auto_topic_creation {
            for name in request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref()) {
                if self.metadata.topic(name).is_some() {
                    continue;
                }
                // A name that may not be a topic's, or a disk that is full, shows in the answer.
                let Ok(record) = self.creation_on_demand(name) else { continue };
                let slot = AdminSlot { id, outer: 0, inner: 0 };
                outstanding += usize::from(self.submit(record, Some(slot), now, effects).is_ok());
            }
        }
        let call = AdminCall { header, answer: AdminAnswer::Topics(request), outstanding };
        self.keep_or_answer_admin(id, call, effects);
    }

    pub(super) fn topics_response(&self, header: &RequestHeader, request: &MetadataRequest) -> MetadataResponse {
        let brokers = self.live_brokers().map(|(id, host, port)| {
            MetadataResponseBroker::default().with_node_id(BrokerId(id.0)).with_host(host).with_port(i32::from(port))
        });
        // In version 0 an empty list means all topics, later a null does.
        let wanted = request.topics.as_ref().filter(|topics| header.version > 0 || !topics.is_empty());
        let topics = match wanted {
            None => self.metadata.topics().map(|(name, topic)| self.describe_topic(name, topic)).collect::<Vec<_>>(),
            Some(topics) => topics.iter().map(|topic| self.describe_wanted(topic)).collect(),
        };
        let is_asked = request.include_topic_authorized_operations;
        let with_operations = |topic: MetadataResponseTopic| match topic.error_code {
            0 => topic.with_topic_authorized_operations(authorized::told(is_asked, authorized::TOPIC)),
            _ => topic,
        };
        let cluster = authorized::told(request.include_cluster_authorized_operations, authorized::CLUSTER);
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(self.cluster_name()))
            .with_controller_id(self.controller_id())
            .with_topics(topics.into_iter().map(with_operations).collect())
            .with_cluster_authorized_operations(cluster)
    }

    pub(super) fn describe_cluster(&self, request: &DescribeClusterRequest) -> DescribeClusterResponse {
        let brokers = self.live_brokers().map(|(id, host, port)| {
            DescribeClusterBroker::default().with_broker_id(BrokerId(id.0)).with_host(host).with_port(i32::from(port))
        });
        let operations = authorized::told(request.include_cluster_authorized_operations, authorized::CLUSTER);
        DescribeClusterResponse::default()
            .with_cluster_authorized_operations(operations)
            .with_cluster_id(self.cluster_name())
            .with_controller_id(self.controller_id())
            .with_brokers(brokers.collect())
    }

    pub(super) fn describe_configs(&self, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
        let results = request.resources.iter().map(|resource| {
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match self.describe_resource(resource) {
                Ok(mut configs) => {
                    if let Some(keys) = &resource.configuration_keys {
                        configs.retain(|config| keys.contains(&config.name));
                    }
                    if !request.include_synonyms {
                        configs.iter_mut().for_each(|config| config.synonyms.clear());
                    }
                    if !request.include_documentation {
                        configs.iter_mut().for_each(|config| config.documentation = None);
                    }
                    result.with_configs(configs)
                }
                Err((error, message)) => {
                    result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_static_str(message)))
                }
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn describe_resource(
        &self,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, (ResponseError, &'static str)> {
        match resource.resource_type {
            RESOURCE_TOPIC => {
                let topic = self.metadata.topic(&resource.resource_name);
                let topic = topic.ok_or((ResponseError::UnknownTopicOrPartition, "there is no such topic"))?;
                Ok(TopicSetting::ALL.map(|setting| self.describe_setting(topic, setting)).into())
            }
            RESOURCE_BROKER => {
                let name = &resource.resource_name;
                if !name.is_empty() && name.parse() != Ok(self.config.node_id) {
                    return Err((ResponseError::InvalidRequest, "this is another broker; ask that one"));
                }
                Ok(KEYS.map(|key| self.describe_key(key)).into())
            }
            _ => Err((ResponseError::InvalidRequest, "only topics (2) and brokers (4) have settings")),
        }
    }

    fn describe_setting(&self, topic: &Topic, setting: TopicSetting) -> DescribeConfigsResourceResult {
        let name = StrBytes::from_static_str(setting.name());
        let value = Some(StrBytes::from_string(topic.settings.value(setting)));
        let synonym = DescribeConfigsSynonym::default()
            .with_name(name.clone())
            .with_value(Some(StrBytes::from_string(self.config.topic.value(setting))))
            .with_source(SOURCE_DEFAULT);
        DescribeConfigsResourceResult::default()
            .with_name(name)
            .with_value(value)
            .with_read_only(setting == TopicSetting::Layout)
            .with_config_source(config_source(topic, setting))
            .with_synonyms(vec![synonym])
            .with_config_type(setting.type_number())
            .with_documentation(Some(StrBytes::from_static_str(setting.documentation())))
    }

    fn describe_key(&self, key: &'static str) -> DescribeConfigsResourceResult {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(key))
            .with_value(self.config.value(key).map(StrBytes::from_string))
            .with_read_only(true)
            .with_config_source(SOURCE_STATIC)
            .with_config_type(TYPE_STRING)
            .with_documentation(NodeConfig::documentation(key).map(StrBytes::from_static_str))
    }

    fn describe_wanted(&self, wanted: &MetadataRequestTopic) -> MetadataResponseTopic {
        let unknown = |error: ResponseError| {
            MetadataResponseTopic::default()
                .with_error_code(error.code())
                .with_name(wanted.name.clone())
                .with_topic_id(wanted.topic_id)
        };
        match &wanted.name {
            Some(name) => match self.metadata.topic(name) {
                Some(topic) => self.describe_topic(name, topic),
                None if self.creation_on_demand(name).is_err() => unknown(ResponseError::InvalidTopicException),
                None => unknown(ResponseError::UnknownTopicOrPartition),
            },
            None => {
                let name = self.metadata.name_of(wanted.topic_id.as_u128());
                match name.and_then(|name| Some((name, self.metadata.topic(name)?))) {
                    Some((name, topic)) => self.describe_topic(name, topic),
                    None => unknown(ResponseError::UnknownTopicId),
                }
            }
        }
    }

    fn describe_topic(&self, name: &str, topic: &Topic) -> MetadataResponseTopic {
        let ids = |ids: &[i32]| -> Vec<BrokerId> { ids.iter().copied().map(BrokerId).collect() };
        let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
            let answer = MetadataResponsePartition::default().with_partition_index(index as i32);
            let Some(placement) = self.metadata.placement(partition.log()) else { return answer };
            let is_dead = |id: &i32| self.metadata.broker(NodeId(*id)).is_none_or(|broker| broker.fenced);
            let offline: Vec<i32> = placement.replicas.iter().copied().filter(is_dead).collect();
            let error = if placement.leader.is_none() { ResponseError::LeaderNotAvailable.code() } else { 0 };
            answer
                .with_error_code(error)
                .with_leader_id(BrokerId(placement.leader.unwrap_or(-1)))
                .with_leader_epoch(placement.leader_epoch)
                .with_replica_nodes(ids(&placement.replicas))
                .with_isr_nodes(ids(&placement.isr))
                .with_offline_replicas(ids(&offline))
        });
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
            .with_topic_id(Uuid::from_u128(self.metadata.id_of(topic)))
            .with_is_internal(name == super::group::OFFSETS_TOPIC)
            .with_partitions(partitions.collect())
    }

    /// The brokers that clients may turn to: those that are not fenced, and this one.
    fn live_brokers(&self) -> impl Iterator<Item = (NodeId, StrBytes, u16)> {
        let own = NodeId(self.config.node_id);
        let own_host = StrBytes::from_string(self.advertised.host.clone());
        let known = self.metadata.brokers().filter(move |(id, broker)| !broker.fenced && *id != own);
        let others = known.map(|(id, broker)| (id, StrBytes::from_string(broker.host.clone()), broker.port));
        std::iter::once((own, own_host, self.advertised.port)).chain(others)
    }

    fn controller_id(&self) -> BrokerId {
        BrokerId(self.controller().map_or(-1, |id| id.0))
    }

    fn cluster_name(&self) -> StrBytes {
        StrBytes::from_string(format!("{:016x}", self.cluster))
    }
}

/// Where a topic's value comes from, as Kafka numbers it.
pub(super) fn config_source(topic: &Topic, setting: TopicSetting) -> i8 {
    if topic.overrides.contains_key(setting.name()) { SOURCE_TOPIC } else { SOURCE_DEFAULT }
}

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;
const TYPE_STRING: i8 = 2;
