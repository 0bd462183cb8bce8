//! Apache Kafka: jars through Maven from a pinned pom, storage formatted, one Java process per node (broker and
//! controller in one) on free loopback ports. The files that it is made from are in `systems/kafka` and built in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::launch::{self, JAVA_INSTALL, Launch, fetch_jars, fill, free_ports, pinned, run, word};
use super::{Options, Running, SystemError, io};

/// Release lines beside one another; the first is what plain `kafka` means.
const RELEASES: &[Release] = &[
    Release { line: "4.3", pom: include_str!("../../../systems/kafka/pom.xml"), other: None, logging: LOG4J2 },
    Release { line: "4.1", pom: include_str!("../../../systems/kafka/pom-4.1.xml"), other: None, logging: LOG4J2 },
    Release { line: "3.9", pom: POM_3, other: None, logging: RELOAD4J },
    // Releases with published bugs (`known_bugs`).
    Release { line: "3.7", pom: POM_3, other: Some("3.7.0"), logging: RELOAD4J },
    Release { line: "3.5", pom: POM_3, other: Some("3.5.2"), logging: RELOAD4J },
    Release { line: "3.2", pom: POM_3, other: Some("3.2.0"), logging: RELOAD4J },
];

struct Release {
    line: &'static str,
    pom: &'static str,
    /// The version to fetch instead of the one that the pom pins.
    other: Option<&'static str>,
    logging: Logging,
}

impl Release {
    fn pom(&self) -> String {
        match self.other {
            Some(version) => self.pom.replace(&pinned(self.pom, VERSION), version),
            None => self.pom.to_owned(),
        }
    }
}

#[derive(Clone, Copy)]
struct Logging {
    file: &'static str,
    text: &'static str,
    property: &'static str,
}

/// The versions that can be asked for.
pub(super) fn versions() -> Vec<&'static str> {
    RELEASES.iter().map(|release| release.line).collect()
}

/// Fetches where needed, formats new storage where there is none, and starts the nodes. Does not wait for them.
pub(super) fn start(folder: &Path, options: &Options, running: &mut Running) -> Result<(), SystemError> {
    let line = running.asked_version().unwrap_or(RELEASES[0].line).to_owned();
    let release = RELEASES.iter().find(|release| release.line == line).expect("the name was checked");
    let pom = release.pom();
    running.version = pinned(&pom, VERSION);
    let jars = fetch_jars(folder, &running.version, &pom)?;
    let logging = folder.join(release.logging.file);
    std::fs::write(&logging, release.logging.text).map_err(io("write", &logging))?;
    let java =
        Java { class_path: word(&jars.join("*")), logging: format!("{}{}", release.logging.property, word(&logging)) };
    let nodes = options.nodes as usize;
    let ports = free_ports(2 * nodes).map_err(io("find free loopback ports for", folder))?;
    let (brokers, controllers) = ports.split_at(nodes);
    let host = |index: usize| options.hosts.get(index).map_or("127.0.0.1", |host| host.address.as_str());
    let voter = |(index, port)| format!("{}@{}:{port}", index + 1, host(index));
    let voters: Vec<String> = controllers.iter().enumerate().map(voter).collect();
    let addresses: Vec<String> =
        brokers.iter().enumerate().map(|(index, port)| format!("{}:{port}", host(index))).collect();
    running.bootstrap = addresses.join(",");
    let properties = (0..nodes)
        .map(|index| {
            let values = [
                ("NODE_ID", (index + 1).to_string()),
                ("VOTERS", voters.join(",")),
                ("HOST", host(index).to_owned()),
                ("BROKER_PORT", brokers[index].to_string()),
                ("CONTROLLER_PORT", controllers[index].to_string()),
                ("DATA_DIR", word(&node_data(running, index))),
                ("REPLICATION", nodes.min(3).to_string()),
                ("IN_SYNC", nodes.min(2).to_string()),
            ];
            let path = folder.join(format!("server-{}.properties", index + 1));
            std::fs::write(&path, fill(TEMPLATE, &values, &options.settings)).map_err(io("write", &path))?;
            Ok(path)
        })
        .collect::<Result<Vec<PathBuf>, SystemError>>()?;
    format_storage(&java, running, &properties)?;
    for (index, (path, address)) in properties.iter().zip(addresses).enumerate() {
        let heap = options.heap.as_deref().unwrap_or("1G");
        let mut command = options.hosts.get(index).map_or_else(Vec::new, |host| host.enter.clone());
        command.extend(["java".to_owned(), format!("-Xmx{heap}"), format!("-Xms{heap}")]);
        command.extend(STOCK_FLAGS.iter().map(|flag| (*flag).to_owned()));
        command.extend([java.logging.clone(), "-cp".to_owned(), java.class_path.clone(), "kafka.Kafka".to_owned()]);
        command.push(word(path));
        let launch = Launch {
            role: format!("broker-{}", index + 1),
            is_broker: true,
            address,
            command,
            environment: BTreeMap::new(),
            install: JAVA_INSTALL,
        };
        launch::start(folder, running, launch)?;
    }
    Ok(())
}

