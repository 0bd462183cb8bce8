//! The conformance bodies of the ports: each is run on the real arm and on the simulated arm, and must hold on both.
//! A new port call gets its facts here first.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

mod arms;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use mqassay_broker::ports::{Clock, Disk, Listener, Net, Rand};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What every Disk holds to.
async fn disk_conforms(disk: impl Disk) {
    assert_eq!(disk.list("absent").unwrap_err().kind(), ErrorKind::NotFound);
    disk.create_directory("a/b").unwrap();
    disk.create_directory("a/b").unwrap();
    assert_eq!(disk.list("a").unwrap(), vec!["b"]);
    assert_eq!(disk.open("a/b/file", false).err().unwrap().kind(), ErrorKind::NotFound);

    let file = disk.open("a/b/file", true).unwrap();
    assert_eq!(disk.length(&file).unwrap(), 0);
    disk.write_at(&file, 0, &[Bytes::from_static(b"hello "), Bytes::new(), Bytes::from_static(b"world")]).unwrap();
    assert_eq!(disk.length(&file).unwrap(), 11);
    assert_eq!(disk.read_at(&file, 6, 100).unwrap(), "world", "a read ends with the file");
    assert_eq!(disk.read_at(&file, 11, 4).unwrap(), "", "at the end there is nothing");
    assert_eq!(disk.read_at(&file, 500, 4).unwrap(), "", "nor behind it");

    disk.write_at(&file, 1_000, &[Bytes::from_static(b"far")]).unwrap();
    assert_eq!(disk.length(&file).unwrap(), 1_003);
    assert_eq!(disk.read_at(&file, 11, 2).unwrap(), Bytes::from_static(&[0, 0]), "a gap reads as zeros");
    disk.write_at(&file, 4, &[Bytes::from_static(b"O W")]).unwrap();
    assert_eq!(disk.read_at(&file, 0, 11).unwrap(), "hellO World");

    let again = disk.open("a/b/file", true).unwrap();
    assert_eq!(disk.length(&again).unwrap(), 1_003, "opening with create keeps what is there");
    disk.truncate(&again, 5).unwrap();
    assert_eq!(disk.length(&file).unwrap(), 5, "two handles are one file");
    disk.truncate(&file, 8).unwrap();
    assert_eq!(disk.read_at(&file, 0, 8).unwrap(), Bytes::from_static(b"hellO\0\0\0"));

    disk.preallocate(&file, 100_000).unwrap();
    assert_eq!(disk.length(&file).unwrap(), 8, "preallocation keeps the length");
    disk.sync_file(&file).await.unwrap();
    assert_eq!(disk.read_cold(&file, 1, 4).await.unwrap(), "ellO");

    disk.open("a/b/other", true).unwrap();
    assert_eq!(disk.list("a/b").unwrap(), vec!["file", "other"], "names are sorted");
    disk.rename("a/b/file", "a/b/other").unwrap();
    assert_eq!(disk.list("a/b").unwrap(), vec!["other"], "a rename replaces its target");
    assert_eq!(disk.length(&disk.open("a/b/other", false).unwrap()).unwrap(), 8);
    disk.sync_directory("a/b").unwrap();
    assert!(disk.remove("a/b").is_err(), "a directory with entries stays");
    disk.remove("a/b/other").unwrap();
    assert_eq!(disk.remove("a/b/other").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename("a/b/none", "a/b/other").unwrap_err().kind(), ErrorKind::NotFound);
    disk.remove("a/b").unwrap();
    assert_eq!(disk.list("a").unwrap(), Vec::<String>::new());
    assert_eq!(disk.read_at(&file, 0, 5).unwrap(), "hellO", "an open file outlives its name");

    let lock = disk.lock_exclusive("a/lock").unwrap();
    assert_eq!(disk.lock_exclusive("a/lock").err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(lock);
    drop(disk.lock_exclusive("a/lock").unwrap());
    assert!(disk.free_bytes().unwrap() > 1_000_000);
}

/// What every Net holds to.
async fn net_conforms(net: impl Net, address: SocketAddr) {
    let mut listener = net.listen(address).await.unwrap();
    let bound = SocketAddr::new(address.ip(), listener.local_address().unwrap().port());
    assert_ne!(bound.port(), 0);
    let accept = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest
    };
    let dial = async {
        let mut stream = net.dial(&bound.ip().to_string(), bound.port()).await.unwrap();
        stream.write_all(b"he").await.unwrap();
        stream.write_all(b"llo").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        answer
    };
    let (rest, answer) = tokio::join!(accept, dial);
    assert_eq!((&answer, rest.as_slice()), (b"hello", b"bye".as_slice()));
    drop(listener);
    assert!(net.dial(&bound.ip().to_string(), bound.port()).await.is_err(), "nobody listens any more");
}

/// What every Clock holds to.
async fn clock_conforms(clock: impl Clock) {
    let before = clock.monotonic();
    clock.sleep_until(before + Duration::from_millis(20)).await;
    let after = clock.monotonic();
    assert!(after >= before + Duration::from_millis(20));
    clock.sleep_until(before).await;
    assert!(clock.wall_ms() > 1_500_000_000_000, "the wall clock counts from 1970");
}

/// What every Rand holds to.
fn rand_conforms(rand: impl Rand) {
    let first: Vec<u64> = (0..4).map(|_| rand.draw("label", 1)).collect();
    let mut distinct = first.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "draws of one entity differ: {first:?}");
    assert_ne!(rand.draw("label", 2), first[0]);
}

fn on_this_machine(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, body);
}

#[test]
fn the_real_disk_conforms() {
    let folder = tempfile::tempdir().unwrap();
    on_this_machine(disk_conforms(arms::real_disk(folder.path())));
}

#[test]
fn the_simulated_disk_conforms() {
    arms::in_the_simulated_world(|node| disk_conforms(node.disk));
}

#[test]
fn the_real_net_conforms() {
    on_this_machine(net_conforms(arms::real_net(), SocketAddr::from(([127, 0, 0, 1], 0))));
}

#[test]
fn the_simulated_net_conforms() {
    arms::in_the_simulated_world(|node| net_conforms(node.net, arms::simulated_address()));
}

#[test]
fn both_clocks_conform() {
    on_this_machine(clock_conforms(arms::real_clock()));
    arms::in_the_simulated_world(|node| clock_conforms(node.clock));
}

#[test]
fn both_sources_of_draws_conform() {
    rand_conforms(arms::real_rand());
    arms::in_the_simulated_world(|node| async move { rand_conforms(node.rand) });
}
