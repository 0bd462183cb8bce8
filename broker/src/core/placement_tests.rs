//! Tests of election: scripts of records over three brokers, and the placement that each leaves.

use super::*;
use crate::core::config::NodeConfig;
use crate::core::metadata::{Applied, Metadata, MetadataRecord, Refusal};
use crate::core::settings::TopicSettings;
use crate::core::types::LogId;

/// A cluster with a topic of one queue on brokers 0, 1, 2, and a script's view of it.
struct Cluster {
    state: Metadata,
    incarnation: u64,
}

impl Cluster {
    fn new(change: impl FnOnce(&mut LogClass), mutant: Option<Mutant>) -> Cluster {
        let mut cluster = Cluster { state: Metadata::new(), incarnation: 0 };
        cluster.state.set_mutant(mutant);
        (0..4).for_each(|id| cluster.join(id, DataFound::Nothing));
        let mut settings: TopicSettings = NodeConfig::tiny().topic;
        settings.class.min_insync_replicas = 2;
        change(&mut settings.class);
        cluster.state.apply(MetadataRecord::TopicCreated {
            name: "t".to_owned(),
            partitions: 1,
            settings,
            overrides: BTreeMap::new(),
            replication: 3,
            assignments: vec![vec![0, 1, 2]],
        });
        cluster
    }

    fn register(&mut self, id: i32, found: DataFound) {
        self.incarnation += 1;
        let host = format!("node-{id}");
        let incarnation = self.incarnation;
        self.state.apply(MetadataRecord::BrokerRegistered { id, incarnation, host, port: 9092, found });
    }

    fn unfence(&mut self, id: i32) {
        let epoch = self.epoch(id);
        self.state.apply(MetadataRecord::BrokerUnfenced { id, epoch });
    }

    fn join(&mut self, id: i32, found: DataFound) {
        self.register(id, found);
        self.unfence(id);
    }

    fn fence(&mut self, id: i32) {
        let epoch = self.epoch(id);
        self.state.apply(MetadataRecord::BrokerFenced { id, epoch });
    }

    fn epoch(&self, id: i32) -> i64 {
        self.state.broker(NodeId(id)).expect("it is registered").epoch
    }

    fn isr(&mut self, ids: &[i32]) -> Applied {
        let isr = ids.iter().map(|id| (*id, self.epoch(*id))).collect();
        let (leader_epoch, partition_epoch) = (self.placement().leader_epoch, self.placement().partition_epoch);
        self.state.apply(MetadataRecord::IsrChanged { log: 1, leader_epoch, partition_epoch, isr })
    }

    fn placement(&self) -> &Placement {
        self.state.placement(LogId(1)).expect("the topic's log is the first")
    }

    #[track_caller]
    fn expect(&self, leader: Option<i32>, isr: &[i32], elr: &[i32]) {
        let placement = self.placement();
        assert_eq!((placement.leader, &placement.isr[..], &placement.elr[..]), (leader, isr, elr));
    }
}

#[test]
fn a_fenced_leader_is_replaced_from_the_in_sync_set_and_epochs_count() {
    let mut cluster = Cluster::new(|_| {}, None);
    cluster.expect(Some(0), &[0, 1, 2], &[]);
    cluster.fence(0);
    cluster.expect(Some(1), &[1, 2], &[]);
    assert_eq!((cluster.placement().leader_epoch, cluster.placement().partition_epoch), (1, 1));
    cluster.unfence(0);
    cluster.expect(Some(1), &[1, 2], &[]);
    assert_eq!(cluster.isr(&[0, 1, 2]), Applied::Placements(vec![LogId(1)]));
    assert_eq!((cluster.placement().leader_epoch, cluster.placement().partition_epoch), (1, 2));
    let applied = cluster.state.apply(MetadataRecord::LeaderPreferred { log: 1, unclean: false });
    assert_eq!(applied, Applied::Placements(vec![LogId(1)]));
    cluster.expect(Some(0), &[0, 1, 2], &[]);
}

