//! A campaign as JUnit's XML, for the pipelines that read it: a suite for each scenario, a case for each run. A run that is
//! invalid is a failure, one that could not be judged an error. Not here: what a run's verdict means.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use mqassay_harness::artifact::{RunLine, VerdictKind};

use crate::exit::Failure;
use crate::results::cannot;
use crate::verify::told;

/// Writes the file.
pub(crate) fn write(path: &Path, runs: &[RunLine]) -> Result<(), Failure> {
    std::fs::write(path, document(runs)).map_err(|error| cannot("write", path, error))
}

fn document(runs: &[RunLine]) -> String {
    let mut suites: BTreeMap<&str, Vec<&RunLine>> = BTreeMap::new();
    runs.iter().for_each(|run| suites.entry(&run.scenario).or_default().push(run));
    let all: Vec<&RunLine> = runs.iter().collect();
    let mut text =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"mqassay\" {}>\n", sums(&all));
    let mut push = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("writing to a string cannot fail");
    for (scenario, runs) in &suites {
        push(format_args!("  <testsuite name=\"{}\" {}>\n", escaped(scenario), sums(runs)));
        for run in runs {
            push(format_args!("{}", case(run)));
        }
        push(format_args!("  </testsuite>\n"));
    }
    push(format_args!("</testsuites>\n"));
    text
}

fn sums(runs: &[&RunLine]) -> String {
    let of = |kind| runs.iter().filter(|run| run.verdict == kind).count();
    let seconds: f64 = runs.iter().map(|run| run.wall_seconds).sum();
    let (failures, errors) = (of(VerdictKind::Invalid), of(VerdictKind::Unknown));
    format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{seconds:.3}\"", runs.len())
}

fn case(run: &RunLine) -> String {
    let mutant = run.mutant.as_ref().map(|mutant| format!(", mutant {mutant}")).unwrap_or_default();
    let name = escaped(&format!("seed {}{mutant}", run.seed));
    let scenario = escaped(&run.scenario);
    let head = format!("    <testcase classname=\"{scenario}\" name=\"{name}\" time=\"{:.3}\"", run.wall_seconds);
    let element = match run.verdict {
        VerdictKind::Valid => return format!("{head}/>\n"),
        VerdictKind::Invalid => "failure",
        VerdictKind::Unknown => "error",
    };
    let anomalies: Vec<&str> = run.anomalies.keys().map(String::as_str).collect();
    let message = if anomalies.is_empty() { "could not be judged".to_owned() } else { anomalies.join(", ") };
    let (message, body) = (escaped(&message), escaped(&told(run)));
    format!("{head}>\n      <{element} message=\"{message}\">{body}</{element}>\n    </testcase>\n")
}

/// Text as XML takes it, in an element or an attribute; characters that XML 1.0 does not have become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scenario: &str, seed: u64, verdict: VerdictKind, anomaly: Option<&str>, plan: &str) -> RunLine {
        RunLine {
            scenario: scenario.to_owned(),
            seed,
            mutant: None,
            verdict,
            anomalies: anomaly.map(|name| (name.to_owned(), 2)).into_iter().collect(),
            allowed: BTreeMap::new(),
            operations: 1,
            faults: 1,
            trace_hash: String::new(),
            plan: plan.to_owned(),
            simulated_seconds: 1.0,
            wall_seconds: 0.25,
        }
    }

    #[test]
    fn every_run_is_a_case_in_the_suite_of_its_scenario() {
        let runs = [
            run("order", 1, VerdictKind::Valid, None, ""),
            run("no-loss", 2, VerdictKind::Invalid, Some("lost-write"), "a<b&\"c\"/\u{1}plan.json"),
            run("order", 3, VerdictKind::Unknown, None, "p"),
        ];
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <testsuites name=\"mqassay\" tests=\"3\" failures=\"1\" errors=\"1\" time=\"0.750\">\n\
            \x20 <testsuite name=\"no-loss\" tests=\"1\" failures=\"1\" errors=\"0\" time=\"0.250\">\n\
            \x20   <testcase classname=\"no-loss\" name=\"seed 2\" time=\"0.250\">\n\
            \x20     <failure message=\"lost-write\">INVALID (lost-write 2): no-loss seed 2; replay: mqassay replay \
            a&lt;b&amp;&quot;c&quot;/\u{fffd}plan.json; shrink: mqassay shrink a&lt;b&amp;&quot;c&quot;/\u{fffd}plan.json \
            -o small.toml</failure>\n\
            \x20   </testcase>\n\
            \x20 </testsuite>\n\
            \x20 <testsuite name=\"order\" tests=\"2\" failures=\"0\" errors=\"1\" time=\"0.500\">\n\
            \x20   <testcase classname=\"order\" name=\"seed 1\" time=\"0.250\"/>\n\
            \x20   <testcase classname=\"order\" name=\"seed 3\" time=\"0.250\">\n\
            \x20     <error message=\"could not be judged\">unknown: order seed 3; replay: mqassay replay p</error>\n\
            \x20   </testcase>\n\
            \x20 </testsuite>\n\
            </testsuites>\n";
        assert_eq!(document(&runs), expected);
    }
}
