//! A hundred thousand hostile frames end their connections at most: the process stays, its memory does not grow, and
//! another connection goes on all the while.

#![allow(clippy::unwrap_used, reason = "a fact that does not hold ends its test")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mqassay_harness::process::{BrokerProcess, ProcessOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const FRAMES: usize = 100_000;
/// Memory may grow by so much for buffers and caches, in bytes; one count believed would ask for far more.
const GROWTH_MAX: u64 = 64 << 20;

/// A frame as it goes on the wire: wrong sizes, counts that ask for gigabytes, cut off, unknown versions, noise.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let body = vec(any::<u8>(), 0..200);
    let header = (prop_oneof![0i16..80, any::<i16>()], prop_oneof![0i16..20, any::<i16>()], any::<i32>());
    let huge = prop_oneof![Just(i32::MAX), Just(i32::MAX / 2), Just(-1), 1_000_000..i32::MAX];
    let framed = (header, huge, body, 0usize..12, any::<bool>());
    let honest = framed.prop_map(|((key, version, id), huge, mut body, at, has_client)| {
        let mut bytes = Vec::new();
        bytes.extend(key.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(if has_client { [0, 1, b'x'].as_slice() } else { [255, 255].as_slice() });
        // A count or length where one is likely to be read.
        let at = at.min(body.len());
        body.splice(at..at, huge.to_be_bytes());
        bytes.extend(body);
        [(bytes.len() as i32).to_be_bytes().as_slice(), &bytes].concat()
    });
    let lying = (any::<i32>(), vec(any::<u8>(), 0..60))
        .prop_map(|(size, body)| [size.to_be_bytes().as_slice(), &body].concat());
    prop_oneof![6 => honest, 1 => lying]
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// ApiVersions v0 on the connection; the answer must carry the request's id and no error.
fn ask_versions(stream: &mut TcpStream, id: i32) {
    let mut request = vec![0, 0, 0, 10, 0, 18, 0, 0];
    request.extend(id.to_be_bytes());
    request.extend([255, 255]);
    stream.write_all(&request).unwrap();
    let mut head = [0; 10];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((&head[4..8], &head[8..10]), (id.to_be_bytes().as_slice(), [0, 0].as_slice()));
    let rest = i32::from_be_bytes(head[..4].try_into().unwrap()) as usize - 6;
    stream.read_exact(&mut vec![0; rest]).unwrap();
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[test]
fn a_hundred_thousand_hostile_frames_harm_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments: Vec<OsString> =
        ["broker", "--listen", "127.0.0.1:0", "--set", "auto-create-topics=false", "--data"].map(OsString::from).into();
    arguments.push(folder.path().join("data").into());
    let program = env!("CARGO_BIN_EXE_mqassay").into();
    let options = ProcessOptions { program, arguments, ready_timeout: Duration::from_secs(30) };
    let mut process = BrokerProcess::start(&options).unwrap();
    let address = process.address().to_owned();

    let mut honest = connect(&address);
    ask_versions(&mut honest, 1);
    let before = resident_bytes(process.pid());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let frames = frame();
    let mut hostile = connect(&address);
    for number in 0..FRAMES {
        let bytes = frames.new_tree(&mut runner).unwrap().current();
        // The broker may have closed the connection for an earlier frame; every frame must reach it all the same.
        if hostile.write_all(&bytes).is_err() || number % 3 == 0 {
            drop(std::mem::replace(&mut hostile, connect(&address)));
            let _ = hostile.write_all(&bytes);
        }
        if number % 1_000 == 0 {
            ask_versions(&mut honest, number as i32);
            assert_eq!(process.exited().unwrap(), None, "it ended at frame {number}: {}", process.recent_output());
        }
    }
    drop(hostile);
    ask_versions(&mut honest, 2);
    let grown = resident_bytes(process.pid()).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "memory grew by {grown} bytes");
    assert!(process.terminate(Duration::from_secs(20)).unwrap().success());
    assert!(!process.recent_output().contains("panicked"), "{}", process.recent_output());
}
