//! Real partitions: each node in a network namespace of its own, all of them at one bridge in a namespace between, and
//! links ruled by nftables inside the nodes' namespaces. A cut here drops packets, as a broken cable does; nothing is reset,
//! and what was under way is sent again once the rule ends. Everything there is belongs to a namespace, so that deleting
//! these leaves nothing: on drop, and for owners that ended otherwise by `remove_stale`.
//! Start at `Namespaces::make`. Not here: links of a single client (`links`), programs in the namespaces (`enter`).

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::plan::{Endpoint, LinkRule};
use crate::systems::started_ticks;

/// The namespaces of a run's nodes. Dropping it removes them.
#[derive(Debug)]
pub struct Namespaces {
    /// What all their names begin with.
    prefix: String,
    subnet: [u8; 3],
    nodes: u32,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    active: BTreeMap<u64, Vec<Filter>>,
    next: u64,
}

/// One line of nftables: what is dropped at a node's door.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    node: u32,
    /// `input` or `output` of the node's namespace.
    chain: &'static str,
    /// The other end.
    peer: Ipv4Addr,
    /// None drops everything, else what is above so many bytes a second.
    bytes_per_second: Option<u64>,
}

/// Why there are no namespaces.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// This machine cannot make them.
    #[error("network namespaces cannot be made here: {0}; without them links are cut by forwarding proxies")]
    Missing(&'static str),
    /// A command failed.
    #[error("{command} failed: {reason}")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        reason: String,
    },
}

/// What this machine lacks for them, if anything.
pub fn missing() -> Option<&'static str> {
    let can_run = |program: &str, argument: &str| {
        let ended = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success())
    };
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root");
    }
    [("ip", "-V", "ip is missing (Debian: iproute2)"), ("nft", "--version", "nft is missing (Debian: nftables)")]
        .into_iter()
        .chain([("nsenter", "--version", "nsenter is missing (Debian: util-linux)")])
        .find(|(program, argument, _)| !can_run(program, argument))
        .map(|(_, _, what)| what)
}

impl Namespaces {
    /// Namespaces for so many nodes, at most 9, with addresses in a subnet of their own.
    pub fn make(nodes: u32) -> Result<Namespaces, NamespaceError> {
        if let Some(what) = missing() {
            return Err(NamespaceError::Missing(what));
        }
        remove_stale();
        let pid = std::process::id();
        let prefix = format!("{PREFIX}-{pid}-{}", started_ticks(pid).unwrap_or_default());
        // Two runs beside each other must not share a subnet; pids near each other do not.
        let subnet = [10, 213, (pid % 250) as u8 + 1];
        let made = Namespaces { prefix, subnet, nodes, rules: Mutex::default() };
        made.build()?;
        Ok(made)
    }

    /// The address at which a node listens.
    pub fn address(&self, node: u32) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, node as u8 + 2)
    }

    /// The address from which clients come, in the machine's own namespace.
    pub fn clients(&self) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, 1)
    }

    /// The words before a command that run it in a node's namespace. The process that results is the command's own.
    pub fn enter(&self, node: u32) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={FOLDER}/{}", self.name(node))]
    }

    /// Begins a rule; gives its number, or none where it is about one client, who has no address of its own.
    pub(super) fn add_rule(&self, from: Endpoint, to: Endpoint, rule: LinkRule) -> Result<Option<u64>, NamespaceError> {
        let Some(filters) = self.filters(from, to, rule) else { return Ok(None) };
        let mut rules = self.rules();
        rules.next += 1;
        let number = rules.next;
        rules.active.insert(number, filters);
        self.apply(&rules)?;
        Ok(Some(number))
    }

    /// Ends a rule.
    pub(super) fn end_rule(&self, number: u64) -> Result<(), NamespaceError> {
        let mut rules = self.rules();
        rules.active.remove(&number);
        self.apply(&rules)
    }

    /// Ends all rules.
    pub(super) fn end_rules(&self) -> Result<(), NamespaceError> {
        let mut rules = self.rules();
        rules.active.clear();
        self.apply(&rules)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        // A panic elsewhere is on its way; the rules are still the rules.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A rule as what nodes drop: at the door of the node that receives, or of the one that sends to clients.
    fn filters(&self, from: Endpoint, to: Endpoint, rule: LinkRule) -> Option<Vec<Filter>> {
        let bytes_per_second = match rule {
            LinkRule::Hold | LinkRule::Cut { .. } => None,
            // Nothing here delays a packet; a link that takes little is slow all the same.
            LinkRule::Delay { delay_ms } => Some(SLOW_BYTES_PER_SECOND_AT_1_MS / delay_ms.max(1)),
        };
        let (senders, receivers) = (self.ends(from)?, self.ends(to)?);
        let mut filters = Vec::new();
        for sender in &senders {
            for receiver in receivers.iter().filter(|receiver| *receiver != sender) {
                let (node, chain, peer) = match (receiver, sender) {
                    (Some(receiver), Some(sender)) => (*receiver, INPUT, self.address(*sender)),
                    (Some(receiver), None) => (*receiver, INPUT, self.clients()),
                    (None, Some(sender)) => (*sender, OUTPUT, self.clients()),
                    (None, None) => continue,
                };
                filters.push(Filter { node, chain, peer, bytes_per_second });
            }
        }
        Some(filters)
    }

    /// The nodes that an endpoint means, none standing for all clients.
    fn ends(&self, endpoint: Endpoint) -> Option<Vec<Option<u32>>> {
        match endpoint {
            Endpoint::Node(node) => Some(vec![Some(node)]),
            Endpoint::AnyNode => Some((0..self.nodes).map(Some).collect()),
            Endpoint::AnyClient => Some(vec![None]),
            Endpoint::Client(_) => None,
        }
    }

    /// Makes every node's filters those of the active rules, each node's in one transaction.
    fn apply(&self, rules: &Rules) -> Result<(), NamespaceError> {
        for node in 0..self.nodes {
            let mut script = format!("flush chain {TABLE} {INPUT}\nflush chain {TABLE} {OUTPUT}\n");
            for filter in rules.active.values().flatten().filter(|filter| filter.node == node) {
                script += &filter.line();
            }
            self.filter(node, &script)?;
        }
        Ok(())
    }

    fn filter(&self, node: u32, script: &str) -> Result<(), NamespaceError> {
        let mut words = self.enter(node);
        words.extend(["nft".to_owned(), script.to_owned()]);
        run(&words)
    }

    fn name(&self, node: u32) -> String {
        format!("{}-n{node}", self.prefix)
    }

    fn build(&self) -> Result<(), NamespaceError> {
        let hub = format!("{}-hub", self.prefix);
        let ip = |line: &str| run(&["ip"].into_iter().chain(line.split(' ')).map(str::to_owned).collect::<Vec<_>>());
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add hub type bridge"))?;
        ip(&format!("-n {hub} link set hub up"))?;
        for node in 0..self.nodes {
            let (name, address) = (self.name(node), self.address(node));
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link add eth0 type veth peer name node{node} netns {hub}"))?;
            ip(&format!("-n {hub} link set node{node} master hub up"))?;
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            let hook = |chain: &str| format!("add chain {TABLE} {chain} {{ type filter hook {chain} priority 0; }}\n");
            self.filter(node, &format!("add table {TABLE}\n{}{}", hook(INPUT), hook(OUTPUT)))?;
        }
        // The clients' end is the only thing outside, and goes with its peer.
        let clients = format!("mq{:02x}{}", self.subnet[2], std::process::id() % 100_000);
        ip(&format!("link add {clients} type veth peer name clients netns {hub}"))?;
        ip(&format!("-n {hub} link set clients master hub up"))?;
        ip(&format!("addr add {}/24 dev {clients}", self.clients()))?;
        ip(&format!("link set {clients} up"))
    }
}

