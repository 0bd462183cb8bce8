//! RabbitMQ: the distribution's packages unpacked into the system's folder, not installed; Erlang's port mapper and one
//! node on free loopback ports. The files that it is made from are in `systems/rabbitmq` and built in.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::launch::{self, Launch, fill, free_ports, run, word};
use super::{Options, Running, SystemError, io};

/// Unpacks where needed and starts both processes. Does not wait for them.
pub(super) fn start(folder: &Path, options: &Options, running: &mut Running) -> Result<(), SystemError> {
    let root = unpack(folder)?;
    let server = only_entry(&root.join("usr/lib/rabbitmq/lib"), "rabbitmq_server-")?;
    let runtime = only_entry(&root.join("usr/lib/erlang"), "erts-")?;
    running.version = server
        .file_name()
        .map_or(String::new(), |name| name.to_string_lossy().trim_start_matches("rabbitmq_server-").to_owned());
    let ports = free_ports(3).map_err(io("find free loopback ports for", folder))?;
    let (mapper, broker, distribution) = (ports[0], ports[1], ports[2]);
    running.bootstrap = format!("127.0.0.1:{broker}");
    let configuration = folder.join("rabbitmq.conf");
    let text = fill(CONFIGURATION, &[("BROKER_PORT", broker.to_string())], &options.settings);
    std::fs::write(&configuration, text).map_err(io("write", &configuration))?;
    let plugins = folder.join("enabled_plugins");
    std::fs::write(&plugins, "[].\n").map_err(io("write", &plugins))?;
    let launcher = write_launcher(folder, &root, &runtime)?;
    let system_path = std::env::var("PATH").unwrap_or_default();
    let words = |pairs: &[(&str, String)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    launch::start(
        folder,
        running,
        Launch {
            role: "port-mapper".to_owned(),
            is_broker: false,
            address: format!("127.0.0.1:{mapper}"),
            command: vec![
                word(&runtime.join("bin/epmd")),
                "-address".into(),
                "127.0.0.1".into(),
                "-port".into(),
                mapper.to_string(),
            ],
            environment: BTreeMap::new(),
            install: INSTALL,
        },
    )?;
    let environment = words(&[
        ("PATH", format!("{}:{system_path}", launcher.display())),
        ("HOME", word(folder)),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", mapper.to_string()),
        ("RABBITMQ_NODENAME", "mqassay@localhost".to_owned()),
        ("RABBITMQ_DIST_PORT", distribution.to_string()),
        ("RABBITMQ_MNESIA_BASE", word(&running.data_dir.join("node-1"))),
        ("RABBITMQ_LOG_BASE", word(folder)),
        ("RABBITMQ_CONFIG_FILE", word(&folder.join("rabbitmq"))),
        ("RABBITMQ_CONF_ENV_FILE", word(&folder.join("rabbitmq-env.conf"))),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", word(&plugins)),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false".into()),
        // So that the script becomes the node instead of waiting for it: the pid that is recorded is the node's.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ]);
    launch::start(
        folder,
        running,
        Launch {
            role: "broker-1".to_owned(),
            is_broker: true,
            address: running.bootstrap.clone(),
            command: vec!["/bin/sh".to_owned(), word(&server.join("sbin/rabbitmq-server"))],
            environment,
            install: INSTALL,
        },
    )
}

/// The folder with the unpacked packages; the list of them is the marker of a whole one.
fn unpack(folder: &Path) -> Result<PathBuf, SystemError> {
    let root = folder.join("root");
    let marker = folder.join("unpacked");
    if std::fs::read_to_string(&marker).is_ok_and(|text| text == PACKAGES) {
        return Ok(root);
    }
    let packages = folder.join("packages");
    for path in [&root, &packages] {
        if path.exists() {
            std::fs::remove_dir_all(path).map_err(io("remove", path))?;
        }
        std::fs::create_dir_all(path).map_err(io("create", path))?;
    }
    let mut command = Command::new("apt-get");
    // Without a change of user: apt's own could not write into this folder.
    command
        .args(["-o", "APT::Sandbox::User=root", "download"])
        .args(PACKAGES.split_whitespace())
        .current_dir(&packages);
    run(command, "to download RabbitMQ's packages", INSTALL)?;
    let entries = std::fs::read_dir(&packages).map_err(io("list", &packages))?;
    for entry in entries {
        let path = entry.map_err(io("list", &packages))?.path();
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(&path).arg(&root);
        run(command, "to unpack RabbitMQ's packages", INSTALL)?;
    }
    std::fs::write(&marker, PACKAGES).map_err(io("write", &marker))?;
    Ok(root)
}

/// A folder with an `erl` that looks below `root`: the package's own looks only where it would have been installed.
fn write_launcher(folder: &Path, root: &Path, runtime: &Path) -> Result<PathBuf, SystemError> {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).map_err(io("create", &bin))?;
    let path = bin.join("erl");
    let (erlang, binaries) = (root.join("usr/lib/erlang"), runtime.join("bin"));
    let text = format!(
        "#!/bin/sh\nexport ROOTDIR='{}' BINDIR='{}' EMU=beam PROGNAME=erl\nexec \"$BINDIR/erlexec\" \"$@\"\n",
        erlang.display(),
        binaries.display()
    );
    std::fs::write(&path, text).map_err(io("write", &path))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(io("make executable", &path))?;
    Ok(bin)
}

/// The entry whose name begins so; the packages bring exactly one.
fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf, SystemError> {
    let entries = std::fs::read_dir(folder).map_err(io("list", folder))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let bears_prefix = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    paths.into_iter().find(bears_prefix).ok_or_else(|| SystemError::Failed {
        program: "dpkg-deb".to_owned(),
        purpose: "to unpack RabbitMQ's packages",
        tail: format!("there is no {prefix}* in {}; remove {} to begin anew", folder.display(), folder.display()),
    })
}

const PACKAGES: &str = include_str!("../../../systems/rabbitmq/packages.txt");
const CONFIGURATION: &str = include_str!("../../../systems/rabbitmq/rabbitmq.conf.template");
const INSTALL: &str =
    "apt-get and dpkg-deb with package lists (apt-get update); RabbitMQ is provisioned on Debian and Ubuntu only";
