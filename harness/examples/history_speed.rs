//! Measures the judge: `history_speed write N FILE` writes a clean sample in the binary encoding, `history_speed check
//! FILE` reads and judges it and tells how long each took. Peak memory is the business of `/usr/bin/time -v`.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use mqassay_harness::artifact::VerdictKind;
use mqassay_harness::check::{Context, TopicContext, judge};
use mqassay_harness::history::binary::BinaryWriter;
use mqassay_harness::history::open::read_file;
use mqassay_harness::history::sample::{Sample, header};

type Failure = Box<dyn std::error::Error>;

const RECORD_BYTES_MAXIMUM: u64 = 1 << 20;

#[allow(clippy::disallowed_methods, reason = "it measures real time")]
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", operations, path] => write(operations.parse()?, Path::new(path)),
        ["check", path] => {
            let began = Instant::now();
            let history = read_file(Path::new(path))?;
            let read = began.elapsed();
            let context = Context::of_topics(vec![TopicContext::default()], RECORD_BYTES_MAXIMUM);
            let verdict = judge(&history, &context);
            let (read, whole) = (read.as_secs_f64(), began.elapsed().as_secs_f64());
            println!("{} operations: read {read:.2} s, judged {:.2} s", history.operations.len(), whole - read);
            // The process ends here: giving ten million operations back one by one would take a second.
            std::mem::forget(history);
            match verdict.kind {
                VerdictKind::Valid => Ok(()),
                VerdictKind::Unknown | VerdictKind::Invalid => Err(format!("not valid: {verdict:?}").into()),
            }
        }
        _ => Err("usage: history_speed write N FILE | check FILE".into()),
    }
}

fn write(operations: u64, path: &Path) -> Result<(), Failure> {
    let mut writer = BinaryWriter::start(BufWriter::new(File::create(path)?), &header())?;
    for operation in Sample::new(operations, 1) {
        writer.operation(&operation)?;
    }
    writer.finish()?;
    Ok(())
}
