//! The fingerprint of a run that is not valid: which anomalies, on which kind of evidence, after which class of fault.
//! Runs with one fingerprint probably have one cause; the grouping is a help for people and decides nothing.

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::check::Verdict;
use mqassay_harness::history::{Call, GroupStep, History, Mark, Operation};

/// The fingerprint; none for a valid run.
pub fn of(verdict: &Verdict, history: &History) -> Option<String> {
    match verdict.kind {
        VerdictKind::Valid => None,
        VerdictKind::Unknown => {
            let mut checkers: Vec<&str> = verdict.unjudged.iter().map(|unjudged| unjudged.checker.as_str()).collect();
            checkers.sort_unstable();
            checkers.dedup();
            Some(format!("not judged by {}", checkers.join("+")))
        }
        VerdictKind::Invalid => Some(of_violations(verdict, history)),
    }
}

fn of_violations(verdict: &Verdict, history: &History) -> String {
    let anomalies: Vec<String> = verdict.violations().into_keys().collect();
    let first = verdict.findings.iter().find(|finding| finding.allowed.is_none());
    let evidence = first.map(|finding| finding.evidence.as_slice()).unwrap_or_default();
    let shown: Vec<&Operation> = evidence
        .iter()
        .filter_map(|evidence| history.operations.get(usize::try_from(evidence.operation?).ok()?))
        .collect();
    // The operation that came last is the one in which the anomaly became visible.
    let last = shown.iter().max_by_key(|operation| operation.completed_us);
    let kind = last.map_or("mark", |operation| kind(&operation.call));
    let until_us = last.map_or(u64::MAX, |operation| operation.completed_us);
    let fault = last_fault(history, until_us).map_or("no fault".to_owned(), |class| class.to_owned());
    format!("{} on {kind} after {fault}", anomalies.join("+"))
}

/// The class of the last fault that struck at or before a time.
fn last_fault(history: &History, until_us: u64) -> Option<&str> {
    let faults = history.marks.iter().filter_map(|mark| match mark {
        Mark::Fault { at_us, class, .. } if *at_us <= until_us => Some((*at_us, class.as_str())),
        Mark::Fault { .. } | Mark::NodeExit { .. } | Mark::LivenessBegan { .. } | Mark::LivenessEnded { .. } => None,
    });
    faults.max_by_key(|(at_us, _)| *at_us).map(|(_, class)| class)
}

fn kind(call: &Call) -> &'static str {
    match call {
        Call::Produce { .. } => "produce",
        Call::Poll { is_final: false, .. } => "poll",
        Call::Poll { is_final: true, .. } => "final read",
        Call::Seek { .. } => "seek",
        Call::ListOffset { .. } => "list-offset",
        Call::DeleteRecords { .. } => "delete-records",
        Call::CreateTopic { .. } => "create-topic",
        Call::Group { step, .. } => match step {
            GroupStep::Own { .. } => "own",
            GroupStep::Release { .. } => "release",
            GroupStep::Commit { .. } => "commit",
            GroupStep::FetchOffsets { .. } => "fetch-offsets",
        },
    }
}

#[cfg(test)]
mod tests {
    use mqassay_harness::check::{Evidence, Finding, Unjudged};
    use mqassay_harness::guarantee::Anomaly;
    use mqassay_harness::history::{ClientId, Header, Outcome, SCHEMA_VERSION};

    use super::*;

    fn operation(completed_us: u64, is_final: bool) -> Operation {
        let call = Call::Poll { runs: Vec::new(), corrupt: Vec::new(), positions: Vec::new(), is_final };
        Operation { client: ClientId(0), invoked_us: 0, completed_us, outcome: Outcome::Done, call }
    }

    fn history() -> History {
        let fault =
            |at_us, class: &str, fault| Mark::Fault { at_us, class: class.to_owned(), fault, nodes: Vec::new() };
        History {
            header: Header { schema: SCHEMA_VERSION, topics: Vec::new(), title: String::new() },
            operations: vec![operation(50, false), operation(150, false), operation(500, true)],
            marks: vec![fault(10, "kill", 0), fault(100, "power-loss", 1), fault(200, "link-cut", 2)],
        }
    }

    fn verdict(kind: VerdictKind, operations: &[Option<u64>]) -> Verdict {
        let evidence =
            operations.iter().map(|operation| Evidence { operation: *operation, text: String::new() }).collect();
        let explanation = String::new();
        let finding = Finding { anomaly: Anomaly::LostWrite, count: 1, allowed: None, explanation, evidence };
        let unjudged = vec![Unjudged { checker: "order".to_owned(), reason: "it failed".to_owned() }];
        Verdict { kind, findings: vec![finding], unjudged }
    }

    #[test]
    fn the_fingerprint_names_anomaly_evidence_and_the_fault_before_it() {
        type Case<'a> = (VerdictKind, &'a [Option<u64>], Option<&'a str>);
        let cases: [Case<'_>; 6] = [
            (VerdictKind::Invalid, &[Some(0)], Some("lost-write on poll after kill")),
            (VerdictKind::Invalid, &[Some(1), Some(0)], Some("lost-write on poll after power-loss")),
            (VerdictKind::Invalid, &[Some(0), Some(2)], Some("lost-write on final read after link-cut")),
            (VerdictKind::Invalid, &[None], Some("lost-write on mark after link-cut")),
            (VerdictKind::Unknown, &[], Some("not judged by order")),
            (VerdictKind::Valid, &[], None),
        ];
        for (kind, operations, expected) in cases {
            assert_eq!(of(&verdict(kind, operations), &history()).as_deref(), expected, "{operations:?}");
        }
        let calm = History { marks: Vec::new(), ..history() };
        let told = of(&verdict(VerdictKind::Invalid, &[Some(0)]), &calm);
        assert_eq!(told.as_deref(), Some("lost-write on poll after no fault"));
    }
}
