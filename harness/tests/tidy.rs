//! The house rules as a test: sizes, head comments, what the pure parts may import, who depends on whom. Each rule is a
//! function from a file or a manifest to complaints, and is itself shown to complain about a bad sample.
//! Not here: what rustfmt and clippy say.

mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use source::{code_of, functions_of, has_word};

const FILE_LINES_MAXIMUM: usize = 800;
const FUNCTION_LINES_MAXIMUM: usize = 70;
const README_LINES_MAXIMUM: usize = 120;
const ARCHITECTURE_LINES_MAXIMUM: usize = 200;

/// Folders whose code is a function of its arguments alone.
const PURE_FOLDERS: [&str; 2] = ["broker/src/core/", "harness/src/check/"];

/// Words that pure code must not use: clocks, threads, the environment, the outside world, hash order.
const IMPURE_WORDS: [&str; 18] = [
    "Instant",
    "SystemTime",
    "std::thread",
    "std::env",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::process",
    "tokio",
    "turmoil",
    "rand",
    "getrandom",
    "HashMap",
    "HashSet",
    "RandomState",
    "DefaultHasher",
    "thread_local",
];

/// Rooms of the harness from which the checkers may import.
const CHECK_IMPORTS: [&str; 5] = ["check", "guarantee", "history", "plan", "artifact::VerdictKind"];

/// Text files that are part of the project, by ending.
const TEXT_ENDINGS: [&str; 10] = ["rs", "toml", "md", "run", "html", "css", "xml", "json", "properties", "txt"];

/// A file of the workspace.
struct File {
    /// Relative to the workspace's root, with forward slashes.
    path: String,
    text: String,
}

#[test]
fn the_workspace_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let files = files(root);
    assert!(files.len() > 100, "only {} files were found below {}", files.len(), root.display());
    let mut complaints = Vec::new();
    for file in &files {
        complaints.extend(machine_path(file));
        complaints.extend(flags_variable(file));
        complaints.extend(document_length(file));
        if file.path.ends_with(".rs") {
            complaints.extend(file_length(file));
            complaints.extend(head_comment(file));
            complaints.extend(function_length(file));
            complaints.extend(impure_words(file));
            complaints.extend(check_imports(file));
            complaints.extend(switched_off_tests(file));
        }
    }
    let manifests: Vec<&File> = files.iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    complaints.extend(dependency_arrows(&manifests));
    complaints.extend(inherited_lints(&manifests));
    complaints.extend(binary_targets(&files));
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

fn file_length(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAXIMUM)
        .then(|| format!("{}: {lines} lines; split it by noun, at most {FILE_LINES_MAXIMUM}", file.path))
}

fn head_comment(file: &File) -> Option<String> {
    let has_head = file.text.lines().next().is_some_and(|line| line.starts_with("//! "));
    (!has_head)
        .then(|| format!("{}: open it with a `//!` comment: what it is, what it is not, where to start", file.path))
}

fn function_length(file: &File) -> Vec<String> {
    let long =
        functions_of(&code_of(&file.text)).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAXIMUM);
    long.map(|function| {
        let (path, line, name, lines) = (&file.path, function.line, &function.name, function.lines);
        format!("{path}:{line}: {name} has {lines} lines; at most {FUNCTION_LINES_MAXIMUM}")
    })
    .collect()
}

fn impure_words(file: &File) -> Vec<String> {
    if !PURE_FOLDERS.iter().any(|folder| file.path.starts_with(folder)) || is_test(&file.path) {
        return Vec::new();
    }
    let code = without_test_modules(&code_of(&file.text));
    let found = IMPURE_WORDS.iter().filter(|word| has_word(&code, word));
    found.map(|word| format!("{}: {word} has no place in pure code; take it as an argument", file.path)).collect()
}