#[test]
fn below_the_minimum_those_who_leave_stay_eligible() {
    let mut cluster = Cluster::new(|_| {}, None);
    cluster.isr(&[0, 2]);
    cluster.expect(Some(0), &[0, 2], &[]);
    cluster.isr(&[0]);
    cluster.expect(Some(0), &[0], &[2]);
    cluster.fence(0);
    cluster.expect(Some(2), &[2], &[0]);
    cluster.unfence(0);
    cluster.isr(&[0, 2]);
    cluster.expect(Some(2), &[0, 2], &[]);
}

#[test]
fn nobody_leads_until_one_who_may_comes_back() {
    let mut cluster = Cluster::new(|_| {}, None);
    cluster.fence(1);
    cluster.fence(2);
    cluster.fence(0);
    cluster.expect(None, &[], &[0, 2]);
    cluster.unfence(1);
    cluster.expect(None, &[], &[0, 2]);
    cluster.unfence(2);
    cluster.expect(Some(2), &[2], &[0]);
}

#[test]
fn an_unclean_restart_costs_membership_where_confirmed_is_not_durable() {
    for (flush, isr, elr) in [(FlushMode::Ack, &[1][..], &[0][..]), (FlushMode::Os, &[1], &[])] {
        let mut cluster = Cluster::new(|class| class.flush = flush, None);
        cluster.isr(&[0, 1]);
        cluster.register(0, DataFound::Unclean);
        cluster.expect(Some(1), isr, elr);
    }
    let mut cluster = Cluster::new(|_| {}, None);
    cluster.isr(&[0, 1]);
    cluster.register(0, DataFound::Nothing);
    cluster.expect(Some(1), &[1], &[]);
}

#[test]
fn the_last_replica_standing_leads_again_when_all_have_lost() {
    let mut cluster = Cluster::new(|class| class.flush = FlushMode::Os, None);
    cluster.isr(&[0, 1]);
    cluster.register(1, DataFound::Unclean);
    cluster.register(0, DataFound::Unclean);
    cluster.expect(None, &[], &[]);
    cluster.unfence(1);
    cluster.expect(None, &[], &[]);
    cluster.unfence(0);
    cluster.expect(Some(0), &[0], &[]);
}

#[test]
fn unclean_election_is_a_setting_and_a_defect() {
    for (allowed, mutant, leader) in
        [(false, None, None), (true, None, Some(1)), (false, Some(Mutant::UncleanElection), Some(1))]
    {
        let mut cluster = Cluster::new(
            |class| {
                class.unclean_election = allowed;
                class.min_insync_replicas = 1;
            },
            mutant,
        );
        cluster.isr(&[0]);
        cluster.fence(0);
        assert_eq!(cluster.placement().leader, leader, "allowed {allowed}, {mutant:?}");
    }
}

#[test]
fn without_failover_only_the_same_leader_returns() {
    let mut cluster = Cluster::new(|class| class.failover = false, None);
    cluster.fence(0);
    cluster.expect(None, &[0, 1, 2], &[]);
    cluster.fence(2);
    cluster.expect(None, &[0, 1], &[]);
    cluster.register(0, DataFound::Unclean);
    cluster.expect(None, &[0, 1], &[]);
    cluster.unfence(0);
    cluster.expect(Some(0), &[0, 1], &[]);
}

