//! The page of the claims ledger: a row for each claim and system, with verdict, figure, version and the command that
//! repeats it. Not here: the rules, and who computes the verdicts; they arrive finished.

use minijinja::value::Serde;
use serde::Serialize;

use crate::page::{ReportError, environment};

/// One verdict on a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClaimRow {
    /// The claim's name, as in C15.
    pub id: String,
    /// What it says.
    pub text: String,
    /// The system, empty where none was tested.
    pub system: String,
    /// Its version.
    pub version: String,
    /// holds, does not hold, not shown, or not tested here.
    pub verdict: String,
    /// The figure and its bound, or what is missing.
    pub figure: String,
    /// The plans that were run.
    pub plans: String,
    /// The command that repeats it.
    pub command: String,
    /// The page with its charts, beside this one.
    pub chart: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    claims: Vec<Vec<&'a ClaimRow>>,
    tested: usize,
}

/// The page; it needs nothing beside itself but the pages with charts that it links to.
pub fn render_claims(rows: &[ClaimRow]) -> Result<String, ReportError> {
    let mut claims: Vec<Vec<&ClaimRow>> = Vec::new();
    for row in rows {
        match claims.last_mut().filter(|claim| claim[0].id == row.id) {
            Some(claim) => claim.push(row),
            None => claims.push(vec![row]),
        }
    }
    let tested = claims.iter().filter(|claim| !claim[0].system.is_empty()).count();
    Ok(environment()?.get_template("claims.html")?.render(Serde(Claims { claims, tested }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_shows_its_verdicts_and_what_is_not_tested_says_so() {
        let tested = ClaimRow {
            id: "C15".to_owned(),
            text: "Kafka writes <many>".to_owned(),
            system: "kafka".to_owned(),
            version: "4.3.1".to_owned(),
            verdict: "does not hold".to_owned(),
            figure: "90,000, at least 170,000 wanted".to_owned(),
            plans: "claim-throughput".to_owned(),
            command: "mqassay claims run C15".to_owned(),
            chart: "C15.html".to_owned(),
        };
        let untested = ClaimRow {
            id: "C1".to_owned(),
            verdict: "not tested here".to_owned(),
            figure: "share groups".to_owned(),
            ..ClaimRow::default()
        };
        let page = render_claims(&[untested, tested]).unwrap();
        for text in
            ["does not hold", "4.3.1", "mqassay claims run C15", "C15.html", "share groups", "1 of 2", "&lt;many&gt;"]
        {
            assert!(page.contains(text), "{text}: {page}");
        }
    }
}
