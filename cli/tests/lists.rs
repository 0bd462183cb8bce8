//! The lists and the page that need no run: their field names are stable, and a page is made of a folder's results.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn mqassay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqassay"))
        .args(arguments)
        .output()
        .expect("the binary that cargo built can be started")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

fn fields(line: &Value) -> Vec<&str> {
    line.as_object().expect("a line is an object").keys().map(String::as_str).collect()
}

#[test]
fn lists_are_json_lines_with_stable_names() {
    let scenarios = mqassay(&["scenarios", "--json"]);
    assert!(lines(&scenarios).iter().any(|line| line["scenario"] == "no-loss"));
    let mutants = mqassay(&["mutants", "--json"]);
    assert!(lines(&mutants).iter().any(|line| line["mutant"] == "S1"));
    let cases: [(&Output, &[&str]); 2] = [
        (&scenarios, &["faults", "scenario", "title"]),
        (&mutants, &["anomalies", "grade", "mutant", "needs", "scenarios", "title"]),
    ];
    for (output, expected) in cases {
        assert!(output.status.success());
        for line in lines(output) {
            assert_eq!(fields(&line), expected, "{line}");
        }
    }
}

#[test]
fn a_page_is_made_of_a_folder_with_results() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "verify.jsonl",
        "{\"scenario\":\"order\",\"seed\":5,\"mutant\":null,\"verdict\":\"invalid\",\"anomalies\":{\"duplicate\":2},\
         \"allowed\":{},\"operations\":310,\"faults\":4,\"trace_hash\":\"00\",\"plan\":\"runs/order/5/plan.json\",\
         \"simulated_seconds\":20.5,\"wall_seconds\":0.2}\n{\"summary\":true,\"runs\":1,\"valid\":0,\"unknown\":0,\
         \"invalid\":1,\"events\":{\"kill\":3}}\n",
    );
    write("manifest.json", "{\"kernel\":\"Linux 6.1\"}");
    let page = folder.path().join("page.html");
    let output = mqassay(&["report", utf8(folder.path()), "-o", utf8(&page)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(page).unwrap();
    for wanted in ["A guarantee was broken in 1 of 1 run", "duplicate 2", "Linux 6.1", "mqassay replay runs"] {
        assert!(page.contains(wanted), "the page lacks {wanted:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [["--help"], ["--version"]] {
        let output = mqassay(&arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("mqassay") && output.stderr.is_empty());
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders have names in UTF-8")
}
