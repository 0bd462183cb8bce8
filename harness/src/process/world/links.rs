//! Links of the process world: a forwarding proxy for each ordered pair of endpoints, under the same rules as the
//! simulated network: per direction hold, delay, or cut until reset. Bytes are queued and never vanish. Where the nodes have
//! network namespaces, rules among them and all clients go there, and proxies serve single clients.
//! Start at `Links::start`. Not here: when a rule begins and ends (`nemesis`), and rules for a single request.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc as thread_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::namespaces::{NamespaceError, Namespaces};
use crate::plan::{Endpoint, LinkRule};

/// All links of a run, forwarded by one thread of their own. Dropping it ends the thread and every connection.
#[derive(Debug)]
pub struct Links {
    commands: Option<mpsc::UnboundedSender<Command>>,
    rules: watch::Sender<Rules>,
    thread: Option<JoinHandle<()>>,
    namespaces: Option<Arc<Namespaces>>,
}

/// An active rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActiveRule {
    /// Of the proxies.
    Proxied(u64),
    /// Of the namespaces.
    Filtered(u64),
}

#[derive(Debug)]
struct Command {
    link: Link,
    target: SocketAddr,
    bound: thread_channel::Sender<io::Result<SocketAddr>>,
}

/// A direction: bytes from one end to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    from: Endpoint,
    to: Endpoint,
}

/// Rules that are active, by number.
#[derive(Debug, Clone, Default)]
struct Rules {
    active: BTreeMap<u64, (Link, LinkRule)>,
    next: u64,
}

/// What the rules mean for one direction now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    Open { delay: Duration },
    Held,
    Cut { reset_after: Duration },
}

/// A cut link has reset the connection.
#[derive(Debug)]
struct Reset;

impl Links {
    /// Starts the thread that forwards.
    pub fn start(namespaces: Option<Arc<Namespaces>>) -> io::Result<Links> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let rules = watch::Sender::new(Rules::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = rules.subscribe();
        let work = move || runtime.block_on(serve(inbox, seen));
        let thread = std::thread::Builder::new().name("links".to_owned()).spawn(work)?;
        Ok(Links { commands: Some(commands), rules, thread: Some(thread), namespaces })
    }

    /// A new link: connections to the address given back are forwarded to the target.
    pub fn add(&self, from: Endpoint, to: Endpoint, target: SocketAddr) -> io::Result<SocketAddr> {
        let (bound, address) = thread_channel::channel();
        let gone = || io::Error::other("the links' thread has ended");
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.send(Command { link: Link { from, to }, target, bound }).map_err(|_| gone())?;
        address.recv().map_err(|_| gone())?
    }

    /// Whether the nodes' own links can be cut without a proxy between them.
    pub fn are_real(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Begins a rule for one direction.
    pub fn add_rule(&self, from: Endpoint, to: Endpoint, rule: LinkRule) -> Result<ActiveRule, NamespaceError> {
        if let Some(namespaces) = &self.namespaces
            && let Some(number) = namespaces.add_rule(from, to, rule)?
        {
            return Ok(ActiveRule::Filtered(number));
        }
        let mut number = 0;
        self.rules.send_modify(|rules| {
            number = rules.next;
            rules.next += 1;
            rules.active.insert(number, (Link { from, to }, rule));
        });
        Ok(ActiveRule::Proxied(number))
    }

    /// Ends a rule; one that has ended stays so.
    pub fn end_rule(&self, rule: ActiveRule) -> Result<(), NamespaceError> {
        match (rule, &self.namespaces) {
            (ActiveRule::Filtered(number), Some(namespaces)) => namespaces.end_rule(number)?,
            (ActiveRule::Filtered(_), None) => {}
            (ActiveRule::Proxied(number), _) => self.rules.send_modify(|rules| {
                rules.active.remove(&number);
            }),
        }
        Ok(())
    }

    /// Ends all rules.
    pub fn end_rules(&self) -> Result<(), NamespaceError> {
        self.rules.send_modify(|rules| rules.active.clear());
        self.namespaces.as_ref().map_or(Ok(()), |namespaces| namespaces.end_rules())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the links' thread panicked");
        }
    }
}

impl Rules {
    fn passage(&self, link: Link) -> Passage {
        let mut delay = Duration::ZERO;
        let mut is_held = false;
        let mut reset_after: Option<Duration> = None;
        for (ruled, rule) in self.active.values() {
            if !(covers(ruled.from, link.from) && covers(ruled.to, link.to)) {
                continue;
            }
            match rule {
                LinkRule::Hold => is_held = true,
                LinkRule::Delay { delay_ms } => delay += Duration::from_millis(*delay_ms),
                LinkRule::Cut { reset_after_ms } => {
                    let after = Duration::from_millis(*reset_after_ms);
                    reset_after = Some(reset_after.map_or(after, |before| before.min(after)));
                }
            }
        }
        match reset_after {
            Some(reset_after) => Passage::Cut { reset_after },
            None if is_held => Passage::Held,
            None => Passage::Open { delay },
        }
    }
}

fn covers(ruled: Endpoint, actual: Endpoint) -> bool {
    match ruled {
        Endpoint::AnyClient => matches!(actual, Endpoint::Client(_)),
        Endpoint::AnyNode => matches!(actual, Endpoint::Node(_)),
        Endpoint::Node(_) | Endpoint::Client(_) => ruled == actual,
    }
}

/// Ends when the owner's end of the channel is gone; the runtime then drops every connection.
async fn serve(mut inbox: mpsc::UnboundedReceiver<Command>, rules: watch::Receiver<Rules>) {
    while let Some(Command { link, target, bound }) = inbox.recv().await {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let answer = listener.and_then(|listener| {
            let address = listener.local_addr()?;
            tokio::spawn(accept(listener, link, target, rules.clone()));
            Ok(address)
        });
        if bound.send(answer).is_err() {
            tracing::warn!("nobody waits for a new link");
        }
    }
}

