//! Apache RocketMQ: jars through Maven from a pinned pom, Java files of ours compiled against them, a name server, one
//! master and, where two nodes are asked for, its slave on free loopback ports. The files that it is made from are in `systems/rocketmq` and built in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::launch::{self, JAVA_INSTALL, Launch, fetch_jars, fill, free_ports, pinned, run, word};
use super::{Options, Running, SystemError, io};

/// Fetches and compiles where needed, and starts both processes. Does not wait for them.
pub(super) fn start(folder: &Path, options: &Options, running: &mut Running) -> Result<(), SystemError> {
    running.version = pinned(POM, "rocketmq.version");
    let jars = fetch_jars(folder, &running.version, POM)?;
    let classes = compile(folder, &jars)?;
    let class_path = format!("{}:{}", word(&classes), word(&jars.join("*")));
    running.class_path = Some(class_path.clone());
    if options.nodes > 2 {
        return Err(SystemError::Nodes { name: running.name.clone(), nodes: options.nodes });
    }
    let ports = free_ports(1 + 2 * options.nodes as usize).map_err(io("find free loopback ports for", folder))?;
    let name_server_port = ports[0];
    running.bootstrap = format!("127.0.0.1:{name_server_port}");
    let mut brokers = Vec::new();
    for (index, ports) in ports[1..].chunks(2).enumerate() {
        let values = [
            ("BROKER_PORT", ports[0].to_string()),
            ("HA_PORT", ports[1].to_string()),
            ("NAMESRV_PORT", name_server_port.to_string()),
            ("DATA_DIR", word(&running.data_dir.join(format!("node-{}", index + 1)))),
        ];
        let mut settings = options.settings.clone();
        if index > 0 {
            settings.insert("brokerId".to_owned(), index.to_string());
            settings.insert("brokerRole".to_owned(), "SLAVE".to_owned());
        }
        let file = folder.join(format!("broker-{}.properties", index + 1));
        std::fs::write(&file, fill(BROKER, &values, &settings)).map_err(io("write", &file))?;
        brokers.push((ports[0], file));
    }
    let name_server_file = folder.join("namesrv.properties");
    let text = format!("listenPort={name_server_port}\nbindAddress=127.0.0.1\n");
    std::fs::write(&name_server_file, text).map_err(io("write", &name_server_file))?;
    let mut start = |role: &str, class: &str, file: &Path, port: u16, heap: &str| {
        let mut command = vec!["java".to_owned(), format!("-Xmx{heap}"), format!("-Xms{heap}")];
        command.extend(FLAGS.iter().map(|flag| (*flag).to_owned()));
        // RocketMQ's own logs go below the user's home; here they stay with the system.
        command.push(format!("-Duser.home={}", folder.display()));
        command.extend(["-cp", &class_path, class, "-c", &word(file)].map(str::to_owned));
        let launch = Launch {
            role: role.to_owned(),
            is_broker: role != "namesrv",
            address: format!("127.0.0.1:{port}"),
            command,
            environment: BTreeMap::from([("ROCKETMQ_HOME".to_owned(), word(folder))]),
            install: JAVA_INSTALL,
        };
        launch::start(folder, running, launch)
    };
    start("namesrv", "org.apache.rocketmq.namesrv.NamesrvStartup", &name_server_file, name_server_port, "256m")?;
    let heap = options.heap.as_deref().unwrap_or("1G");
    for (index, (port, file)) in brokers.iter().enumerate() {
        start(&format!("broker-{}", index + 1), "LoopbackBroker", file, *port, heap)?;
    }
    Ok(())
}

/// Compiles our files against the jars, where they are new.
fn compile(folder: &Path, jars: &Path) -> Result<PathBuf, SystemError> {
    let classes = folder.join("classes");
    let marker = classes.join("complete");
    let text = SOURCES.map(|(_, text)| text).concat();
    if std::fs::read_to_string(&marker).is_ok_and(|compiled| compiled == text) {
        return Ok(classes);
    }
    std::fs::create_dir_all(&classes).map_err(io("create", &classes))?;
    let mut command = Command::new("javac");
    command.args(["-nowarn", "-cp"]).arg(jars.join("*")).arg("-d").arg(&classes);
    for (name, text) in SOURCES {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(io("write", &path))?;
        command.arg(&path);
    }
    run(
        command,
        "to compile RocketMQ's client",
        "a JDK, version 17 or newer (Debian: apt install openjdk-17-jdk-headless)",
    )?;
    std::fs::write(&marker, text).map_err(io("write", &marker))?;
    Ok(classes)
}

const POM: &str = include_str!("../../../systems/rocketmq/pom.xml");
const BROKER: &str = include_str!("../../../systems/rocketmq/broker.properties.template");
const SOURCES: [(&str, &str); 3] = [
    ("JudgeDriver.java", include_str!("../../../systems/rocketmq/JudgeDriver.java")),
    ("LoopbackBroker.java", include_str!("../../../systems/rocketmq/LoopbackBroker.java")),
    ("LoadClient.java", include_str!("../../../systems/rocketmq/LoadClient.java")),
];
/// What RocketMQ's own start script opens and sets, as far as Java 17 knows it.
const FLAGS: &[&str] = &[
    "-server",
    "-XX:+UseG1GC",
    "-XX:G1HeapRegionSize=16m",
    "-XX:-UseBiasedLocking",
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
];