fn check_imports(file: &File) -> Vec<String> {
    if !file.path.starts_with("harness/src/check/") {
        return Vec::new();
    }
    let code = code_of(&file.text);
    let paths = code.match_indices("crate::").map(|(at, word)| &code[at + word.len()..]);
    let is_allowed = |path: &str| CHECK_IMPORTS.iter().any(|room| path.starts_with(room));
    let outside = paths.filter(|path| !is_allowed(path)).map(|path| path.lines().next().unwrap_or(path));
    outside
        .map(|path| format!("{}: imports crate::{path}; checkers see histories, plans and the matrix", file.path))
        .collect()
}

fn switched_off_tests(file: &File) -> Vec<String> {
    let code = code_of(&file.text);
    let attributes = [["#[", "ignore"].concat(), ["#[", "should_panic"].concat()];
    let found = attributes.iter().filter(|attribute| code.contains(attribute.as_str()));
    found.map(|attribute| format!("{}: {attribute}] is not used here; assert what is known", file.path)).collect()
}

fn flags_variable(file: &File) -> Vec<String> {
    let variable = ["RUST", "FLAGS"].concat();
    let sets = |line: &str| {
        line.match_indices(&variable).any(|(at, _)| {
            let is_own_word = !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            is_own_word && line[at + variable.len()..].trim_start().starts_with(['=', ':'])
        })
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| sets(line));
    lines
        .map(|(index, _)| format!("{}:{}: sets {variable}; it replaces the project's own flags", file.path, index + 1))
        .collect()
}

fn machine_path(file: &File) -> Vec<String> {
    let folders = ["home", "root", "work", "Users", "private"].map(|folder| format!("/{folder}/"));
    let starts_path = |line: &str, folder: &String| {
        line.match_indices(folder.as_str()).any(|(at, _)| {
            // A path that is part of a longer relative one, or of an address, is not of this machine.
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-~$}/".contains(before))
        })
    };
    let lines =
        file.text.lines().enumerate().filter(|(_, line)| folders.iter().any(|folder| starts_path(line, folder)));
    lines.map(|(index, _)| format!("{}:{}: names a path of one machine", file.path, index + 1)).collect()
}

fn document_length(file: &File) -> Option<String> {
    let limit = match file.path.as_str() {
        "README.md" => README_LINES_MAXIMUM,
        "ARCHITECTURE.md" => ARCHITECTURE_LINES_MAXIMUM,
        _ => return None,
    };
    let lines = file.text.lines().count();
    (lines > limit).then(|| format!("{}: {lines} lines; at most {limit}", file.path))
}

/// Who may depend on whom: `broker` and `harness` on none of ours, nobody but `cli` on `scenarios`, `benches`, `reports`.
fn dependency_arrows(manifests: &[&File]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("broker", &[][..]),
        ("harness", &[][..]),
        ("scenarios", &["broker", "harness"][..]),
        ("benches", &["broker", "harness"][..]),
        ("reports", &["harness"][..]),
        ("cli", &["broker", "harness", "scenarios", "benches", "reports"][..]),
    ]);
    let mut complaints = Vec::new();
    for manifest in manifests {
        let room = manifest.path.trim_end_matches("/Cargo.toml");
        let Some(may) = allowed.get(room) else {
            complaints.push(format!("{}: the room {room} has no place in the design", manifest.path));
            continue;
        };
        for name in dependencies(&manifest.text) {
            let Some(other) = name.strip_prefix("mqassay-") else { continue };
            if other != room && !may.contains(&other) {
                complaints.push(format!("{}: {room} must not depend on {other}", manifest.path));
            }
        }
    }
    complaints
}

fn inherited_lints(manifests: &[&File]) -> Vec<String> {
    let inherits = |text: &str| {
        let table: Option<toml::Table> = text.parse().ok();
        table.and_then(|table| table.get("lints")?.get("workspace")?.as_bool()).unwrap_or(false)
    };
    let without = manifests.iter().filter(|manifest| !inherits(&manifest.text));
    without.map(|manifest| format!("{}: inherit the workspace's lints", manifest.path)).collect()
}

