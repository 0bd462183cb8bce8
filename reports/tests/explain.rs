//! The page that explains a run names the cause, shows the evidence in every part, and needs nothing beside itself.

mod fixture;

use fixture::story::lost_write;
use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::guarantee::Anomaly;
use mqassay_harness::history::Mark;
use mqassay_harness::sim::disk::LossKind;
use mqassay_harness::story::Story;
use mqassay_reports::render_story;

/// The page, its slashes as they were (the template engine escapes them too), its spaces all of one kind.
fn page(story: &Story) -> String {
    render_story(story).expect("the story renders").replace("&#x2f;", "/").replace('\u{a0}', " ").replace("&#x27;", "'")
}

#[test]
fn a_reader_finds_cause_proofs_lanes_and_curve() {
    let page = page(&lost_write());
    let wanted = [
        "A guarantee was broken: lost-write.",
        "lost-write was found 4 times",
        "(1) a produce of producer 0, (2) a final read of final reader",
        "It followed the power loss of node 0 at 2.050 s: offset 8 lay in volatile memory only (its batch ends at position \
         2,500 of log 1, which was synced up to 2,000), the node had already confirmed it (high watermark 12), and after \
         the restart",
        "ended at offset 8.",
        ">producer</text>",
        ">node</text>",
        ">consumer</text>",
        ">reader</text>",
        "class=\"bar done proof\"",
        "power loss (fault 0), 2.050 s",
        "started again",
        "offsets 8 to 9: in memory only, up to position 2500",
        "offsets 8 to 9: gone",
        "offsets 6 to 7: synced, up to position 2000",
        "high watermark 12",
        "lost-write became likely between 2.050 s and 2.051 s: from 12 % to 100 % of the runs",
        "40 of 40 runs from 2051 ms on",
        "2,048 bytes gone or older; length 4,096 before, of which 2,048 was durable, 2,048 afterwards",
        "mqassay replay runs/power@S1/3/plan.json",
        "prefers-color-scheme: dark",
    ];
    for text in wanted {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    assert!(!page.contains("<b>t"), "input reached the page as markup");
}

/// The same loss with everything synced is another cause, and the page must say so.
#[test]
fn a_loss_of_what_counted_as_durable_blames_the_drive_or_recovery() {
    let mut story = lost_write();
    for state in &mut story.states {
        state.queues[0].synced = 10_000;
    }
    let torn = page(&story);
    assert!(torn.contains("the node took offset 8 for durable"), "the belief is not told");
    assert!(torn.contains("lost 2,048 bytes that were not durable"), "the drive is not blamed");
    story.losses[0].kind = LossKind::Vanished { length: 4_096 };
    assert!(page(&story).contains("vanished with the power, for its name was never made durable"));
    story.losses.clear();
    assert!(page(&story).contains("the drive still held it, but recovery did not keep it"));
}

#[test]
fn what_a_story_lacks_is_said_and_no_cause_is_made_up() {
    let mut story = lost_write();
    story.states.clear();
    story.curve = None;
    let blind = page(&story);
    assert!(blind.contains("the recorded states do not show how that led to it"));
    assert!(blind.contains("This was not tried"));
    let exit = Mark::NodeExit { at_us: 2_500_000, node: 0, reason: "the disk is gone".to_owned(), declared: true };
    story.history.marks.push(exit);
    assert!(page(&story).contains("Node 0 had ended by itself at 2.500 s, saying: the disk is gone."));
    let late = |mark: &mut Mark| {
        if let Mark::Fault { at_us, .. } = mark {
            *at_us += 60_000_000;
        }
    };
    story.history.marks.iter_mut().for_each(late);
    assert!(page(&story).contains("No fault had struck before it was seen."));
    let anomaly = std::mem::replace(&mut story.verdict.findings[0].anomaly, Anomaly::Unseen);
    assert!(page(&story).contains("The last fault before it was seen was the"), "what is unseen is missed at the end");
    story.verdict.findings[0].anomaly = anomaly;
    story.history.marks.retain(|mark| !matches!(mark, Mark::Fault { .. }));
    assert!(page(&story).contains("No fault had struck before it was seen."));
    story.verdict.findings.clear();
    story.verdict.kind = VerdictKind::Valid;
    let valid = page(&story);
    assert!(valid.contains("Every guarantee held.") && valid.contains("there is nothing to explain"));
    assert!(!valid.contains("<svg"), "a picture of nothing");
}

#[test]
fn the_page_is_well_formed_small_and_fetches_nothing() {
    let mut story = lost_write();
    let message = story.messages[0];
    story.messages.extend(std::iter::repeat_n(message, 20_000));
    let page = page(&story);
    fixture::assert_well_formed(&page);
    assert!(page.contains("arrows are left out"));
    assert!(page.len() < 2 << 20, "the page has {} bytes", page.len());
    for fetched in ["<script", "<link", "<img", "<iframe", "url(", "@import", "href=\"http", "src="] {
        assert!(!page.contains(fetched), "the page holds {fetched:?}");
    }
    assert!(!page.contains("fill=\"#") && !page.contains("NaN"), "a colour or place is not as it should be");
}
