//! Whether a system answers as a Kafka broker: ApiVersions, then Metadata with all brokers in it.
//! Two requests by hand over a blocking socket; the client proper is in `driver`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Running, SystemError, tail_of};

/// Asks every broker again and again until all answer, a process of the system has ended, or patience is over.
pub(super) fn wait_until_answering(running: &Running, patience: Duration) -> Result<(), SystemError> {
    let start = Instant::now();
    let mut brokers = running.processes.iter().filter(|process| process.is_broker).peekable();
    while let Some(broker) = brokers.peek() {
        if let Some(dead) = running.dead() {
            let text = std::fs::read_to_string(&dead.log).unwrap_or_default();
            let (name, role, log) = (running.name.clone(), dead.role.clone(), dead.log.clone());
            return Err(SystemError::Ended { name, role, log, tail: tail_of(&text) });
        }
        let probed = probe(&broker.address, running.nodes());
        match probed {
            Ok(()) => drop(brokers.next()),
            Err(reason) if start.elapsed() >= patience => {
                return Err(SystemError::Unhealthy {
                    name: running.name.clone(),
                    pid: broker.pid,
                    bootstrap: broker.address.clone(),
                    seconds: patience.as_secs(),
                    reason,
                    log: broker.log.clone(),
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Ok(())
}

/// One ApiVersions (version 0) and one Metadata (version 1, for no topic), which must name so many brokers.
fn probe(address: &str, brokers: u32) -> Result<(), String> {
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
    let versions = call(&mut stream, API_VERSIONS, 0, &[])?;
    if versions.get(..2) != Some(&[0, 0]) {
        return Err("ApiVersions was answered with an error".to_owned());
    }
    // An array of no topics asks for none.
    let metadata = call(&mut stream, METADATA, 1, &0_i32.to_be_bytes())?;
    match metadata.first_chunk::<4>().map(|count| i32::from_be_bytes(*count)) {
        Some(count) if i64::from(count) >= i64::from(brokers) => Ok(()),
        _ => Err(format!("Metadata does not name {brokers} brokers yet")),
    }
}

/// Sends one request with header version 1 and gives the answer's body.
fn call(stream: &mut TcpStream, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>, String> {
    let correlation = i32::from(key).to_be_bytes();
    let null_client_id = (-1_i16).to_be_bytes();
    let frame = [&key.to_be_bytes()[..], &version.to_be_bytes(), &correlation, &null_client_id, body].concat();
    let size = i32::try_from(frame.len()).expect("a frame of a few bytes").to_be_bytes();
    stream.write_all(&[&size[..], &frame].concat()).map_err(|error| error.to_string())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).map_err(|error| error.to_string())?;
    let size = usize::try_from(i32::from_be_bytes(size)).ok().filter(|size| (4..=ANSWER_BYTES_MAXIMUM).contains(size));
    let size = size.ok_or("the answer's size is not one of this protocol")?;
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
    if answer[..4] != correlation {
        return Err("the answer is to another request".to_owned());
    }
    Ok(answer.split_off(4))
}

const API_VERSIONS: i16 = 18;
const METADATA: i16 = 3;
const TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAXIMUM: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A listener that answers each request of one connection with the next of `bodies`.
    fn answering(bodies: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for body in bodies {
                let mut size = [0; 4];
                stream.read_exact(&mut size).unwrap();
                let mut frame = vec![0; i32::from_be_bytes(size) as usize];
                stream.read_exact(&mut frame).unwrap();
                let answer = [&((body.len() + 4) as i32).to_be_bytes()[..], &frame[4..8], &body].concat();
                stream.write_all(&answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn healthy_is_two_good_answers_with_a_broker() {
        let versions = vec![0, 0, 0, 0, 0, 0];
        assert_eq!(probe(&answering(vec![versions.clone(), vec![0, 0, 0, 1]]), 1), Ok(()));
        let two = probe(&answering(vec![versions, vec![0, 0, 0, 1]]), 2);
        assert!(two.unwrap_err().contains("2 brokers"));
        assert!(probe(&answering(vec![vec![0, 35]]), 1).unwrap_err().contains("error"));
    }
}