/// The workspace has one binary target, so that `cargo run` needs no name.
fn binary_targets(files: &[File]) -> Option<String> {
    let sources = files.iter().filter(|file| {
        file.path.ends_with("/src/main.rs") || (file.path.contains("/src/bin/") && file.path.ends_with(".rs"))
    });
    let declared = files.iter().filter(|file| file.path.ends_with("Cargo.toml")).flat_map(|file| {
        let table: Option<toml::Table> = file.text.parse().ok();
        let targets = table.and_then(|table| table.get("bin")?.as_array().cloned()).unwrap_or_default();
        // One that names src/main.rs, or no path, is the same target as the file.
        let is_other = |target: &toml::Value| {
            let path = target.get("path").and_then(toml::Value::as_str);
            path.is_some_and(|path| path != "src/main.rs")
        };
        targets.into_iter().filter(is_other).map(|_| file.path.clone()).collect::<Vec<_>>()
    });
    let targets: Vec<String> = sources.map(|file| file.path.clone()).chain(declared).collect();
    (targets.len() != 1).then(|| format!("one binary target is wanted, there are: {targets:?}"))
}

fn dependencies(manifest: &str) -> Vec<String> {
    let Ok(table) = manifest.parse::<toml::Table>() else { return vec!["an unreadable manifest".to_owned()] };
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = sections.iter().filter_map(|section| table.get(*section)?.as_table());
    tables.flat_map(|section| section.keys().cloned()).collect()
}

fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
}

/// The code before its first test module, which by custom ends a file.
fn without_test_modules(code: &str) -> String {
    let attribute = "#[cfg(test)]";
    let tests = code.match_indices(attribute).find(|(at, _)| {
        let module = code[at + attribute.len()..].trim_start();
        module.starts_with("mod ") && module.find('{') < module.find(';')
    });
    tests.map_or(code, |(at, _)| &code[..at]).to_owned()
}

/// The project's text files: those of the rooms, and what lies in the root itself.
fn files(root: &Path) -> Vec<File> {
    let mut found = Vec::new();
    let rooms = ["broker", "harness", "scenarios", "benches", "reports", "cli", "systems", ".ci", ".cargo"];
    let mut folders: Vec<PathBuf> = rooms.iter().map(|room| root.join(room)).filter(|room| room.is_dir()).collect();
    let mut paths = entries(root);
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            let is_output = path.file_name().is_some_and(|name| name == "target" || name == "runs");
            match path.is_dir() {
                true if !is_output => folders.push(path),
                true => {}
                false => paths.push(path),
            }
        }
    }
    paths.sort();
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ending = name.rsplit('.').next().unwrap_or_default();
        if !TEXT_ENDINGS.contains(&ending) {
            continue;
        }
        let relative = path.strip_prefix(root).expect("every path was found below the root");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        found.push(File { path: relative.to_string_lossy().replace('\\', "/"), text });
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a listed entry can be read").path()).collect()
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* fn x() { */ \"fn \\\" y\" // HashMap\n'{' 'a r#\"Instant \"# b'x' br\"}\" r#type";
    let code = code_of(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "'a", "b", "r#type"]);
    assert_eq!(code.matches('\n').count(), 1);
}

#[test]
fn functions_are_found_with_their_lines() {
    let text =
        "trait T { fn declared(&self) -> [u8; 3]; }\nfn one() {}\nfn two(f: fn(u8)) -> u8\nwhere\n{\n if x { y }\n}\n";
    let found: Vec<_> = functions_of(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 2, 1), ("two".to_owned(), 3, 5)]);
}

