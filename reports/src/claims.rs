//! The page of the claims ledger: all verdicts at a glance, then each claim with its systems, versions, figures and the
//! command that repeats it. Not here: the rules, and who computes the verdicts; they arrive finished.

use minijinja::value::Serde;
use serde::Serialize;

use crate::page::{ReportError, environment};

/// The verdict on one claim for one system.
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
    /// What each rule says of its figure; or what is missing.
    pub figures: Vec<ClaimFigure>,
    /// The plans that were run.
    pub plans: String,
    /// The command that repeats it.
    pub command: String,
    /// The page with its charts, beside this one.
    pub chart: String,
}

/// One figure against its bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClaimFigure {
    /// holds, does not hold or not shown; empty where nothing was measured.
    pub verdict: String,
    /// The figure and its bound, for people.
    pub text: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    claims: Vec<Claim<'a>>,
    systems: Vec<&'a str>,
    tested: usize,
    counts: [usize; 3],
}

#[derive(Serialize)]
struct Claim<'a> {
    id: &'a str,
    text: &'a str,
    first: &'a ClaimRow,
    rows: Vec<&'a ClaimRow>,
    /// By system, in the order of the columns: the class of its verdict.
    cells: Vec<&'static str>,
}

/// The page; it needs nothing beside itself but the pages with charts that it links to.
pub fn render_claims(rows: &[ClaimRow]) -> Result<String, ReportError> {
    let mut systems: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| !row.system.is_empty()) {
        if !systems.contains(&row.system.as_str()) {
            systems.push(&row.system);
        }
    }
    let mut claims: Vec<Claim> = Vec::new();
    for row in rows {
        match claims.last_mut().filter(|claim| claim.id == row.id) {
            Some(claim) => claim.rows.push(row),
            None => claims.push(Claim { id: &row.id, text: &row.text, first: row, rows: vec![row], cells: Vec::new() }),
        }
    }
    for claim in &mut claims {
        let cell = |system: &&str| {
            claim.rows.iter().find(|row| row.system == *system).map_or("none", |row| class(&row.verdict))
        };
        claim.cells = systems.iter().map(cell).collect();
    }
    let tested = claims.iter().filter(|claim| !claim.first.system.is_empty()).count();
    let count = |verdict: &str| rows.iter().filter(|row| row.verdict == verdict).count();
    let counts = ["holds", "does not hold", "not shown"].map(count);
    Ok(environment()?.get_template("claims.html")?.render(Serde(Claims { claims, systems, tested, counts }))?)
}

/// What a verdict looks like.
fn class(verdict: &str) -> &'static str {
    match verdict {
        "holds" => "holds",
        "does not hold" => "fails",
        _ => "open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_shows_its_verdicts_and_what_is_not_tested_says_so() {
        let figure = |verdict: &str, text: &str| ClaimFigure { verdict: verdict.to_owned(), text: text.to_owned() };
        let tested = ClaimRow {
            id: "C15".to_owned(),
            text: "Kafka writes <many>".to_owned(),
            system: "kafka".to_owned(),
            version: "4.3.1".to_owned(),
            verdict: "does not hold".to_owned(),
            figures: vec![figure("does not hold", "90,000, at least 170,000 wanted"), figure("holds", "the other one")],
            plans: "claim-throughput".to_owned(),
            command: "mqassay claims run C15".to_owned(),
            chart: "C15.html".to_owned(),
        };
        let untested = ClaimRow {
            id: "C1".to_owned(),
            verdict: "not tested here".to_owned(),
            figures: vec![figure("", "share groups")],
            ..ClaimRow::default()
        };
        let page = render_claims(&[untested, tested]).unwrap();
        let wanted = [
            "does not hold",
            "4.3.1",
            "mqassay claims run C15",
            "C15.html",
            "share groups",
            "1 of 2",
            "&lt;many&gt;",
            "at least 170,000 wanted",
            "the other one",
            "<th scope=\"col\">kafka</th>",
            "href=\"#C15\"",
        ];
        for text in wanted {
            assert!(page.contains(text), "{text}: {page}");
        }
    }
}
