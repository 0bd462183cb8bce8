//! A failing plan is explained: the page names the anomaly, the fault and what the node held in memory alone, and a plan
//! that cannot be read is refused.

use std::path::Path;
use std::process::{Command, Output};

fn mqassay(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqassay"));
    command.args(arguments).current_dir(folder).output().expect("the binary that cargo built can be started")
}

#[test]
fn the_page_of_an_early_acknowledgement_names_its_cause() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let verify = ["verify", "no-loss", "--mutant", "S1", "--seeds", "1..30", "--keep", "failures"];
    assert_eq!(mqassay(&verify, folder.path()).status.code(), Some(1), "S1 is caught within thirty seeds");
    let failures = std::fs::read_dir(folder.path().join("runs/no-loss@S1")).expect("failures are kept");
    let mut causes = 0;
    for failure in failures {
        let plan = failure.expect("the folder can be listed").path().join("plan.json");
        let plan = plan.to_str().expect("our own path");
        let explained = mqassay(&["explain", plan, "-o", "why.html", "--budget", "0"], folder.path());
        assert_eq!(explained.status.code(), Some(1), "{}", String::from_utf8_lossy(&explained.stderr));
        let page = std::fs::read_to_string(folder.path().join("why.html")).expect("the page was written");
        assert!(page.contains("mqassay replay") && page.contains("<svg") && page.len() < 2 << 20);
        let wanted = ["It followed the power loss of node 0", "in volatile memory only", "had already confirmed it"];
        causes += u32::from(wanted.iter().all(|text| page.contains(text)));
    }
    assert!(causes > 0, "no page names the early acknowledgement");
}

#[test]
fn a_file_that_is_no_plan_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("plan.json"), "{}").expect("the file is written");
    let refused = mqassay(&["explain", "plan.json", "-o", "why.html"], folder.path());
    assert_eq!(refused.status.code(), Some(64));
    assert!(!folder.path().join("why.html").exists());
}