#[test]
fn rules_of_size_complain() {
    let long_file = format!("//! Head.\n{}", "// x\n".repeat(FILE_LINES_MAXIMUM));
    assert!(file_length(&file("a.rs", &long_file)).is_some());
    assert!(file_length(&file("a.rs", "//! Head.\n")).is_none());
    let function = |lines: usize| format!("//! Head.\nfn f() {{\n{}}}\n", "x();\n".repeat(lines));
    assert_eq!(function_length(&file("a.rs", &function(FUNCTION_LINES_MAXIMUM))).len(), 1);
    assert_eq!(function_length(&file("a.rs", &function(FUNCTION_LINES_MAXIMUM - 2))).len(), 0);
    assert!(document_length(&file("README.md", &"x\n".repeat(121))).is_some());
    assert!(document_length(&file("ARCHITECTURE.md", &"x\n".repeat(201))).is_some());
    assert!(document_length(&file("docs/README.md", &"x\n".repeat(201))).is_none());
}

#[test]
fn rules_of_text_complain() {
    assert!(head_comment(&file("a.rs", "use x;\n")).is_some());
    assert!(head_comment(&file("a.rs", "//! Head.\n")).is_none());
    let ignored = ["#[", "ignore = \"slow\"]\nfn f() {}"].concat();
    assert_eq!(switched_off_tests(&file("a.rs", &ignored)).len(), 1);
    let variable = ["RUST", "FLAGS"].concat();
    assert_eq!(flags_variable(&file(".ci/run", &format!("export {variable}=-Dwarnings"))).len(), 1);
    assert_eq!(flags_variable(&file("a.md", &format!("A {variable} variable replaces it."))).len(), 0);
    let path = ["see /ro", "ot/x"].concat();
    assert_eq!(machine_path(&file("a.md", &path)).len(), 1);
    assert_eq!(machine_path(&file("a.md", "a relative at/work/x")).len(), 0);
}

#[test]
fn rules_of_purity_complain() {
    let hash = "//! Head.\nuse std::collections::HashMap;\n";
    assert_eq!(impure_words(&file("broker/src/core/a.rs", hash)).len(), 1);
    assert_eq!(impure_words(&file("harness/src/check/a.rs", hash)).len(), 1);
    assert_eq!(impure_words(&file("broker/src/node/a.rs", hash)).len(), 0);
    let spoken = "//! No HashMap, no tokio.\nfn operand() -> &'static str { \"rand\" }\n";
    assert_eq!(impure_words(&file("broker/src/core/a.rs", spoken)).len(), 0);
    let tested = "//! Head.\n#[cfg(test)]\nmod samples;\nuse tokio::x;\n#[cfg(test)]\nmod tests { use rand::x; }\n";
    let complaints = impure_words(&file("broker/src/core/a.rs", tested));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    let outside = "use crate::sim::world::World;\nuse crate::history::Run;\nuse crate::artifact::VerdictKind;\n";
    assert_eq!(check_imports(&file("harness/src/check/a.rs", outside)).len(), 1);
}

#[test]
fn rules_of_dependence_complain() {
    let manifest = |room: &str, other: &str| {
        let text = format!("[lints]\nworkspace = true\n[dev-dependencies]\nmqassay-{other}.workspace = true\n");
        file(&format!("{room}/Cargo.toml"), &text)
    };
    for (room, other) in [("broker", "harness"), ("harness", "broker"), ("reports", "broker"), ("benches", "scenarios")]
    {
        assert_eq!(dependency_arrows(&[&manifest(room, other)]).len(), 1, "{room} {other}");
    }
    assert_eq!(dependency_arrows(&[&manifest("scenarios", "broker")]).len(), 0);
    assert_eq!(dependency_arrows(&[&manifest("elsewhere", "broker")]).len(), 1);
    assert_eq!(inherited_lints(&[&file("broker/Cargo.toml", "[package]\nname = \"b\"\n")]).len(), 1);
    let main = || file("cli/src/main.rs", "//! Head.\n");
    assert!(binary_targets(&[main()]).is_none());
    assert!(binary_targets(&[]).is_some());
    assert!(binary_targets(&[main(), file("broker/src/bin/serve.rs", "//! Head.\n")]).is_some());
    let declared = file("cli/Cargo.toml", "[[bin]]\nname = \"other\"\npath = \"src/other.rs\"\n");
    assert!(binary_targets(&[main(), declared]).is_some());
}
