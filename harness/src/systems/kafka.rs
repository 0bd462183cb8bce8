//! Apache Kafka, one node: jars through Maven from the pinned pom, storage formatted, one Java process on free loopback
//! ports. The three files that it is made from are in the repository's `systems/kafka` and built into the program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::identity::started_ticks;
use super::{Options, Running, SystemError, io, tail_of};

/// Fetches where needed, formats new storage where there is none, and starts the process. Does not wait for it.
pub(super) fn start(folder: &Path, options: &Options) -> Result<Running, SystemError> {
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let version = pinned_version();
    let jars = fetch(folder, &version)?;
    let data_dir = folder.join("data");
    let properties = folder.join("server.properties");
    let [broker_port, controller_port] = free_ports().map_err(io("find free loopback ports for", folder))?;
    let text = fill_template(&data_dir, broker_port, controller_port, &options.settings);
    std::fs::write(&properties, text).map_err(io("write", &properties))?;
    let logging = folder.join("log4j2.yaml");
    std::fs::write(&logging, LOGGING).map_err(io("write", &logging))?;
    let java = Java { class_path: jars.join("*").into_os_string(), logging };
    if !data_dir.join("meta.properties").exists() {
        format_storage(&java, &properties)?;
    }
    let log = folder.join("kafka.log");
    let (pid, started_ticks) = spawn(&java, &properties, &log)?;
    Ok(Running {
        name: "kafka".to_owned(),
        version,
        bootstrap: format!("127.0.0.1:{broker_port}"),
        pid,
        started_ticks,
        data_dir,
        log,
        settings: options.settings.clone(),
    })
}

struct Java {
    class_path: OsString,
    logging: PathBuf,
}

impl Java {
    fn command(&self, flags: &[&str], class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(flags).arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()));
        command.arg("-cp").arg(&self.class_path).arg(class);
        command
    }
}

/// The folder of this version's jars; Maven fills it the first time. A marker file tells a whole folder from a cut one.
fn fetch(folder: &Path, version: &str) -> Result<PathBuf, SystemError> {
    let jars = folder.join(format!("jars-{version}"));
    let marker = jars.join("complete");
    // The pom itself is the marker's text, so that a changed pom fetches anew.
    if std::fs::read_to_string(&marker).is_ok_and(|text| text == POM) {
        return Ok(jars);
    }
    if jars.exists() {
        std::fs::remove_dir_all(&jars).map_err(io("remove", &jars))?;
    }
    std::fs::create_dir_all(&jars).map_err(io("create", &jars))?;
    let pom = folder.join("pom.xml");
    std::fs::write(&pom, POM).map_err(io("write", &pom))?;
    let mut command = Command::new("mvn");
    command.args(["-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", jars.display())).arg("-f").arg(&pom);
    run(command, "mvn", "to fetch Kafka's jars", "Maven (Debian: apt install maven)")?;
    std::fs::write(&marker, POM).map_err(io("write", &marker))?;
    Ok(jars)
}

fn format_storage(java: &Java, properties: &Path) -> Result<(), SystemError> {
    const TOOL: &str = "kafka.tools.StorageTool";
    let purpose = "to format Kafka's storage";
    let mut command = java.command(SHORT_LIVED, TOOL);
    command.arg("random-uuid");
    let output = run(command, "java", purpose, JAVA_INSTALL)?;
    // The identifier is the last line; warnings of the virtual machine may stand before it.
    let identifier = output.lines().last().unwrap_or_default().trim().to_owned();
    let mut command = java.command(SHORT_LIVED, TOOL);
    command.args(["format", "-t", &identifier, "-c"]).arg(properties);
    run(command, "java", purpose, JAVA_INSTALL).map(|_| ())
}

/// Starts the broker in a process group of its own, so that an interrupt typed at the terminal does not reach it.
fn spawn(java: &Java, properties: &Path, log: &Path) -> Result<(u32, u64), SystemError> {
    let output = File::create(log).map_err(io("create", log))?;
    let errors = output.try_clone().map_err(io("share", log))?;
    let mut command = java.command(STOCK_FLAGS, "kafka.Kafka");
    command.arg(properties).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let child = command.spawn().map_err(|source| SystemError::Missing {
        program: "java",
        purpose: "to run Kafka",
        install: JAVA_INSTALL,
        source,
    })?;
    let pid = child.id();
    // The child outlives this value on purpose: `down`, perhaps in another process, ends it.
    // Even one that has ended by now is there as a zombie, as nobody has waited for it.
    let started = started_ticks(pid).ok_or_else(|| SystemError::Failed {
        program: "java",
        purpose: "at its start",
        tail: format!("process {pid} is not in /proc"),
    })?;
    Ok((pid, started))
}

fn run(
    mut command: Command,
    program: &'static str,
    purpose: &'static str,
    install: &'static str,
) -> Result<String, SystemError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| SystemError::Missing { program, purpose, install, source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let tail = tail_of(&(text + &String::from_utf8_lossy(&output.stderr)));
    Err(SystemError::Failed { program, purpose, tail })
}

fn fill_template(data: &Path, broker_port: u16, controller_port: u16, settings: &BTreeMap<String, String>) -> String {
    let mut lines: Vec<String> = TEMPLATE
        .replace("@BROKER_PORT@", &broker_port.to_string())
        .replace("@CONTROLLER_PORT@", &controller_port.to_string())
        .replace("@DATA_DIR@", &data.display().to_string())
        .lines()
        .filter(|line| !line.split_once('=').is_some_and(|(name, _)| settings.contains_key(name)))
        .map(str::to_owned)
        .collect();
    lines.extend(settings.iter().map(|(name, value)| format!("{name}={value}")));
    lines.join("\n") + "\n"
}

/// Two ports that were free a moment ago; Kafka must be told its ports before it starts.
fn free_ports() -> std::io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

/// The version that the pom pins.
fn pinned_version() -> String {
    let after = POM.split("<kafka.version>").nth(1).expect("the pom that is built in names kafka.version");
    after.split('<').next().expect("a split has a first part").to_owned()
}

const POM: &str = include_str!("../../../systems/kafka/pom.xml");
const TEMPLATE: &str = include_str!("../../../systems/kafka/server.properties.template");
const LOGGING: &str = include_str!("../../../systems/kafka/log4j2.yaml");
const JAVA_INSTALL: &str = "a Java runtime, version 17 or newer (Debian: apt install openjdk-17-jre-headless)";
/// What Kafka's own start script gives a broker.
const STOCK_FLAGS: &[&str] = &[
    "-Xmx1G",
    "-Xms1G",
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
    fn the_pom_pins_a_release_of_the_fourth_version() {
        assert!(pinned_version().starts_with("4."), "{}", pinned_version());
    }

    #[test]
    fn the_template_is_filled_and_a_setting_replaces_the_line_of_its_name() {
        let settings = BTreeMap::from([
            ("offsets.topic.replication.factor".to_owned(), "3".to_owned()),
            ("num.io.threads".to_owned(), "2".to_owned()),
        ]);
        let text = fill_template(Path::new("/d"), 1111, 2222, &settings);
        assert!(!text.contains("_PORT@") && !text.contains("_DIR@"), "{text}");
        assert!(text.contains("advertised.listeners=PLAINTEXT://127.0.0.1:1111\n"));
        assert!(text.contains("log.dirs=/d\n") && text.contains("num.io.threads=2\n"));
        assert_eq!(text.matches("offsets.topic.replication.factor").count(), 1);
        assert!(text.contains("offsets.topic.replication.factor=3\n"));
    }
}
