//! Whether a system answers in its own protocol: Kafka's Metadata names all brokers, RocketMQ's name server knows its
//! broker, RabbitMQ begins a connection. Requests by hand over a blocking socket; the clients proper are elsewhere.

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
        let probed = match running.system() {
            "rabbitmq" => probe_amqp(&broker.address),
            "rocketmq" => probe_name_server(&running.bootstrap),
            _ => probe_kafka(&broker.address, running.nodes()),
        };
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
fn probe_kafka(address: &str, brokers: u32) -> Result<(), String> {
    let mut stream = connect(address)?;
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

/// The protocol's header, which a node that serves answers with `Connection.Start`.
fn probe_amqp(address: &str) -> Result<(), String> {
    let mut stream = connect(address)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").map_err(|error| error.to_string())?;
    let mut head = [0; 11];
    stream.read_exact(&mut head).map_err(|error| error.to_string())?;
    // A method frame on channel 0; class 10, method 10.
    let is_start = head[..3] == [1, 0, 0] && head[7..] == [0, 10, 0, 10];
    is_start.then_some(()).ok_or_else(|| "the answer is not Connection.Start".to_owned())
}

/// `GET_BROKER_CLUSTER_INFO` of RocketMQ's remoting protocol: the name server must know an address of a broker.
fn probe_name_server(address: &str) -> Result<(), String> {
    let mut stream = connect(address)?;
    let header = br#"{"code":106,"flag":0,"language":"OTHER","opaque":1,"version":0}"#;
    let header_size = u32::try_from(header.len()).expect("a header of a few bytes");
    let frame = [&(header_size + 4).to_be_bytes()[..], &header_size.to_be_bytes(), header].concat();
    stream.write_all(&frame).map_err(|error| error.to_string())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).map_err(|error| error.to_string())?;
    let size = usize::try_from(i32::from_be_bytes(size)).ok().filter(|size| (4..=ANSWER_BYTES_MAXIMUM).contains(size));
    let mut answer = vec![0; size.ok_or("the answer's size is not one of this protocol")?];
    stream.read_exact(&mut answer).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer);
    let is_known = text.split_once("brokerAddrs").is_some_and(|(_, addresses)| addresses.contains("127.0.0.1:"));
    is_known.then_some(()).ok_or_else(|| "the name server knows no broker yet".to_owned())
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
    Ok(stream)
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

    /// A listener that reads so many bytes and writes an answer.
    fn saying(read: usize, answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut vec![0; read]).unwrap();
            stream.write_all(&answer).unwrap();
        });
        address
    }

    #[test]
    fn rabbitmq_is_healthy_when_it_begins_a_connection() {
        assert_eq!(probe_amqp(&saying(8, vec![1, 0, 0, 0, 0, 1, 0, 0, 10, 0, 10])), Ok(()));
        let refused = probe_amqp(&saying(8, b"AMQP\x00\x00\x09\x01....".to_vec()));
        assert!(refused.unwrap_err().contains("Connection.Start"));
    }

    #[test]
    fn rocketmq_is_healthy_when_the_name_server_knows_a_broker() {
        let answer = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let known = answer(r#"{"brokerAddrTable":{"a":{"brokerAddrs":{0:"127.0.0.1:9"}}}}"#);
        assert_eq!(probe_name_server(&saying(71, known)), Ok(()));
        let unknown = probe_name_server(&saying(71, answer(r#"{"brokerAddrTable":{}}"#)));
        assert!(unknown.unwrap_err().contains("no broker"));
    }

    #[test]
    fn healthy_is_two_good_answers_with_a_broker() {
        let versions = vec![0, 0, 0, 0, 0, 0];
        assert_eq!(probe_kafka(&answering(vec![versions.clone(), vec![0, 0, 0, 1]]), 1), Ok(()));
        let two = probe_kafka(&answering(vec![versions, vec![0, 0, 0, 1]]), 2);
        assert!(two.unwrap_err().contains("2 brokers"));
        assert!(probe_kafka(&answering(vec![vec![0, 35]]), 1).unwrap_err().contains("error"));
    }
}