fn node_data(running: &Running, index: usize) -> PathBuf {
    running.data_dir.join(format!("node-{}", index + 1))
}

struct Java {
    class_path: String,
    logging: String,
}

impl Java {
    fn tool(&self) -> Command {
        let mut command = Command::new("java");
        command.args(SHORT_LIVED).arg(&self.logging).arg("-cp").arg(&self.class_path).arg("kafka.tools.StorageTool");
        command
    }
}

/// Formats the nodes' storage under one cluster id, where it is new.
fn format_storage(java: &Java, running: &Running, properties: &[PathBuf]) -> Result<(), SystemError> {
    let purpose = "to format Kafka's storage";
    let is_new = |index: usize| !node_data(running, index).join("meta.properties").exists();
    let new: Vec<&PathBuf> =
        properties.iter().enumerate().filter(|(index, _)| is_new(*index)).map(|(_, path)| path).collect();
    if new.is_empty() {
        return Ok(());
    }
    let mut command = java.tool();
    command.arg("random-uuid");
    let output = run(command, purpose, JAVA_INSTALL)?;
    // The identifier is the last line; warnings of the virtual machine may stand before it.
    let identifier = output.lines().last().unwrap_or_default().trim().to_owned();
    for path in new {
        let mut command = java.tool();
        command.args(["format", "-t", &identifier, "-c"]).arg(path);
        run(command, purpose, JAVA_INSTALL)?;
    }
    Ok(())
}

const VERSION: &str = "kafka.version";
const POM_3: &str = include_str!("../../../systems/kafka/pom-3.9.xml");
const TEMPLATE: &str = include_str!("../../../systems/kafka/server.properties.template");
const LOG4J2: Logging = Logging {
    file: "log4j2.yaml",
    text: include_str!("../../../systems/kafka/log4j2.yaml"),
    property: "-Dlog4j2.configurationFile=",
};
const RELOAD4J: Logging = Logging {
    file: "log4j.properties",
    text: include_str!("../../../systems/kafka/log4j.properties"),
    property: "-Dlog4j.configuration=file:",
};
/// What Kafka's own start script gives a broker, beside the heap.
const STOCK_FLAGS: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];
const SHORT_LIVED: &[&str] = &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pom_pins_a_release_of_its_line() {
        for release in RELEASES {
            let version = pinned(&release.pom(), VERSION);
            assert!(version.starts_with(&format!("{}.", release.line)), "{version} in line {}", release.line);
        }
    }

    #[test]
    fn the_template_leaves_no_place_unfilled() {
        let names =
            ["NODE_ID", "HOST", "VOTERS", "BROKER_PORT", "CONTROLLER_PORT", "DATA_DIR", "REPLICATION", "IN_SYNC"];
        let values = names.map(|name| (name, "7".to_owned()));
        let text = fill(TEMPLATE, &values, &BTreeMap::new());
        assert!(!text.contains('@'), "{text}");
        assert!(text.contains("listeners=PLAINTEXT://7:7,CONTROLLER://7:7"));
    }
}