impl Filter {
    fn line(&self) -> String {
        let Filter { chain, peer, bytes_per_second, .. } = self;
        let end = if *chain == INPUT { "saddr" } else { "daddr" };
        let limit = match bytes_per_second {
            Some(bytes) => format!("limit rate over {bytes} bytes/second "),
            None => String::new(),
        };
        format!("add rule {TABLE} {chain} ip {end} {peer} {limit}drop\n")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in names().into_iter().filter(|name| name.starts_with(&format!("{}-", self.prefix))) {
            remove(&name);
        }
    }
}

/// The namespaces whose makers have ended.
pub fn stale() -> Vec<String> {
    let is_stale = |name: &String| {
        let mut parts =
            name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default().split('-');
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
        match (number(parts.next()), number(parts.next())) {
            (Some(pid), Some(ticks)) => started_ticks(pid as u32) != Some(ticks),
            _ => false,
        }
    };
    names().into_iter().filter(is_stale).collect()
}

/// Removes the namespaces whose makers have ended.
pub fn remove_stale() {
    stale().iter().for_each(|name| remove(name));
}

/// Our namespaces on this machine.
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("{PREFIX}-"))).collect()
}

fn remove(name: &str) {
    if let Err(error) = run(&["ip", "netns", "del", name].map(str::to_owned)) {
        eprintln!("mqassay: the network namespace {name} may be left behind: {error}");
    }
}

fn run(words: &[String]) -> Result<(), NamespaceError> {
    let failed = |reason: String| NamespaceError::Failed { command: words.join(" "), reason };
    let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error: io::Error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

const PREFIX: &str = "mqassay";
/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";
const TABLE: &str = "inet mqassay";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
/// A delay of so many milliseconds becomes a link that takes this much a second, divided by them.
const SLOW_BYTES_PER_SECOND_AT_1_MS: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn unmade(nodes: u32) -> std::mem::ManuallyDrop<Namespaces> {
        let prefix = "mqassay-test".to_owned();
        // Nothing was made, so that nothing is to be removed.
        std::mem::ManuallyDrop::new(Namespaces { prefix, subnet: [10, 213, 9], nodes, rules: Mutex::default() })
    }

    fn lines(from: Endpoint, to: Endpoint, rule: LinkRule) -> Vec<(u32, String)> {
        let filters = unmade(3).filters(from, to, rule).unwrap();
        filters.iter().map(|filter| (filter.node, filter.line())).collect()
    }

    #[test]
    fn a_direction_is_dropped_at_the_door_of_a_node() {
        let cut = LinkRule::Cut { reset_after_ms: 9 };
        let line = |node, text: &str| (node, format!("add rule inet mqassay {text}\n"));
        let between = lines(Endpoint::Node(0), Endpoint::Node(2), cut);
        assert_eq!(between, [line(2, "input ip saddr 10.213.9.2 drop")]);
        let to_clients = lines(Endpoint::Node(1), Endpoint::AnyClient, LinkRule::Hold);
        assert_eq!(to_clients, [line(1, "output ip daddr 10.213.9.1 drop")]);
        let slow = lines(Endpoint::AnyClient, Endpoint::Node(1), LinkRule::Delay { delay_ms: 4 });
        assert_eq!(slow, [line(1, "input ip saddr 10.213.9.1 limit rate over 1048576 bytes/second drop")]);
        assert_eq!(lines(Endpoint::AnyNode, Endpoint::AnyNode, cut).len(), 6, "nobody is cut off from itself");
        assert!(unmade(3).filters(Endpoint::Client(1), Endpoint::Node(0), cut).is_none());
    }
}