#[test]
fn in_sync_sets_with_stale_or_ineligible_members_are_refused() {
    let mut cluster = Cluster::new(|_| {}, None);
    cluster.isr(&[0, 1]);
    let stale = cluster.epoch(2);
    cluster.join(2, DataFound::Clean);
    let placement = cluster.placement().clone();
    let change = |leader_epoch, partition_epoch, isr: &[(i32, i64)]| MetadataRecord::IsrChanged {
        log: 1,
        leader_epoch,
        partition_epoch,
        isr: isr.to_vec(),
    };
    let (zero, one, two) = ((0, cluster.epoch(0)), (1, cluster.epoch(1)), (2, cluster.epoch(2)));
    let epochs = (placement.leader_epoch, placement.partition_epoch);
    let cases = [
        (change(epochs.0 + 1, epochs.1, &[zero, one]), Refusal::FencedLeaderEpoch),
        (change(epochs.0, epochs.1 - 1, &[zero, one]), Refusal::StalePartitionEpoch),
        (change(epochs.0, epochs.1, &[zero, one, (2, stale)]), Refusal::StaleBrokerEpoch),
        (change(epochs.0, epochs.1, &[one, two]), Refusal::IneligibleReplica),
        (change(epochs.0, epochs.1, &[zero, (3, cluster.epoch(3))]), Refusal::IneligibleReplica),
    ];
    for (record, refusal) in cases {
        assert_eq!(cluster.state.apply(record), Applied::Refused(refusal));
    }
    cluster.state.apply(MetadataRecord::BrokerShuttingDown { id: 2, epoch: two.1 });
    assert_eq!(cluster.isr(&[0, 1, 2]), Applied::Refused(Refusal::IneligibleReplica));
    assert_eq!(cluster.placement(), &placement);
}

#[test]
fn the_defects_let_in_whom_the_rules_keep_out() {
    let mut cluster = Cluster::new(|_| {}, Some(Mutant::FencedReplicaRejoins));
    cluster.fence(2);
    assert_eq!(cluster.isr(&[0, 1, 2]), Applied::Placements(vec![LogId(1)]));
    cluster.join(2, DataFound::Nothing);
    cluster.expect(Some(0), &[0, 1, 2], &[]);

    let mut cluster = Cluster::new(|class| class.flush = FlushMode::Os, Some(Mutant::LastReplicaKeptInSync));
    cluster.isr(&[0, 1]);
    cluster.isr(&[0]);
    cluster.register(0, DataFound::Unclean);
    cluster.expect(None, &[0], &[1]);
}

#[test]
fn a_move_ends_when_all_wanted_are_in_sync_and_can_be_given_up() {
    let mut cluster = Cluster::new(|_| {}, None);
    let wanted = || MetadataRecord::Reassigned { log: 1, replicas: Some(vec![3, 2]) };
    cluster.state.apply(wanted());
    assert_eq!(cluster.placement().replicas, [3, 2, 0, 1]);
    assert_eq!(cluster.placement().moving(), (vec![3], vec![0, 1]));
    cluster.state.apply(MetadataRecord::Reassigned { log: 1, replicas: None });
    assert_eq!(cluster.placement().replicas, [0, 1, 2]);
    cluster.state.apply(wanted());
    cluster.isr(&[0, 1, 2, 3]);
    assert_eq!(cluster.placement().replicas, [3, 2]);
    assert_eq!(cluster.placement().reassignment, None);
    cluster.expect(Some(3), &[3, 2], &[]);
    let again = cluster.state.apply(MetadataRecord::Reassigned { log: 1, replicas: None });
    assert_eq!(again, Applied::Refused(Refusal::NoReassignment));
}

#[test]
fn queues_spread_over_the_brokers_and_share_logs_by_replicas() {
    let mut state = Cluster::new(|_| {}, None).state;
    let settings = NodeConfig::tiny().topic;
    let record = |name: &str, replication| MetadataRecord::TopicCreated {
        name: name.to_owned(),
        partitions: 8,
        settings: settings.clone(),
        overrides: BTreeMap::new(),
        replication,
        assignments: Vec::new(),
    };
    state.apply(record("u", 2));
    let topic = state.topic("u").expect("it was created");
    let logs: Vec<u64> = topic.partitions.iter().map(|partition| partition.log().0).collect();
    assert_eq!(logs, [2, 3, 4, 5, 2, 3, 4, 5]);
    let leaders: Vec<Option<i32>> =
        (2..6).map(|log| state.placement(LogId(log)).expect("it was placed").leader).collect();
    assert_eq!(leaders, [Some(2), Some(3), Some(0), Some(1)]);
    assert_eq!(state.apply(record("v", 5)), Applied::Refused(Refusal::NotEnoughBrokers));
}
