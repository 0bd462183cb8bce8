//! The page holds what its input holds, stays well-formed whatever the input says, and needs nothing beside itself.

mod fixture;

use fixture::comparison::two_runs;
use fixture::{Fixture, assert_well_formed};
use mqassay_harness::artifact::RunLine;
use mqassay_harness::measure::result::BenchResult;
use mqassay_reports::{ReportInput, render, render_comparison};

/// The page, its slashes as they were (the template engine escapes them too), its spaces all of one kind.
fn page(input: &ReportInput) -> String {
    render(input).expect("the fixture renders").replace("&#x2f;", "/").replace('\u{a0}', " ")
}

#[test]
fn the_page_contains_what_its_input_contains() {
    let page = page(&Fixture::full().build());
    let wanted = [
        "<title>Reference broker, one node</title>",
        "Every guarantee held in all 42 runs.",
        "idempotent-delivery",
        "lost-write",
        "nobody ever read it",
        "power loss that dropped bytes",
        "mqassay replay runs/mutants/S1/plan.json",
        "final read of t0/2 went from offset 0 to 104",
        "window-not-recovered",
        "22 → 2",
        "274 → 3",
        "Which faults it took",
        "<strong>2</strong>",
        "6 deliberate bugs were tried, each caught.",
        "Produce throughput: reference 1.84 M records/s, kafka 970 k records/s",
        "Ratios: reference is ahead of kafka in 4 of 6, behind in 0, no difference shown in 2",
        "End to end, p99: reference",
        "Produce throughput from 1 to 4,096 queues: reference, shared keeps 83 % of its best",
        "kafka keeps 4 % of its best (at 1,024)",
        "Without a verdict, for calibration: null-sink.",
        "kafka stopped early: out of memory mappings",
        "reference 4,800,000 samples",
        "72,125,000 messages verified",
        "What durability costs, records/s: reference: 1.4 M page cache, 800 k fsync before ack; kafka:",
        "Highest rate with p99 below 20 ms: reference 800 k records/s, kafka 300 k records/s",
        "Drain of the backlog: kafka 35 k records gone in 5 s",
        "kafka over time: median 900 µs, p99 4 ms in the middle window",
        "Plan batched",
        "3eed9c4f00d5aa1c1f8e3a1c09f5b1d6d8f1a2b3",
        "prefers-color-scheme: dark",
    ];
    for text in wanted {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    assert!(page.len() < 2 << 20, "the page has {} bytes", page.len());
}

#[test]
fn failures_are_said_first_and_with_the_line_that_replays_them() {
    let page = page(&Fixture::full().with_failures().build());
    let wanted = [
        "A guarantee was broken in 1 of 42 runs.",
        "Runs that are not valid",
        "<code>mqassay replay runs/",
        "&lt;b&gt;unheard-of&lt;/b&gt; 1",
        "5 of 6 caught; not caught: S6.",
        "Never happened, so nothing was shown about it: torn tail cut.",
    ];
    for text in wanted {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    assert!(!page.contains("<b>unheard-of"), "input reached the page as markup");
}

#[test]
fn an_empty_input_gives_sentences_instead_of_broken_parts() {
    let page_of_nothing = page(&ReportInput { title: "Nothing".to_owned(), ..ReportInput::default() });
    for text in [
        "No run was verified.",
        "No events were counted.",
        "No deliberate bug was caught in this run",
        "No mutant was tried",
        "Nothing was measured in this run.",
        "No manifest was recorded",
    ] {
        assert!(page_of_nothing.contains(text), "the page lacks {text:?}");
    }
    assert!(!page_of_nothing.contains("<svg"));
    let bench = BenchResult { plan: "empty".to_owned(), ..BenchResult::default() };
    let page = page(&ReportInput { benches: vec![bench], ..ReportInput::default() });
    assert!(page.contains(
        "Not part of this plan: throughput, broker CPU per message, ratios of systems, a latency spectrum, a sweep."
    ));
    assert_well_formed(&page);
}

#[test]
fn figures_that_are_no_numbers_draw_no_nonsense() {
    let mut input = Fixture::full().build();
    let bench = &mut input.benches[0];
    bench.rows[0].value = 0.0;
    bench.rows[0].low = 0.0;
    bench.rows[1].high = f64::INFINITY;
    bench.ratios[0].low = 0.0;
    bench.ratios[1].ratio = f64::NAN;
    bench.spectra[0].points.clear();
    let sweep = &mut input.benches[1].sweeps;
    sweep[0].points.truncate(1);
    sweep[1].points[0].value = 0.0;
    sweep[2].points.clear();
    let page = page(&input);
    assert_well_formed(&page);
    assert!(!page.contains("NaN\"") && !page.contains("inf\""), "a coordinate is not a number");
}

#[test]
fn the_page_is_well_formed_and_fetches_nothing() {
    for input in [Fixture::full().build(), Fixture::full().with_failures().build()] {
        let page = page(&input);
        assert_well_formed(&page);
        assert!(page.matches("<svg").count() >= 10, "charts are missing");
        for fetched in ["<script", "<link", "<img", "<iframe", "url(", "@import", "href=\"http", "src="] {
            assert!(!page.contains(fetched), "the page holds {fetched:?}");
        }
        assert!(!page.contains("fill=\"#") && !page.contains("stroke=\"#"), "a colour is not left to the style sheet");
    }
}

#[test]
fn a_campaign_of_ten_thousand_runs_stays_a_small_page() {
    let mut input = Fixture::full().build();
    let sample: Vec<RunLine> = input.runs.clone();
    input.runs = sample.iter().cycle().take(10_000).cloned().collect();
    input.summary.runs = 10_000;
    input.summary.valid = 10_000;
    assert!(page(&input).len() < 2 << 20);
}

#[test]
fn two_runs_are_compared_and_what_else_differs_is_told_first() {
    let page =
        render_comparison(&two_runs()).expect("the fixture renders").replace("&#x2f;", "/").replace('\u{a0}', " ");
    assert_well_formed(&page);
    let wanted = [
        "tuesday against monday",
        "tuesday is worse than monday in 1 figure, better in 1;",
        "Not the same machine",
        "Linux 6.12.0-1-amd64",
        "Not the same versions",
        "Plan batched: tuesday is ahead of monday in 1 of",
        "verdict of kafka: valid, then unknown",
        "client headroom of reference (only in monday)",
        "plan gone: only in monday",
        "missed",
        "no difference shown",
        "Download the whole comparison as JSON",
    ];
    for text in wanted {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    let machine = page.find("Not the same machine").expect("it is there");
    assert!(machine < page.find("<main>").expect("it is there"), "the machine stands behind the figures");
}

#[test]
fn a_page_that_only_measures_says_what_its_verdicts_are() {
    let benches = Fixture::full().build().benches;
    let measured = page(&ReportInput { benches: benches.clone(), ..ReportInput::default() });
    assert!(measured.contains("every message accounted for"), "the headline is another");
    assert!(!measured.contains("No run was verified") && !measured.contains("href=\"#mutants\""));
    let mut lost = benches;
    lost[0].verdicts[1].verdict = "invalid".to_owned();
    assert!(
        page(&ReportInput { benches: lost, ..ReportInput::default() })
            .contains("1 of the measured lost, repeated or changed")
    );
}