async fn accept(listener: TcpListener, link: Link, target: SocketAddr, rules: watch::Receiver<Rules>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(forward(stream, link, target, rules.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a link cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// One connection, both directions. A target that is down closes it, as a refused connection would.
async fn forward(near: TcpStream, link: Link, target: SocketAddr, rules: watch::Receiver<Rules>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let back = Link { from: link.to, to: link.from };
    tokio::select! {
        _ = pump(near_read, far_write, link, rules.clone()) => {}
        _ = pump(far_read, near_write, back, rules) => {}
    }
}

/// Carries one direction to its end. Reading goes on while chunks wait for their time, up to a bound.
async fn pump(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    link: Link,
    rules: watch::Receiver<Rules>,
) -> Result<(), Reset> {
    let (queue, mut queued) = mpsc::channel(CHUNKS_QUEUED_MAX);
    let arrivals = rules.clone();
    let reading = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            match read.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let delay = match arrivals.borrow().passage(link) {
                Passage::Open { delay } => delay,
                Passage::Held | Passage::Cut { .. } => Duration::ZERO,
            };
            if queue.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        let mut rules = rules;
        while let Some((due, chunk)) = queued.recv().await {
            tokio::time::sleep_until(due).await;
            pass(&mut rules, link).await?;
            write.write_all(&chunk).await.map_err(|_| Reset)?;
        }
        // The other side may still answer what it has; it hears that no more will come.
        write.shutdown().await.map_err(|_| Reset)
    };
    let (_, written) = tokio::join!(reading, writing);
    written
}

/// Ends when bytes may pass, or with the reset of a link that is cut.
async fn pass(rules: &mut watch::Receiver<Rules>, link: Link) -> Result<(), Reset> {
    let since = Instant::now();
    loop {
        let passage = rules.borrow_and_update().passage(link);
        match passage {
            Passage::Open { .. } => return Ok(()),
            Passage::Held => rules.changed().await.map_err(|_| Reset)?,
            Passage::Cut { reset_after } => {
                tokio::select! {
                    biased;
                    changed = rules.changed() => changed.map_err(|_| Reset)?,
                    () = tokio::time::sleep_until(since + reset_after) => return Err(Reset),
                }
            }
        }
    }
}

const ACCEPT_RETRY: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that wait for their time, per direction of a connection.
const CHUNKS_QUEUED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};

    use super::*;

    const HERE: Endpoint = Endpoint::Client(0);
    const THERE: Endpoint = Endpoint::Node(1);

    /// Sends back what it gets, one connection after the other.
    fn echo() -> SocketAddr {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn dial(address: SocketAddr) -> StdStream {
        let stream = StdStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn answer(stream: &mut StdStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text)?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).map(|()| back)
    }

    #[test]
    fn bytes_pass_both_ways_and_wait_while_a_direction_is_held() {
        let links = Links::start(None).unwrap();
        let mut stream = dial(links.add(HERE, THERE, echo()).unwrap());
        assert_eq!(answer(&mut stream, b"open").unwrap(), b"open");
        // The answers' direction is held, the other link's rule does not concern this one.
        let held = links.add_rule(THERE, Endpoint::AnyClient, LinkRule::Hold).unwrap();
        links.add_rule(Endpoint::Client(7), THERE, LinkRule::Hold).unwrap();
        stream.write_all(b"late").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(stream.read(&mut [0; 4]).is_err(), "nothing may come while the rule is active");
        links.end_rule(held).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"late");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut back).unwrap(), 0, "an end passes too");
    }

    #[test]
    fn a_cut_link_resets_what_was_sent_into_it_and_heals() {
        let links = Links::start(None).unwrap();
        let address = links.add(HERE, THERE, echo()).unwrap();
        let mut stream = dial(address);
        links.add_rule(Endpoint::AnyClient, Endpoint::AnyNode, LinkRule::Cut { reset_after_ms: 20 }).unwrap();
        assert!(answer(&mut stream, b"lost").is_err());
        links.end_rules().unwrap();
        assert_eq!(answer(&mut dial(address), b"back").unwrap(), b"back");
    }

    #[test]
    fn a_target_that_is_down_closes_the_connection() {
        let free = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let links = Links::start(None).unwrap();
        let mut stream = dial(links.add(HERE, THERE, free).unwrap());
        assert!(answer(&mut stream, b"anybody").is_err());
    }

    #[test]
    fn delays_add_up_and_a_cut_is_stronger_than_a_hold() {
        let mut rules = Rules::default();
        let link = Link { from: HERE, to: THERE };
        assert_eq!(rules.passage(link), Passage::Open { delay: Duration::ZERO });
        rules.active.insert(0, (link, LinkRule::Delay { delay_ms: 3 }));
        rules.active.insert(1, (Link { from: Endpoint::AnyClient, to: THERE }, LinkRule::Delay { delay_ms: 4 }));
        assert_eq!(rules.passage(link), Passage::Open { delay: Duration::from_millis(7) });
        rules.active.insert(2, (link, LinkRule::Hold));
        assert_eq!(rules.passage(link), Passage::Held);
        rules.active.insert(3, (link, LinkRule::Cut { reset_after_ms: 9 }));
        assert_eq!(rules.passage(link), Passage::Cut { reset_after: Duration::from_millis(9) });
        assert_eq!(rules.passage(Link { from: THERE, to: HERE }), Passage::Open { delay: Duration::ZERO });
    }
}
